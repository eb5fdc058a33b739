"""Request paths to routes. Owns the grammar of repository names, tags and digests in URLs, all of them hostile.

What comes out is safe as a part of a file name or a header: each piece matched its grammar as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from lading.base import errors
from lading.image import digest as digests
from lading.registry.server import failures
from lading.registry.server.failures import Refusal

NAME_LIMIT = 255

# Distribution-spec "Pulling manifests": the grammar of <name> and of a tag. Matched a component at a time, so that no
# input makes the expression backtrack over the whole name.
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_SESSION = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Route:
    """What a path asks for. `kind` is one of base, catalog, metrics, blob, uploads, upload, manifest, tags, referrers."""

    kind: str
    name: str = ""
    reference: str = ""  # a digest, a tag or an upload's identifier


def parse(target: str) -> Route:
    """The route of a path without its query; a Refusal when there is none, or a part of it breaks its grammar."""
    try:
        path = unquote(target, errors="strict")
    except UnicodeDecodeError:
        raise Refusal(400, failures.NAME_INVALID, "the path is not UTF-8") from None
    if path in ("/v2/", "/v2"):
        return Route("base")
    if path == "/metrics":
        return Route("metrics")
    if path == "/v2/_catalog":
        return Route("catalog")
    if path.startswith("/v2/"):
        head, _, last = path[4:].rpartition("/")
        rest, _, kind = head.rpartition("/")
        if kind == "uploads" and rest.endswith("/blobs"):
            name = repository(rest.removesuffix("/blobs"))
            return Route("uploads", name) if not last else Route("upload", name, _session(last))
        if last == "uploads" and kind == "blobs":  # without the slash at the end; some clients drop it
            return Route("uploads", repository(rest))
        if kind == "blobs":
            return Route("blob", repository(rest), digest(last))
        if kind == "manifests":
            return Route("manifest", repository(rest), reference(last))
        if kind == "tags" and last == "list":
            return Route("tags", repository(rest))
        if kind == "referrers":
            return Route("referrers", repository(rest), digest(last))
    raise Refusal(404, failures.UNSUPPORTED, "there is nothing at this path")


def repository(text: str) -> str:
    """`text` when it is a repository's name."""
    if len(text) > NAME_LIMIT:
        raise Refusal(
            400, failures.NAME_INVALID, f"the repository name is longer than {NAME_LIMIT} characters"
        )
    if not all(_COMPONENT.fullmatch(part) for part in text.split("/")):
        raise Refusal(
            400,
            failures.NAME_INVALID,
            f"invalid repository name {text[:80]!r}",
            why="It is components of a-z and 0-9, with single . or _ or __ or dashes inside, separated by slashes.",
        )
    return text


def digest(text: str) -> str:
    """`text` when it is a digest this registry can verify: only sha256 names content here."""
    try:
        digests.parse(text)
    except errors.LadingError as error:
        raise Refusal(400, failures.DIGEST_INVALID, error.what, why=error.why) from None
    if digests.algorithm(text) != "sha256":
        raise Refusal(400, failures.DIGEST_INVALID, "this registry knows content by sha256 only")
    return text


def is_digest(reference_: str) -> bool:
    return ":" in reference_


def reference(text: str) -> str:
    """A tag or a digest."""
    if ":" in text:
        return digest(text)
    if not _TAG.fullmatch(text):
        raise Refusal(404, failures.MANIFEST_UNKNOWN, f"{text[:80]!r} is neither a tag nor a digest")
    return text


def _session(text: str) -> str:
    if not _SESSION.fullmatch(text):
        raise Refusal(404, failures.BLOB_UPLOAD_UNKNOWN, "there is no such upload")
    return text
