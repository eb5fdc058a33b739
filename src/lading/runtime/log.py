"""The container's log file as the monitor writes it. Owns its format and rotation; reading it is the engine's.

Format: one record a line, `<RFC 3339 time> <stdout|stderr> <F|P> <content>`, the CRI's (kubernetes cri-api, "log
format"). P is a part of a line: the first parts of one longer than a read, or an end without newline. Nothing is held
back, so a prompt without a newline is logged at once and a line of any length needs no memory.
"""

from __future__ import annotations

import os
import time


class Log:
    """Appends to `path`; at `max_size` bytes it becomes `path.1`, older ones move up, and `max_files` are kept."""

    def __init__(self, path: bytes, max_size: int, max_files: int) -> None:
        self._path, self._max_size, self._max_files = path, max_size, max(1, max_files)
        self._second, self._prefix = -1, b""
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: bytes, data: bytes) -> None:
        """Log one read of `stream` (b"stdout" or b"stderr"). A full disk loses the record, not the container."""
        stamp = self._stamp() + b" " + stream
        full = stamp + b" F "
        lines = data.split(b"\n")
        rest = lines.pop()
        record = full + (b"\n" + full).join(lines) + b"\n" if lines else b""
        if rest:
            record += stamp + b" P " + rest + b"\n"
        try:
            while self._max_size and self._size + len(record) > self._max_size:
                fitting = record.rfind(b"\n", 0, max(0, self._max_size - self._size)) + 1
                if not fitting and not self._size:
                    break  # one record larger than a whole file
                self._append(record[:fitting])
                record = record[fitting:]
                self._rotate()
            self._append(record)
        except OSError:
            pass

    def _append(self, record: bytes) -> None:
        view = memoryview(record)
        while view:
            view = view[os.write(self._fd, view) :]
        self._size += len(record)

    def _stamp(self) -> bytes:
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = b"%04d-%02d-%02dT%02d:%02d:%02d." % time.gmtime(second)[:6]
        return self._prefix + b"%09dZ" % fraction

    def _rotate(self) -> None:
        try:
            if self._max_files == 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for number in range(self._max_files - 2, 0, -1):
                try:
                    os.rename(self._path + b".%d" % number, self._path + b".%d" % (number + 1))
                except FileNotFoundError:
                    pass
            os.rename(self._path, self._path + b".1")
            old = self._fd
            self._open()
            os.close(old)
        except OSError:
            pass
        self._size = 0  # also when it failed: the next try comes after another max_size bytes

    def close(self) -> None:
        os.close(self._fd)
