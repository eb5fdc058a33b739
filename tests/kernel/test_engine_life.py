"""What happens over time: logs, restart policies, health checks, networks, and a daemon that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, eventually, leftovers, paths_below

from lading.assemble import build_engine
from lading.base.errors import Conflict, Denied, Invalid
from lading.engine.model import Config, CreateRequest, Endpoint, Health, HostConfig, PortBinding, Restart
from lading.engine.segments import Pools

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")
MS = 1_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("engine"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


# -- logs ----------------------------------------------------------------------------------------------------


def bursts(count: int) -> tuple[str, str, str]:
    """A command that writes `count` times a hundred lines; the monitor rotates between two reads."""
    return "sh", "-c", f"for i in $(seq {count}); do seq $((i*100-99)) $((i*100)); sleep 0.02; done"


def test_follow_reads_through_rotation_to_the_end(world: World) -> None:
    identifier = world.create(*bursts(30), log_options={"max-size": "4k", "max-file": "100"})
    world.engine.containers.start(identifier)
    text = world.output(identifier, follow=True)
    assert text.split() == [str(n) for n in range(1, 3001)]
    assert len(list(Path(world.paths.container_dir(identifier)).glob("log*"))) > 5
    assert world.output(identifier, tail=2) == "2999\n3000\n"
    assert world.output(identifier, tail=2500).split()[0] == "501"


def test_rotation_keeps_so_many_files(world: World) -> None:
    identifier, _ = world.run(*bursts(30), log_options={"max-size": "4k", "max-file": "3"})
    assert len(list(Path(world.paths.container_dir(identifier)).glob("log*"))) == 3
    assert world.output(identifier, tail=1) == "3000\n"
    assert len(world.output(identifier).split()) < 3000


def test_an_unknown_log_option_is_refused(world: World) -> None:
    with pytest.raises(Invalid, match="max-sise"):
        world.create("true", log_options={"max-sise": "4k"})


def test_one_file_that_is_emptied_in_place_can_be_followed(world: World) -> None:
    identifier = world.create(*bursts(30), log_options={"max-size": "50k", "max-file": "1"})
    world.engine.containers.start(identifier)
    numbers = [int(word) for word in world.output(identifier, follow=True).split()]
    assert numbers[-1] == 3000 and numbers == sorted(numbers)


def test_follow_ends_when_asked(world: World) -> None:
    identifier = world.up("sh", "-c", "echo one; sleep 1000")
    stop = threading.Event()
    records = world.engine.containers.logs(identifier, follow=True, stop=stop)
    assert next(records).text == b"one\n"
    threading.Timer(0.2, stop.set).start()
    assert list(records) == []


def test_since_until_and_streams(world: World) -> None:
    identifier, _ = world.run("sh", "-c", "echo a; sleep 0.3; echo b >&2")
    first, second = world.engine.containers.logs(identifier)
    assert world.output(identifier, since_ns=second.ns) == "b\n"
    assert world.output(identifier, until_ns=first.ns) == "a\n"
    assert [r.text for r in world.engine.containers.logs(identifier, stdout=False)] == [b"b\n"]


def test_a_line_without_end_needs_no_memory(world: World) -> None:
    """64 MiB without a newline: records stay small, and so does the reader."""
    import resource

    identifier, _ = world.run("dd", "if=/dev/zero", "bs=1M", "count=64", log_options={"max-size": "-1"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = largest = 0
    for record in world.engine.containers.logs(identifier, stderr=False):
        total += len(record.text)
        largest = max(largest, len(record.text))
    assert total == 64 << 20 and largest <= 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


# -- restart and health ----------------------------------------------------------------------------------------


def test_on_failure_restarts_so_often(world: World) -> None:
    identifier, _ = world.run("sh", "-c", "exit 3", restart=Restart("on-failure", 2))
    eventually(lambda: world.engine.containers.inspect(identifier).restart_count == 2)
    eventually(lambda: world.status(identifier) == "exited")
    time.sleep(0.6)
    view = world.engine.containers.inspect(identifier)
    assert (view.state.status, view.restart_count, view.state.exit_code) == ("exited", 2, 3)


def test_always_restarts_until_stopped(world: World) -> None:
    identifier = world.up("sh", "-c", "exit 0", restart=Restart("always"))
    eventually(lambda: world.engine.containers.inspect(identifier).restart_count >= 2)
    assert not world.engine.idle()
    world.engine.containers.stop(identifier, 1)
    count = world.engine.containers.inspect(identifier).restart_count
    time.sleep(1)
    view = world.engine.containers.inspect(identifier)
    assert (view.state.status, view.restart_count) == ("exited", count)


def test_health_goes_from_starting_to_healthy_to_unhealthy(world: World) -> None:
    check = Health(("CMD-SHELL", "echo looked; test -e /ok"), interval=100 * MS, timeout=2000 * MS, retries=2)
    identifier = world.up("sh", "-c", "touch /ok; sleep 1000", config=Config(healthcheck=check))
    eventually(lambda: world.engine.containers.inspect(identifier).state.health == "healthy")
    assert world.engine.containers.inspect(identifier).state.health_log[-1].output == "looked\n"
    world.exec(identifier, "rm", "/ok")
    eventually(lambda: world.engine.containers.inspect(identifier).state.health == "unhealthy")
    assert world.engine.containers.inspect(identifier).state.failing_streak >= 2


def test_a_health_check_that_hangs_is_killed(world: World) -> None:
    check = Health(("CMD", "sleep", "1000"), interval=50 * MS, timeout=200 * MS, retries=1)
    identifier = world.up(config=Config(healthcheck=check))
    eventually(lambda: world.engine.containers.inspect(identifier).state.health == "unhealthy")
    assert "exceeded timeout" in world.engine.containers.inspect(identifier).state.health_log[0].output
    world.engine.containers.stop(identifier, 0)
    assert [name for name in os.listdir(f"{world.paths.run}/c") if name == identifier] == []


# -- networks --------------------------------------------------------------------------------------------------


def fetch(port: int, host: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, port), 5) as connection:
        connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        data = b""
        while piece := connection.recv(4096):
            data += piece
        return data.rpartition(b"\r\n\r\n")[2]


def serving(world: World, text: str, **more: object) -> str:
    script = f"mkdir /w; echo {text} > /w/page; echo up; httpd -f -p 80 -h /w"
    identifier = world.up("sh", "-c", script, net="bridge", **more)
    pid = world.engine.containers.inspect(identifier).state.pid
    eventually(
        lambda: " 0A " in Path(f"/proc/{pid}/net/tcp6").read_text() + Path(f"/proc/{pid}/net/tcp").read_text()
    )
    return identifier


def test_published_ports_reach_the_container_and_are_held(world: World) -> None:
    first = serving(world, "one", port_bindings=(PortBinding(80),))
    port = int(world.engine.containers.inspect(first).ports[0].host_port)
    assert fetch(port) == b"one\n"
    second = world.create("true", net="bridge", port_bindings=(PortBinding(80, host_port=str(port)),))
    with pytest.raises(Conflict, match="in use"):
        world.engine.containers.start(second)
    assert world.engine.containers.inspect(second).state.exit_code == 128
    ranged = serving(world, "two", port_bindings=(PortBinding(80, host_port=f"{port}-{port + 20}"),))
    other = int(world.engine.containers.inspect(ranged).ports[0].host_port)
    assert port < other <= port + 20 and fetch(other) == b"two\n"
    world.engine.containers.remove(first, True, True)
    with pytest.raises(OSError):
        fetch(port)


def test_addresses_names_and_files(world: World) -> None:
    world.engine.networks.create("friends", pools=Pools("10.99.7.0/24"))

    def on_friends(name: str, endpoint: Endpoint) -> str:
        request = CreateRequest(
            Config(image="tiny", cmd=("sleep", "1000")),
            HostConfig(network_mode="friends"),
            {"friends": endpoint},
            name,
        )
        identifier = world.engine.containers.create(request)[0]
        world.engine.containers.start(identifier)
        return identifier

    first = on_friends("alpha", Endpoint(aliases=("pal",)))
    second = on_friends("beta", Endpoint(ipv4="10.99.7.99"))
    assert "10.99.7.99" in world.exec(second, "ip", "addr")[1]
    assert "10.99.7.99" in world.exec(first, "busybox", "nslookup", "beta")[1]  # though it was there first
    assert "10.99.7.2" in world.exec(second, "busybox", "nslookup", "pal")[1]
    with pytest.raises(Denied, match="active endpoints"):
        world.engine.networks.remove("friends")
    world.engine.networks.connect("bridge", first)
    assert "eth1" in world.exec(first, "ip", "addr")[1]
    world.engine.networks.disconnect("bridge", first)
    assert "eth1" not in world.exec(first, "ip", "addr")[1]
    for identifier in (first, second):
        world.engine.containers.remove(identifier, True, True)
    world.engine.networks.remove("friends")


def test_network_modes(world: World) -> None:
    first = world.up(net="bridge", config=Config(hostname="boss"))
    shared = world.said("sh", "-c", "hostname; ip addr show eth0", net=f"container:{first}")
    assert world.engine.containers.inspect(first).networks[0].ipv4 in shared
    assert "127.0.0.1" in world.said("ip", "addr", net="none")
    assert "eth0" not in world.said("ip", "addr", net="none")
    assert world.said("readlink", "/proc/self/ns/net", net="host").strip() == os.readlink("/proc/self/ns/net")
    assert world.said("hostname", net="host").strip() == os.uname().nodename


# -- the daemon is disposable ------------------------------------------------------------------------------------

HOLDER = """
import sys, time
sys.path[:0] = {path!r}
from lading.assemble import build_engine
from lading.base.paths import Paths
from lading.engine.model import Config, CreateRequest, HostConfig, PortBinding, Restart
engine = build_engine(Paths({root!r}, {run!r}), {{}})
def up(name, script, **host):
    config = Config(image="tiny", cmd=("sh", "-c", script))
    made = engine.containers.create(CreateRequest(config, HostConfig(**host), name=name))
    engine.containers.start(made[0])
