"""Reading a tar stream member by member. Owns framing, long names and limits; never touches the file system.

Hostile archives are refused with Invalid; how large an honest one may be is the caller's `Limits`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from lading.base import errors
from lading.image.layer import header as headers
from lading.image.layer.header import BLOCK, Header

_CHUNK = 1 << 20
_ID_LIMIT = (1 << 32) - 1  # (uid_t)-1 means "leave it" to chown(2)
_TIME_LIMIT = 1_000_000_000_000 * 1_000_000_000  # 33,000 years, in nanoseconds


class Source(Protocol):
    """Where bytes come from; `read` may give fewer than asked, and b"" only at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may cost. The defaults hold the largest published model images many times over."""

    members: int = 20_000_000
    bytes: int = 4 << 40
    path: int = 4096  # PATH_MAX
    extended: int = 4 << 20  # PAX headers and long names of one member
    xattrs: int = 256


DEFAULT = Limits()


class Reader:
    """Members of a tar stream in order. The data of a member must be taken before the next one, or is
    skipped."""

    def __init__(self, source: Source, limits: Limits = DEFAULT) -> None:
        self._source = source
        self._limits = limits
        self._buffer = b""
        self._at = 0
        self._left = 0  # data of the present member not yet taken
        self._pad = 0
        self._extended_left = 0
        self.taken = 0

    def __iter__(self) -> Iterator[Header]:
        limits, members = self._limits, 0
        while True:
            header = self._next()
            if header is None:
                return
            members += 1
            if members > limits.members:
                raise errors.Invalid(f"archive has more than {limits.members} members")
            self.taken += header.size
            if self.taken > limits.bytes:
                raise errors.Invalid(f"archive unpacks to more than {limits.bytes} bytes")
            yield header

    def _next(self) -> Header | None:
        """The next real member, with what extended headers before it said."""
        records: dict[bytes, bytes] = {}
        self._extended_left = self._limits.extended
        while True:
            self.skip()
            block = self._exactly(BLOCK, optional=True)
            header = headers.parse(block) if block else None
            if header is None:
                if records:
                    raise errors.Invalid("archive is damaged: it ends after an extended header")
                return None
            kind = header.type
            if kind == headers.PAX or kind == headers.PAX_GLOBAL:
                found = headers.parse_records(self._extended(header))
                # Global records carry git's commit id and the like; the OCI layer spec gives them no meaning.
                if kind == headers.PAX:
                    records.update(found)
                continue
            if kind == headers.GNU_LONG_NAME or kind == headers.GNU_LONG_LINK:
                key = b"path" if kind == headers.GNU_LONG_NAME else b"linkpath"
                records.setdefault(key, self._extended(header).partition(b"\0")[0])
                continue
            return self._begin(header, records)

    def _begin(self, header: Header, records: Mapping[bytes, bytes]) -> Header:
        if records:
            header = headers.with_records(header, records)
        limits = self._limits
        if header.type not in b"01234567\0":
            raise errors.Unsupported(f"archive holds a member of the unknown type {header.type!r}")
        if header.type in (b"\0", b"7"):
            # Before POSIX a directory was a file whose name ends in a slash (tar(5)).
            header = header._replace(
                type=headers.DIRECTORY if header.name.endswith(b"/") else headers.REGULAR
            )
        if header.type != headers.REGULAR:
            # Old tars give hard links the size of their target, without data.
            header = header._replace(size=0)
        if len(header.name) > limits.path or len(header.linkname) > limits.path:
            raise errors.Invalid(f"archive holds a path longer than {limits.path} bytes")
        if b"\0" in header.name or b"\0" in header.linkname:
            raise errors.Invalid("archive holds a path with a zero byte")
        if header.uid >= _ID_LIMIT or header.gid >= _ID_LIMIT or abs(header.mtime_ns) >= _TIME_LIMIT:
            raise errors.Invalid("archive holds an owner or a time that is out of range")
        if len(header.xattrs) > limits.xattrs:
            raise errors.Invalid(f"archive gives one file more than {limits.xattrs} extended attributes")
        self._left = header.size
        self._pad = -header.size % BLOCK
        return header

    def _extended(self, header: Header) -> bytes:
        self._extended_left -= header.size
        if self._extended_left < 0:
            raise errors.Invalid(f"archive describes one member in more than {self._limits.extended} bytes")
        data = self._exactly(header.size)
        self._exactly(-header.size % BLOCK)
        return data

    def _exactly(self, size: int, *, optional: bool = False) -> bytes:
        """`size` bytes, or b"" at a clean end when `optional`."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < size:
            chunk = self._source.read(_CHUNK)
            if not chunk:
                if optional and have == 0:
                    return b""
                raise errors.Invalid("archive is cut short")
            parts.append(chunk)
            have += len(chunk)
        whole = b"".join(parts)
        self._buffer, self._at = whole, size
        return whole[:size]

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of the present member; b"" after its end."""
        want = self._left if size < 0 else min(size, self._left)
        if want == 0:
            return b""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._source.read(_CHUNK), 0
            if not self._buffer:
                raise errors.Invalid("archive is cut short")
        data = self._buffer[self._at : self._at + want]
        self._at += len(data)
        self._left -= len(data)
        return data

    def copy_to(self, fd: int) -> None:
        """Write the rest of the present member to `fd`."""
        while self._left:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._source.read(_CHUNK), 0
                if not self._buffer:
                    raise errors.Invalid("archive is cut short")
            view = memoryview(self._buffer)[self._at : self._at + self._left]
            done = os.write(fd, view)
            self._at += done
            self._left -= done

    def skip(self) -> None:
        """Pass over what is left of the present member and its padding."""
        gap = self._left + self._pad
        self._left = self._pad = 0
        while gap:
            there = min(gap, len(self._buffer) - self._at)
            self._at += there
            gap -= there
            if gap:
                self._buffer, self._at = self._source.read(_CHUNK), 0
                if not self._buffer:
                    raise errors.Invalid("archive is cut short")

    def drain(self) -> None:
        """Read the stream to its end, so that a digest over it is over all of it (padding after the end
        marker too)."""
        self._buffer, self._at = b"", 0
        budget = self._limits.bytes
        while chunk := self._source.read(_CHUNK):
            budget -= len(chunk)
            if budget < 0:
                raise errors.Invalid("archive is followed by too much data")
