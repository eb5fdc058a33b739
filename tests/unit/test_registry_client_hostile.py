"""A registry that lies: every lie is told with lading's own error, and nothing of it stays in the store."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registry_fake import Handler, Registry, serving
from registry_store import Host

from lading.base import errors
from lading.engine.access import Access
from lading.image import descriptor, digest

Lie = Callable[[Registry], None]
HEX = "0" * 64


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as made:
        yield made


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def raw(text: str, **more: str) -> Lie:
    """The manifest is this text; @layer, @config and @diff are filled in."""

    def lie(registry: Registry) -> None:
        layer, diff_id = registry.layer()
        data = text.replace("@layer", json.dumps(layer)).replace(
            "@config", json.dumps(registry.config([diff_id]))
        )
        registry.document(data.encode(), "1", **more)

    return lie


def changed(**changes: Any) -> Lie:
    def lie(registry: Registry) -> None:
        registry.image("1", **changes)

    return lie


def layer_changed(**changes: Any) -> Lie:
    def lie(registry: Registry) -> None:
        value = registry.image()
        value["layers"] = [value["layers"][0] | changes]
        registry.document(value, "1")

    return lie


def hooked(pattern: str, hook: Callable[[Handler], None]) -> Lie:
    def lie(registry: Registry) -> None:
        registry.image("1", layers=2)
        registry.on(pattern, hook)

    return lie


def other_content(registry: Registry) -> None:
    value = registry.image("1")
    name = value["layers"][0]["digest"]
    registry.blobs[name] = registry.blobs[name][:-1] + b"!"


def other_config(registry: Registry) -> None:
    value = registry.image("1")
    name = value["config"]["digest"]
    registry.blobs[name] = registry.blobs[name].replace(b"linux", b"LINUX")


def other_diff_id(registry: Registry) -> None:
    value = registry.image()
    registry.document(value | {"config": registry.config(["sha256:" + HEX])}, "1")


def bomb_in_the_config(registry: Registry) -> None:
    value = registry.image()
    name, size = registry.blob(b" " * (5 << 20))
    registry.document(value | {"config": value["config"] | {"digest": name, "size": size}}, "1")


def too_few_diff_ids(registry: Registry) -> None:
    value = registry.image(layers=2)
    registry.document(value | {"layers": value["layers"][:1]}, "1")


def broken_gzip(registry: Registry) -> None:
    value = registry.image()
    name, size = registry.blob(gzip.compress(b"x" * 4096)[:-20])
    layer = value["layers"][0] | {"digest": name, "size": size}
    registry.document(value | {"layers": [layer]}, "1")


def no_tar(registry: Registry) -> None:
    data = gzip.compress(b"no tar at all" * 100, mtime=0)
    name, size = registry.blob(data)
    value = registry.image()
    layer = value["layers"][0] | {"digest": name, "size": size}
    config = registry.config([digest.of(b"no tar at all" * 100)])
    registry.document(value | {"layers": [layer], "config": config}, "1")


def index_of(registry: Registry, *entries: dict[str, Any], name: str = "1") -> str:
    value = {"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": list(entries)}
    return registry.document(value, name)


def entry(name: str, size: int, media: str = descriptor.OCI_INDEX, **more: Any) -> dict[str, Any]:
    return {"mediaType": media, "digest": name, "size": size, **more}


def deep_index(registry: Registry) -> None:
    registry.image("image")
    media, data = registry.manifests["image"]
    name = digest.of(data)
    for level in range(6):
        name = index_of(registry, entry(name, len(data), media), name=f"level{level}")
        media, data = registry.manifests[name]
    registry.manifests["1"] = (media, data)


def cyclic_index(registry: Registry) -> None:
    """An index cannot hold its own digest, but a lying registry can send it under the digest it holds."""
    inner = index_of(registry, entry("sha256:" + "a" * 64, 10), name="inner")
    index_of(registry, entry(inner, len(registry.manifests[inner][1])))
    registry.manifests["sha256:" + "a" * 64] = registry.manifests[inner]


def lying_size_in_the_index(registry: Registry) -> None:
    registry.image("image")
    name = digest.of(registry.manifests["image"][1])
    index_of(registry, entry(name, 7, descriptor.OCI_MANIFEST))


def lying_type_in_the_index(registry: Registry) -> None:
    registry.image("image")
    data = registry.manifests["image"][1]
    index_of(registry, entry(digest.of(data), len(data), descriptor.DOCKER_MANIFEST))


def other_platforms(registry: Registry) -> None:
    registry.image("image", architecture="s390x")
    data = registry.manifests["image"][1]
    platform = {"os": "linux", "architecture": "s390x"}
    index_of(registry, entry(digest.of(data), len(data), descriptor.OCI_MANIFEST, platform=platform))


def truncated(handler: Handler) -> None:
    data = next(iter(handler.server.blobs.values()))
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """A blob without a length and without an end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(4096):
        handler.wfile.write(b"x" * 65536)


