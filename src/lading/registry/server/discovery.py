"""Lists: tags, repositories, referrers (distribution-spec "Content Discovery"). Owns pagination; changes nothing."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from lading.http.connection import Headers
from lading.image import descriptor
from lading.registry.server import documents, failures
from lading.registry.server.catalog import Entry
from lading.registry.server.content import Content
from lading.registry.server.exchange import Exchange
from lading.registry.server.failures import Refusal

PAGE = 1000


def tags(content: Content, x: Exchange, repo: str) -> None:
    """GET /v2/<name>/tags/list."""
    if not content.catalog.known(repo):
        raise Refusal(404, failures.NAME_UNKNOWN, f"no repository {repo}")
    count = _count(x)
    found = content.catalog.tags(repo, x.query("last") or "", count + 1) if count else []
    headers = _next(f"/v2/{repo}/tags/list", found, count)
    x.json({"name": repo, "tags": found[:count]}, headers)


def repositories(content: Content, x: Exchange) -> None:
    """GET /v2/_catalog."""
    count = _count(x)
    found = content.catalog.repositories(x.query("last") or "", count + 1) if count else []
    x.json({"repositories": found[:count]}, _next("/v2/_catalog", found, count))


def referrers(content: Content, x: Exchange, repo: str, digest: str) -> None:
    """GET /v2/<name>/referrers/<digest>: an index of the manifests whose subject this is; empty when there are none."""
    wanted = x.query("artifactType") or ""
    found = content.catalog.referrers(repo, digest, wanted, x.query("last") or "", PAGE + 1)
    entries: list[dict[str, Any]] = []
    size = 0
    for entry in found[:PAGE]:
        size += len(entry.annotations) + 512
        if size > documents.LIMIT and entries:
            break  # clients read no more of an index than of a manifest
        entries.append(_descriptor(entry))
    headers: Headers = [("OCI-Filters-Applied", "artifactType")] if wanted else []
    if len(entries) < len(found):
        kind = f"&artifactType={quote(wanted, safe='')}" if wanted else ""
        last = quote(entries[-1]["digest"], safe="")
        headers.append(("Link", f'</v2/{repo}/referrers/{digest}?last={last}{kind}>; rel="next"'))
    index = {"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": entries}
    x.json(index, headers, descriptor.OCI_INDEX)


def _descriptor(entry: Entry) -> dict[str, Any]:
    out: dict[str, Any] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    if entry.artifact_type:
        out["artifactType"] = entry.artifact_type
    if entry.annotations != "{}":
        out["annotations"] = json.loads(entry.annotations)
    return out


def _count(x: Exchange) -> int:
    """`n`, and no more than a page."""
    text = x.query("n")
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit()):
        raise Refusal(400, failures.UNSUPPORTED, f"n must be a whole number, not {text[:40]!r}")
    return min(int(text[:18]), PAGE)


def _next(path: str, found: list[str], count: int) -> Headers:
    """The Link to the next page (RFC 8288), where there is one."""
    if not count or len(found) <= count:
        return []
    return [("Link", f'<{path}?n={count}&last={quote(found[count - 1], safe="")}>; rel="next"')]
