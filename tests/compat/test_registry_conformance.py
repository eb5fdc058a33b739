"""The registry judged by the categories of the OCI distribution specification's conformance suite: pull, push, content
discovery, content management; each check one test, over real HTTP. The suite itself is written in Go and is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from registry_served import (
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Answer,
    Peer,
    descriptor,
    image,
    served,
    sha,
)

REPO = "myorg/myrepo"
OTHER = "myorg/other"
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
LAYER = bytes(range(256)) * 40
ABSENT = sha(b"hello world, absent")


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with served(tmp_path) as one:
        yield one.peer


def pushed(peer: Peer, tag: str = "tagtest0") -> tuple[str, bytes]:
    """An image in REPO: its manifest's digest and bytes."""
    document = image(peer.blob(REPO, CONFIG), len(CONFIG), peer.blob(REPO, LAYER), len(LAYER))
    answer = peer.manifest(REPO, tag, document)
    assert answer.status == 201
    return answer.headers["docker-content-digest"], json.dumps(document).encode()


def is_error(answer: Answer, status: int, code: str) -> bool:
    kind = answer.headers["content-type"]
    return (answer.status, answer.code, kind) == (status, code, "application/json")


# --- base ---


def test_the_base_path_answers(peer: Peer) -> None:
    answer = peer("GET", "/v2/")
    assert answer.status == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


# --- pull ---


def test_pull_head_of_an_absent_blob(peer: Peer) -> None:
    answer = peer("HEAD", f"/v2/{REPO}/blobs/{ABSENT}")
    assert (answer.status, answer.body) == (404, b"")


def test_pull_get_of_an_absent_blob(peer: Peer) -> None:
    assert is_error(peer("GET", f"/v2/{REPO}/blobs/{ABSENT}"), 404, "BLOB_UNKNOWN")


def test_pull_head_of_a_blob(peer: Peer) -> None:
    digest = peer.blob(REPO, LAYER)
    answer = peer("HEAD", f"/v2/{REPO}/blobs/{digest}")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["docker-content-digest"] == digest
    assert int(answer.headers["content-length"]) == len(LAYER)


def test_pull_get_of_a_blob(peer: Peer) -> None:
    digest = peer.blob(REPO, LAYER)
    answer = peer("GET", f"/v2/{REPO}/blobs/{digest}")
    assert (answer.status, answer.body) == (200, LAYER)
    assert answer.headers["docker-content-digest"] == digest


