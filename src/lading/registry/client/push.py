"""A push: layers first (those that are missing), then the config, then the manifest under its name.

Owns the ways a blob gets there: it is there already, it is mounted from another repository, it is sent whole, or in
chunks that can be taken up again (distribution-spec 1.1, "Pushing blobs").
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from lading.base import errors
from lading.image import digest as digests
from lading.image.descriptor import Descriptor
from lading.image.manifest import Manifest
from lading.registry.client import origin
from lading.registry.client.documents import Document
from lading.registry.client.origin import Url
from lading.registry.client.ports import Blobs, Report
from lading.registry.client.pull import PARALLEL, Slots, bar
from lading.registry.client.remote import Refused, Repository
from lading.registry.client.wire import CHUNK, Broken, Response

PIECE = 16 << 20
"""The size of a chunk where the registry names no larger least one."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_STEP = 1 << 20  # bytes between two lines of progress


class Push:
    """One push of one image's manifest to one repository."""

    def __init__(
        self,
        repository: Repository,
        blobs: Blobs,
        *,
        slots: Slots,
        report: Report,
        elsewhere: Mapping[str, tuple[str, ...]],
        piece: int = PIECE,
    ) -> None:
        """`elsewhere` names other repositories of the same registry that may hold a blob."""
        self._repository, self._blobs, self._slots = repository, blobs, slots
        self._elsewhere, self._piece = elsewhere, piece
        self._lock = threading.Lock()
        self._report_to = report

    def _report(self, status: str, blob: Descriptor, **more: object) -> None:
        line = {"status": status, "progressDetail": {}, "id": digests.encoded(blob.digest)[:12], **more}
        with self._lock:
            self._report_to(line)

    def run(self, document: Document, manifest: Manifest, reference: str) -> None:
        """Have everything there, then name it."""
        layers = list({layer.digest: layer for layer in manifest.layers}.values())
        for layer in layers:
            self._report("Preparing", layer)
        paths = {path for layer in layers for path in self._elsewhere.get(layer.digest, ())}
        self._repository.may_also_read(paths)
        failed: list[BaseException] = []

        def send(layer: Descriptor, loud: bool = True) -> None:
            if failed:
                return
            try:
                with self._slots(self._repository):
                    self.blob(layer, loud)
            except BaseException as error:
                failed.append(error)

        with ThreadPoolExecutor(PARALLEL, "push") as pool:
            for layer in layers:
                pool.submit(send, layer)
        if not failed:
            send(manifest.config, False)
        if failed:
            raise failed[0]
        self._manifest(document, reference)

    def _manifest(self, document: Document, reference: str) -> None:
        repository = self._repository
        with repository.exchange(
            "PUT", repository.url(f"manifests/{reference}"), (201, 200, 202),
            {"Content-Type": document.media_type}, lambda: document.data, what=f"the manifest {reference}",
        ) as response:  # fmt: skip
            stored = response.header("Docker-Content-Digest")
            if stored.startswith("sha256:") and stored != document.digest:
                raise errors.Invalid(
                    f"{repository} stored another manifest than was sent", why=f"It says {stored[:80]}."
                )

    # --- blobs ---

    def blob(self, blob: Descriptor, loud: bool = True) -> None:
        """Have one blob there."""
        repository = self._repository

        def say(status: str, **more: Any) -> None:
            if loud:
                self._report(status, blob, **more)

        if repository.has(f"blobs/{blob.digest}"):
            say("Layer already exists")
            return
        upload: Url | None = None
        for path in self._elsewhere.get(blob.digest, ())[:2]:
            upload = self._mount(blob, path)
            if upload is None:
                say(f"Mounted from {path}")
                return
        upload = upload or self._begin()[0]

        def progress(done: int) -> None:
            detail = {"current": done, "total": blob.size}
            say("Pushing", progressDetail=detail, progress=bar(done, blob.size))

        try:
            self._whole(blob, upload, progress)
        except (Broken, Refused) as error:
            too_large = isinstance(error, Refused) and error.status in (413, 411)
            if not too_large and not isinstance(error, Broken):
                raise
            repository.check()
            self._in_chunks(blob, progress)
        say("Pushed")

    def _mount(self, blob: Descriptor, path: str) -> Url | None:
        """None when the registry took the blob from `path`; else the upload it began instead."""
        url = self._repository.url(f"blobs/uploads/?mount={blob.digest}&from={path}")
        with self._repository.exchange(
            "POST", url, (201, 202), body=lambda: b"", what="an upload"
        ) as response:
            return None if response.status == 201 else self._location(response)

    def _begin(self) -> tuple[Url, int]:
        """A new upload: where it goes on, and the least size of its chunks."""
        url = self._repository.url("blobs/uploads/")
        with self._repository.exchange("POST", url, (202,), body=lambda: b"", what="an upload") as response:
            least = response.header("OCI-Chunk-Min-Length")
            return self._location(response), int(least) if least.isascii() and least.isdigit() and len(
                least
            ) < 12 else 0

    def _location(self, response: Response) -> Url:
        location = response.header("Location")
        if not location:
            raise errors.Invalid(f"{self._repository} begins an upload but says not where")
        return origin.follow(response.url, location, insecure=True)

    def _whole(self, blob: Descriptor, upload: Url, progress: Callable[[int], None]) -> None:
        """One PUT with everything."""

        def body() -> Iterator[bytes]:
            with self._blobs.open(blob.digest) as stream:
                yield from _pieces(stream, blob.size, 0, progress, self._repository.check)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        self._repository.exchange(
            "PUT", _with_digest(upload, blob.digest), (201, 204), headers, body,
            what=f"blob {blob.digest[:19]}", attempts=1,
        ).close()  # fmt: skip

    def _in_chunks(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        """PATCH after PATCH; after a failure the registry is asked how far it came."""
        repository = self._repository
        upload, least = self._begin()
        if least > 1 << 30:
            raise errors.Unsupported(f"{repository} wants chunks of at least {least} bytes")
        piece, at, failures = max(self._piece, least), 0, 0
        while at < blob.size:
            end = min(at + piece, blob.size)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(end - at),
                "Content-Range": f"{at}-{end - 1}",
            }

            def body(start: int = at, stop: int = end) -> Iterator[bytes]:
                with self._blobs.open(blob.digest) as stream:
                    stream.seek(start)
                    yield from _pieces(stream, stop - start, start, progress, repository.check)

            try:
                with repository.exchange(
                    "PATCH", upload, (202,), headers, body, what=f"a chunk of {blob.digest[:19]}", attempts=1
                ) as response:
                    upload, at, failures = self._location(response), end, 0
            except Broken:
                failures += 1
                if failures >= 4:
                    raise
                repository.cancelled.wait(0.4 * 2**failures)
                upload, at = self._where(upload)
        repository.exchange(
            "PUT", _with_digest(upload, blob.digest), (201, 204), {"Content-Length": "0"}, lambda: b"",
            what=f"blob {blob.digest[:19]}",
        ).close()  # fmt: skip

    def _where(self, upload: Url) -> tuple[Url, int]:
        """How far an upload has come."""
        with self._repository.exchange("GET", upload, (204, 202, 200), what="an upload") as response:
            found = _RANGE.fullmatch(response.header("Range"))
            there = self._location(response) if response.header("Location") else upload
            # "0-0" is both nothing and one byte in registries that exist; asking again from 0 is refused by one of the
            # two, so what is more common is taken: nothing.
            return there, int(found[1]) + 1 if found and found[1] != "0" else 0


def _with_digest(upload: Url, digest: str) -> Url:
    """The closing PUT's URL; the registry's own query stays as it is."""
    joint = "&" if "?" in upload.target else "?"
    return Url(upload.origin, f"{upload.target}{joint}digest={digest}")


def _pieces(
    stream: BinaryIO, length: int, before: int, progress: Callable[[int], None], check: Callable[[], None]
) -> Iterator[bytes]:
    """`length` bytes of the stream, telling how far it is."""
    done = told = 0
    while done < length:
        check()
        data = stream.read(min(CHUNK, length - done))
        if not data:
            raise errors.Internal("a blob in the store is shorter than its manifest says")
        yield data
        done += len(data)
        if done - told >= _STEP:
            told = done
            progress(before + done)
