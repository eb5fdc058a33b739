"""Blob uploads under way, each a writer that lives from its POST to its PUT. Owns their identifiers, bounds and ends.

They are in memory: a restart ends them all and the store removes their files, so a client starts that blob again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from lading.registry.server import failures
from lading.registry.server.failures import Refusal
from lading.registry.server.ports import Writer

MOST = 512
IDLE = 3600.0
_TURN = 10.0


class Upload:
    """One upload. Use it inside `Uploads.turn` only."""

    def __init__(self, repo: str, writer: Writer) -> None:
        self.id = os.urandom(16).hex()
        self.repo = repo
        self.writer = writer
        self.lock = threading.Lock()
        self.touched = time.monotonic()
        self.over = False


class Uploads:
    """All uploads of one server."""

    def __init__(self, make: Callable[[], Writer], *, most: int = MOST, idle: float = IDLE) -> None:
        self._make, self._most, self._idle = make, most, idle
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self, repo: str) -> Upload:
        """A new, empty upload; a Refusal when there are too many."""
        self.expire()
        if len(self._open) >= self._most:
            raise Refusal(
                429,
                failures.TOOMANYREQUESTS,
                f"{self._most} uploads are under way",
                headers=(("Retry-After", "30"),),
            )
        made = Upload(repo, self._make())
        with self._lock:
            self._open[made.id] = made
        return made

    @contextlib.contextmanager
    def turn(self, repo: str, identifier: str) -> Iterator[Upload]:
        """The upload, for one request alone: a second one on it waits a little, as a client that lost its connection
        may come back before the first has noticed."""
        with self._lock:
            found = self._open.get(identifier)
        if found is None or found.repo != repo:
            raise Refusal(404, failures.BLOB_UPLOAD_UNKNOWN, "there is no such upload")
        if not found.lock.acquire(timeout=_TURN):
            raise Refusal(
                409,
                failures.BLOB_UPLOAD_INVALID,
                "the upload is busy",
                why="Another request is sending to it.",
            )
        try:
            if found.over:
                raise Refusal(404, failures.BLOB_UPLOAD_UNKNOWN, "there is no such upload")
            yield found
        finally:
            found.touched = time.monotonic()
            found.lock.release()

    def end(self, upload: Upload) -> None:
        """Forget an upload whose turn this is; what was written and not committed goes."""
        upload.over = True
        upload.writer.abort()
        with self._lock:
            self._open.pop(upload.id, None)

    def expire(self) -> None:
        """End what nobody has touched for long."""
        self._end_all(before=time.monotonic() - self._idle)

    def close(self) -> None:
        """End all, as the server stops. One in the middle of a request loses its file to the store's recovery."""
        self._end_all(before=float("inf"))

    def _end_all(self, before: float) -> None:
        with self._lock:
            stale = [upload for upload in self._open.values() if upload.touched < before]
        for upload in stale:
            if upload.lock.acquire(blocking=False):
                try:
                    if upload.touched < before:
                        self.end(upload)
                finally:
                    upload.lock.release()
