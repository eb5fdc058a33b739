"""The same life many times over: run, exec, publish, remove. Nothing may be left, and memory stays where it was."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import World, engine_at, paths_below

from lading.engine.model import PortBinding


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("soak"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


def cycle(world: World) -> str:
    """One container's whole life: a bridge, a published port, an exec, a stop, its removal."""
    port = PortBinding(80, host_ip="127.0.0.1")
    identifier = world.up("sleep", "1000", net="bridge", port_bindings=(port,))
    assert world.exec(identifier, "true")[0] == 0
    world.engine.containers.kill(identifier, "KILL")
    world.engine.containers.wait(identifier, "not-running").result(20)
    world.engine.containers.remove(identifier, True, True)
    return identifier


def resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


def left_of(identifiers: set[str], world: World) -> list[str]:
    """Groups, mounts, interfaces, run directories and files that carry one of these ids."""
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{directory}/{name}" for name in names if name in identifiers]
    mounts = Path("/proc/self/mountinfo").read_text()
    found += [f"mount {identifier}" for identifier in identifiers if identifier in mounts]
    for top in (world.paths.run, world.paths.root):
        for directory, names, files in os.walk(top):
            found += [f"{directory}/{name}" for name in (*names, *files) if name in identifiers]
    return found


def settled(count: int, look: object, seconds: float = 10) -> int:
    """The value of `look` once it is at most `count`, or after a while: kernel work ends late."""
    deadline = time.monotonic() + seconds
    while True:
        value: int = look()  # type: ignore[operator]
        if value <= count or time.monotonic() > deadline:
            return value
        time.sleep(0.1)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> int:
    """Processes of this one's zygote and seats, by session: monitors of ended containers must be gone."""
    sessions = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        sessions += name == "lading-monitor" and _is_ours(parent)
    return sessions


def _is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False


def bridge_of(world: World) -> str:
    """The host's interface of this engine's default network."""
    return world.engine.networks.inspect("bridge").bridge


def soak(world: World, rounds: int) -> None:
    for _ in range(20):
        cycle(world)
    gc.collect()
    before_fds, before_rss = descriptors(), resident_kb()
    made = {cycle(world) for _ in range(rounds)}
    gc.collect()
    assert settled(before_fds + 3, descriptors) <= before_fds + 3
    assert settled(0, children) == 0
    assert settled(0, lambda: len(os.listdir(f"/sys/class/net/{bridge_of(world)}/brif"))) == 0
    assert left_of(made, world) == []
    grown = resident_kb() - before_rss
    assert grown < 4096 + rounds * 2, f"{grown} kB more after {rounds} rounds"


def test_two_hundred_lives(world: World) -> None:
    soak(world, 200)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_thousand_lives(world: World) -> None:
    soak(world, 2000)
