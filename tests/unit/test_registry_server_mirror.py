"""The pull-through mirror: fetched once, verified, kept when upstream is gone; upstream's trouble is told as such."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lading.base import errors
from lading.registry.server import sweep
from lading.registry.server.mirror import Mirror
from registry_served import OCI_INDEX, OCI_MANIFEST, Peer, Served, descriptor, image, served, sha

LAYER = b"a layer" * 1000


@dataclass
class Upstream:
    """An upstream in memory. `asked` is what the mirror asked for."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failure: errors.LadingError | None = None
    slow: float = 0.0

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        time.sleep(self.slow)
        if self.failure is not None:
            raise self.failure

    def manifest(self, repo: str, reference: str) -> tuple[bytes, str]:
        self._ask(reference)
        data = self.documents.get(reference)
        if data is None:
            raise errors.NotFound(f"no manifest {reference}")
        return data, json.loads(data)["mediaType"]

    def blob(self, repo: str, digest: str) -> Iterator[bytes]:
        self._ask(digest)
        if digest not in self.blobs:
            raise errors.NotFound(f"no blob {digest}")
        for at in range(0, len(self.blobs[digest]), 1000):
            yield self.blobs[digest][at : at + 1000]

    def put(self, tag: str, layer: bytes) -> str:
        document = json.dumps(image(sha(b"{}"), 2, sha(layer), len(layer))).encode()
        self.blobs |= {sha(b"{}"): b"{}", sha(layer): layer}
        self.documents |= {tag: document, sha(document): document}
        return sha(document)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def one(tmp_path: Path, upstream: Upstream) -> Iterator[Served]:
    with served(tmp_path, mirror=lambda content: Mirror(content, upstream, fresh=0.2)) as made:
        yield made


def pulled(peer: Peer, tag: str) -> tuple[str, bytes]:
    """What a client does: the manifest, then its layer."""
    answer = peer("GET", f"/v2/lib/app/manifests/{tag}")
    assert answer.status == 200, answer
    layer = peer("GET", f"/v2/lib/app/blobs/{answer.json['layers'][0]['digest']}")
    assert layer.status == 200, layer
    return answer.headers["docker-content-digest"], layer.body


def test_what_is_fetched_is_kept(one: Served, upstream: Upstream) -> None:
    digest = upstream.put("v1", LAYER)
    assert pulled(one.peer, "v1") == (digest, LAYER)
    assert upstream.asked == ["v1", sha(LAYER)]
    assert pulled(one.peer, "v1") == (digest, LAYER)
    assert pulled(one.peer, digest) == (digest, LAYER)
    assert upstream.asked == ["v1", sha(LAYER)], "all of it was here"
    assert one.peer("GET", "/v2/_catalog").json["repositories"] == ["lib/app"]


def test_a_tag_is_asked_for_again_after_a_while(one: Served, upstream: Upstream) -> None:
    first = upstream.put("v1", LAYER)
    assert pulled(one.peer, "v1")[0] == first
    second = upstream.put("v1", b"another layer")
    time.sleep(0.25)
    assert pulled(one.peer, "v1") == (second, b"another layer")


@pytest.mark.parametrize(
    "failure", [errors.Unavailable("nobody there"), errors.Unauthenticated("no"), errors.Denied("no")]
)
def test_what_is_here_is_served_without_upstream(
    one: Served, upstream: Upstream, failure: errors.LadingError
) -> None:
    digest = upstream.put("v1", LAYER)
    pulled(one.peer, "v1")
    upstream.failure = failure
    time.sleep(0.25)
    assert pulled(one.peer, "v1") == (digest, LAYER)
    for path in ("manifests/v2", f"blobs/{sha(b'other')}"):
        answer = one.peer("GET", f"/v2/lib/app/{path}")
        assert answer.status == (502 if isinstance(failure, errors.Unavailable) else 403)
        assert "www-authenticate" not in answer.headers, "a client would offer its password"


def test_what_upstream_lacks_is_absent(one: Served, upstream: Upstream) -> None:
    answer = one.peer("GET", "/v2/lib/app/manifests/none")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    answer = one.peer("GET", f"/v2/lib/app/blobs/{sha(b'none')}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_a_damaged_blob_is_not_kept(one: Served, upstream: Upstream) -> None:
    upstream.put("v1", LAYER)
    upstream.blobs[sha(LAYER)] = LAYER + b"!"
    before = one.files()
    answer = one.peer("GET", f"/v2/lib/app/blobs/{sha(LAYER)}")
    assert (answer.status, answer.code) == (502, "UNAVAILABLE")
    assert one.files() == before
    upstream.blobs[sha(LAYER)] = LAYER
    assert one.peer("GET", f"/v2/lib/app/blobs/{sha(LAYER)}").body == LAYER


def test_a_hostile_manifest_is_not_kept(one: Served, upstream: Upstream) -> None:
    bad = {**image(sha(b"{}"), 2), "manifests": []}
    upstream.documents["v1"] = json.dumps(bad).encode()
    assert one.peer("GET", "/v2/lib/app/manifests/v1").status >= 400
    assert one.files() == []


def test_an_index_and_its_manifests(one: Served, upstream: Upstream) -> None:
    digest = upstream.put("amd64", LAYER)
    size = len(upstream.documents[digest])
    entries = [descriptor(OCI_MANIFEST, digest, size), descriptor(OCI_MANIFEST, sha(b"arm64"), 9)]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    upstream.documents["multi"] = index
    answer = one.peer("GET", "/v2/lib/app/manifests/multi")
    assert (answer.body, answer.headers["content-type"]) == (index, OCI_INDEX)
    assert pulled(one.peer, digest) == (digest, LAYER)
    assert sweep.sweep(one.content, age=0, untagged=True).manifests == 0
    assert pulled(one.peer, digest) == (digest, LAYER)


def test_one_thing_is_fetched_once_however_many_ask(one: Served, upstream: Upstream) -> None:
    upstream.put("v1", LAYER)
    upstream.slow = 0.2
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(pulled(one.peer, "v1")[1])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [LAYER] * 6
    assert upstream.asked.count(sha(LAYER)) == 1


def test_nobody_pushes_to_a_mirror(one: Served) -> None:
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/v1"), ("DELETE", "manifests/v1")):
        assert one.peer(method, f"/v2/lib/app/{path}", b"").status == 405