def test_pull_of_the_empty_blob(peer: Peer) -> None:
    digest = peer.blob(REPO, b"")
    answer = peer("GET", f"/v2/{REPO}/blobs/{digest}")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_pull_with_an_encoded_digest(peer: Peer) -> None:
    digest = peer.blob(REPO, LAYER)
    assert peer("GET", f"/v2/{REPO}/blobs/{quote(digest, safe='')}").body == LAYER


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("10-", 10, 10240),
        ("-7", 10233, 10240),
        ("10200-99999", 10200, 10240),
    ],
)
def test_pull_of_a_range(peer: Peer, wanted: str, first: int, end: int) -> None:
    digest = peer.blob(REPO, LAYER)
    answer = peer("GET", f"/v2/{REPO}/blobs/{digest}", Range=f"bytes={wanted}")
    assert (answer.status, answer.body) == (206, LAYER[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(LAYER)}"


@pytest.mark.parametrize("wanted", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_pull_of_a_range_outside(peer: Peer, wanted: str) -> None:
    digest = peer.blob(REPO, LAYER)
    answer = peer("GET", f"/v2/{REPO}/blobs/{digest}", Range=wanted)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(LAYER)}"


@pytest.mark.parametrize("wanted", ["bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=a-b"])
def test_pull_ignores_a_range_it_need_not_know(peer: Peer, wanted: str) -> None:
    digest = peer.blob(REPO, LAYER)
    answer = peer("GET", f"/v2/{REPO}/blobs/{digest}", Range=wanted)
    assert (answer.status, answer.body) == (200, LAYER)


def test_pull_what_is_known_already(peer: Peer) -> None:
    digest = peer.blob(REPO, LAYER)
    answer = peer("GET", f"/v2/{REPO}/blobs/{digest}", If_None_Match=f'"{digest}"')
    assert (answer.status, answer.body) == (304, b"")


@pytest.mark.parametrize("reference", ["absent", ABSENT])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_pull_of_an_absent_manifest(peer: Peer, method: str, reference: str) -> None:
    pushed(peer)
    answer = peer(method, f"/v2/{REPO}/manifests/{reference}")
    assert answer.status == 404
    assert method == "HEAD" or answer.code == "MANIFEST_UNKNOWN"


def test_pull_from_an_absent_repository(peer: Peer) -> None:
    assert is_error(peer("GET", "/v2/no/such/manifests/latest"), 404, "NAME_UNKNOWN")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_pull_of_a_manifest(peer: Peer, method: str, by: str) -> None:
    digest, data = pushed(peer)
    reference = "tagtest0" if by == "tag" else digest
    answer = peer(method, f"/v2/{REPO}/manifests/{reference}", Accept=OCI_MANIFEST)
    assert (answer.status, answer.body) == (200, data if method == "GET" else b"")
    assert answer.headers["content-type"] == OCI_MANIFEST
    assert answer.headers["docker-content-digest"] == digest
    assert int(answer.headers["content-length"]) == len(data)


def test_pull_error_body_is_the_specifications(peer: Peer) -> None:
    answer = peer("PUT", f"/v2/{REPO}/manifests/sha256:totallywrong", b"blah", Content_Type=OCI_MANIFEST)
    assert is_error(answer, 400, "DIGEST_INVALID")
    assert set(answer.json["errors"][0]) == {"code", "message", "detail"}


# --- push: blobs ---


def begin(peer: Peer, repo: str = REPO) -> Answer:
    answer = peer("POST", f"/v2/{repo}/blobs/uploads/", b"")
    assert answer.status == 202
    assert answer.location.startswith(f"/v2/{repo}/blobs/uploads/")
    return answer


def test_push_streamed(peer: Peer) -> None:
    middle = peer(
        "PATCH", begin(peer).location, iter([LAYER[:5000], LAYER[5000:]])
    )  # chunked coding, no length
    assert middle.status == 202
    assert middle.headers["range"] == f"0-{len(LAYER) - 1}"
    end = peer("PUT", f"{middle.location}?digest={sha(LAYER)}", b"")
    assert (end.status, end.location) == (201, f"/v2/{REPO}/blobs/{sha(LAYER)}")
    assert peer("GET", end.location).body == LAYER


def test_push_monolithic_with_one_post(peer: Peer) -> None:
    answer = peer("POST", f"/v2/{REPO}/blobs/uploads/?digest={sha(LAYER)}", LAYER)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == sha(LAYER)
    assert peer("GET", answer.location).body == LAYER


def test_push_monolithic_with_post_and_put(peer: Peer) -> None:
    answer = peer(
        "PUT", f"{begin(peer).location}?digest={sha(LAYER)}", LAYER, Content_Type="application/octet-stream"
    )
    assert answer.status == 201
    assert peer("GET", answer.location).body == LAYER


@pytest.mark.parametrize("way", ["post", "put", "patch"])
def test_push_with_a_wrong_digest(peer: Peer, way: str) -> None:
    if way == "post":
        answer = peer("POST", f"/v2/{REPO}/blobs/uploads/?digest={ABSENT}", LAYER)
    else:
        location = begin(peer).location
        if way == "patch":
            assert peer("PATCH", location, LAYER).status == 202
        answer = peer("PUT", f"{location}?digest={ABSENT}", LAYER if way == "put" else b"")
        assert peer("GET", location).status == 404, "a failed upload is over"
    assert is_error(answer, 400, "DIGEST_INVALID")
    assert peer("HEAD", f"/v2/{REPO}/blobs/{ABSENT}").status == 404


def test_push_without_a_digest_at_the_end(peer: Peer) -> None:
    location = begin(peer).location
    assert is_error(peer("PUT", location, LAYER), 400, "DIGEST_INVALID")
    assert peer("PUT", f"{location}?digest={sha(LAYER)}", LAYER).status == 201, "it can be said again"


def test_push_in_chunks(peer: Peer) -> None:
    location = begin(peer).location
    first = peer("PATCH", location, LAYER[:4000], Content_Range="0-3999", Content_Length="4000")
    assert (first.status, first.headers["range"]) == (202, "0-3999")
    second = peer("PATCH", first.location, LAYER[4000:8000], Content_Range="4000-7999")
    assert (second.status, second.headers["range"]) == (202, "0-7999")
    last = peer(
        "PUT", f"{second.location}?digest={sha(LAYER)}", LAYER[8000:], Content_Range=f"8000-{len(LAYER) - 1}"
    )
    assert last.status == 201
    assert peer("GET", last.location).body == LAYER


def test_push_a_chunk_out_of_order(peer: Peer) -> None:
    location = begin(peer).location
    gap = peer("PATCH", location, LAYER[4000:], Content_Range=f"4000-{len(LAYER) - 1}")
    assert (gap.status, gap.location, gap.headers["range"]) == (416, location, "0-0")
    assert peer("PATCH", location, LAYER[:4000], Content_Range="0-3999").status == 202
    again = peer("PATCH", location, LAYER[:4000], Content_Range="0-3999")
    assert (again.status, again.headers["range"]) == (416, "0-3999")
    gap = peer("PUT", f"{location}?digest={sha(LAYER)}", LAYER[8000:], Content_Range=f"8000-{len(LAYER) - 1}")
    assert gap.status == 416


def test_push_status_of_an_upload(peer: Peer) -> None:
    location = begin(peer).location
    peer("PATCH", location, LAYER[:4000], Content_Range="0-3999")
    answer = peer("GET", location)
    assert (answer.status, answer.location, answer.headers["range"]) == (204, location, "0-3999")


@pytest.mark.parametrize("wanted", ["3-2", "a-b", "bytes 0-", "0-99999999999999999999"])
def test_push_with_a_malformed_content_range(peer: Peer, wanted: str) -> None:
    assert peer("PATCH", begin(peer).location, b"xyz", Content_Range=wanted).status == 416


def test_push_with_contradicting_lengths(peer: Peer) -> None:
    answer = peer("PATCH", begin(peer).location, b"xyz", Content_Range="0-9")
    assert is_error(answer, 400, "SIZE_INVALID")


@pytest.mark.parametrize("sent", [b"xy", b"xyzw"])
def test_push_a_streamed_chunk_that_lies_about_its_length(peer: Peer, sent: bytes) -> None:
    location = begin(peer).location
    assert is_error(peer("PATCH", location, iter([sent]), Content_Range="0-2"), 400, "SIZE_INVALID")


def test_push_cancelled(peer: Peer) -> None:
    location = begin(peer).location
    assert peer("DELETE", location).status == 204
    assert is_error(peer("GET", location), 404, "BLOB_UPLOAD_UNKNOWN")
    assert peer("PATCH", location, b"x").status == 404


def test_push_to_an_upload_of_another_repository(peer: Peer) -> None:
    location = begin(peer).location.replace(REPO, OTHER)
    assert is_error(peer("PATCH", location, b"x"), 404, "BLOB_UPLOAD_UNKNOWN")


def test_push_mount(peer: Peer) -> None:
    digest = peer.blob(REPO, LAYER)
    assert peer("GET", f"/v2/{OTHER}/blobs/{digest}").status == 404, "a blob is its repository's"
    answer = peer("POST", f"/v2/{OTHER}/blobs/uploads/?mount={digest}&from={quote(REPO)}", b"")
    assert (answer.status, answer.location) == (201, f"/v2/{OTHER}/blobs/{digest}")
    assert peer("GET", answer.location).body == LAYER


@pytest.mark.parametrize("source", [f"&from={REPO}", "&from=no/such", ""])
def test_push_mount_of_what_is_not_there(peer: Peer, source: str) -> None:
    answer = peer("POST", f"/v2/{OTHER}/blobs/uploads/?mount={ABSENT}{source}", b"")
    assert answer.status == 202, "an upload begins instead"
    assert peer("PUT", f"{answer.location}?digest={sha(LAYER)}", LAYER).status == 201


# --- push: manifests ---


def test_push_a_manifest_by_tag_and_by_digest(peer: Peer) -> None:
    digest, data = pushed(peer)
    for reference in ("test1", "test2", digest):
        answer = peer("PUT", f"/v2/{REPO}/manifests/{reference}", data, Content_Type=OCI_MANIFEST)
        assert (answer.status, answer.location) == (201, f"/v2/{REPO}/manifests/{digest}")
        assert answer.headers["docker-content-digest"] == digest
    assert peer("GET", f"/v2/{REPO}/tags/list").json["tags"] == ["tagtest0", "test1", "test2"]


def test_push_a_manifest_without_layers(peer: Peer) -> None:
    peer.blob(REPO, CONFIG)
    assert peer.manifest(REPO, "emptylayer", image(sha(CONFIG), len(CONFIG))).status == 201


def test_push_moves_a_tag(peer: Peer) -> None:
    one, two = peer.image(REPO, "v1", b"one"), peer.image(REPO, "v1", b"two")
    assert peer("HEAD", f"/v2/{REPO}/manifests/v1").headers["docker-content-digest"] == two != one
    assert peer("HEAD", f"/v2/{REPO}/manifests/{one}").status == 200


def test_push_a_manifest_under_another_digest(peer: Peer) -> None:
    _, data = pushed(peer)
    answer = peer("PUT", f"/v2/{REPO}/manifests/{ABSENT}", data, Content_Type=OCI_MANIFEST)
    assert is_error(answer, 400, "DIGEST_INVALID")


def test_push_a_manifest_whose_blobs_are_absent(peer: Peer) -> None:
    peer.blob(REPO, CONFIG)
    answer = peer.manifest(REPO, "v1", image(sha(CONFIG), len(CONFIG), ABSENT, 5))
    assert is_error(answer, 404, "MANIFEST_BLOB_UNKNOWN")
    assert ABSENT in answer.json["errors"][0]["message"]
    peer.blob(OTHER, LAYER)
    answer = peer.manifest(REPO, "v1", image(sha(CONFIG), len(CONFIG), sha(LAYER), 5))
    assert answer.status == 404, "another repository's blob is not this one's"
    assert peer("GET", f"/v2/{REPO}/manifests/v1").status == 404


def test_push_an_index(peer: Peer) -> None:
    digest, data = pushed(peer)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, digest, len(data))],
    }
    answer = peer.manifest(REPO, "multi", index, OCI_INDEX)
    assert answer.status == 201
    assert peer("GET", f"/v2/{REPO}/manifests/multi").headers["content-type"] == OCI_INDEX
    index["manifests"] = [descriptor(OCI_MANIFEST, ABSENT, 3)]
    assert is_error(peer.manifest(REPO, "multi2", index, OCI_INDEX), 404, "MANIFEST_BLOB_UNKNOWN")


