"""Whatever a client sends, the registry's parsers give a value within bounds or the registry's own error."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from lading.base.errors import Invalid
from lading.registry.server import documents, htpasswd, paths, pull
from lading.registry.server.failures import Refusal

SEGMENTS = st.sampled_from(
    [
        "v2",
        "a",
        "..",
        ".",
        "",
        "%2e%2e",
        "%00",
        "blobs",
        "uploads",
        "manifests",
        "tags",
        "list",
        "referrers",
        "_catalog",
    ]
) | st.text(max_size=20)
TARGETS = st.lists(SEGMENTS, max_size=10).map(lambda parts: "/" + "/".join(parts)) | st.text(max_size=200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "manifests",
            "subject",
            "artifactType",
            "annotations",
        ]
    ),
    JSON | st.just(2) | st.just({"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": 1}),
    max_size=8,
)


@given(TARGETS)
@example("/v2/blobs/uploads/blobs/uploads/")
@example("/v2/a/blobs/uploads/" + "0" * 32)
def test_any_path(target: str) -> None:
    try:
        route = paths.parse(quote(target, safe="/%:@") if not target.isascii() else target)
    except Refusal as refusal:
        assert refusal.status in (400, 404)
        return
    for text in (route.name, route.reference):
        assert "\0" not in text and ".." not in text.split("/") and len(text) <= 255
        assert text.isascii() and text.isprintable()
    assert not route.name.startswith("/") and "/" not in route.reference


@given(
    st.text(max_size=60) | st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}", fullmatch=True),
    st.integers(0, 1 << 40),
)
def test_any_range(text: str, size: int) -> None:
    try:
        found = pull.ranged(text, size)
    except Refusal as refusal:
        assert refusal.status == 416
        return
    if found is not None:
        offset, length = found
        assert 0 <= offset < size and 0 < length <= size - offset


@given(st.binary(max_size=300) | FIELDS.map(lambda value: json.dumps(value).encode()), st.text(max_size=40))
def test_any_manifest(data: bytes, content_type: str) -> None:
    try:
        found = documents.read(data, content_type)
    except Refusal as refusal:
        assert refusal.code == "MANIFEST_INVALID"
        return
    for digest in (*found.blobs, *found.manifests, *filter(None, [found.subject])):
        assert digest.startswith(("sha256:", "sha512:"))


@given(st.binary(max_size=300) | st.text(alphabet="ab:$2y#\n \0", max_size=80).map(str.encode))
def test_any_file_of_users(data: bytes) -> None:
    try:
        users = htpasswd.parse(data, "users")
    except Invalid:
        return
    assert all(user and hashed.startswith("$") for user, hashed in users.items())
