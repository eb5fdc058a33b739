"""Manifests, indexes, configs and changes to them: round trips, hostile documents, values that never
change."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.base import errors
from lading.image import chain, config, descriptor, digest, fields, manifest, mutate
from lading.image.config import ContainerConfig, Healthcheck, History, ImageConfig
from lading.image.descriptor import Descriptor, Platform
from lading.image.manifest import Index, Manifest

A, B, C = (digest.of(text) for text in (b"a", b"b", b"c"))

FULL = ImageConfig(
    architecture="arm64",
    variant="v8",
    created="2026-01-02T03:04:05.000000006Z",
    author="somebody",
    config=ContainerConfig(
        user="1000:1000",
        exposed_ports=("5000/tcp", "53/udp"),
        env=("PATH=/bin", "EMPTY=", "ÜMLAUT=ja"),
        entrypoint=("/bin/sh", "-c"),
        cmd=(),
        volumes=("/data",),
        working_dir="/app",
        labels={"a": "1", "b": ""},
        stop_signal="SIGINT",
        stop_timeout=0,
        healthcheck=Healthcheck(("CMD", "true"), 1, 2, 3, 4, 5),
        onbuild=("RUN x",),
        shell=("/bin/bash", "-c"),
        args_escaped=True,
    ),
    diff_ids=(A,),
    history=(
        History("2026-01-02T03:04:05Z", "FROM scratch", "c", "me"),
        History(created_by="ENV", empty_layer=True),
    ),
)


def test_a_config_comes_back_as_it_was() -> None:
    assert config.parse(FULL.encode()) == FULL


def test_the_encoding_is_always_the_same() -> None:
    shuffled = replace(FULL, config=replace(FULL.config, labels={"b": "", "a": "1"}))
    assert shuffled.encode() == FULL.encode()


def test_unset_and_empty_commands_differ() -> None:
    unset = config.parse(ImageConfig().encode()).config
    empty = config.parse(ImageConfig(config=ContainerConfig(cmd=(), entrypoint=())).encode()).config
    assert (unset.cmd, unset.entrypoint) == (None, None)
    assert (empty.cmd, empty.entrypoint) == ((), ())


def test_a_config_as_docker_writes_it() -> None:
    data = {
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "20.10",
        "container": "abc",
        "config": {
            "Hostname": "x",
            "AttachStdin": False,
            "Env": ["A=b"],
            "Cmd": ["sh"],
            "Image": "sha256:x",
            "Volumes": None,
            "Entrypoint": None,
            "OnBuild": None,
            "Labels": None,
        },
        "created": "2021-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [A]},
        "history": None,
    }
    found = config.parse(json.dumps(data).encode())
    assert found.config == ContainerConfig(env=("A=b",), cmd=("sh",))
    assert found.created_ns == 1609459200_000000000


def test_a_senseless_time_is_no_error() -> None:
    assert ImageConfig(created="yesterday").created_ns == 0


def _config_with(**changes: Any) -> bytes:
    obj: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [A]},
    }
    return json.dumps(obj | changes).encode()


BAD_CONFIGS = [
    b"",
    b"[]",
    b"null",
    b"{",
    b"\xff",
    b'{"rootfs": NaN}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{}",
    _config_with(rootfs=None),
    _config_with(rootfs={}),
    _config_with(rootfs={"type": "tree", "diff_ids": []}),
    _config_with(rootfs={"type": "layers", "diff_ids": [5]}),
    _config_with(rootfs={"type": "layers", "diff_ids": ["../../etc"]}),
    _config_with(rootfs={"type": "layers", "diff_ids": "x"}),
    _config_with(architecture=5),
    _config_with(config=[]),
    _config_with(config={"Env": "A=b"}),
    _config_with(config={"Env": [1]}),
    _config_with(config={"Env": ["A=\0"]}),
    _config_with(config={"Cmd": "sh"}),
    _config_with(config={"User": 0}),
    _config_with(config={"User": "a\0b"}),
    _config_with(config={"Labels": {"a": 1}}),
    _config_with(config={"Labels": []}),
    _config_with(config={"ExposedPorts": ["80"]}),
    _config_with(config={"Volumes": "x"}),
    _config_with(config={"StopTimeout": "10"}),
    _config_with(config={"StopTimeout": True}),
    _config_with(config={"Healthcheck": "x"}),
    _config_with(config={"Healthcheck": {"Retries": -1}}),
    _config_with(config={"Healthcheck": {"Interval": 1e9}}),
    _config_with(history=[5]),
    _config_with(history=[{"empty_layer": "yes"}]),
    _config_with(padding="x" * fields.LIMIT),
]


@pytest.mark.parametrize("data", BAD_CONFIGS, ids=lambda data: data[:60].decode("latin-1"))
def test_bad_configs(data: bytes) -> None:
    with pytest.raises(errors.Invalid):
        config.parse(data)


def _layer(name: str = A, media_type: str = descriptor.OCI_LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type, name, 3)


MANIFEST = Manifest(Descriptor(descriptor.OCI_CONFIG, C, 7), (_layer(A), _layer(B)), annotations={"k": "v"})


def test_a_manifest_comes_back_as_it_was() -> None:
    assert manifest.parse(MANIFEST.encode()) == MANIFEST


def test_a_docker_manifest_is_read() -> None:
    found = Manifest(
        Descriptor(descriptor.DOCKER_CONFIG, C, 7),
        (_layer(A, descriptor.DOCKER_LAYER_GZIP),),
        descriptor.DOCKER_MANIFEST,
    )
    assert manifest.parse(found.encode()) == found


def test_an_index_comes_back_and_selects() -> None:
    amd = Descriptor(descriptor.OCI_MANIFEST, A, 1, platform=Platform("linux", "amd64"))
    v6 = Descriptor(descriptor.OCI_MANIFEST, B, 1, platform=Platform("linux", "arm", "v6"))
    v7 = Descriptor(descriptor.OCI_MANIFEST, C, 1, platform=Platform("linux", "arm", "v7"))
    index = Index((amd, v6, v7))
    assert manifest.parse(index.encode()) == index
    assert index.select(Platform("linux", "amd64")) == amd
    assert index.select(Platform("linux", "amd64", "v3")) == amd
    assert index.select(Platform("linux", "arm", "v7")) == v7
    assert index.select(Platform("linux", "arm")) == v6
    with pytest.raises(errors.NotFound, match=r"linux/riscv64.*linux/amd64, linux/arm/v6"):
        index.select(Platform("linux", "riscv64"))


def _manifest_with(**changes: Any) -> bytes:
    obj = json.loads(MANIFEST.encode())
    obj.update(changes)
    return json.dumps({key: value for key, value in obj.items() if value is not ...}).encode()


BAD_MANIFESTS = [
    b"{}",
    _manifest_with(schemaVersion=1),
    _manifest_with(schemaVersion="2"),
    _manifest_with(mediaType="text/plain"),
    _manifest_with(mediaType=descriptor.OCI_INDEX),
    _manifest_with(manifests=[]),
    _manifest_with(manifests=[], layers=..., config=..., mediaType=descriptor.OCI_MANIFEST),
    _manifest_with(config=...),
    _manifest_with(config={"digest": A}),
    _manifest_with(config={"digest": "x", "size": 1}),
    _manifest_with(layers={}),
    _manifest_with(layers=["x"]),
    _manifest_with(layers=[{"digest": A, "size": -1}]),
    _manifest_with(layers=[{"digest": A, "size": 1 << 64}]),
    _manifest_with(layers=[{"digest": A, "size": 1.5}]),
    _manifest_with(layers=[{"digest": A, "size": True}]),
    _manifest_with(layers=[{"digest": A, "size": 1, "urls": "x"}]),
    _manifest_with(layers=[{"digest": A, "size": 1, "platform": "x"}]),
    _manifest_with(layers=[{"digest": A, "size": 1}] * 1001),
    _manifest_with(annotations={"a": 1}),
]


@pytest.mark.parametrize("data", BAD_MANIFESTS, ids=lambda data: data[-70:].decode())
def test_bad_manifests(data: bytes) -> None:
    with pytest.raises((errors.Invalid, errors.Unsupported)):
        manifest.parse(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "schemaVersion",
                "mediaType",
                "config",
                "layers",
                "manifests",
                "annotations",
                "rootfs",
                "history",
                "os",
                "created",
            ]
        ),
        json_values | st.just(2) | st.just([]) | st.just({"type": "layers", "diff_ids": []}),
    )
)
def test_any_document_is_read_or_refused_in_words(obj: dict[str, Any]) -> None:
    data = json.dumps(obj).encode()
    for parse in (manifest.parse, config.parse):
        try:
            parse(data)
        except errors.LadingError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("arm64", Platform("linux", "arm64")),
        ("linux/x86_64", Platform("linux", "x86_64")),
        ("aarch64", Platform("linux", "arm64")),
    ],
)
def test_platforms(text: str, expected: Platform) -> None:
    if "_" in text:
        with pytest.raises(errors.Invalid):
            descriptor.parse_platform(text)
        return
    assert descriptor.parse_platform(text) == expected


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "linux/am d64", "linux/ä"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(errors.Invalid):
        descriptor.parse_platform(text)


def test_chain_ids_follow_the_specification() -> None:
    # config.md: ChainID(L0|L1) = Digest(ChainID(L0) + " " + DiffID(L1))
    first, second = chain.ids([A, B])
    assert first == A
    assert second == digest.of(f"{A} {B}".encode())
    assert chain.extend(first, B) == second
    assert chain.ids([]) == []


def test_appending_makes_a_new_image_and_leaves_the_old_one() -> None:
    start = mutate.Draft(mutate.EMPTY)
    one = mutate.append(
        start, mutate.Layer(_layer(A), B), History(created_by="RUN a", created="2026-01-01T00:00:00Z")
    )
    two = mutate.append_empty(one, History(created_by="ENV b"))
    three = mutate.configure(two, lambda c: replace(c, env=("A=b",)))
    assert start == mutate.Draft(mutate.EMPTY)
    assert one.layers == two.layers == (_layer(A),)
    assert two.config.diff_ids == (B,)
    assert [entry.empty_layer for entry in three.config.history] == [False, True]
    assert three.config.created == "2026-01-01T00:00:00Z"
    assert two.config.config.env == ()
    assert len({one.image_id, two.image_id, three.image_id}) == 3
    with pytest.raises(FrozenInstanceError):
        one.layers = ()  # type: ignore[misc]


def test_a_draft_of_a_docker_image_speaks_oci() -> None:
    stored = Manifest(
        Descriptor(descriptor.DOCKER_CONFIG, C, 7),
        (_layer(A, descriptor.DOCKER_LAYER_GZIP),),
        descriptor.DOCKER_MANIFEST,
    )
    draft = mutate.draft(stored, ImageConfig(diff_ids=(B,)))
    assert draft.layers == (_layer(A),)
    made = draft.manifest()
    assert made.media_type == descriptor.OCI_MANIFEST
    assert made.config.digest == draft.image_id == digest.of(draft.config.encode())
    with pytest.raises(errors.Invalid):
        mutate.draft(stored, ImageConfig())
