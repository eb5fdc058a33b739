"""Pull and push against a registry that keeps the rules: what is asked, what is stored, what is told, what is spared."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registry_fake import Handler, Registry, closed_port, serving
from registry_store import Host

from lading.base import errors
from lading.engine.access import Access, domain_of
from lading.image import descriptor, digest, validate
from lading.registry.client import push as pushing
from lading.registry.client.settings import Settings


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as made:
        yield made


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(settings: Settings = Settings(), **options: Any) -> Host:  # noqa: B008
        root = tmp_path / str(len(made))
        root.mkdir()
        made.append(Host(root, settings, **options))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def host(hosts: Callable[..., Host]) -> Host:
    return hosts()


def paths(registry: Registry, method: str = "GET") -> list[str]:
    return [path for kind, path, _ in registry.seen if kind == method]


def lines() -> tuple[list[str], Callable[[dict[str, Any]], None]]:
    found: list[str] = []

    def report(line: dict[str, Any]) -> None:
        if not line.get("progressDetail") and "status" in line:
            found.append(f"{line['id']}: {line['status']}" if "id" in line else line["status"])

    return found, report


def test_a_pull_stores_a_sound_image_and_tells_it_as_docker_does(host: Host, registry: Registry) -> None:
    value = registry.image("1", layers=2)
    told, report = lines()
    name = f"{registry.domain}/some/a:1"
    image_id = host.verbs.pull(name, progress=report)
    image = host.images.get(name)
    assert image.id == image_id == value["config"]["digest"]
    assert validate.image(host.blobs.open, image.manifest_digest) == []
    assert host.snapshots.exists(image.chain_id or "")
    short = [layer["digest"][7:19] for layer in value["layers"]]
    assert told[:3] == ["1: Pulling from some/a", *(f"{name}: Pulling fs layer" for name in short)]
    assert [line for line in told if "Pull complete" in line] == [f"{name}: Pull complete" for name in short]
    assert told[-2:] == [f"Digest: {image.manifest_digest}", f"Status: Downloaded newer image for {name}"]
    assert host.said == [("image", "pull")]


def test_a_second_pull_fetches_no_layer(host: Host, registry: Registry) -> None:
    registry.image("1")
    host.verbs.pull(f"{registry.domain}/a:1")
    registry.seen.clear()
    told, report = lines()
    host.verbs.pull(f"{registry.domain}/a:1", progress=report)
    assert told[-1] == f"Status: Image is up to date for {registry.domain}/a:1"
    assert len([path for path in paths(registry) if "/blobs/" in path]) == 1  # the config


def test_by_digest_and_by_platform(host: Host, registry: Registry) -> None:
    registry.image("arm", architecture="arm64")
    registry.image("amd", architecture="amd64")
    entries = []
    for name, architecture in (("arm", "arm64"), ("amd", "amd64")):
        media, data = registry.manifests[name]
        entries.append(
            {"mediaType": media, "digest": digest.of(data), "size": len(data),
             "platform": {"os": "linux", "architecture": architecture}}
        )  # fmt: skip
    entries.append({**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}})
    top = registry.document(
        {"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": entries}, "1"
    )
    host.verbs.pull(f"{registry.domain}/a@{top}", "linux/arm64")
    image = host.images.get(f"{registry.domain}/a@{top}")
    assert image.config.architecture == "arm64"
    assert image.references == (f"{registry.domain}/a@{top}",)
    with pytest.raises(errors.NotFound, match=r"linux/amd64, linux/arm64"):
        host.verbs.pull(f"{registry.domain}/a:1", "linux/s390x")
    with pytest.raises(errors.NotFound, match="only one for linux/arm64"):
        host.verbs.pull(f"{registry.domain}/a:arm", "linux/amd64")


def test_a_broken_transfer_goes_on_where_it_broke(host: Host, registry: Registry) -> None:
    value = registry.image()
    import os

    layer, diff_id = registry.layer("big", os.urandom(300_000))
    registry.document(value | {"layers": [layer], "config": registry.config([diff_id])}, "1")
    data = registry.blobs[layer["digest"]]

    def breaks(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start : start + 100_000])
        handler.close_connection = True

    registry.on(f"GET /v2/a/blobs/{layer['digest']}", breaks)
    host.verbs.pull(f"{registry.domain}/a:1")
    ranges = [headers.get("Range") for _, path, headers in registry.seen if path.endswith(layer["digest"])]
    assert ranges == [None, *(f"bytes={at}-{len(data) - 1}" for at in (100_000, 200_000, 300_000))]


def test_a_registry_without_ranges_is_read_again(host: Host, registry: Registry) -> None:
    registry.image("1")
    registry.ranges = False
    broken = []

    def breaks(handler: Handler) -> None:
        name = handler.path.rpartition("/")[2]
        if broken:
            handler._blob(name)
            return
        broken.append(name)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(registry.blobs[name])))
        handler.end_headers()
        handler.wfile.write(registry.blobs[name][:50])
        handler.close_connection = True

    registry.on(r"GET /v2/a/blobs/.*", breaks)
    host.verbs.pull(f"{registry.domain}/a:1")
    assert broken


def test_trouble_that_passes_is_waited_for(host: Host, registry: Registry) -> None:
    registry.image("1")
    left = [503, 429]

    def troubled(handler: Handler) -> None:
        if left:
            handler.answer(left.pop())
        else:
            handler._route()

    registry.on(r"GET /v2/a/manifests/1", troubled)
    host.verbs.pull(f"{registry.domain}/a:1")
    assert not left


def test_two_pulls_of_one_layer_fetch_it_once(host: Host, registry: Registry) -> None:
    value = registry.image("1")
    name = value["layers"][0]["digest"]

    def slow(handler: Handler) -> None:
        time.sleep(0.3)
        handler._blob(name)

    registry.on(f"GET /v2/.*/blobs/{name}", slow)
    failures: list[BaseException] = []

    def pull(path: str) -> None:
        try:
            host.verbs.pull(f"{registry.domain}/{path}:1")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=pull, args=(path,)) for path in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len([path for path in paths(registry) if path.endswith(name)]) == 1
    assert len(host.images.list()[0].references) == 3


def test_a_sweep_during_a_pull_takes_nothing(host: Host, registry: Registry) -> None:
    value = registry.image("1", layers=3)
    last = value["layers"][-1]["digest"]

    def sweeping(handler: Handler) -> None:
        host.images.sweep()
        handler._blob(last)

    registry.on(f"GET /v2/a/blobs/{last}", sweeping)
    host.verbs.pull(f"{registry.domain}/a:1")
    image = host.images.get(f"{registry.domain}/a:1")
    assert validate.image(host.blobs.open, image.manifest_digest) == []


def test_a_cancelled_pull_ends_at_once_and_leaves_nothing(host: Host, registry: Registry) -> None:
    registry.image("1")
    access = Access()

    def stuck(handler: Handler) -> None:
        access.cancel()
        time.sleep(0.5)
        handler.close_connection = True

    registry.on(r"GET /v2/a/blobs/.*", stuck)
    with pytest.raises(errors.LadingError, match="cancelled"):
        host.verbs.pull(f"{registry.domain}/a:1", access=access)
    host.nothing_is_left()


def test_a_pull_is_cancelled_while_it_unpacks(
    host: Host, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.image("1")
    access = Access()
    real = host.snapshots.apply

    def apply(parent: str | None, committed: str, tar: Any, diff_id: str = "") -> None:
        access.cancel()
        real(parent, committed, tar, diff_id)

    monkeypatch.setattr(host.snapshots, "apply", apply)
    with pytest.raises(errors.Cancelled):
        host.verbs.pull(f"{registry.domain}/a:1", access=access)
    host.nothing_is_left()


def test_a_full_disk_is_told_and_leaves_nothing(
    host: Host, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    value = registry.image("1", layers=2)
    real = os.write
    last = registry.blobs[value["layers"][-1]["digest"]]

    def full(fd: int, data: Any) -> int:
        if bytes(data[:64]) == last[:64]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("lading.store.blobs.os.write", full)
    with pytest.raises(errors.Unavailable, match="No space left"):
        host.verbs.pull(f"{registry.domain}/a:1")
    monkeypatch.undo()
    host.nothing_is_left()


def test_mirrors_come_first_and_see_no_credentials(hosts: Callable[..., Host], registry: Registry) -> None:
    with serving() as mirror, serving() as poor:
        registry.image("1")
        mirror.image("1")
        registry.password = "s3cret"
        host = hosts(
            Settings(mirrors={registry.domain: (poor.url, f"http://127.0.0.1:{closed_port()}", mirror.url)})
        )
        access = Access({registry.domain: {"username": "ada", "password": "s3cret"}})
        host.verbs.pull(f"{registry.domain}/a:1", access=access)
        assert paths(poor) and paths(mirror) and paths(registry) in ([], ["/v2/"])
        assert not [1 for _, _, headers in (*mirror.seen, *poor.seen) if "Authorization" in headers]
        mirror.blobs.clear()
        host.images.remove(host.images.list()[0].id)
        host.verbs.pull(f"{registry.domain}/a:1", access=access)
        assert any("/blobs/" in path for path in paths(registry))


@pytest.mark.parametrize("bearer", [False, True])
def test_credentials(host: Host, registry: Registry, bearer: bool) -> None:
    registry.image("1")
    registry.password = "s3cret"
    registry.token = "tok.en" if bearer else ""
    name = f"{registry.domain}/some/a:1"
    with pytest.raises(errors.Unauthenticated):
        host.verbs.pull(name)
    access = Access({registry.domain: {"username": "ada", "password": "s3cret"}})
    host.verbs.pull(name, access=access)
    if bearer:
        asked = [path for path in paths(registry) if path.startswith("/token")][-1]
        assert "scope=repository%3Asome%2Fa%3Apull" in asked and "service=fake" in asked
    host.verbs.login({"username": "ada", "password": "s3cret", "serveraddress": registry.url})
    with pytest.raises(errors.Unauthenticated):
        host.verbs.login({"username": "ada", "password": "wrong", "serveraddress": registry.domain})
    with pytest.raises(errors.Unauthenticated):  # another registry's credentials are not offered
        host.verbs.pull(name, access=Access({"other.example": {"username": "ada", "password": "s3cret"}}))


def test_an_expired_token_is_fetched_anew(host: Host, registry: Registry) -> None:
    registry.image("1")
    registry.token = "one"
    host.verbs.pull(f"{registry.domain}/a:1", progress=lambda line: setattr(registry, "token", "two"))
    assert "Bearer two" in {headers.get("Authorization") for _, _, headers in registry.seen}


# --- push ---


def test_a_push_and_the_pull_of_it(hosts: Callable[..., Host], registry: Registry) -> None:
    with serving() as source:
        source.image("1", layers=2)
        host = hosts()
        host.verbs.pull(f"{source.domain}/a:1")
        target = f"{registry.domain}/team/b:2"
        host.images.tag(f"{source.domain}/a:1", target)
        told, report = lines()
        host.verbs.push(target.rpartition(":")[0], "2", report)
        image = host.images.get(target)
        assert told[0] == f"The push refers to repository [{registry.domain}/team/b]"
        assert told[-1].startswith(f"2: digest: {image.manifest_digest} size: ")
        assert len([line for line in told if line.endswith("Pushed")]) == 2
        registry.seen.clear()
        host.verbs.push(target)
        assert paths(registry, "POST") == []  # everything is there
        fresh = hosts()
        fresh.verbs.pull(target)
        assert fresh.images.get(target).manifest_digest == image.manifest_digest


def test_layers_of_a_neighbour_are_mounted(host: Host, registry: Registry) -> None:
    value = registry.image("1")
    host.verbs.pull(f"{registry.domain}/a:1")
    registry.mountable, registry.blobs = registry.blobs, {}
    host.images.tag(f"{registry.domain}/a:1", f"{registry.domain}/b:1")
    told, report = lines()
    host.verbs.push(f"{registry.domain}/b:1", progress=report)
    name = value["layers"][0]["digest"]
    assert f"{name[7:19]}: Mounted from a" in told
    assert paths(registry, "POST")[0] == f"/v2/b/blobs/uploads/?mount={name}&from=a"


def test_what_is_refused_whole_is_sent_in_chunks(hosts: Callable[..., Host], registry: Registry) -> None:
    with serving() as source:
        source.image("1")
        host = hosts(piece=100)
        host.verbs.pull(f"{source.domain}/a:1")
        host.images.tag(f"{source.domain}/a:1", f"{registry.domain}/b:1")

        def too_large(handler: Handler) -> None:
            if int(handler.headers.get("Content-Length") or 0):
                handler.body()
                handler.answer(413)
            else:
                handler._route()

        registry.on(r"PUT /v2/b/blobs/.*", too_large)
        host.verbs.push(f"{registry.domain}/b:1")
        assert len(paths(registry, "PATCH")) > 1
        ranges = [headers["Content-Range"] for kind, _, headers in registry.seen if kind == "PATCH"]
        assert ranges[:2] == ["0-99", "100-" + ranges[1].partition("-")[2]]
        assert set(registry.blobs) == set(source.blobs)


def test_a_registry_that_changes_what_it_is_sent_is_told(
    hosts: Callable[..., Host], registry: Registry
) -> None:
    registry.image("1")
    host = hosts()
    host.verbs.pull(f"{registry.domain}/a:1")
    registry.on(
        r"PUT /v2/a/manifests/1",
        lambda handler: handler.answer(201, Docker_Content_Digest="sha256:" + "0" * 64),
    )
    with pytest.raises(errors.Invalid, match="another manifest"):
        host.verbs.push(f"{registry.domain}/a:1")
    with pytest.raises(errors.NotFound):
        host.verbs.push(f"{registry.domain}/nosuch:1")
    with pytest.raises(errors.Invalid, match="digest"):
        host.verbs.push(f"{registry.domain}/a@sha256:" + "0" * 64)


def test_distribution_inspect(host: Host, registry: Registry) -> None:
    registry.image("1", architecture="arm64")
    found = host.verbs.distribution(f"{registry.domain}/a:1")
    assert found["Descriptor"]["digest"] == digest.of(registry.manifests["1"][1])
    assert found["Platforms"] == [{"architecture": "arm64", "os": "linux"}]
    assert json.loads(registry.manifests["1"][1])["mediaType"] == found["Descriptor"]["mediaType"]


def test_nobody_there_is_told_with_what_to_do(host: Host) -> None:
    with pytest.raises(errors.Unavailable, match=r"Connection refused.*lading bootstrap"):
        host.verbs.pull(f"127.0.0.1:{closed_port()}/a:1")


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry.example", "registry.example"),
        ("https://registry.example:5000/v2/", "registry.example:5000"),
        ("localhost:5000", "localhost:5000"),
    ],
)
def test_the_registry_of_a_server_address(address: str, domain: str) -> None:
    assert domain_of(address) == domain


def test_chunks_are_larger_than_what_registries_ask_for_least() -> None:
    assert pushing.PIECE >= 5 << 20  # the least part of S3, on which registries stand
