"""Images in tar files: both layouts, any order and compression, hostile and damaged ones, nothing left of a
refused one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from image_archives import file, hardlink, symlink, tar
from test_store_images import Store

from lading.base import errors
from lading.image import digest, validate
from lading.image.config import History
from lading.image.layer.compress import write_layer
from lading.image.mutate import EMPTY, Draft, append
from lading.store import archive


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "one")
    yield made
    made.db.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "two")
    yield made
    made.db.close()


def save(store: Store, *refs: str) -> bytes:
    out = io.BytesIO()
    archive.save(store.images, refs, out.write)
    return out.getvalue()


def load(store: Store, data: bytes) -> list[str]:
    return archive.load(store.blobs, store.images, io.BytesIO(data))


def test_what_is_saved_can_be_loaded(store: Store, other: Store) -> None:
    image = store.image("app:v1", "a", "b")
    store.images.tag("app:v1", "registry.example.com/team/app:v1")
    data = save(store, "app:v1", "registry.example.com/team/app:v1")
    assert load(other, data) == ["app:v1", "registry.example.com/team/app:v1"]
    found = other.images.get("app:v1")
    assert (found.id, found.manifest_digest, found.references) == (
        image.id,
        image.manifest_digest,
        store.images.get("app:v1").references,
    )
    assert validate.image(other.blobs.open, found.manifest_digest) == []
    assert other.snapshots.exists(found.chain_id or "")
    assert save(other, "app:v1", "registry.example.com/team/app:v1") == data


def test_several_images_share_their_blobs(store: Store, other: Store) -> None:
    store.image("one", "base", "x")
    store.image("two", "base", "y")
    data = save(store, "one", "two", "one")
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        names = found.getnames()
    assert len([name for name in names if name.startswith("blobs/sha256/")]) == 3 + 2 + 2
    assert sorted(load(other, data)) == ["one:latest", "two:latest"]


def test_an_image_saved_by_id_has_no_name(store: Store, other: Store) -> None:
    image = store.image("app", "a")
    assert load(other, save(store, image.id)) == [image.id]
    assert other.images.get(image.id).references == ()


def test_the_name_and_not_the_look_decides(store: Store) -> None:
    store.image("fade", "a")  # could be the beginning of an id
    documents = _documents(save(store, "fade"))
    assert documents["manifest.json"][0]["RepoTags"] == ["fade:latest"]


def test_saving_what_is_not_there(store: Store) -> None:
    with pytest.raises(errors.NotFound):
        save(store, "missing")
    with pytest.raises(errors.Invalid):
        save(store)


def _documents(data: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        return {
            name: json.load(found.extractfile(name))  # type: ignore[arg-type]
            for name in ("index.json", "manifest.json", "oci-layout")
        }


def test_both_layouts_are_there(store: Store) -> None:
    image = store.image("team/app:v1", "a")
    documents = _documents(save(store, "team/app:v1"))
    assert documents["oci-layout"] == {"imageLayoutVersion": "1.0.0"}
    (entry,) = documents["index.json"]["manifests"]
    assert entry["digest"] == image.manifest_digest
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/team/app:v1"
    (docker,) = documents["manifest.json"]
    assert docker["RepoTags"] == ["team/app:v1"]
    assert docker["Config"] == f"blobs/sha256/{digest.encoded(image.id)}"
    assert docker["Layers"] == [f"blobs/sha256/{digest.encoded(image.manifest.layers[0].digest)}"]


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_archives(store: Store, other: Store, squeeze: Any) -> None:
    store.image("app", "a")
    assert load(other, squeeze(save(store, "app"))) == ["app:latest"]


class Docker:
    """A docker-archive of the old kind, made by hand."""

    def __init__(self) -> None:
        self.layer = tar(file("d/x")).getvalue()
        self.config = append(
            Draft(EMPTY),
            write_layer_value(self.layer),
            History(created_by="old", created="2020-01-01T00:00:00Z"),
        ).config.encode()
        self.entry = {
            "Config": "cfg.json",
            "RepoTags": ["old/app:1", "old/app:2"],
            "Layers": ["abc/layer.tar"],
        }

    def members(self) -> list[Any]:
        return [
            file("abc/VERSION", b"1.0"),
            file("abc/json", b"{}"),
            file("abc/layer.tar", self.layer),
            file("cfg.json", self.config),
            file("manifest.json", json.dumps([self.entry]).encode()),
            file("repositories", b"{}"),
        ]


def write_layer_value(data: bytes) -> Any:
    from lading.image.descriptor import OCI_LAYER, Descriptor
    from lading.image.mutate import Layer

    return Layer(Descriptor(OCI_LAYER, digest.of(data), len(data)), digest.of(data))


@pytest.mark.parametrize("backwards", [False, True])
def test_an_old_docker_archive(other: Store, backwards: bool) -> None:
    docker = Docker()
    members = docker.members()[:: -1 if backwards else 1]
    assert load(other, tar(*members).getvalue()) == ["old/app:1", "old/app:2"]
    image = other.images.get("old/app:1")
    assert image.id == digest.of(docker.config)
    assert validate.image(other.blobs.open, image.manifest_digest) == []


@pytest.mark.parametrize(
    "link",
    [
        symlink("abc/layer.tar", "../real.tar"),
        hardlink("abc/layer.tar", "real.tar"),
        symlink("abc/layer.tar", "/real.tar"),
    ],
)
def test_layers_behind_links(other: Store, link: Any) -> None:
    docker = Docker()
    members = [file("real.tar", docker.layer), link, file("cfg.json", docker.config), docker.members()[4]]
    assert load(other, tar(*members).getvalue()) == ["old/app:1", "old/app:2"]


def test_compressed_layers_in_a_docker_archive(other: Store) -> None:
    docker = Docker()
    members = docker.members()
    members[2] = file("abc/layer.tar", gzip.compress(docker.layer))
    assert load(other, tar(*members).getvalue()) == ["old/app:1", "old/app:2"]
    assert other.images.get("old/app:1").manifest.layers[0].media_type.endswith("+gzip")


def _changed(**changes: Any) -> bytes:
    docker = Docker()
    docker.entry |= changes
    return tar(*docker.members()).getvalue()


def _without(*names: str) -> bytes:
    docker = Docker()
    return tar(*[member for member in docker.members() if member[0].name.decode() not in names]).getvalue()


def _replaced(name: str, data: bytes) -> bytes:
    docker = Docker()
    return tar(
        *[file(name, data) if member[0].name.decode() == name else member for member in docker.members()]
    ).getvalue()


REFUSED = {
    "empty": b"",
    "empty tar": tar().getvalue(),
    "no tar": b"hello, world" * 100,
    "a root file system": tar(file("etc/passwd")).getvalue(),
    "damaged gzip": gzip.compress(tar(file("x")).getvalue())[:-10],
    "no config": _without("cfg.json"),
    "no layer": _without("abc/layer.tar"),
    "layer outside": _changed(Layers=["../../../../etc/passwd"]),
    "absolute layer": _changed(Layers=["/etc/passwd"]),
    "config outside": _changed(Config="/etc/passwd"),
    "too few layers": _changed(Layers=[]),
    "too many layers": _changed(Layers=["abc/layer.tar"] * 2),
    "layers no list": _changed(Layers="abc/layer.tar"),
    "layer no string": _changed(Layers=[5]),
    "bad tag": _changed(RepoTags=["Not A Tag"]),
    "tags no list": _changed(RepoTags="x"),
    "manifest no list": _replaced("manifest.json", b"{}"),
    "manifest no json": _replaced("manifest.json", b"["),
    "manifest injected": _replaced("manifest.json", b'[]},{"x":1'),
    "config no json": _replaced("cfg.json", b"nonsense"),
    "other layer than the config says": _replaced("abc/layer.tar", tar(file("evil")).getvalue()),
    "layer no tar": _replaced("abc/layer.tar", b"nonsense" * 200),
    "blob with a false name": tar(file("blobs/sha256/" + "0" * 64, b"x")).getvalue(),
    "blob with no digest": tar(file("blobs/sha256/x", b"x")).getvalue(),
    "link loop": tar(
        symlink("a", "b"), symlink("b", "a"), file("manifest.json", b'[{"Config":"a"}]')
    ).getvalue(),
    "index no index": tar(file("index.json", b"{}")).getvalue(),
    "index of nothing": tar(file("index.json", b'{"schemaVersion":2,"manifests":[]}')).getvalue(),
    "index too large": tar(file("index.json", b" " * (5 << 20))).getvalue(),
    "hostile layer": b"",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_archives_leave_nothing(other: Store, case: str) -> None:
    data = REFUSED[case]
    if case == "hostile layer":
        docker = Docker()
        docker.layer = tar(file("../../evil")).getvalue()
        docker.config = append(Draft(EMPTY), write_layer_value(docker.layer), History()).config.encode()
        data = tar(*docker.members()).getvalue()
    with pytest.raises((errors.Invalid, errors.NotFound, errors.Unsupported)):
        load(other, data)
    assert list(other.blobs.list()) == []
    assert other.images.list() == ()
    assert other.snapshots.keys() == []


def test_the_good_half_of_a_bad_image_does_not_stay(other: Store) -> None:
    good, evil = tar(file("x")).getvalue(), tar(file("../evil")).getvalue()
    draft = Draft(EMPTY)
    for data in (good, evil):
        draft = append(draft, write_layer_value(data), History())
    entry = {"Config": "c", "RepoTags": ["bad:1"], "Layers": ["1", "2"]}
    members = [
        file("1", good),
        file("2", evil),
        file("c", draft.config.encode()),
        file("manifest.json", json.dumps([entry]).encode()),
    ]
    with pytest.raises(errors.Invalid, match="leads out"):
        load(other, tar(*members).getvalue())
    assert (list(other.blobs.list()), other.snapshots.keys(), other.images.list()) == ([], [], ())


def test_a_refused_archive_takes_nothing_that_was_there(store: Store, other: Store) -> None:
    kept = other.image("kept", "a")
    store.image("kept", "a")
    data = save(store, "kept")
    with pytest.raises(errors.Invalid):
        load(other, data[: len(data) // 2])
    assert validate.image(other.blobs.open, kept.manifest_digest) == []


def test_an_index_within_an_index_is_followed_and_foreign_platforms_passed_over(
    store: Store, other: Store
) -> None:
    from lading.image import descriptor
    from lading.image.descriptor import Descriptor, Platform
    from lading.image.manifest import Index

    image = store.image("app", "a")
    with store.blobs.open(image.manifest_digest) as stream:
        manifest = stream.read()
    mine = Descriptor(
        descriptor.OCI_MANIFEST, image.manifest_digest, len(manifest), platform=descriptor.host_platform()
    )
    missing = Descriptor(
        descriptor.OCI_MANIFEST, digest.of(b"elsewhere"), 5, platform=Platform("plan9", "mips")
    )
    inner = Index((missing, mine)).encode()
    outer = Index(
        (
            Descriptor(
                descriptor.OCI_INDEX,
                digest.of(inner),
                len(inner),
                {"io.containerd.image.name": "docker.io/library/app:multi"},
            ),
        )
    )
    blobs = [
        manifest,
        inner,
        image.config.encode(),
        Path(store.blobs.path(image.manifest.layers[0].digest)).read_bytes(),
    ]
    members = [file(f"blobs/sha256/{digest.encoded(digest.of(blob))}", blob) for blob in blobs]
    assert load(
        other, tar(*members, file("index.json", outer.encode()), file("oci-layout", b"{}")).getvalue()
    ) == ["app:multi"]
    assert other.images.get("app:multi").id == image.id


def test_write_layer_is_what_the_archive_carries(store: Store) -> None:
    data = tar(file("x")).getvalue()
    layer = write_layer(store.blobs, lambda write: write(data))
    store.images.store(append(Draft(EMPTY), layer, History()), "app")
    with tarfile.open(fileobj=io.BytesIO(save(store, "app"))) as found:
        blob = found.extractfile(f"blobs/sha256/{digest.encoded(layer.descriptor.digest)}")
        assert blob is not None and gzip.decompress(blob.read()) == data
