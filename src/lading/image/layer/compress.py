"""Layer blobs: tar -> diffID -> compressor -> digest -> file in one pass, and the way back.

Owns the pipeline and its threads: hashing and compressing release the interpreter lock, so reading files goes
on on another core meanwhile. Memory is bounded by the queue. Level 1 of ISA-L gives the size of zlib's level
1 five times as fast (92 and 498 MB/s on one core over Python packages).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Literal, Protocol, Self, cast

import zstandard
from isal import isal_zlib

from lading.base import errors
from lading.image import descriptor
from lading.image.descriptor import Descriptor
from lading.image.layer.reader import Source
from lading.image.layer.zstdframes import Frames
from lading.image.mutate import Layer

Compression = Literal["gzip", "zstd", "tar"]

MEDIA_TYPES: dict[Compression, str] = {
    "gzip": descriptor.OCI_LAYER_GZIP,
    "zstd": descriptor.OCI_LAYER_ZSTD,
    "tar": descriptor.OCI_LAYER,
}

_DEPTH = 8
_CHUNK = 1 << 20
_GZIP_WBITS = 31  # 15 bits of window, with a gzip header and trailer (zlib.h, inflateInit2)
_SMALL = 1 << 20
_DAMAGE = cast(tuple[type[Exception], ...], (isal_zlib.error, zstandard.ZstdError, EOFError))


class BlobWriter(Protocol):
    """What a blob store gives to write to."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def write(self, data: bytes, /) -> int: ...
    def commit(self, expected: str | None = None) -> tuple[str, int]: ...