def slow_head(handler: Handler) -> None:
    handler.close_connection = True
    for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1000:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.1)


def slow_body(handler: Handler) -> None:
    handler.close_connection = True
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def silent(handler: Handler) -> None:
    handler.close_connection = True
    time.sleep(2.5)


def garbage(handler: Handler) -> None:
    handler.close_connection = True
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


def many_headers(handler: Handler) -> None:
    handler.send_response(200)
    for number in range(500):
        handler.send_header(f"X-{number}", "a" * 100)
    handler.end_headers()
    handler.close_connection = True


def wrong_range(handler: Handler) -> None:
    """The first answer breaks off; the second sends another part than was asked for."""
    data = max(handler.server.blobs.values(), key=len)
    if "Range" not in handler.headers:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:20])
        handler.close_connection = True
    else:
        handler.answer(206, data[:-20], Content_Range=f"bytes 0-{len(data) - 21}/{len(data)}")


def answering(status: int, body: bytes = b"", **headers: object) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, body, **headers)


MANIFEST = r"GET /v2/a/manifests/1"
BLOB = r"GET /v2/a/blobs/.*"
BIG = b'{"schemaVersion":2,"x":"' + b"a" * (4 << 20) + b'"}'
GOOD = '"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"'

LIES: dict[str, tuple[Lie, type[errors.LadingError], str]] = {
    "blob with other content": (other_content, errors.LadingError, "digest|damaged"),
    "config with other content": (other_config, errors.Invalid, "other content"),
    "layer that is not its diffID": (other_diff_id, errors.Invalid, "diffID"),
    "config larger than 4 MiB": (bomb_in_the_config, errors.Invalid, "too large"),
    "fewer layers than diffIDs": (too_few_diff_ids, errors.Invalid, "inconsistent"),
    "gzip that ends early": (broken_gzip, errors.Invalid, "damaged"),
    "layer that is no tar": (no_tar, errors.Invalid, "archive|tar|header"),
    "size smaller than the blob": (layer_changed(size=10), errors.Invalid, "sends|descriptor"),
    "size larger than the blob": (layer_changed(size=10_000), errors.LadingError, "descriptor says"),
    "negative size": (layer_changed(size=-1), errors.Invalid, "out of range"),
    "size that is no number": (layer_changed(size="9"), errors.Invalid, "whole number"),
    "overflowing size": (layer_changed(size=1 << 64), errors.Invalid, "out of range"),
    "digest as a path": (layer_changed(digest="sha256:../../../etc/passwd"), errors.Invalid, "malformed"),
    "digest in capitals": (layer_changed(digest="sha256:" + "A" * 64), errors.Invalid, "lower-case"),
    "unknown algorithm": (layer_changed(digest="md5:" + "0" * 32), errors.Unsupported, "md5"),
    "layer of an unknown type": (layer_changed(mediaType="text/html"), errors.Unsupported, "text/html"),
    "layer kept elsewhere": (
        layer_changed(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        errors.Unsupported, "media type",
    ),
    "artifact that is no image": (
        changed(config={"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + HEX, "size": 2}),
        errors.Unsupported, "not an image",
    ),
    "no config": (changed(config=None), errors.Invalid, "config"),
    "layers and manifests at once": (changed(manifests=[]), errors.Invalid, "ambiguous"),
    "duplicate keys": (raw("{" + GOOD + ',"config":@config,"layers":[@layer],"layers":[]}'), errors.Invalid, "twice"),
    "case-variant keys": (raw("{" + GOOD + ',"config":@config,"layers":[@layer],"Layers":[]}'), errors.Invalid, "writes"),
    "manifest of 4 MiB and more": (lambda r: void(r.document(BIG, "1")), errors.Invalid, "larger than"),
    "endless manifest": (hooked(MANIFEST, endless), errors.Invalid, "larger than"),
    "manifest that is no JSON": (raw("<html>"), errors.Invalid, "JSON"),
    "deeply nested JSON": (raw("[" * 100_000), errors.Invalid, "JSON"),
    "NaN in the manifest": (raw('{"schemaVersion":NaN}'), errors.Invalid, "JSON"),
    "schema 1": (
        raw('{"schemaVersion":1}', media="application/vnd.docker.distribution.manifest.v1+prettyjws"),
        errors.Unsupported, "schema 1",
    ),
    "sent as another type": (
        raw("{" + GOOD + ',"config":@config,"layers":[@layer]}', media=descriptor.OCI_INDEX), errors.Invalid, "ambiguous",
    ),
    "image sent as an index": (
        raw('{"schemaVersion":2,"config":@config,"layers":[@layer]}', media=descriptor.OCI_INDEX),
        errors.Invalid, "sent as",
    ),
    "manifest sent as HTML": (
        raw("{" + GOOD + ',"config":@config,"layers":[]}', media="text/html"), errors.Unsupported, "text/html",
    ),
    "another digest stated": (
        hooked(MANIFEST, answering(200, b'{"schemaVersion":2}', Docker_Content_Digest="sha256:" + HEX)),
        errors.Invalid, "does not match",
    ),
    "index nested too deep": (deep_index, errors.Invalid, "nested"),
    "index under another digest": (cyclic_index, errors.Invalid, "does not match"),
    "index with a lying size": (lying_size_in_the_index, errors.Invalid, "another size"),
    "index with a lying type": (lying_type_in_the_index, errors.Invalid, "its index promises"),
    "index of other platforms": (other_platforms, errors.NotFound, "linux/s390x"),
    "truncated blob": (hooked(BLOB, truncated), errors.LadingError, "early|digest|says"),
    "endless blob": (hooked(BLOB, endless), errors.Invalid, "sends more|other content"),
    "blob sent encoded": (
        hooked(BLOB, answering(200, b"", Content_Encoding="gzip")), errors.Invalid, "encoded|sends 0",
    ),
    "resumed at another place": (hooked(BLOB, wrong_range), errors.Invalid, "another part|other content|descriptor"),
    "head byte by byte": (hooked(MANIFEST, slow_head), errors.Unavailable, "in time"),
    "body byte by byte": (hooked(MANIFEST, slow_body), errors.Unavailable, "too slowly"),
    "silence": (hooked(MANIFEST, silent), errors.Unavailable, "in time"),
    "no HTTP at all": (hooked(MANIFEST, garbage), errors.Unavailable, "speak HTTP"),
    "five hundred headers": (hooked(MANIFEST, many_headers), errors.Unavailable, "speak HTTP"),
    "redirect for ever": (
        hooked(MANIFEST, answering(302, Location="/v2/a/manifests/1")), errors.Unavailable, "redirects more",
    ),
    "redirect to a file": (hooked(MANIFEST, answering(302, Location="file:///etc/passwd")), errors.Invalid, "no http"),
    "redirect with a password": (
        hooked(MANIFEST, answering(302, Location="http://root:pw@127.0.0.1/")), errors.Invalid, "user name",
    ),
    "redirect to nowhere": (hooked(MANIFEST, answering(302)), errors.Invalid, "nowhere"),
    "server fault without end": (hooked(MANIFEST, answering(500, b"\x1b[2Joops")), errors.Unavailable, "500"),
    "limit without end": (hooked(MANIFEST, answering(429, Retry_After="0")), errors.Unavailable, "limits"),
    "teapot": (hooked(MANIFEST, answering(418)), errors.Invalid, "418"),
}  # fmt: skip


def void(value: object) -> None:
    """Drop a value where a function that returns nothing is wanted."""


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_told_and_leaves_nothing(host: Host, registry: Registry, name: str) -> None:
    lie, kind, words = LIES[name]
    lie(registry)
    with pytest.raises(kind, match=words) as caught:
        host.verbs.pull(f"{registry.domain}/a:1")
    assert isinstance(caught.value, errors.LadingError)
    assert "\x1b" not in str(caught.value)
    host.nothing_is_left()


def test_the_digest_of_a_reference_counts(host: Host, registry: Registry) -> None:
    registry.image("1")
    registry.manifests["sha256:" + HEX] = registry.manifests["1"]
    with pytest.raises(errors.Invalid, match="does not match"):
        host.verbs.pull(f"{registry.domain}/a@sha256:{HEX}")
    host.nothing_is_left()


# --- credentials ---

SECRET = {"username": "ada", "password": "s3cret"}


def access(registry: Registry, **said: str) -> Access:
    return Access({registry.domain: said or SECRET})


def shown(registry: Registry) -> list[str]:
    """The Authorization headers that came."""
    return [headers["Authorization"] for _, _, headers in registry.seen if "Authorization" in headers]


def test_a_redirect_to_another_host_carries_no_credentials(host: Host, registry: Registry) -> None:
    with serving() as other:
        registry.image("1")
        registry.password = SECRET["password"]
        other.blobs = registry.blobs

        def away(handler: Handler) -> None:
            handler.answer(307, Location=f"{other.url}{handler.path}")

        registry.on(BLOB, away)
        host.verbs.pull(f"{registry.domain}/a:1", access=access(registry))
        assert other.seen and shown(registry)
        assert shown(other) == []


def test_another_host_that_asks_for_a_password_gets_none(host: Host, registry: Registry) -> None:
    with serving() as other:
        registry.image("1")
        other.password = "x"
        registry.on(BLOB, lambda handler: handler.answer(307, Location=f"{other.url}{handler.path}"))
        with pytest.raises(errors.Unauthenticated):
            host.verbs.pull(f"{registry.domain}/a:1", access=access(registry))
        assert shown(other) == []
    host.nothing_is_left()


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("http://198.51.100.7/token", "password sent|plain HTTP"),
        ("https://evil.example/token", "password sent"),
        ("http://169.254.169.254/latest", "this host|password"),
        ("ftp://x/", "no http"),
        ("", "no http"),
        ("http://a b/", "malformed"),
    ],
)
def test_a_realm_elsewhere_gets_no_password(host: Host, registry: Registry, realm: str, words: str) -> None:
    registry.image("1")
    registry.token, registry.realm = "t", realm
    with pytest.raises(errors.LadingError, match=words):
        host.verbs.pull(f"{registry.domain}/a:1", access=access(registry))
    host.nothing_is_left()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "no usable token"),
        (b'{"token":5}', "string"),
        (b'{"token":"a\\r\\nX-Evil: 1"}', "characters"),
        (b'{"token":"\xc3\xa9"}', "characters"),
        (b'{"token":"' + b"a" * (2 << 20) + b'"}', "larger"),
    ],
)
def test_a_broken_token_is_refused(host: Host, registry: Registry, answer: bytes, words: str) -> None:
    registry.image("1")
    registry.token = "t"
    registry.on(r"GET /token.*", lambda handler: handler.answer(200, answer))
    with pytest.raises(errors.LadingError, match=words):
        host.verbs.pull(f"{registry.domain}/a:1")
    host.nothing_is_left()


def test_a_token_endpoint_is_not_followed_elsewhere(host: Host, registry: Registry) -> None:
    with serving() as other:
        registry.image("1")
        registry.token = "t"
        registry.on(r"GET /token.*", lambda handler: handler.answer(302, Location=f"{other.url}/token"))
        with pytest.raises(errors.Unavailable, match="302"):
            host.verbs.pull(f"{registry.domain}/a:1", access=access(registry))
        assert other.seen == []


def test_a_refused_password_is_not_sent_for_ever(host: Host, registry: Registry) -> None:
    registry.image("1")
    registry.password = "another"
    with pytest.raises(errors.Unauthenticated, match="lading login"):
        host.verbs.pull(f"{registry.domain}/a:1", access=access(registry))
    assert len(shown(registry)) <= 2
    assert "s3cret" not in repr(access(registry))