up("stays", "n=0; while true; do echo $n; n=$((n+1)); sleep 0.05; done", network_mode="bridge",
   port_bindings=(PortBinding(80),))
from lading.engine.model import ExecRequest
engine.execs.start(engine.execs.create("stays", ExecRequest(("sh", "-c", "sleep 3; exit 4"))), None, True, False)
up("ends", "sleep 0.7; exit 6", network_mode="none")
up("again", "sleep 0.7; exit 6", network_mode="none", restart=Restart("always"))
print("up", flush=True)
time.sleep(1000)
"""


def test_kill_9_loses_no_container_no_line_and_no_exit_code(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    with engine_at(paths):
        pass
    script = HOLDER.format(path=sys.path, root=paths.root, run=paths.run)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
        holder.send_signal(signal.SIGKILL)
    # Half-created things of a killed daemon: a snapshot and files without a row.
    orphan = "ab" * 32
    os.makedirs(paths.container_dir(orphan))
    half = f"{paths.blobs}/sha256/.{holder.pid}-{'0' * 16}"  # a blob that was being pulled
    with open(half, "wb") as blob:
        blob.write(b"half")
    time.sleep(1.2)
    with engine_at(paths) as engine:
        world = World(engine, paths)
        views = {view.name: view for view in engine.containers.list(True)}
        assert views["stays"].state.status == "running"
        assert views["stays"].ports[0].host_port and views["stays"].networks[0].ipv4
        assert (views["ends"].state.status, views["ends"].state.exit_code) == ("exited", 6)
        assert not os.path.exists(paths.container_dir(orphan)) and not os.path.exists(half)
        execs = [name for name in os.listdir(f"{paths.run}/c") if name not in {v.id for v in views.values()}]
        assert len(execs) == 1  # still running, and followed to its end
        assert engine.execs.inspect(execs[0]).running
        eventually(lambda: not os.path.exists(f"{paths.run}/c/{execs[0]}"))
        assert engine.execs.inspect(execs[0]).exit_code == 4
        eventually(lambda: engine.containers.inspect("again").restart_count >= 1)
        numbers = [int(line) for line in world.output("stays").split()]
        assert numbers == list(range(len(numbers))) and len(numbers) > 10
        taken = views["stays"].networks[0].ipv4
        other = world.up(net="bridge")
        assert engine.containers.inspect(other).networks[0].ipv4 != taken
        assert engine.containers.wait("stays", "not-running").running() is False
        identifier = views["stays"].id
        engine.containers.stop("stays", 0)
        assert engine.containers.inspect("stays").state.exit_code == 137
        engine.containers.remove("stays", False, False)
        assert leftovers(paths, identifier) == []


def test_a_monitor_that_is_killed_ends_its_container(world: World) -> None:
    identifier = world.up()
    pid = world.engine.containers.inspect(identifier).state.pid
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    assert world.engine.containers.wait(identifier, "not-running").result(20).code == 255
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    state = world.engine.containers.inspect(identifier).state
    assert state.status == "exited" and "monitor" in state.error
    assert [name for name in leftovers(world.paths, identifier) if not name.startswith("containers/")] == []
    world.engine.containers.start(identifier)
    assert world.status(identifier) == "running"


def test_one_engine_owns_a_root(world: World) -> None:
    with pytest.raises(Conflict, match="another lading owns"):
        build_engine(world.paths, {}, lock_wait=0.1)


def test_closing_leaves_containers_and_takes_bridges(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    with engine_at(paths):
        pass
    with build_engine(paths, {}) as engine:
        world = World(engine, paths)
        network = engine.networks.create("gone")
        world.said("true", net="gone")
        assert os.path.exists(f"/sys/class/net/{network.bridge}")
        identifier = world.up()
    assert not os.path.exists(f"/sys/class/net/{network.bridge}")
    with build_engine(paths, {}) as again:
        assert again.containers.inspect(identifier).state.status == "running"
        again.containers.remove(identifier, True, True)
