"""Reading a container's log: CRI-format files written and rotated by its monitor. Owns tail, since, until, follow.

Memory stays bounded whatever the container wrote: files are read in blocks, and a line longer than 16 KiB comes as
partial records, as the monitor wrote it (CRI logging format: "<time> <stream> <F|P> <content>").
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

from lading.base import clock
from lading.engine.model import LogRecord

_BLOCK = 65536
_LINE = 1 << 20  # longest record taken: one read of the monitor and its head, with room to spare
_POLL = 0.05
_LOOKS = 50


def open_all(path: str) -> list[BinaryIO]:
    """The log's files, oldest first: path.2, path.1, path. The caller closes them.

    The monitor renames one after the other, so a look may meet a gap or one file under two names: the names are
    looked at again after opening, and once more from the start when they have moved.
    """
    for attempt in range(_LOOKS):
        before = _identities(path)
        found: list[BinaryIO] = []
        try:
            for name, _ in before:
                found.append(open(name, "rb", buffering=0))  # noqa: SIM115
            opened = [_identity(file.fileno()) for file in found]
            if opened == [identity for _, identity in before] and before == _identities(path):
                return found
        except FileNotFoundError:
            pass
        if attempt == _LOOKS - 1:
            return found  # it rotates without a pause: what we have is the best there is
        for file in found:
            file.close()
    return []


def _identities(path: str) -> list[tuple[str, tuple[int, int]]]:
    """(name, device and inode) of every file of the log, oldest first."""
    folder, base = os.path.split(path)
    numbered: list[tuple[int, str, tuple[int, int]]] = []
    try:
        names = os.listdir(folder or ".")
    except FileNotFoundError:
        return []
    for name in names:
        rest = name.removeprefix(base + ".")
        number = 0 if name == base else int(rest) if rest != name and rest.isdecimal() else -1
        full = os.path.join(folder, name)
        identity = _inode(full) if number >= 0 else None
        if identity is not None:
            numbered.append((number, full, identity))
    return [(name, identity) for _, name, identity in sorted(numbered, reverse=True)]


def parse(line: bytes) -> LogRecord | None:
    """One record, without its newline; None for a line that is none (a torn one after a power cut)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    stamp = parts[0]
    try:
        if len(stamp) == 30 and stamp[19:20] == b"." and stamp[20:29].isdigit():
            ns = _second(stamp[:19]) + int(stamp[20:29])
        else:
            ns = clock.parse_rfc3339(stamp.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        return None
    text = parts[3] + b"\n" if parts[2] == b"F" else parts[3]
    return LogRecord(ns, "stdout" if parts[1] == b"stdout" else "stderr", text)


@functools.lru_cache(maxsize=64)
def _second(stamp: bytes) -> int:
    """Nanoseconds of a whole second; the same one comes over and over."""
    return clock.parse_rfc3339(stamp.decode("ascii") + "Z")


def read(
    path: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since_ns: int = 0,
    until_ns: int = 0,
    tail: int | None = None,
    follow: bool = False,
    running: Callable[[], bool] = lambda: False,
    stop: threading.Event | None = None,
) -> Iterator[LogRecord]:
    """Records in order. With `follow`, until `running` says no and everything is read, or `stop` is set."""
    streams = frozenset(name for name, on in (("stdout", stdout), ("stderr", stderr)) if on)
    for record in _records(path, streams, tail, follow, running, stop):
        if until_ns and record.ns > until_ns:
            return
        if record.ns >= since_ns and record.stream in streams:
            yield record


def _records(
    path: str,
    streams: frozenset[str],
    tail: int | None,
    follow: bool,
    running: Callable[[], bool],
    stop: threading.Event | None,
) -> Iterator[LogRecord]:
    """All records from the tail's beginning. Opened files are read to their end even when rotated away meanwhile."""
    with _Files(path) as files:
        if tail is not None and tail >= 0:
            files.seek_tail(tail, streams)
        while True:
            record = files.next()
            if record is not None:
                yield record
                continue
            if not follow:
                return
            if stop is not None and stop.is_set():
                return
            if not running():
                # The monitor writes the last record before the exit file: what is there now is everything.
                while (record := files.next()) is not None:
                    yield record
                return
            if stop is not None:
                stop.wait(_POLL)
            else:
                threading.Event().wait(_POLL)


class _Files:
    """The log's files as one stream of records. Opened at once, oldest first, so that a rotation loses nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: list[BinaryIO] = []
        self._lines: deque[bytes] = deque()
        self._rest = b""  # the beginning of a line whose end is not read yet
        self._skipping = False

    def __enter__(self) -> _Files:
        self._open = open_all(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._open:
            file.close()
        self._open = []

    def next(self) -> LogRecord | None:
        """The next record, None at the end of what is written."""
        while True:
            line = self._line()
            if line is None:
                return None
            record = parse(line)
            if record is not None:
                return record

    def _line(self) -> bytes | None:
        while not self._lines:
            block = self._read()
            if not block:
                return None
            *lines, self._rest = (self._rest + block).split(b"\n")
            if lines and self._skipping:
                self._skipping = False
                del lines[0]
            self._lines.extend(lines)
            if len(self._rest) > _LINE:  # no record is so long: drop it up to its newline
                self._rest, self._skipping = b"", True
        return self._lines.popleft()

    def _read(self) -> bytes:
        """The next block, moving on to a newer file when this one has been rotated and is read to its end."""
        while self._open:
            block = self._open[0].read(_BLOCK)
            if block:
                return block
            if len(self._open) > 1:
                self._open.pop(0).close()
                self._rest, self._skipping = b"", False
                continue
            if not self._rotated():
                file = self._open[0]
                if file.tell() <= os.fstat(file.fileno()).st_size:
                    return b""
                file.seek(0)  # emptied in place: the log keeps one file only
                self._rest, self._skipping = b"", False
                continue
            # Written between our read and the rotation?
            block = self._open[0].read(_BLOCK)
            if block:
                return block
            self._follow_rotation()
        self._open = open_all(self._path)  # nothing was written yet when we looked last
        return self._open[0].read(_BLOCK) or b"" if self._open else b""

    def _rotated(self) -> bool:
        inode = _inode(self._path)
        return inode is not None and inode != _identity(self._open[0].fileno())

    def _follow_rotation(self) -> None:
        """Go on with every file newer than the one that was read; there may be several when the log grows fast."""
        current = _identity(self._open[0].fileno())
        files = open_all(self._path)
        for index, file in enumerate(files):
            if _identity(file.fileno()) == current:
                for older in files[: index + 1]:
                    older.close()
                files = files[index + 1 :]
                break
        self._open.pop(0).close()
        self._open, self._rest, self._skipping = files, b"", False

    def seek_tail(self, count: int, streams: frozenset[str]) -> None:
        """Stand before the last `count` lines of the wanted streams, reading backwards from the end."""
        left = count
        for index in range(len(self._open) - 1, -1, -1):
            file = self._open[index]
            left, position = _before_last(file, left, streams)
            file.seek(position)
            if left <= 0:
                for older in self._open[:index]:
                    older.close()
                self._open = self._open[index:]
                return


def _before_last(file: BinaryIO, count: int, streams: frozenset[str]) -> tuple[int, int]:
    """(lines still missing, offset) of the beginning of the last `count` lines; partial records count as one line."""
    end = position = file.seek(0, os.SEEK_END)
    if count <= 0:
        return 0, end
    rest, start = b"", end
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        rest = (file.read(size) or b"") + rest
        lines = rest.split(b"\n")
        rest = lines[0]  # may begin in the block before
        first = 1 if position > 0 else 0
        offset = position + len(rest) + 1 if first else position
        offsets = []
        for line in lines[first:]:
            offsets.append((offset, line))
            offset += len(line) + 1
        for begin, line in reversed(offsets):
            parts = line.split(b" ", 3)
            if len(parts) != 4 or parts[1].decode("ascii", "replace") not in streams:
                continue
            if parts[2] == b"F":
                if count == 0:
                    return 0, start
                count -= 1
            start = begin
        if len(rest) > 2 * _LINE:
            rest = rest[-_LINE:]
    return count, 0 if count else start


def _inode(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
