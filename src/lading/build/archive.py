"""The tar inside an archive of any kind ADD and contexts may have: plain, gzip, bzip2, xz or zstd.

Owns telling them apart by their first bytes, as the reference says, never by a name; unpacking is
`image.layer`'s. The two seldom decompressors are imported when they are met.
"""

from __future__ import annotations

from typing import Any, cast

from lading.base.errors import Invalid, LadingError
from lading.image.layer import compress
from lading.image.layer.reader import Source

_CHUNK = 1 << 20


def decompressed(stream: Source) -> Source:
    """A stream of what is inside; reading it raises Invalid where the data is damaged."""
    first = b""
    while len(first) < 6 and (more := stream.read(6 - len(first))):
        first += more
    joined = _Joined(first, stream)
    if first.startswith(b"BZh"):
        import bz2

        return _Checked(bz2.BZ2File(cast(Any, joined)), ())
    if first.startswith(b"\xfd7zXZ\0"):
        import lzma

        return _Checked(lzma.LZMAFile(cast(Any, joined)), (lzma.LZMAError,))
    return compress.Decompressed(joined)


class _Joined:
    """Bytes already taken from a stream, in front of it again; as much of a file as the decompressors
    want.
    """

    def __init__(self, first: bytes, rest: Source) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if self._first:
            cut = len(self._first) if size < 0 else size
            data, self._first = self._first[:cut], self._first[cut:]
            return data
        return self._rest.read(_CHUNK if size < 0 else size)

    def seekable(self) -> bool:
        return False


class _Checked:
    """Damage as an error of the house."""

    def __init__(self, stream: Source, damage: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._damage: tuple[type[Exception], ...] = (OSError, EOFError, *damage)

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except LadingError:
            raise
        except self._damage as error:
            raise Invalid("the archive is damaged", why=f"{error}.") from None