def test_push_a_manifest_whose_layer_lies_elsewhere(peer: Peer) -> None:
    document = image(peer.blob(REPO, CONFIG), len(CONFIG))
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    document["layers"] = [{**descriptor(kind, ABSENT, 9), "urls": ["https://example.com/layer"]}]
    assert peer.manifest(REPO, "foreign", document).status == 201


def test_push_a_manifest_of_four_mebibytes_and_no_more(peer: Peer) -> None:
    document = image(peer.blob(REPO, CONFIG), len(CONFIG))
    bare = len(json.dumps({**document, "annotations": {"pad": ""}}))
    document["annotations"] = {"pad": "x" * ((4 << 20) - bare)}
    assert peer.manifest(REPO, "large", document).status == 201
    document["annotations"]["pad"] += "x"
    assert is_error(peer.manifest(REPO, "larger", document), 413, "SIZE_INVALID")


# --- content discovery ---


def tags_of(peer: Peer, *tags: str) -> None:
    _, data = pushed(peer, tags[0])
    for tag in tags[1:]:
        assert peer("PUT", f"/v2/{REPO}/manifests/{tag}", data, Content_Type=OCI_MANIFEST).status == 201


def test_discovery_of_tags_in_order(peer: Peer) -> None:
    tags_of(peer, "test2", "Test1", "test0", "TEST3", "_a", "10", "9")
    answer = peer("GET", f"/v2/{REPO}/tags/list")
    assert answer.json == {"name": REPO, "tags": ["10", "9", "_a", "test0", "Test1", "test2", "TEST3"]}
    assert "link" not in answer.headers


