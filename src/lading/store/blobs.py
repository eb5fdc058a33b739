"""Blobs: immutable content under its digest, `<root>/sha256/<hex>` (the design's first truth; OCI
image-layout.md).

Owns writing aside, hashing, fsync, rename and fsync of the directory, so that a blob is whole or absent
whatever happens; never knows who refers to a blob.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

from lading.base import atomic, errors
from lading.image import digest as digests
from lading.linux import files

_ASIDE = re.compile(r"\.[0-9]+-[0-9a-f]{16}")
_WRITEBACK = 8 << 20


class BlobWriter:
    """A blob being written. `with` guarantees that nothing is left of it unless `commit` returned."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._path = f"{blobs.root}/sha256/.{os.getpid()}-{os.urandom(8).hex()}"
        self._hash = hashlib.sha256()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._started = 0
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data`; Unavailable when the disk is full."""
        if self._fd < 0:
            raise ValueError("write to a finished blob")
        view = memoryview(data).cast("B")
        self._hash.update(view)
        total = len(view)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise errors.Unavailable("a blob cannot be written", why=error.strerror or str(error)) from error
        self.size += total
        if self.size - self._started >= _WRITEBACK:
            # Let the disk begin now, so that the fsync at the end finds little left to do
            # (sync_file_range(2)).
            files.start_writeback(self._fd, self._started, self.size - self._started)
            self._started = self.size
        return total

    def peek(self) -> BinaryIO:
        """A reader of what is written so far, and of what follows; it stays valid after `commit` and `abort`."""
        return open(self._path, "rb", buffering=0)

    def commit(self, expected: str | None = None) -> tuple[str, int]:
        """Make the blob durable under its digest; Invalid, and nothing kept, when that is not `expected`."""
        digest = "sha256:" + self._hash.hexdigest()
        if expected is not None and expected != digest:
            self.abort()
            raise errors.Invalid(
                "content does not match its digest", why=f"Expected {expected}, got {digest}."
            )
        target = self._blobs.path(digest)
        try:
            if self._blobs.refresh(digest):  # there already, and durable since it has its name
                self.abort()
                return digest, self.size
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
            os.rename(self._path, target)
            atomic.sync_dir(os.path.dirname(target))
        except OSError as error:
            self.abort()
            raise errors.Unavailable("a blob cannot be stored", why=error.strerror or str(error)) from error
        return digest, self.size

    def abort(self) -> None:
        """Drop what was written; nothing happens after `commit`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


class Blobs:
    """The blob store. Any number of threads and processes may use one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(f"{root}/sha256", mode=0o700, exist_ok=True)

    def path(self, digest: str) -> str:
        """Where the blob is, or would be. Only sha256 names a blob here; a hostile digest raises Invalid."""
        digests.parse(digest)
        if digests.algorithm(digest) != "sha256":
            raise errors.Unsupported(f"blob {digest[:40]} is not named by sha256")
        return f"{self.root}/sha256/{digests.encoded(digest)}"

    def writer(self) -> BlobWriter:
        """A new blob of unknown digest."""
        try:
            return BlobWriter(self)
        except OSError as error:
            raise errors.Unavailable("a blob cannot be written", why=error.strerror or str(error)) from error

    def put(self, data: bytes) -> str:
        """Store `data`, give its digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()[0]

    def open(self, digest: str) -> BinaryIO:
        """Open for reading, unbuffered and unverified: the reader hashes what it reads. NotFound when
        absent."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise errors.NotFound(f"blob {digest} is not in the store") from None

    def read(self, digest: str, limit: int = 4 << 20) -> bytes:
        """The whole content, verified; Invalid when larger than `limit`, Internal when damaged."""
        with self.open(digest) as stream:
            data = bytearray()
            while len(data) <= limit:
                chunk = stream.read(min(1 << 20, limit + 1 - len(data)))
                if not chunk:
                    break
                data += chunk
        if len(data) > limit:
            raise errors.Invalid(f"blob {digest} is larger than {limit} bytes")
        if digests.of(bytes(data)) != digest:
            raise errors.Internal(
                f"blob {digest} is damaged on disk", hint="Remove the image and pull, load or build it again."
            )
        return bytes(data)

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise errors.NotFound(f"blob {digest} is not in the store") from None

    def refresh(self, digest: str) -> bool:
        """Whether the blob is there; if so it counts as new, so that a sweep spares it while a lease is
        held."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def modified_ns(self, digest: str) -> int:
        """When the blob was written or last refreshed; 0 when absent."""
        try:
            return os.stat(self.path(digest)).st_mtime_ns
        except FileNotFoundError:
            return 0

    def delete(self, digest: str) -> int:
        """Remove the blob, give the bytes regained; 0 when it was absent."""
        path = self.path(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def list(self) -> Iterator[str]:
        """Every digest in the store, in no order."""
        with os.scandir(f"{self.root}/sha256") as entries:
            for entry in entries:
                if len(entry.name) == 64 and digests.is_hex(entry.name):
                    yield f"sha256:{entry.name}"

    def recover(self) -> int:
        """Remove what killed writers left behind (a writer's process id is in the name); gives how many."""
        removed = 0
        with os.scandir(f"{self.root}/sha256") as entries:
            for entry in entries:
                if not _ASIDE.fullmatch(entry.name):
                    continue
                pid = int(entry.name[1:].partition("-")[0])
                if pid != os.getpid() and not os.path.exists(f"/proc/{pid}"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)
                        removed += 1
        return removed
