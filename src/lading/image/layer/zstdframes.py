"""Where a zstd stream may end: walks frames and blocks by their headers (RFC 8878, sections 3.1.1 and 3.1.2).

The decoder takes the end of its input for the end of the data, so a stream that was cut short would look whole. Owns
counting; never decompresses, and leaves malformed headers to the decoder.
"""

from __future__ import annotations

from collections.abc import Callable

_SKIPPABLE = 0x184D2A5  # without its last four bits, which are free
_DICTIONARY_ID = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)
_RLE = 1


class Frames:
    """Fed with all pieces of a compressed stream; `whole` then says whether it ends where a frame does."""

    def __init__(self) -> None:
        self._held = b""  # of a header that is not complete yet
        self._skip = 0
        self._checksum = False
        self._size = 4
        self._next: Callable[[bytes], None] = self._magic

    @property
    def whole(self) -> bool:
        return self._next == self._magic and not self._held and not self._skip

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._size - len(self._held), len(data) - at)
                self._held += data[at : at + step]
                if len(self._held) == self._size:
                    header, self._held = self._held, b""
                    self._next(header)
            at += step

    def _then(self, size: int, step: Callable[[bytes], None]) -> None:
        self._size, self._next = size, step

    def _magic(self, header: bytes) -> None:
        if int.from_bytes(header, "little") >> 4 == _SKIPPABLE:
            self._then(4, self._skippable)
        else:
            self._then(1, self._descriptor)

    def _skippable(self, header: bytes) -> None:
        self._skip = int.from_bytes(header, "little")
        self._then(4, self._magic)

    def _descriptor(self, header: bytes) -> None:
        flags = header[0]
        single = bool(flags & 0x20)
        self._checksum = bool(flags & 0x04)
        content = _CONTENT_SIZE[flags >> 6] or (1 if single else 0)
        self._skip = (0 if single else 1) + _DICTIONARY_ID[flags & 3] + content
        self._then(3, self._block)

    def _block(self, header: bytes) -> None:
        value = int.from_bytes(header, "little")
        self._skip = 1 if value >> 1 & 3 == _RLE else value >> 3
        if value & 1:  # the last one
            self._skip += 4 if self._checksum else 0
            self._then(4, self._magic)