def test_discovery_of_tags_by_pages(peer: Peer) -> None:
    every = [f"t{number}" for number in range(7)]
    tags_of(peer, *every)
    path, seen = f"/v2/{REPO}/tags/list?n=3", []
    while path:
        answer = peer("GET", path)
        assert len(answer.json["tags"]) <= 3
        seen += answer.json["tags"]
        link = answer.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link[1:].partition(">")[0]
    assert seen == every
    assert peer("GET", f"/v2/{REPO}/tags/list?n=2&last=t3").json["tags"] == ["t4", "t5"]
    assert peer("GET", f"/v2/{REPO}/tags/list?last=t4zz").json["tags"] == ["t5", "t6"]


def test_discovery_of_no_tags(peer: Peer) -> None:
    tags_of(peer, "a")
    answer = peer("GET", f"/v2/{REPO}/tags/list?n=0")
    assert (answer.json["tags"], "link" in answer.headers) == ([], False)
    assert is_error(peer("GET", "/v2/no/such/tags/list"), 404, "NAME_UNKNOWN")
    assert peer("GET", f"/v2/{REPO}/tags/list?n=-1").status == 400


def test_discovery_of_repositories(peer: Peer) -> None:
    for name in ("c", "a/b", "a"):
        peer.image(name, "v1")
    assert peer("GET", "/v2/_catalog").json == {"repositories": ["a", "a/b", "c"]}
    answer = peer("GET", "/v2/_catalog?n=2")
    assert answer.json == {"repositories": ["a", "a/b"]}
    assert answer.headers["link"] == '</v2/_catalog?n=2&last=a%2Fb>; rel="next"'
    assert peer("GET", "/v2/_catalog?n=2&last=a%2Fb").json == {"repositories": ["c"]}