class BlobStore(Protocol):
    def writer(self) -> BlobWriter: ...


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    """Passes bytes through: an uncompressed layer."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(media: Compression) -> _Compressor:
    if media == "gzip":
        compressor: _Compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WBITS)
        return compressor
    if media == "zstd":
        return zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    return _Plain()


class _Worker:
    """A thread that feeds one consumer through a bounded queue; an error in it stops the producer at its next
    `put`."""

    def __init__(self, consume: Callable[[bytes], object], name: str) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._consume = consume
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._consume(chunk)
                except BaseException as error:
                    self._failure = error

    def put(self, chunk: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        self._queue.put(chunk)

    def finish(self) -> None:
        """Wait until everything is consumed; raises what the consumer raised."""
        self.stop()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()


def write_layer(
    blobs: BlobStore, producer: Callable[[Callable[[bytes], object]], object], media: Compression = "gzip"
) -> Layer:
    """Store the tar stream that `producer(write)` makes as a layer blob; the descriptor and the diffID of the
    result.

    Nothing is stored when `producer` raises.
    """
    diff = hashlib.sha256()
    compressor = _compressor(media)
    with blobs.writer() as blob, contextlib.ExitStack() as stack:
        worker: _Worker | None = None
        small: list[bytes] = []

        def consume(chunk: bytes) -> None:
            data = compressor.compress(chunk)
            if data:
                blob.write(data)

        def write(chunk: bytes) -> None:
            nonlocal worker
            diff.update(chunk)
            if worker is None:
                # A small layer, as most build steps make, is not worth a thread.
                small.append(chunk)
                if sum(map(len, small)) <= _SMALL:
                    return
                worker = _Worker(consume, "layer-compress")
                stack.callback(worker.stop)
                for part in small:
                    worker.put(part)
                small.clear()
                return
            worker.put(chunk)

        producer(write)
        if worker is not None:
            worker.finish()
        for part in small:
            consume(part)
        tail = compressor.flush()
        if tail:
            blob.write(tail)
        digest, size = blob.commit()
    return Layer(Descriptor(MEDIA_TYPES[media], digest, size), "sha256:" + diff.hexdigest())


def detect(magic: bytes) -> Compression:
    """The compression of a stream by its first four bytes (RFC 1952, RFC 8878)."""
    if magic[:2] == b"\x1f\x8b":
        return "gzip"
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return "zstd"
    return "tar"


class Decompressed:
    """A readable stream of what is inside `stream`: gzip (several members too), zstd or plain, told by its
    magic."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream
        self._first = b""
        while len(self._first) < 4 and (more := stream.read(4 - len(self._first))):
            self._first += more
        self.compression = detect(self._first)
        self._chunks = self._inflate() if self.compression != "tar" else self._plain()
        self._buffer = b""

    def _input(self) -> Iterator[bytes]:
        if self._first:
            yield self._first
        while chunk := self._stream.read(_CHUNK):
            yield chunk

    def _plain(self) -> Iterator[bytes]:
        return self._input()

    def _inflate(self) -> Iterator[bytes]:
        """Decompress piece by piece: a bomb costs time, never memory, and the reader's limits end it."""
        try:
            if self.compression == "zstd":
                # 128 MiB of window is what the zstd tool itself accepts by default.
                context = zstandard.ZstdDecompressor(max_window_size=128 << 20)
                frames = Frames()
                reader = context.stream_reader(
                    cast(IO[bytes], _Pull(self._input(), frames)), read_size=_CHUNK, read_across_frames=True
                )
                while chunk := reader.read(_CHUNK):
                    yield chunk
                if not frames.whole:
                    raise EOFError("the zstd stream is cut short")
                return
            yield from _gunzip(self._input())
        except _DAMAGE as error:
            raise errors.Invalid("compressed data is damaged", why=str(error)) from None

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, at least one before the end."""
        if not self._buffer:
            self._buffer = next(self._chunks, b"")
        if size < 0 or len(self._buffer) <= size:
            data, self._buffer = self._buffer, b""
            return data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


class _Pull(io.RawIOBase):
    """An iterator of chunks as a file object, for the zstd reader."""

    def __init__(self, chunks: Iterator[bytes], frames: Frames) -> None:
        self._chunks, self._frames = chunks, frames

    def read(self, size: int = -1, /) -> bytes:
        """The next chunk whatever `size` is: the reader takes what it gets."""
        chunk = next(self._chunks, b"")
        self._frames.feed(chunk)
        return chunk


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Members one after the other, as gzip(1) reads them; zero padding behind the last one is allowed."""
    member = isal_zlib.decompressobj(_GZIP_WBITS)
    started = False
    for chunk in chunks:
        pending = chunk
        while pending:
            if member.eof:
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                member = isal_zlib.decompressobj(_GZIP_WBITS)
            started = True
            data = member.decompress(pending, _CHUNK)
            if data:
                yield data
            while not member.eof and (data := member.decompress(member.unconsumed_tail, _CHUNK)):
                yield data
            pending = member.unused_data if member.eof else b""
    if started and not member.eof:
        raise EOFError("it ends in the middle of a gzip member")


class Ahead:
    """Reads `source` in a thread, some chunks ahead, so that decompressing and unpacking run on two cores.

    `observe` sees every chunk in that thread (a hash). Close it, or use it as a context manager, to end the
    thread.
    """

    def __init__(self, source: Source, observe: Callable[[bytes], object] | None = None) -> None:
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_DEPTH)
        self._closing = False
        self._source = source
        self._observe = observe
        self._done = False
        self._buffer = b""
        self._thread = threading.Thread(target=self._run, name="layer-read", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                chunk = self._source.read(_CHUNK)
                if self._observe is not None and chunk:
                    self._observe(chunk)
                self._queue.put(chunk)
                if not chunk:
                    return
        except BaseException as error:
            self._queue.put(error)

    def read(self, size: int = -1, /) -> bytes:
        if not self._buffer and not self._done:
            item = self._queue.get()
            if isinstance(item, BaseException):
                self._done = True
                raise item
            self._buffer = item
            self._done = not item
        if size < 0 or len(self._buffer) <= size:
            data, self._buffer = self._buffer, b""
        else:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def close(self) -> None:
        self._closing = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._thread.join()
