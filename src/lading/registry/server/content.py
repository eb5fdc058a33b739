"""Everything the registry keeps: the blob store and the catalog as one, guarded against a sweep at the same moment.

Owns the order (blob first, row second), the guard, and hard links from the local store; never speaks HTTP.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from lading.base import atomic, errors
from lading.image import digest as digests
from lading.registry.server import failures
from lading.registry.server.catalog import Catalog, Entry
from lading.registry.server.documents import Document
from lading.registry.server.failures import Refusal
from lading.registry.server.ports import Blobs, Database, Writer


class Content:
    """`local`, when given, is the machine's own blob store: what it has need not be sent, nor stored twice."""

    def __init__(self, blobs: Blobs, db: Database, local: Blobs | None = None) -> None:
        self.blobs = blobs
        self.catalog = Catalog(db)
        self._local = local
        self._guard_path = f"{db.path}-sweep"

    @contextlib.contextmanager
    def guard(self, *, sweep: bool = False) -> Iterator[None]:
        """Held exclusively by a sweep while it deletes, and shared by whoever makes a stored blob visible (flock(2):
        the sweep may be another process)."""
        fd = os.open(self._guard_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if sweep else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    # Blobs

    def has(self, repo: str, digest: str) -> bool:
        """Whether the blob is in the repository, or could be linked there from the local store just now."""
        if self.catalog.has_blob(repo, digest) and self.blobs.has(digest):
            self.catalog.touch(repo, digest)
            return True
        return self.adopt(repo, digest)

    def adopt(self, repo: str, digest: str) -> bool:
        """Take the blob from the local store by a hard link; False when it has none, or on another file system."""
        if self._local is None or not self._local.has(digest):
            return False
        with self.guard():
            if not self.blobs.refresh(digest) and not self._link_local(digest):
                return False
            self.catalog.link(repo, digest)
        return True

    def _link_local(self, digest: str) -> bool:
        if self._local is None:
            return False
        target = self.blobs.path(digest)
        try:
            os.link(self._local.path(digest), target)
            # The link shares its times with the local store's name; as new it is safe from the next sweep.
            os.utime(target)
            atomic.sync_dir(os.path.dirname(target))
        except FileExistsError:
            return True
        except OSError:  # gone meanwhile, or another file system: the bytes will be sent instead
            return False
        return True

    def mount(self, repo: str, source: str, digest: str) -> bool:
        """Make a blob of the repository `source` visible in `repo`; with no source, one of the local store."""
        with self.guard():
            if source and self.catalog.has_blob(source, digest) and self.blobs.refresh(digest):
                self.catalog.link(repo, digest)
                return True
        return self.adopt(repo, digest)

    def commit(self, repo: str, writer: Writer, digest: str) -> None:
        """Finish an upload: the blob is durable and visible, or the writer is dropped and a Refusal says why."""
        with self.guard():
            try:
                # What the local store has already takes no second place on disk.
                if self._local is not None and self._local.has(digest) and not self.blobs.has(digest):
                    self._link_local(digest)
                writer.commit(digest)
            except errors.Invalid as error:
                raise Refusal(400, failures.DIGEST_INVALID, error.what, why=error.why) from None
            finally:
                writer.abort()
            self.catalog.link(repo, digest)

    def delete_blob(self, repo: str, digest: str) -> None:
        done = self.catalog.unlink(repo, digest)
        if done == "needed":
            raise Refusal(
                405,
                failures.UNSUPPORTED,
                "the blob is part of a manifest",
                why="Delete the manifests that refer to it first.",
            )
        if done == "absent":
            raise Refusal(404, failures.BLOB_UNKNOWN, f"no blob {digest} in {repo}")

    # Manifests

    def put_manifest(
        self, repo: str, reference: str, data: bytes, document: Document, *, whole: bool = True
    ) -> str:
        """Store a manifest; its digest. `whole`: only one whose references are all in the repository."""
        digest, tag = digests.of(data), "" if ":" in reference else reference
        if not tag and reference != digest:
            raise Refusal(
                400, failures.DIGEST_INVALID, "content does not match its digest", why=f"It is {digest}."
            )
        with self.guard():
            missing = [blob for blob in document.blobs if whole and not self.blobs.has(blob)]
            if not missing:
                self.blobs.put(data)
                missing = self.catalog.put(repo, digest, len(data), document, tag, whole=whole)
        if missing:
            raise Refusal(
                404,
                failures.MANIFEST_BLOB_UNKNOWN,
                f"the manifest refers to {missing[0]}, which is not in {repo}",
                why=f"{len(missing)} of its references are unknown here." if len(missing) > 1 else "",
            )
        return digest

    def manifest(self, repo: str, reference: str) -> Entry:
        found = self.catalog.manifest(repo, reference)
        if found is None:
            if not self.catalog.known(repo):
                raise Refusal(404, failures.NAME_UNKNOWN, f"no repository {repo}")
            raise Refusal(404, failures.MANIFEST_UNKNOWN, f"no manifest {reference} in {repo}")
        return found
