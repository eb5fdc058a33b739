"""Pulling: blobs whole and by ranges, manifests by tag and digest (distribution-spec "Pull"). Owns those answers only."""

from __future__ import annotations

import re
from contextlib import closing

from lading.base import errors
from lading.http.connection import Headers
from lading.registry.server import failures
from lading.registry.server.content import Content
from lading.registry.server.exchange import Exchange
from lading.registry.server.failures import Refusal

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def blob(content: Content, x: Exchange, repo: str, digest: str) -> None:
    """GET and HEAD /v2/<name>/blobs/<digest>."""
    if not content.has(repo, digest):
        raise _absent(repo, digest)
    try:
        source = content.blobs.open(digest)
    except errors.NotFound:
        raise _absent(repo, digest) from None
    with closing(source):
        size = source.seek(0, 2)
        headers: Headers = [
            ("Docker-Content-Digest", digest),
            ("ETag", f'"{digest}"'),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", "max-age=31536000, immutable"),  # content under its digest never changes
        ]
        if _not_modified(x, digest):
            x.reply(304, headers)
            return
        status, offset, length = 200, 0, size
        wanted = ranged(x.header(b"range"), size) if _range_holds(x, digest) else None
        if wanted is not None:
            status, offset, length = 206, wanted[0], wanted[1]
            headers.append(("Content-Range", f"bytes {offset}-{offset + length - 1}/{size}"))
        x.file(status, headers, "application/octet-stream", source, offset, length)


def _absent(repo: str, digest: str) -> Refusal:
    return Refusal(404, failures.BLOB_UNKNOWN, f"no blob {digest} in {repo}")


def _range_holds(x: Exchange, digest: str) -> bool:
    """RFC 9110 13.1.5: with If-Range the range counts only if the content is the one the client knows."""
    known = x.header(b"if-range")
    return not known or known == f'"{digest}"'


def _not_modified(x: Exchange, digest: str) -> bool:
    known = x.header(b"if-none-match")
    return bool(known) and any(
        tag.strip().removeprefix("W/") in (f'"{digest}"', "*") for tag in known.split(",")
    )


def ranged(text: str, size: int) -> tuple[int, int] | None:
    """Offset and length of a Range header over `size` bytes; None when it is to be ignored, which RFC 9110 14.2 lets a
    server do with several ranges or nonsense; a Refusal with 416 when it lies outside."""
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last so many bytes
        length = min(int(found[2]), size)
        first, last = size - length, size - 1
    else:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < first:
            return None
    if first >= size or last < first:
        raise Refusal(
            416,
            failures.SIZE_INVALID,
            "the range lies outside the blob",
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return first, last - first + 1


def manifest(content: Content, x: Exchange, repo: str, reference: str) -> None:
    """GET and HEAD /v2/<name>/manifests/<reference>."""
    found = content.manifest(repo, reference)
    headers: Headers = [("Docker-Content-Digest", found.digest), ("ETag", f'"{found.digest}"')]
    if _not_modified(x, found.digest):
        x.reply(304, headers)
        return
    try:
        body = content.blobs.read(found.digest)
    except errors.NotFound:
        raise Refusal(
            404, failures.MANIFEST_UNKNOWN, f"manifest {found.digest} has lost its content"
        ) from None
    x.reply(200, headers, body, found.media_type)
