"""The builder with the engine's real executor: namespaces, users, mounts, host trust, cancellation, and
nothing left behind.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_world import BUSYBOX, Chroot, World, base

from lading.assemble import build_engine
from lading.base.errors import Cancelled
from lading.base.paths import Paths
from lading.build.failure import StepFailed

pytestmark = pytest.mark.skipif(
    not BUSYBOX, reason="needs busybox, statically linked (package busybox-static)"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("engine")
    bundle = path / "corp.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\nnot a real one\n-----END CERTIFICATE-----\n")
    environ = {
        "PATH": os.environ["PATH"],
        "SSL_CERT_FILE": str(bundle),
        "HTTPS_PROXY": "http://corp.invalid:3128",
    }
    with build_engine(Paths(str(path / "root"), str(path / "run")), environ) as engine:
        rooms = engine._rooms
        found = World(
            path,
            rooms.snapshotter,
            rooms.db,
            rooms.blobs,
            rooms.images,
            rooms.leases,
            Chroot(),
            engine.builder,
        )
        base(found)
        yield found
        assert found.actives() == []
        assert os.listdir(path / "run/build") == []


def test_a_step_runs_isolated_as_its_user(world: World) -> None:
    world.build(
        "FROM base:1\nENV A=1\nUSER model\nWORKDIR /work\nRUN id; pwd; echo $HOME $A; cat /proc/1/comm; touch here\n",
        {},
    )
    assert (
        world.log()
        == "uid=1000(model) gid=1001(model) groups=100(users),1001(model)\n/work\n/home/model 1\nsh\n"
    )
    with world.root() as root:
        assert (root / "work/here").stat().st_uid == 1000


def test_host_trust_is_seen_and_leaves_no_trace(world: World) -> None:
    dockerfile = "FROM base:1\nRUN env; cat $SSL_CERT_FILE; touch /made\n"
    world.build(dockerfile, {})
    assert "not a real one" in world.log() and "corp.invalid:3128" in world.log()
    assert "Host trust is on" in world.notices()
    image = world.images.get(world.last)
    assert (
        b"corp" not in world.blobs.read(image.id)
        and b"SSL_CERT" not in image.config.config.to_json().__repr__().encode()
    )
    listed = subprocess.run(
        ["tar", "tf", world.blobs.path(image.manifest.layers[-1].digest)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == ["made"]
    world.again("FROM base:1\nRUN env; ls /run\n", host_trust=False)
    assert "corp" not in world.log() and "Host trust" not in world.notices()


def test_a_step_that_changes_nothing_adds_no_layer(world: World) -> None:
    """No mount point of the runtime, /proc, /etc/hosts and the rest, may count as a change."""
    world.build(
        "FROM base:1\nRUN cat /etc/hosts /etc/resolv.conf /etc/hostname && ls /proc/self /sys /dev\n", {}
    )
    image = world.images.get(world.last)
    assert len(image.manifest.layers) == 1
    assert image.config.history[-1].empty_layer


def test_mounts(world: World) -> None:
    run = (
        "RUN --mount=type=cache,target=/var/cache/x --mount=target=/src,source=sub"
        " --mount=type=tmpfs,target=/scratch,size=1m "
    )
    world.build(
        f"FROM base:1\n{run}cat /src/f && touch /var/cache/x/kept /scratch/gone /made\n", {"sub/f": "content"}
    )
    assert world.log() == "content"
    with world.root() as root:
        assert sorted(os.listdir(root)) == ["bin", "etc", "home", "made", "root", "tmp"]
    world.again(f"FROM base:1\n{run}ls /var/cache/x\n")
    assert world.log() == "kept\n"
    with pytest.raises(StepFailed, match="Read-only"):
        world.again(f"FROM base:1\n{run}touch /src/x\n")


def test_networks_of_a_step(world: World) -> None:
    world.build("FROM base:1\nRUN --network=none ls /sys/class/net\nRUN ls /sys/class/net\n", {})
    assert world.log().split() == ["lo", "eth0", "lo"]


@pytest.mark.parametrize(
    ("run", "code", "tail"),
    [
        ("RUN exit 9", 9, ""),
        ('RUN ["/no/such"]', 127, "no such"),
        ("RUN sleep 9 & kill -9 $!; wait $!", 137, ""),
        ("RUN echo out; echo err >&2; exit 1", 1, "out\nerr"),
    ],
)
def test_failures(world: World, run: str, code: int, tail: str) -> None:
    with pytest.raises(StepFailed) as caught:
        world.build(f"FROM base:1\n{run}\n", {})
    assert caught.value.code == code and tail.split("\n")[0] in caught.value.tail


def test_a_script_with_its_own_interpreter(world: World) -> None:
    world.build("FROM base:1\nRUN <<EOF\n#!/bin/cat\nbody\nEOF\n", {})
    assert world.log() == "#!/bin/cat\nbody\n"


def test_cancelling_kills_the_step(world: World) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        world.build("FROM base:1\nRUN sleep 61.25\n", {}, cancelled=stop.is_set)
    timer.join()
    assert time.monotonic() - started < 5
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"61.25" in command for command in commands)


def test_thirty_steps_are_quick(world: World) -> None:
    """The aim is 20 ms a step; the bound here leaves room for a busy machine."""
    dockerfile = "FROM base:1\n" + "".join(f"RUN true {n}\nCOPY f{n} /d/\n" for n in range(15))
    started = time.monotonic()
    world.build(dockerfile, {f"f{n}": str(n) for n in range(15)})
    assert (time.monotonic() - started) / 30 < 0.1
    started = time.monotonic()
    world.again(dockerfile)
    assert time.monotonic() - started < 0.1 and all(world.cached()[1:])