def artifact(peer: Peer, subject: str, kind: str, *, empty: bool, note: str) -> str:
    """Push an artifact about `subject`; its digest. `empty`: its type stands in artifactType, else in the config."""
    config = peer.blob(REPO, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(EMPTY if empty else kind, config, 2),
        "layers": [descriptor("text/plain", peer.blob(REPO, note.encode()), len(note))],
        "subject": descriptor(OCI_MANIFEST, subject, 100),
        "annotations": {"note": note},
    }
    if empty:
        document["artifactType"] = kind
    answer = peer.manifest(REPO, sha(json.dumps(document).encode()), document)
    assert answer.status == 201
    assert answer.headers["oci-subject"] == subject
    return answer.headers["docker-content-digest"]


def test_discovery_of_referrers(peer: Peer) -> None:
    subject, data = pushed(peer)
    one = artifact(peer, subject, "application/vnd.test.a", empty=True, note="one")
    two = artifact(peer, subject, "application/vnd.test.b", empty=False, note="two")
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "artifactType": "application/vnd.test.a",
        "manifests": [descriptor(OCI_MANIFEST, one, 1)],
        "subject": descriptor(OCI_MANIFEST, subject, len(data)),
        "annotations": {"note": "three"},
    }
    three = peer.manifest(REPO, sha(json.dumps(index).encode()), index, OCI_INDEX)
    assert three.headers["oci-subject"] == subject
    answer = peer("GET", f"/v2/{REPO}/referrers/{subject}")
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    assert "oci-filters-applied" not in answer.headers
    found = {entry["digest"]: entry for entry in answer.json["manifests"]}
    assert set(found) == {one, two, three.headers["docker-content-digest"]}
    assert [found[d]["artifactType"] for d in (one, two)] == [
        "application/vnd.test.a",
        "application/vnd.test.b",
    ]
    assert found[one]["annotations"] == {"note": "one"}
    assert found[one]["size"] == len(peer("GET", f"/v2/{REPO}/manifests/{one}").body)
    answer = peer("GET", f"/v2/{REPO}/referrers/{subject}?artifactType=application/vnd.test.b")
    assert [entry["digest"] for entry in answer.json["manifests"]] == [two]
    assert answer.headers["oci-filters-applied"] == "artifactType"


