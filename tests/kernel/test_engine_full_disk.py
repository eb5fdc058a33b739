"""An engine whose disk fills up: nobody waits for ever, nothing half-made stays, and removing makes room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, paths_below

from lading.assemble import build_engine
from lading.base.errors import Unavailable

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """32 MiB that only this test uses."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> None:
    """Take what is left."""
    with open(disk / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def test_a_container_that_fills_the_disk_ends_and_can_be_removed(disk: Path) -> None:
    paths = paths_below(disk)
    with engine_at(paths) as engine:
        world = World(engine, paths)
        identifier = world.create("sh", "-c", "yes > /big")
        end = engine.containers.wait(identifier, "next-exit")
        engine.containers.start(identifier)
        assert end.result(30).code != 0
        groups = [names for folder, names, _ in os.walk("/sys/fs/cgroup") if folder.endswith("/lading")]
        assert identifier not in {name for names in groups for name in names}
        before = len(os.listdir(f"{paths.root}/snapshots"))
        fill(disk)
        made: list[str] = []
        with pytest.raises(Unavailable, match=r"full|space"):
            for number in range(2000):
                made.append(world.create("true", name=f"name{number}"))
        with pytest.raises(Unavailable, match=r"full|space"):
            world.create("true", name=f"name{len(made)}")
        assert len(os.listdir(f"{paths.root}/snapshots")) == before + len(made)
        for one in (identifier, *made):
            engine.containers.remove(one, False, False)
        assert len(os.listdir(f"{paths.root}/snapshots")) == before - 1
        os.unlink(disk / "filler")
        assert world.said("echo", "again", name=f"name{len(made)}") == "again\n"


def test_a_start_on_a_full_disk_is_refused_and_works_later(disk: Path) -> None:
    paths = paths_below(disk)
    with engine_at(paths) as engine:
        world = World(engine, paths)
        identifier = world.create("true")
        fill(disk)
        with pytest.raises(Unavailable, match="No space left on device"):
            engine.containers.start(identifier)
        assert os.listdir(f"{paths.run}/c") == []
        os.unlink(disk / "filler")
        end = engine.containers.wait(identifier, "next-exit")
        engine.containers.start(identifier)
        assert end.result(30).code == 0


def test_a_daemon_starts_on_a_full_disk_and_removes(disk: Path) -> None:
    paths = paths_below(disk)
    with engine_at(paths) as engine:
        pass
    with build_engine(paths, {}) as engine:
        identifier, _ = World(engine, paths).run("sh", "-c", "yes | head -c 6000000 > /big")
    fill(disk)
    with build_engine(paths, {}) as engine:
        assert [view.id for view in engine.containers.list(True)] == [identifier]
        engine.containers.remove(identifier, False, False)
    os.unlink(disk / "filler")
