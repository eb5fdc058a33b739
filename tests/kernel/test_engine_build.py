"""Build steps in real containers: host trust that leaves no trace, cancelling, networks, limits, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_world import BUSYBOX, World, engine_at, eventually, paths_below

from lading.base.errors import Cancelled, Invalid
from lading.base.ids import new_id
from lading.build.ports import Limits, Step
from lading.build.progress import Log
from lading.build.request import BuildRequest
from lading.engine.model import Config

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "corp.pem"
    path.write_text("the company's authority\n")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("engine"))
    environ = {"SSL_CERT_FILE": str(bundle), "HTTPS_PROXY": "http://proxy.example:3128"}
    with engine_at(paths, environ) as engine:
        yield World(engine, paths)


def build(world: World, text: str, **more: Any) -> tuple[str, str]:
    """(image id, what the steps printed)."""
    printed: list[bytes] = []

    def progress(item: object) -> None:
        if isinstance(item, Log):
            printed.append(item.data)

    request = BuildRequest(dockerfile_text=text.encode(), no_cache=True, **more)
    image = world.engine.builder.build(request, progress)
    return image, b"".join(printed).decode()


LOOK = "cat /run/lading/trust/ca.pem; echo $SSL_CERT_FILE $PIP_CERT $https_proxy; ls /run/lading/trust"


def test_host_trust_is_seen_by_steps_and_kept_nowhere(world: World, bundle: Path) -> None:
    image, text = build(world, f"FROM tiny\nRUN {LOOK}; env > /kept\nRUN rm /kept", tags=("trusted",))
    guest = "/run/lading/trust/ca.pem"
    assert text.splitlines() == [
        "the company's authority", f"{guest} {guest} http://proxy.example:3128", "ca.pem",
    ]  # fmt: skip
    stored = world.engine.images.inspect(image)
    assert not any("proxy" in item or "CERT" in item or "CA_" in item for item in stored.config.config.env)
    document = stored.config.encode().decode()
    assert "proxy.example" not in document and str(bundle) not in document
    world.engine._rooms.snapshotter.view("look", stored.chain_id)
    try:
        with world.engine._rooms.snapshotter.mounted("look") as root:
            names = set(os.listdir(root))
            assert "run" not in names and "proc" not in names and "sys" not in names
            etc = os.open("etc", os.O_RDONLY, dir_fd=root)
            assert sorted(os.listdir(etc)) == ["group", "passwd"]
            os.close(etc)
    finally:
        world.engine._rooms.snapshotter.remove("look")


def test_host_trust_can_be_turned_off(world: World) -> None:
    _, text = build(world, f"FROM tiny\nRUN {LOOK}", host_trust=False)
    assert "authority" not in text and "proxy.example" not in text


def test_run_with_host_trust(world: World) -> None:
    identifier, _ = world.run("sh", "-c", LOOK, host_trust=True)
    assert "the company's authority" in world.output(identifier)
    assert "proxy.example" not in str(world.engine.containers.inspect(identifier).config)
    assert world.engine.containers.changes(identifier) == []
    assert "authority" not in world.said("sh", "-c", LOOK)


def test_a_failing_step_says_so_and_users_limits_and_networks_hold(world: World) -> None:
    from lading.base.errors import LadingError

    with pytest.raises(LadingError) as caught:
        build(world, "FROM tiny\nRUN exit 42")
    assert "42" in str(caught.value)
    text = build(world, "FROM tiny\nUSER model\nRUN id -u; ip addr | grep -c 'inet 127'")[1]
    assert text.split() == ["1000", "1"]
    assert "eth0" in build(world, "FROM tiny\nRUN ip addr")[1]
    assert "eth0" not in build(world, "FROM tiny\nRUN ip addr", network_mode="none")[1]
    assert "CapEff:\t00000000a80425fb" in build(world, "FROM tiny\nRUN grep CapEff /proc/self/status")[1]


def step(world: World, key: str, *argv: str, **more: Any) -> Step:
    rootfs = world.engine._rooms.snapshotter.rootfs(key)
    base: dict[str, Any] = {
        "id": new_id(), "rootfs": rootfs, "argv": argv, "env": ("A=1",), "working_dir": "/", "user": "",
        "network_mode": "none", "host_trust": False, "extra_hosts": (), "limits": Limits(),
        "output": lambda stream, data: None, "cancelled": lambda: False,
    }  # fmt: skip
    return Step(**{**base, **more})


@pytest.fixture
def snapshot(world: World) -> Iterator[str]:
    image = world.engine.images.inspect("tiny")
    key = f"test-{new_id()[:8]}"
    world.engine._rooms.snapshotter.prepare(key, world.engine._rooms.images.unpack(image))
    yield key
    world.engine._rooms.snapshotter.remove(key)


def test_streams_and_codes(world: World, snapshot: str) -> None:
    heard: list[tuple[str, bytes]] = []
    run = world.engine.executor.run
    out = {"output": lambda stream, data: heard.append((stream, data))}
    assert run(step(world, snapshot, "sh", "-c", "echo out; echo err >&2; exit 3", **out)) == 3
    assert sorted(heard) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    assert run(step(world, snapshot, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")) == 137
    assert run(step(world, snapshot, "no-such-program", **out)) == 127
    assert run(step(world, snapshot, "/etc/passwd")) == 126
    with pytest.raises(Invalid):
        run(step(world, snapshot, "true", network_mode="container:x"))
    with pytest.raises(Invalid):
        run(step(world, snapshot, "true", user="nobody-here"))


def test_cancelling_kills_everything_at_once(world: World, snapshot: str) -> None:
    asked = threading.Event()
    threading.Timer(0.3, asked.set).start()
    one = step(world, snapshot, "sh", "-c", "(trap '' TERM; sleep 1000) & sleep 1000", cancelled=asked.is_set)
    before = time.monotonic()
    with pytest.raises(Cancelled):
        world.engine.executor.run(one)
    assert time.monotonic() - before < 5
    assert one.id not in os.listdir(f"{world.paths.run}/c")
    assert os.listdir(f"{world.paths.run}/build") == []
    assert not any(one.id in name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names)


def test_a_background_process_does_not_hold_the_step(world: World, snapshot: str) -> None:
    before = time.monotonic()
    assert world.engine.executor.run(step(world, snapshot, "sh", "-c", "sleep 1000 & echo started")) == 0
    assert time.monotonic() - before < 10


def test_much_output_passes_whole(world: World, snapshot: str) -> None:
    total = 0

    def output(stream: str, data: bytes) -> None:
        nonlocal total
        total += len(data)

    run = step(world, snapshot, "dd", "if=/dev/zero", "bs=1M", "count=20", output=output)
    assert world.engine.executor.run(run) == 0
    assert total >= 20 << 20


def test_sandboxes_go_when_they_rest(world: World) -> None:
    build(world, "FROM tiny\nRUN true")
    eventually(lambda: not world.engine.executor._idle, 10)
    world.said("true", config=Config(image="tiny"))


BUILDER = """
import sys
sys.path[:0] = {path!r}
from lading.assemble import build_engine
from lading.base.paths import Paths
from lading.build.request import BuildRequest
engine = build_engine(Paths({root!r}, {run!r}), {{}})
text = b"FROM tiny\\nRUN echo up; sleep 1000"
engine.builder.build(BuildRequest(dockerfile_text=text), lambda item: print(item, flush=True))
"""


def test_the_step_of_a_killed_build_ends_with_the_next_daemon(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    with engine_at(paths):
        pass
    script = BUILDER.format(path=sys.path, root=paths.root, run=paths.run)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and any("up\\n" in line for line in holder.stdout)
        holder.kill()
    (step,) = os.listdir(f"{paths.run}/c")
    with engine_at(paths) as engine:
        eventually(lambda: not os.listdir(f"{paths.run}/c"))
        assert engine.builder.build(BuildRequest(dockerfile_text=b"FROM tiny\nRUN true"), lambda _: None)
        engine.builder.prune(everything=True)
        # its empty base, the stub layer, and the image: nothing of the step
        assert sorted(os.listdir(f"{paths.root}/snapshots")) == ["0", "1", "stubs"]
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        assert step not in names, folder