def test_discovery_of_no_referrers(peer: Peer) -> None:
    answer = peer("GET", f"/v2/{REPO}/referrers/{ABSENT}")
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    assert (answer.json["schemaVersion"], answer.json["manifests"]) == (2, [])
    assert is_error(peer("GET", f"/v2/{REPO}/referrers/sha256:123"), 400, "DIGEST_INVALID")


def test_discovery_of_referrers_of_an_absent_subject(peer: Peer) -> None:
    only = artifact(peer, ABSENT, "application/vnd.test.a", empty=True, note="one")
    answer = peer("GET", f"/v2/{REPO}/referrers/{ABSENT}")
    assert [entry["digest"] for entry in answer.json["manifests"]] == [only]
    assert peer("DELETE", f"/v2/{REPO}/manifests/{only}").status == 202
    assert peer("GET", f"/v2/{REPO}/referrers/{ABSENT}").json["manifests"] == []


# --- content management ---


def test_management_delete_a_tag(peer: Peer) -> None:
    digest, _ = pushed(peer)
    assert peer("DELETE", f"/v2/{REPO}/manifests/tagtest0").status == 202
    assert peer("GET", f"/v2/{REPO}/manifests/tagtest0").status == 404
    assert peer("GET", f"/v2/{REPO}/manifests/{digest}").status == 200, "only the name went"
    assert peer("DELETE", f"/v2/{REPO}/manifests/tagtest0").status == 404


def test_management_delete_a_manifest(peer: Peer) -> None:
    digest, _ = pushed(peer)
    assert peer("DELETE", f"/v2/{REPO}/manifests/{digest}").status == 202
    for reference in (digest, "tagtest0"):
        assert peer("GET", f"/v2/{REPO}/manifests/{reference}").status == 404
    assert peer("GET", f"/v2/{REPO}/tags/list").json["tags"] == []
    assert is_error(peer("DELETE", f"/v2/{REPO}/manifests/{digest}"), 404, "MANIFEST_UNKNOWN")


def test_management_delete_a_blob(peer: Peer) -> None:
    digest, _ = pushed(peer)
    in_use = peer("DELETE", f"/v2/{REPO}/blobs/{sha(LAYER)}")
    assert is_error(in_use, 405, "UNSUPPORTED"), "it would break the image"
    peer("DELETE", f"/v2/{REPO}/manifests/{digest}")
    assert peer("DELETE", f"/v2/{REPO}/blobs/{sha(LAYER)}").status == 202
    assert peer("GET", f"/v2/{REPO}/blobs/{sha(LAYER)}").status == 404
    assert is_error(peer("DELETE", f"/v2/{REPO}/blobs/{sha(LAYER)}"), 404, "BLOB_UNKNOWN")


def test_management_deletion_stays_in_its_repository(peer: Peer) -> None:
    for repo in (REPO, OTHER):
        peer.image(repo, "v1", LAYER)
    digest = peer("HEAD", f"/v2/{REPO}/manifests/v1").headers["docker-content-digest"]
    assert peer("DELETE", f"/v2/{REPO}/manifests/{digest}").status == 202
    assert peer("DELETE", f"/v2/{REPO}/blobs/{sha(LAYER)}").status == 202
    assert peer("GET", f"/v2/{OTHER}/manifests/v1").status == 200
    assert peer("GET", f"/v2/{OTHER}/blobs/{sha(LAYER)}").body == LAYER
