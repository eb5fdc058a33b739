"""Pushing and deleting: uploads in one piece or in chunks, mounts, manifests (distribution-spec "Push" and "Content
Management"). Owns those answers; bytes go to the store as they come, so memory does not depend on a blob's size.
"""

from __future__ import annotations

import re

from lading.base.errors import LadingError
from lading.http.connection import Headers
from lading.registry.server import documents, failures, paths
from lading.registry.server.content import Content
from lading.registry.server.exchange import Exchange
from lading.registry.server.failures import Refusal
from lading.registry.server.uploads import Upload, Uploads

_CHUNK = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?", re.ASCII)


def start(content: Content, uploads: Uploads, x: Exchange, repo: str) -> None:
    """POST /v2/<name>/blobs/uploads/: a mount, a whole blob, or the beginning of an upload."""
    mount, digest = x.query("mount"), x.query("digest")
    if mount is not None:
        source = x.query("from")
        wanted = paths.digest(mount)
        if content.mount(repo, paths.repository(source) if source else "", wanted):
            _created(x, repo, wanted)
            return
        # Otherwise an upload begins, as the specification asks.
    elif digest is not None:
        _whole(content, uploads, x, repo, paths.digest(digest))
        return
    _accepted(x, uploads.start(repo), 202)


def _whole(content: Content, uploads: Uploads, x: Exchange, repo: str, digest: str) -> None:
    upload = uploads.start(repo)
    with uploads.turn(repo, upload.id):
        try:
            _receive(uploads, x, upload)
            content.commit(repo, upload.writer, digest)
        finally:
            uploads.end(upload)
    _created(x, repo, digest)


def status(uploads: Uploads, x: Exchange, repo: str, identifier: str) -> None:
    """GET: how far an upload has come."""
    with uploads.turn(repo, identifier) as upload:
        _accepted(x, upload, 204)


def chunk(uploads: Uploads, x: Exchange, repo: str, identifier: str) -> None:
    """PATCH: more of the blob. What arrived before a connection broke is kept, and `status` tells how much."""
    with uploads.turn(repo, identifier) as upload:
        end = _in_order(x, upload)
        _receive(uploads, x, upload, end)
        if end is not None and upload.writer.size != end:
            uploads.end(upload)
            raise Refusal(400, failures.SIZE_INVALID, "the chunk is not as long as its Content-Range says")
        _accepted(x, upload, 202)


def finish(content: Content, uploads: Uploads, x: Exchange, repo: str, identifier: str) -> None:
    """PUT ?digest=: the last chunk, if any, and the name that the content must have."""
    text = x.query("digest")
    if not text:
        raise Refusal(400, failures.DIGEST_INVALID, "an upload is finished with ?digest=")
    digest = paths.digest(text)
    with uploads.turn(repo, identifier) as upload:
        end = _in_order(x, upload)
        _receive(uploads, x, upload, end)
        try:
            if end is not None and upload.writer.size != end:
                raise Refusal(
                    400, failures.SIZE_INVALID, "the chunk is not as long as its Content-Range says"
                )
            content.commit(repo, upload.writer, digest)
        finally:
            uploads.end(upload)
    _created(x, repo, digest)


def cancel(uploads: Uploads, x: Exchange, repo: str, identifier: str) -> None:
    """DELETE of an upload."""
    with uploads.turn(repo, identifier) as upload:
        uploads.end(upload)
    x.reply(204)


def _in_order(x: Exchange, upload: Upload) -> int | None:
    """The size that the upload must have after this chunk, by its Content-Range; None when it has none. 416 for a gap
    or an overlap: chunks come in order."""
    text = x.header(b"content-range")
    if not text:
        return None
    found = _CHUNK.fullmatch(text)
    if found is None or int(found[2]) < int(found[1]):
        raise Refusal(
            416,
            failures.BLOB_UPLOAD_INVALID,
            f"malformed Content-Range {text[:80]!r}",
            headers=_where(upload),
        )
    first, last = int(found[1]), int(found[2])
    if first != upload.writer.size:
        raise Refusal(
            416,
            failures.BLOB_UPLOAD_INVALID,
            f"the next chunk begins at {upload.writer.size}",
            headers=_where(upload),
        )
    declared = x.length()
    if declared is not None and declared != last - first + 1:
        raise Refusal(400, failures.SIZE_INVALID, "Content-Length and Content-Range contradict each other")
    return last + 1


def _receive(uploads: Uploads, x: Exchange, upload: Upload, end: int | None = None) -> None:
    """The request's body to the writer; not a byte beyond `end`."""
    while piece := x.read():
        if end is not None and upload.writer.size + len(piece) > end:
            return  # the caller sees that the size is wrong: what is missing was not what was announced
        try:
            upload.writer.write(piece)
        except LadingError:
            uploads.end(upload)  # a full disk: nobody can tell what of the piece was written
            raise


def _where(upload: Upload) -> tuple[tuple[str, str], ...]:
    return (
        ("Location", f"/v2/{upload.repo}/blobs/uploads/{upload.id}"),
        # An empty upload says 0-0 as well: the header cannot say "nothing", and clients go by what they sent.
        ("Range", f"0-{max(upload.writer.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.id),
    )


def _accepted(x: Exchange, upload: Upload, status_: int) -> None:
    x.reply(status_, list(_where(upload)))


def _created(x: Exchange, repo: str, digest: str) -> None:
    x.reply(201, [("Location", f"/v2/{repo}/blobs/{digest}"), ("Docker-Content-Digest", digest)])


def manifest(content: Content, x: Exchange, repo: str, reference: str) -> None:
    """PUT /v2/<name>/manifests/<reference>."""
    data = x.body(documents.LIMIT)
    document = documents.read(data, x.header(b"content-type"))
    digest = content.put_manifest(repo, reference, data, document)
    headers: Headers = [
        ("Location", f"/v2/{repo}/manifests/{digest}"),
        ("Docker-Content-Digest", digest),
    ]
    if document.subject:  # tells the client that it need not keep a referrers tag
        headers.append(("OCI-Subject", document.subject))
    x.reply(201, headers)


def delete_manifest(content: Content, x: Exchange, repo: str, reference: str) -> None:
    if not content.catalog.drop(repo, reference):
        raise Refusal(404, failures.MANIFEST_UNKNOWN, f"no manifest {reference} in {repo}")
    x.reply(202)


def delete_blob(content: Content, x: Exchange, repo: str, digest: str) -> None:
    content.delete_blob(repo, digest)
    x.reply(202)
