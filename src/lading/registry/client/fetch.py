"""One layer on its way: from a registry into a blob, and to whoever unpacks it while it still comes.

Owns the hand-over between the downloading thread and the unpacking one, and the rule that a layer which two pulls want
is fetched once. The reader sees the end only when the whole blob is stored under the right digest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from lading.base import errors
from lading.image.descriptor import Descriptor
from lading.registry.client.ports import Blobs

_WAIT = 0.2


class Flights:
    """Locks by digest: who holds one fetches it, the others wait and then find it stored. One per daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def only(self, digest: str, cancelled: Callable[[], None]) -> Iterator[None]:
        """Inside, nobody else fetches `digest`. `cancelled` raises when waiting should end."""
        with self._lock:
            lock, users = self._held.get(digest, (threading.Lock(), 0))
            self._held[digest] = (lock, users + 1)
        try:
            while not lock.acquire(timeout=_WAIT):
                cancelled()
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._held[digest]
                if users == 1:
                    del self._held[digest]
                else:
                    self._held[digest] = (lock, users - 1)


class Fetch:
    """The state of one layer's download. `run` in one thread, `open` and `read` the result in another."""

    def __init__(self, wanted: Descriptor) -> None:
        self.wanted = wanted
        self.fetched = False  # whether bytes came over the network
        self.spent = False  # whether `read` has been used: it gives the bytes once
        self._change = threading.Condition()
        self._stream: BinaryIO | None = None
        self._written = 0
        self._stored = False
        self._error: BaseException | None = None

    def run(
        self,
        blobs: Blobs,
        flights: Flights,
        source: Callable[[], Iterable[bytes]],
        progress: Callable[[int], None],
        cancelled: Callable[[], None],
    ) -> None:
        """Have the blob stored; an error is kept for whoever reads, and raised."""
        try:
            with flights.only(self.wanted.digest, cancelled):
                if blobs.refresh(self.wanted.digest):
                    self._there(blobs)
                else:
                    self._download(blobs, source, progress)
        except BaseException as error:
            self.fail(error)
            raise

    def _there(self, blobs: Blobs) -> None:
        size = blobs.size(self.wanted.digest)
        if size != self.wanted.size:
            raise errors.Invalid(
                f"blob {self.wanted.digest[:19]} has {size} bytes",
                why=f"Its descriptor says {self.wanted.size}.",
            )
        with self._change:
            if self._stream is None:
                self._stream = blobs.open(self.wanted.digest)
            self._written, self._stored = self.wanted.size, True
            self._change.notify_all()

    def _download(
        self, blobs: Blobs, source: Callable[[], Iterable[bytes]], progress: Callable[[int], None]
    ) -> None:
        with blobs.writer() as writer:
            with self._change:
                self._stream = writer.peek()
                self.fetched = True
                self._change.notify_all()
            for chunk in source():
                writer.write(chunk)
                with self._change:
                    self._written = writer.size
                    self._change.notify_all()
                progress(writer.size)
            if writer.size != self.wanted.size:
                raise errors.Invalid(
                    f"blob {self.wanted.digest[:19]} has {writer.size} bytes",
                    why=f"Its descriptor says {self.wanted.size}.",
                )
            writer.commit(self.wanted.digest)
        with self._change:
            self._stored = True
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """Let whoever waits on this layer stop."""
        with self._change:
            self._error = self._error or error
            self._change.notify_all()

    def wait(self) -> None:
        """Until the blob is stored; raises what went wrong."""
        with self._change:
            self._change.wait_for(lambda: self._stored or self._error is not None)
            if self._error is not None:
                raise self._error

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, as soon as they are on disk; b"" only when the blob is whole and verified."""
        with self._change:
            while True:
                if self._error is not None:
                    raise self._error
                if self._stream is not None:
                    position = self._stream.tell()
                    if position < self._written:
                        break
                    if self._stored:
                        return b""
                self._change.wait()
            stream, ready = self._stream, self._written - position
        return stream.read(ready if size < 0 else min(size, ready)) or b""

    def close(self) -> None:
        with self._change:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
