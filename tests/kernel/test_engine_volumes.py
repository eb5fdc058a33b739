"""Volumes, copying in and out, commit, export and images, through the whole engine."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, eventually, paths_below

from lading.base.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from lading.engine.model import Config, Mount

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("engine"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


def tar_of(**files: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    out.seek(0)
    return out


def fetched(world: World, ref: str, path: str) -> dict[str, tarfile.TarInfo]:
    data = io.BytesIO()
    world.engine.containers.archive_get(ref, path, data.write)
    data.seek(0)
    with tarfile.open(fileobj=data) as tar:
        return {member.name: member for member in tar}


def test_a_new_volume_is_filled_from_the_image_with_owners_and_links(world: World) -> None:
    identifier, _ = world.run("sh", "-c", "echo more > /data/more", binds=("filled:/data",))
    place = Path(world.engine.volumes.inspect("filled").mountpoint)
    assert sorted(os.listdir(place)) == ["file", "link", "more", "sub"]
    assert (place / "file").stat().st_uid == 1000 and (place / "file").stat().st_mode & 0o777 == 0o640
    assert os.readlink(place / "link") == "/etc/passwd"
    with pytest.raises(Conflict, match="in use"):
        world.engine.volumes.remove("filled")
    world.engine.containers.remove(identifier, False, True)
    assert world.said("cat", "/data/more", binds=("filled:/data",)) == "more\n"
    world.engine.volumes.remove("filled")
    assert not place.exists()
    with pytest.raises(NotFound):
        world.engine.volumes.inspect("filled")


def test_a_used_volume_is_left_as_it_is_and_nocopy_is_heard(world: World) -> None:
    assert world.said("ls", "/data", binds=("bare:/data:nocopy",)) == ""
    assert world.said("sh", "-c", "touch /data/own; ls /data", binds=("bare:/data:nocopy",)) == "own\n"
    assert world.said("ls", "/data", binds=("bare:/data",)) == "own\n"
    assert world.said("sh", "-c", "touch /data/no 2>&1 || true", binds=("bare:/data:ro",)).endswith(
        "Read-only file system\n"
    )


def test_anonymous_volumes_go_with_v_only(world: World) -> None:
    kept, _ = world.run("true", config=Config(volumes=("/data",)))
    (name,) = [m.name for m in world.engine.containers.inspect(kept).mounts]
    world.engine.containers.remove(kept, False, False)
    assert world.engine.volumes.inspect(name).anonymous
    world.engine.volumes.prune()
    with pytest.raises(NotFound):
        world.engine.volumes.inspect(name)
    gone, _ = world.run("true", config=Config(volumes=("/data",)))
    (name,) = [m.name for m in world.engine.containers.inspect(gone).mounts]
    world.engine.containers.remove(gone, False, True)
    with pytest.raises(NotFound):
        world.engine.volumes.inspect(name)


def test_volumes_from_shares_and_nested_mounts_lie_in_order(world: World) -> None:
    owner, _ = world.run("sh", "-c", "echo x > /s/x", mounts=(Mount("volume", "/s", source="shared"),))
    text = world.said(
        "sh", "-c", "cat /s/x; touch /s/y 2>/dev/null || echo ro", volumes_from=(f"{owner}:ro",)
    )
    assert text.startswith("x\n") and text.endswith("ro\n")
    text = world.said("ls", "/a/b", binds=("inner:/a/b", "outer:/a"))
    assert text == ""


@pytest.mark.parametrize("running", [True, False])
def test_cp_both_ways(world: World, running: bool) -> None:
    identifier = world.up(binds=("cpvol:/vol",)) if running else world.create("true", binds=("cpvol:/vol",))
    containers = world.engine.containers
    containers.archive_put(identifier, "/tmp", tar_of(put="hello"))
    assert containers.archive_head(identifier, "/tmp/put")["size"] == 5
    assert set(fetched(world, identifier, "/data")) == {
        "data",
        "data/file",
        "data/link",
        "data/sub",
        "data/sub/deep",
    }
    assert set(fetched(world, identifier, "/data/.")) == {".", "./file", "./link", "./sub", "./sub/deep"}
    containers.archive_put(identifier, "/vol", tar_of(invol="v"))
    assert set(fetched(world, identifier, "/vol/invol")) == {"invol"}
    assert (Path(world.engine.volumes.inspect("cpvol").mountpoint) / "invol").read_text() == "v"
    head = containers.archive_head(identifier, "/data/link")
    assert head["linkTarget"] == "/etc/passwd" and head["mode"] & 1 << 27
    with pytest.raises(NotFound):
        containers.archive_head(identifier, "/no/such")
    with pytest.raises(Invalid, match="not a directory"):
        containers.archive_put(identifier, "/etc/passwd", tar_of(x="y"))
    with pytest.raises(Invalid, match="cannot overwrite"):
        containers.archive_put(identifier, "/", tar_of(data="file over folder"), no_overwrite=True)
    containers.remove(identifier, True, True)


@pytest.mark.parametrize("running", [True, False])
def test_cp_never_leaves_the_container(world: World, running: bool, tmp_path: Path) -> None:
    """Links of the image, absolute and relative, are resolved inside; a hostile tar cannot go up."""
    secret = tmp_path / "secret"
    secret.write_text("host")
    script = f"ln -s {tmp_path} /abs; ln -s ../../../../../..{tmp_path} /rel; ln -s /proc/1/root/../.. /magic; echo done"
    identifier = (
        world.up("sh", "-c", f"{script}; sleep 1000") if running else world.run("sh", "-c", script)[0]
    )
    eventually(lambda: world.output(identifier) == "done\n")
    for path in ("/abs/secret", "/rel/secret", "/abs/../abs/secret"):
        with pytest.raises(NotFound):
            fetched(world, identifier, path)
    assert list(fetched(world, identifier, "/abs")) == ["abs"]  # the link itself
    for path in ("/abs", "/rel"):
        with pytest.raises(NotFound):
            world.engine.containers.archive_put(identifier, path, tar_of(canary="x"))
    with pytest.raises(Invalid):
        world.engine.containers.archive_put(identifier, "/tmp", tar_of(**{"../../canary": "x"}))
    assert os.listdir(tmp_path) == ["secret"] and secret.read_text() == "host"
    world.engine.containers.remove(identifier, True, True)


def test_a_read_only_container_takes_no_files(world: World) -> None:
    identifier = world.create("true", readonly_rootfs=True)
    with pytest.raises(Conflict, match="read-only"):
        world.engine.containers.archive_put(identifier, "/tmp", tar_of(x="y"))
    other = world.create("true", binds=("rovol:/v:ro",))
    with pytest.raises(Denied, match="read-only"):
        world.engine.containers.archive_put(other, "/v", tar_of(x="y"))


def test_changes_commit_and_run_again(world: World) -> None:
    identifier, _ = world.run("sh", "-c", "echo new > /new; rm /data/file; chmod 700 /home")
    changes = {(c.kind, c.path) for c in world.engine.containers.changes(identifier)}
    assert {(1, "/new"), (2, "/data/file"), (0, "/home"), (0, "/data")} <= changes
    assert not any(path.startswith(("/etc", "/run", "/proc", "/dev")) for _, path in changes)
    image = world.engine.containers.commit(
        identifier, "kept", "v1", "why", "who", ('CMD ["cat", "/new"]', "ENV K=v")
    )
    assert world.engine.images.inspect("kept:v1").id == image
    assert world.said(config=Config(image="kept:v1")) == "new\n"
    assert world.said("sh", "-c", "echo $K; ls /data", config=Config(image="kept:v1")) == "v\nlink\nsub\n"
    rows = world.engine.images.history("kept:v1")
    assert rows[0]["Id"] == image and rows[0]["Comment"] == "why" and len(rows) == 2
    with pytest.raises(Invalid):
        world.engine.containers.commit(identifier, changes=("RUN true",))


def test_commit_of_a_running_container_goes_on_running(world: World) -> None:
    identifier = world.up("sh", "-c", "echo here > /here; echo ok; sleep 1000")
    eventually(lambda: world.output(identifier) == "ok\n")
    world.engine.containers.commit(identifier, "live")
    assert world.status(identifier) == "running"
    assert world.said("cat", "/here", config=Config(image="live")) == "here\n"


def test_export_and_import(world: World) -> None:
    identifier, _ = world.run("sh", "-c", "echo flat > /flat", binds=("notin:/vol",))
    data = io.BytesIO()
    world.engine.containers.export(identifier, data.write)
    data.seek(0)
    with tarfile.open(fileobj=data) as tar:
        names = set(tar.getnames())
    assert {"flat", "bin/busybox", "etc/passwd"} <= names and "run/lading" not in names
    data.seek(0)
    world.engine.images.import_(data, "flat:1", ['CMD ["cat", "/flat"]'], "flattened")
    assert world.said(config=Config(image="flat:1")) == "flat\n"
    with pytest.raises(Invalid):
        world.engine.images.import_(io.BytesIO(b"this is no tar at all" * 100), "broken")
    with pytest.raises(NotFound):
        world.engine.images.inspect("broken")


def test_images_are_guarded_and_removed(world: World) -> None:
    images = world.engine.images
    images.tag("tiny", "tiny:two")
    rows = images.remove("tiny:two")
    assert rows == [{"Untagged": "tiny:two"}]
    identifier, _ = world.run("true", config=Config(image="tiny"))
    with pytest.raises(Conflict, match="must force"):
        images.remove("tiny")
    world.engine.containers.start(world.create("sleep", "1000"))
    with pytest.raises(Conflict, match="cannot be forced"):
        images.remove("tiny", True)
    with pytest.raises(Unavailable, match="lading bootstrap"):  # nobody listens there
        world.engine.registry.pull("127.0.0.1:1/no/such")
    out = io.BytesIO()
    images.save(["tiny"], out.write)
    out.seek(0)
    assert images.load(out) == ["tiny:latest"]
    images.tag("tiny", "other:1")
    assert [image.familiar for image in images.list({"reference": ("tin*",)})] == [("tiny:latest",)]
    images.remove("other:1")
    world.engine.containers.remove(identifier, True, True)


def test_prune_takes_what_nobody_needs(world: World) -> None:
    stopped, _ = world.run("true")
    running = world.up()
    removed, _ = world.engine.containers.prune()
    assert stopped in removed and running not in removed
    world.engine.volumes.create("named")
    names, _ = world.engine.volumes.prune()
    assert "named" not in names
    assert "named" in world.engine.volumes.prune({"all": ("true",)})[0]
