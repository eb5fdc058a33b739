"""Pull-through: what a client asks for and is not here is fetched from another registry, kept, and served from then on.

Owns freshness and that one thing is fetched once, however many ask. A tag is asked for upstream again after a while; when
upstream does not answer, what is here is served. Never gives a client's credentials to upstream, nor upstream's to it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from lading.base import errors
from lading.registry.server import documents, failures
from lading.registry.server.content import Content
from lading.registry.server.failures import Refusal
from lading.registry.server.ports import Upstream

FRESH = 60.0
_MOST_REMEMBERED = 10_000


class _Flight:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = 0


class Mirror:
    """Keeps copies of `upstream` in `content`."""

    def __init__(self, content: Content, upstream: Upstream, *, fresh: float = FRESH) -> None:
        self._content, self._upstream, self._fresh = content, upstream, fresh
        self._lock = threading.Lock()
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._seen: dict[tuple[str, str], float] = {}

    @contextlib.contextmanager
    def _alone(self, repo: str, reference: str) -> Iterator[None]:
        key = (repo, reference)
        with self._lock:
            flight = self._flights.setdefault(key, _Flight())
            flight.waiting += 1
        try:
            with flight.lock:
                yield
        finally:
            with self._lock:
                flight.waiting -= 1
                if not flight.waiting:
                    del self._flights[key]

    def manifest(self, repo: str, reference: str) -> None:
        """See that the manifest is here, and a tag not older than upstream had it a little while ago."""
        with self._alone(repo, reference):
            here = self._content.catalog.manifest(repo, reference) is not None
            if here and (":" in reference or self._is_fresh(repo, reference)):
                return
            try:
                data, media_type = self._upstream.manifest(repo, reference)
            except errors.NotFound as error:
                raise Refusal(404, failures.MANIFEST_UNKNOWN, error.what) from None
            except errors.LadingError as error:
                if here:
                    return
                raise _trouble(error) from None
            document = documents.read(data, media_type)
            self._content.put_manifest(repo, reference, data, document, whole=False)
            self._remember(repo, reference)

    def _is_fresh(self, repo: str, tag: str) -> bool:
        with self._lock:
            return time.monotonic() - self._seen.get((repo, tag), float("-inf")) < self._fresh

    def _remember(self, repo: str, tag: str) -> None:
        with self._lock:
            if len(self._seen) >= _MOST_REMEMBERED:
                self._seen.clear()
            self._seen[repo, tag] = time.monotonic()

    def blob(self, repo: str, digest: str) -> None:
        """See that the blob is here, whole and verified."""
        with self._alone(repo, digest):
            if self._content.has(repo, digest):
                return
            writer = self._content.blobs.writer()
            try:
                for piece in self._upstream.blob(repo, digest):
                    writer.write(piece)
                self._content.commit(repo, writer, digest)
            except Refusal as error:  # other content than its digest says
                raise Refusal(
                    502, failures.UNAVAILABLE, f"upstream sent a damaged blob: {error.why}"
                ) from None
            except errors.NotFound as error:
                raise Refusal(404, failures.BLOB_UNKNOWN, error.what) from None
            except errors.LadingError as error:
                raise _trouble(error) from None
            finally:
                writer.abort()


def _trouble(error: errors.LadingError) -> Refusal:
    """Upstream's own refusal is not this registry's: a 401 would make clients ask for a password here."""
    if isinstance(error, errors.Unauthenticated | errors.Denied):
        return Refusal(403, failures.DENIED, f"upstream refuses: {error.what}", why=error.why)
    return Refusal(502, failures.UNAVAILABLE, f"upstream: {error.what}", why=error.why)
