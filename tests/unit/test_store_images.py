"""Names, ids, unpacking and the sweep of images, over the copy snapshotter, which needs no privileges."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from image_archives import directory, file, tar

from lading.base import errors
from lading.image import digest, validate
from lading.image.config import History
from lading.image.layer.compress import write_layer
from lading.image.mutate import EMPTY, Draft, Layer, append, configure
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.images import Image, Images
from lading.store.snapshots.copy import Copy


class Store:
    def __init__(self, root: Path) -> None:
        self.db = Database(f"{root}/db")
        self.blobs = Blobs(f"{root}/blobs")
        self.snapshots = Copy(f"{root}/snapshots", self.db)
        self.images = Images(self.db, self.blobs, self.snapshots)

    def layer(self, *names: str) -> Layer:
        data = tar(directory("d"), *[file(f"d/{name}", name.encode()) for name in names]).getvalue()
        return write_layer(self.blobs, lambda write: write(data))

    def image(self, ref: str, *layers: str, created: str = "2026-01-01T00:00:00Z") -> Image:
        draft = Draft(EMPTY)
        for name in layers:
            draft = append(draft, self.layer(name), History(created_by=name, created=created))
        return self.images.store(draft, ref)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    for thread in threading.enumerate():
        if thread.name == "settle":
            thread.join()
    made.db.close()


def test_a_stored_image_is_found_by_every_name(store: Store) -> None:
    image = store.image("app:v1", "a", "b")
    bare = image.id.removeprefix("sha256:")
    for name in (
        "app:v1",
        "docker.io/library/app:v1",
        "library/app:v1",
        image.id,
        bare,
        bare[:12],
        "sha256:" + bare[:6],
    ):
        assert store.images.get(name) == image, name
    assert image.references == ("docker.io/library/app:v1",)
    assert image.familiar == ("app:v1",)
    assert len(image.manifest.layers) == len(image.config.diff_ids) == 2
    assert store.images.get(f"app@{image.manifest_digest}") == image
    assert store.images.get(f"app:v1@{image.manifest_digest}") == image
    assert validate.image(store.blobs.open, image.manifest_digest) == []


def test_the_default_tag_is_latest(store: Store) -> None:
    assert store.image("app", "a") == store.images.get("app:latest")


def test_what_is_not_there_is_answered_with_the_nearest_name(store: Store) -> None:
    image = store.image("meu-modelo-ml:v1.0", "a")
    with pytest.raises(errors.NotFound, match=r"no such image: meu-modelo-mll:v1.0.*'meu-modelo-ml:v1.0'"):
        store.images.get("meu-modelo-mll:v1.0")
    with pytest.raises(errors.NotFound, match=r"Did you mean 'meu-modelo-ml:v1.0'"):
        store.images.get("meu-modelo-ml:very-long-other-tag")
    with pytest.raises(errors.NotFound):
        store.images.get("sha256:" + "0" * 64)
    with pytest.raises(errors.NotFound):
        store.images.get(f"other@{image.manifest_digest}")
    with pytest.raises(errors.Invalid):
        store.images.get("Not Valid")


def test_a_shared_beginning_of_ids_is_ambiguous(store: Store) -> None:
    made = [store.image(f"x:{n}", str(n)) for n in range(20)]
    first: dict[str, str] = {}
    for image in made:
        start = image.id.removeprefix("sha256:")[0]
        if start in first:
            with pytest.raises(errors.Invalid, match="ambiguous"):
                store.images.get(start)
            return
        first[start] = image.id
    pytest.fail("twenty ids with seventeen beginnings cannot be")


def test_a_name_wins_over_an_id(store: Store) -> None:
    first = store.image("other", "a")
    second = store.image(first.id[7:10], "b")
    assert store.images.get(first.id[7:10]) == second


def test_tags_move_and_go(store: Store) -> None:
    one, two = store.image("app:1", "a"), store.image("app:2", "b")
    store.images.tag("app:1", "app:stable")
    assert store.images.get("app:stable").id == one.id
    store.images.tag("app:2", "app:stable")
    assert store.images.get("app:stable").id == two.id
    assert store.images.untag("app:stable") == "docker.io/library/app:stable"
    with pytest.raises(errors.NotFound):
        store.images.untag("app:stable")
    with pytest.raises(errors.NotFound):
        store.images.tag("missing", "x")
    with pytest.raises(errors.Invalid):
        store.images.tag("app:1", f"x@{one.manifest_digest}")


def test_a_rebuilt_name_leaves_the_old_image_unnamed(store: Store) -> None:
    old, new = store.image("app", "a"), store.image("app", "b")
    assert store.images.get("app").id == new.id
    assert store.images.get(old.id).references == ()
    assert {image.id for image in store.images.list()} == {old.id, new.id}


def test_the_list_is_newest_first_and_names_each_image_once(store: Store) -> None:
    old = store.image("old", "a", created="2020-01-01T00:00:00Z")
    new = store.image("new", "b", created="2025-01-01T00:00:00Z")
    store.images.tag("old", "alias")
    assert [image.id for image in store.images.list()] == [new.id, old.id]
    assert store.images.list()[1].references == (
        "docker.io/library/alias:latest",
        "docker.io/library/old:latest",
    )


def test_an_incomplete_image_is_not_recorded(store: Store) -> None:
    draft = append(Draft(EMPTY), store.layer("a"), History())
    store.blobs.delete(draft.layers[0].digest)
    with pytest.raises(errors.Invalid, match="incomplete"):
        store.images.store(draft, "app")
    assert store.images.list() == ()
    with pytest.raises(errors.NotFound):
        store.images.put("app", digest.of(b"nothing"))
    bad = Draft(replace(draft.config, diff_ids=()), draft.layers)
    with pytest.raises(errors.Invalid, match="inconsistent"):
        store.images.store(bad, "app")


def test_unpacking_gives_the_tree(store: Store) -> None:
    image = store.image("app", "a", "b")
    key = store.images.unpack(image)
    assert key == image.chain_id
    assert store.images.unpack(image) == key
    with store.snapshots.mounted(key) as fd:
        assert sorted(os.listdir(f"/proc/self/fd/{fd}/d")) == ["a", "b"]
    with pytest.raises(errors.Invalid, match="no layers"):
        store.images.unpack(store.images.store(Draft(EMPTY)))


def test_shared_layers_are_unpacked_once(store: Store) -> None:
    one, two = store.image("one", "base", "x"), store.image("two", "base", "y")
    store.images.unpack(one)
    store.images.unpack(two)
    assert len(store.snapshots.keys()) == 3


def test_a_lying_diff_id_is_found(store: Store) -> None:
    draft = append(Draft(EMPTY), Layer(store.layer("a").descriptor, digest.of(b"lie")), History())
    image = store.images.store(draft, "app")
    with pytest.raises(errors.Invalid, match="does not match its diffID"):
        store.images.unpack(image)
    assert store.snapshots.keys() == []


def test_removing_deletes_what_only_this_image_needed(store: Store) -> None:
    one, two = store.image("one", "base", "x"), store.image("two", "base", "y")
    for image in (one, two):
        store.images.unpack(image)
    removed = store.images.remove(one.id)
    assert removed.untagged == ("docker.io/library/one:latest",)
    assert one.manifest.layers[1].digest in removed.deleted
    assert removed.reclaimed > 0
    assert not store.blobs.has(one.manifest.layers[1].digest)
    assert store.blobs.has(one.manifest.layers[0].digest), "the other image needs it"
    assert validate.image(store.blobs.open, two.manifest_digest) == []
    assert store.snapshots.exists(two.chain_id or "")
    assert len(store.snapshots.keys()) == 2
    with pytest.raises(errors.NotFound):
        store.images.get("one")


def test_the_last_image_leaves_an_empty_store(store: Store) -> None:
    image = store.image("app", "a", "b")
    store.images.unpack(image)
    store.images.remove(image.id)
    assert list(store.blobs.list()) == []
    assert store.snapshots.keys() == []


def test_what_a_broken_build_left_goes_with_the_image_below(store: Store) -> None:
    image = store.image("app", "a")
    store.snapshots.prepare("step", store.images.unpack(image))
    store.snapshots.commit("step", digest.of(b"no row speaks of this one"))
    store.images.remove(image.id)
    assert store.snapshots.keys() == []


def test_a_young_snapshot_spares_what_it_stands_on(store: Store) -> None:
    image = store.image("app", "a")
    below = store.images.unpack(image)
    with store.images.leases.hold():
        store.snapshots.prepare("step", below)
        store.snapshots.commit("step", digest.of(b"a build is about to speak of this one"))
        store.images.remove(image.id)
        assert len(store.snapshots.keys()) == 2
    store.images.sweep()
    assert store.snapshots.keys() == []


def test_a_container_keeps_the_snapshots_it_stands_on(store: Store) -> None:
    image = store.image("app", "a")
    store.snapshots.prepare("container", store.images.unpack(image))
    store.images.remove(image.id)
    store.images.sweep()
    assert set(store.snapshots.keys()) == {"container", image.chain_id}
    store.snapshots.remove("container")
    store.images.sweep()
    assert store.snapshots.keys() == []


def test_a_sweep_takes_what_nothing_refers_to(store: Store) -> None:
    image = store.image("app", "a")
    store.images.unpack(image)
    garbage = store.blobs.put(b"x" * 1000)
    assert store.images.sweep() >= 1000
    assert not store.blobs.has(garbage)
    assert validate.image(store.blobs.open, image.manifest_digest) == []
    assert store.snapshots.exists(image.chain_id or "")
    assert store.images.sweep() == 0


def test_leases_and_holds_stop_a_sweep(store: Store) -> None:
    old, held = store.blobs.put(b"old"), store.blobs.put(b"held")
    for blob in (old, held):
        os.utime(store.blobs.path(blob), (5, 5))
    image = store.image("app", "a")
    store.images.unpack(image)
    store.images.leases.keep("cache:1", image.chain_id or "", image.manifest.layers[0].digest)
    with store.images.leases.hold(held):
        young = store.blobs.put(b"made while the lease is held")
        store.images.sweep()
        assert store.blobs.has(held) and store.blobs.has(young)
        assert not store.blobs.has(old)
        refreshed = store.blobs.put(b"held")
        assert refreshed == held
        with pytest.raises(errors.Internal), store.db.transaction(), store.images.leases.hold():
            pytest.fail("a sweep and this could wait for each other")
    store.images.forget(image.manifest_digest)
    store.images.sweep()
    assert not store.blobs.has(held) and not store.blobs.has(young)
    assert store.blobs.has(image.manifest.layers[0].digest)
    assert store.snapshots.exists(image.chain_id or "")
    store.images.leases.drop("cache:1")
    store.images.sweep()
    assert list(store.blobs.list()) == []
    assert store.snapshots.keys() == []


def test_a_hold_on_a_manifest_keeps_all_of_the_image(store: Store) -> None:
    image = store.image("app", "a", "b")
    store.images.leases.keep("pinned", image.manifest_digest)
    store.images.forget(image.manifest_digest)
    store.images.sweep()
    assert validate.image(store.blobs.open, image.manifest_digest) == []


def test_an_image_survives_a_new_start(store: Store, tmp_path: Path) -> None:
    image = store.image("app", "a")
    again = Store(tmp_path)
    assert again.images.get("app") == image
    again.db.close()


def test_one_config_under_two_manifests_is_one_image(store: Store) -> None:
    data = tar(file("x")).getvalue()
    zipped = append(Draft(EMPTY), write_layer(store.blobs, lambda write: write(data)), History())
    plain = append(Draft(EMPTY), write_layer(store.blobs, lambda write: write(data), "tar"), History())
    one = store.images.store(zipped, "zipped")
    two = store.images.store(plain, "plain")
    assert one.id == two.id and one.manifest_digest != two.manifest_digest
    assert [image.references for image in store.images.list()] == [
        ("docker.io/library/plain:latest", "docker.io/library/zipped:latest")
    ]
    store.images.remove(one.id)
    assert store.images.list() == ()
    assert list(store.blobs.list()) == []


def test_builds_pulls_and_sweeps_at_once(store: Store) -> None:
    """Whatever a sweep does meanwhile, an image stored under a lease is whole."""
    failures: list[object] = []
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            store.images.sweep()

    def build(number: int) -> None:
        try:
            for turn in range(5):
                with store.images.leases.hold():
                    image = store.image(f"app{number}:{turn}", "shared", f"{number}-{turn}")
                    store.images.unpack(image)
                failures.extend(validate.image(store.blobs.open, image.manifest_digest))
        except BaseException as error:
            failures.append(error)

    sweeper = threading.Thread(target=sweep)
    builders = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in (sweeper, *builders):
        thread.start()
    for thread in builders:
        thread.join()
    stop.set()
    sweeper.join()
    assert failures == []
    assert len(store.images.list()) == 20


def test_a_changed_config_is_a_new_image_with_the_same_layers(store: Store) -> None:
    image = store.image("app", "a")
    draft = configure(Draft(image.config, image.manifest.layers), lambda c: replace(c, cmd=("serve",)))
    changed = store.images.store(draft, "app")
    assert changed.id != image.id
    assert changed.chain_id == image.chain_id


def test_a_damaged_image_neither_hides_the_others_nor_stays_for_ever(store: Store, tmp_path: Path) -> None:
    sound, hurt = store.image("sound", "a"), store.image("hurt", "b")
    Path(store.blobs.path(hurt.manifest_digest)).write_bytes(b"{}")
    again = Store(tmp_path)
    assert [image.id for image in again.images.list()] == [sound.id]
    with pytest.raises(errors.Internal, match="damaged"):
        again.images.get("hurt")
    assert again.images.remove(hurt.id).untagged == ("docker.io/library/hurt:latest",)
    again.images.sweep()
    assert len(list(again.blobs.list())) == 3
    again.db.close()
