"""User-defined networks with real containers: names, addresses, apartness, and changes while they run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, eventually, paths_below

from lading.base.errors import Conflict, Denied, Invalid, Unavailable, Unsupported
from lading.base.paths import Paths
from lading.engine.model import Config, CreateRequest, Endpoint, HostConfig, PortBinding, Rate
from lading.engine.segments import Pools

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox is not installed")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("engine"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


class Net:
    """A network and the containers on it, gone at the end of the test."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.ids: list[str] = []

    def up(self, name: str, *cmd: str, endpoint: Endpoint | None = None, **host: object) -> str:
        request = CreateRequest(
            Config(image="tiny", cmd=cmd or ("sleep", "1000")),
            HostConfig(network_mode=self.name, **host),  # type: ignore[arg-type]
            {self.name: endpoint or Endpoint()},
            name,
        )
        identifier = self.world.engine.containers.create(request)[0]
        self.ids.append(identifier)
        self.world.engine.containers.start(identifier)
        if cmd:
            eventually(lambda: self._listens(identifier))
        return identifier

    def _listens(self, identifier: str) -> bool:
        pid = self.world.engine.containers.inspect(identifier).state.pid
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
        return any(":0050 " in table and " 0A " in table for table in tables)

    def address(self, identifier: str) -> str:
        states = self.world.engine.containers.inspect(identifier).networks
        return next(state.ipv4 for state in states if state.network_name == self.name)


@contextlib.contextmanager
def network(world: World, name: str, pools: Pools = Pools(), **more: object) -> Iterator[Net]:  # noqa: B008
    world.engine.networks.create(name, pools=pools, **more)  # type: ignore[arg-type]
    net = Net(world, name)
    try:
        yield net
    finally:
        for identifier in net.ids:
            with contextlib.suppress(LookupError):
                world.engine.containers.remove(identifier, True, True)
        world.engine.networks.remove(name)


def resolve(world: World, identifier: str, name: str, *more: str) -> str:
    """What nslookup says; "" when it finds nothing."""
    code, text = world.exec(identifier, "busybox", "nslookup", *more, name)
    return text.partition("\n\n")[2] if code == 0 else ""


def reaches(world: World, identifier: str, address: str, port: int) -> bool:
    """Whether a container gets an answer from a server."""
    return (
        "hello" in world.exec(identifier, "busybox", "timeout", "2", "nc", "-w", "1", address, str(port))[1]
    )


SERVE = ("nc", "-ll", "-p", "80", "-e", "echo", "hello")


def test_names_aliases_and_short_ids(world: World) -> None:
    with network(world, "front", Pools("10.99.20.0/24")) as net:
        db = net.up("db", endpoint=Endpoint(aliases=("store",)))
        web = net.up("web")
        ip = net.address(db)
        for name in ("db", "DB", "store", db[:12], "db.front"):
            assert ip in resolve(world, web, name), name
        assert "db.front" in resolve(world, web, ip)
        assert world.exec(web, "busybox", "nslookup", "-type=aaaa", "db")[0] == 0  # it exists, without IPv6
        assert "nameserver 127.0.0.11" in world.exec(web, "cat", "/etc/resolv.conf")[1]
        assert "db" not in world.exec(web, "cat", "/etc/hosts")[1]
        world.engine.containers.rename(db, "data")
        assert ip in resolve(world, web, "data") and not resolve(world, web, "db.front")
        world.engine.containers.stop(db, 0)
        assert not resolve(world, web, "data.front")


def test_an_alias_of_several_is_answered_with_all(world: World) -> None:
    with network(world, "pool") as net:
        ids = [net.up(f"w{number}", endpoint=Endpoint(aliases=("work",))) for number in range(3)]
        text = resolve(world, ids[0], "work")
        assert all(net.address(identifier) in text for identifier in ids)


def test_a_name_server_of_its_own_keeps_port_53(world: World) -> None:
    """The resolver is at 127.0.0.11:53 and still leaves that port of every address to the container."""
    with network(world, "own") as net:
        one = net.up("one")
        bind = "busybox nc -l -p 53 & busybox nc -u -l -p 53 & sleep 0.2; jobs | wc -l; busybox nslookup one"
        assert net.address(one) in world.exec(one, "sh", "-c", bind)[1]


def test_the_default_network_knows_no_names(world: World) -> None:
    first = world.up(net="bridge", name="plain")
    try:
        assert "127.0.0.11" not in world.exec(first, "cat", "/etc/resolv.conf")[1] or host_is_loopback_only()
        with pytest.raises(Invalid, match="alias"):
            world.engine.containers.create(
                CreateRequest(Config(image="tiny"), HostConfig(), {"bridge": Endpoint(aliases=("x",))})
            )
        with pytest.raises(Invalid, match="static address"):
            world.engine.containers.create(
                CreateRequest(Config(image="tiny"), HostConfig(), {"bridge": Endpoint(ipv4="172.29.0.9")})
            )
    finally:
        world.engine.containers.remove(first, True, True)


def host_is_loopback_only() -> bool:
    from lading.engine import etcfiles

    return etcfiles.host_has_only_loopback()


def test_networks_are_apart_in_both_directions(world: World) -> None:
    with network(world, "left") as left, network(world, "right") as right:
        a, b = left.up("aa", *SERVE), right.up("bb", *SERVE)
        assert not reaches(world, a, right.address(b), 80) and not reaches(world, b, left.address(a), 80)
        assert not resolve(world, a, "bb.right") and not resolve(world, b, "aa.left")
        c = left.up("cc")
        assert reaches(world, c, left.address(a), 80)
        world.engine.networks.connect("right", c)
        assert reaches(world, c, right.address(b), 80) and reaches(world, c, "bb", 80)
        assert reaches(world, c, "aa", 80)
        assert not reaches(world, a, right.address(b), 80)  # c is no router
        world.engine.networks.disconnect("right", c)
        assert not reaches(world, c, right.address(b), 80) and not resolve(world, c, "bb.right")


def test_an_internal_network_has_no_outside_for_names_either(world: World) -> None:
    with network(world, "inner", internal=True) as net, upstream() as asked:
        one = net.up("one", dns=("127.0.0.1",))
        net.up("two")
        assert resolve(world, one, "two")
        start = time.monotonic()
        assert not resolve(world, one, "example.test")
        assert time.monotonic() - start < 3 and not asked  # said at once, and by nobody outside
        assert "default" not in world.exec(one, "busybox", "ip", "route")[1]


@contextlib.contextmanager
def upstream() -> Iterator[list[bytes]]:
    """A name server on the host's loopback that knows one address for everything; yields what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket() as streams:
        for sock in (server, streams):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 53))
            sock.settimeout(0.1)
        streams.listen()
        stop = threading.Event()

        def reply(data: bytes) -> bytes:
            asked.append(data)
            end = data.index(b"\0", 12) + 5
            if b"\x04gone" in data:
                return data[:2] + b"\x81\x83" + data[4:6] + bytes(6) + data[12:end]
            if b"\x03big" in data and not data.endswith(b"tcp"):
                return data[:2] + b"\x83\x80" + data[4:6] + bytes(6) + data[12:end]
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x07"  # 192.0.2.7
            known = data[end - 4 : end - 2] == b"\0\1"
            return (
                data[:2]
                + b"\x81\x80"
                + data[4:6]
                + (b"\0\1" if known else b"\0\0")
                + bytes(4)
                + (data[12:end] + (record if known else b""))
            )

        def datagrams() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    data, peer = server.recvfrom(4096)
                    server.sendto(reply(data), peer)

        def connections() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = streams.accept()
                    with connection:
                        connection.settimeout(2)
                        data = connection.recv(4096)[2:]
                        answer = reply(data + b"tcp")
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)

        threads = [threading.Thread(target=work) for work in (datagrams, connections)]
        for thread in threads:
            thread.start()
        try:
            yield asked
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_other_names_are_asked_of_the_hosts_servers(world: World) -> None:
    """A server on the host's own loopback, which no container could reach by itself."""
    with network(world, "out") as net, upstream() as asked:
        one = net.up("one", dns=("127.0.0.1",))
        assert "192.0.2.7" in resolve(world, one, "example.test") and asked
        assert not resolve(world, one, "gone.test")
        asked.clear()
        assert resolve(world, one, "one") and not asked  # what is a container's goes nowhere


def test_a_long_answer_is_fetched_by_tcp(world: World) -> None:
    with network(world, "long") as net, upstream():
        one = net.up("one", dns=("127.0.0.1",))
        identifier = world.engine.containers.inspect(one)
        pid = identifier.state.pid
        from lading.linux import netns
        from lading.network.dns import message

        query = b"\0\7\1\0\0\1\0\0\0\0\0\0" + message.wire_name("big.test") + b"\0\1\0\1"

        def go() -> tuple[bytes, bytes]:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as short:
                short.settimeout(5)
                short.connect(("127.0.0.11", 53))
                short.send(query)
                cut = short.recv(4096)
            with socket.create_connection(("127.0.0.11", 53), 5) as stream:
                stream.sendall(len(query).to_bytes(2, "big") + query)
                return cut, stream.recv(4096)[2:]

        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            cut, whole = netns.inside(fd, go)
        finally:
            os.close(fd)
        assert cut[2] & 0x02 and not whole[2] & 0x02
        assert cut[:2] == whole[:2] == query[:2] and whole.endswith(b"\xc0\0\2\x07")


def test_a_silent_name_server_ends_in_servfail_not_in_a_hang(world: World) -> None:
    with network(world, "mute") as net:
        one = net.up("one", dns=("127.0.0.1",))  # nobody listens there
        start = time.monotonic()
        assert not resolve(world, one, "example.test")
        assert time.monotonic() - start < 5


def test_static_addresses_ranges_and_their_refusals(world: World) -> None:
    pools = Pools(
        "10.99.21.0/24",
        "10.99.21.254",
        "fd5a:2121::/64",
        "",
        "10.99.21.128/29",
        "",
        {"box": "10.99.21.128"},
    )
    with network(world, "fixed", pools) as net:
        one = net.up("one", endpoint=Endpoint(ipv4="10.99.21.7", ipv6="fd5a:2121::7"))
        text = world.exec(one, "ip", "addr")[1]
        assert "10.99.21.7/24" in text and "fd5a:2121::7/64" in text
        assert "via 10.99.21.254" in world.exec(one, "busybox", "ip", "route")[1]
        two = net.up("two")
        assert net.address(two) == "10.99.21.129"  # of the range, past what is kept aside
        assert "fd5a:2121::7" in resolve(world, two, "one", "-type=aaaa")
        assert world.exec(two, "busybox", "ping", "-6", "-c", "1", "-W", "2", "one")[0] == 0
        with pytest.raises(Conflict, match="in use"):
            net.up("three", endpoint=Endpoint(ipv4="10.99.21.7"))
        with pytest.raises(Invalid, match="not one of the host addresses"):
            net.up("four", endpoint=Endpoint(ipv4="10.99.0.1"))
        with pytest.raises(Invalid, match="invalid network alias"):
            net.up("five", endpoint=Endpoint(aliases=("a b",)))
        net.ids.extend(view.id for view in world.engine.containers.list(True) if view.id not in net.ids)
        with pytest.raises(Denied, match="overlaps"):
            world.engine.networks.create("over", pools=Pools("10.99.21.0/25"))


@pytest.mark.parametrize(
    ("pools", "options", "error"),
    [
        (Pools("10.99.22.0/31"), {}, Invalid),
        (Pools("10.99.22.0/24", "10.9.9.9"), {}, Invalid),
        (Pools("10.99.22.0/24", ip_range="10.9.9.0/25"), {}, Invalid),
        (Pools("10.99.22.0/24", auxiliary={"x": "10.9.9.9"}), {}, Invalid),
        (Pools("fd00::/64"), {}, Invalid),
        (Pools(), {"com.docker.network.driver.mtu": "x"}, Invalid),
        (Pools(), {"com.docker.network.bridge.name": "a/b"}, Invalid),
        (Pools(), {"com.docker.network.bridge.enable_icc": "false"}, Unsupported),
    ],
)
def test_refused_networks_leave_nothing(
    world: World, pools: Pools, options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        world.engine.networks.create("bad", pools=pools, options=options)
    assert not world.engine.networks.list({"name": ("bad",)})


def test_ipv6_without_a_subnet_gets_one(world: World) -> None:
    with network(world, "six", enable_ipv6=True) as net:
        found = world.engine.networks.inspect("six")
        assert found.subnet6.startswith("fd") and found.subnet6.endswith("::/64")
        one, two = net.up("one"), net.up("two")
        assert world.exec(one, "busybox", "ping", "-6", "-c", "1", "-W", "2", "two")[0] == 0
        assert two


def test_the_default_route_follows_connect_and_disconnect(world: World) -> None:
    with network(world, "closed", internal=True) as net, network(world, "open"):
        one = net.up("one")

        def route() -> str:
            return world.exec(one, "busybox", "ip", "route")[1]

        assert "default" not in route()
        world.engine.networks.connect("open", one)
        gateway = world.engine.networks.inspect("open").gateway
        assert f"default via {gateway} dev eth1" in route()
        world.engine.networks.connect("bridge", one, Endpoint(gw_priority=5))
        assert f"default via {world.engine.networks.inspect('bridge').gateway} dev eth2" in route()
        world.engine.networks.disconnect("bridge", one)
        assert f"default via {gateway} dev eth1" in route()
        world.engine.networks.disconnect("closed", one)
        world.engine.networks.connect("closed", one)  # takes the number that is free again
        names = {state.network_name for state in world.engine.containers.inspect(one).networks}
        assert names == {"open", "closed"} and "eth0" in world.exec(one, "ip", "addr")[1]
        world.engine.containers.restart(one, 0)
        assert "default via" in route()
        world.engine.networks.disconnect("open", one)
        world.engine.networks.disconnect("closed", one)
        assert "eth" not in world.exec(one, "ip", "addr")[1]
        world.engine.networks.connect("closed", one)
        assert resolve(world, one, "one.closed")


def test_a_connect_that_fails_half_way_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with network(world, "first") as net, network(world, "second"):
        one = net.up("one")
        engine = world.engine
        before = engine.containers.inspect(one)
        route = world.exec(one, "busybox", "ip", "route")[1]

        def fails(*_: object) -> None:
            monkeypatch.undo()
            raise Unavailable("no resolver")

        monkeypatch.setattr(engine.networks.naming, "update", fails)
        with pytest.raises(Unavailable):
            engine.networks.connect("second", one, Endpoint(gw_priority=9))
        assert engine.containers.inspect(one).networks == before.networks
        assert world.exec(one, "busybox", "ip", "route")[1] == route
        assert "eth1" not in world.exec(one, "ip", "addr")[1] and resolve(world, one, "one")
        assert not engine.networks.containers("second")
        engine.networks.connect("second", one)
        engine.networks.disconnect("second", one)


def test_published_ports_follow_the_way_out(world: World) -> None:
    with network(world, "web2"), network(world, "web1") as net:
        one = net.up("one", *SERVE, port_bindings=(PortBinding(80),))
        port = int(world.engine.containers.inspect(one).ports[0].host_port)
        assert hears(port)
        world.engine.networks.connect("web2", one)
        world.engine.networks.disconnect("web1", one)
        assert hears(port)


def hears(port: int, address: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((address, port), 3) as client:
            client.settimeout(3)
            return client.recv(100) == b"hello\n"
    except OSError:
        return False


def test_ports_of_ipv6_networks_answer_on_both(world: World) -> None:
    with network(world, "dual", enable_ipv6=True) as net:
        one = net.up("one", *SERVE, port_bindings=(PortBinding(80),))
        port = int(world.engine.containers.inspect(one).ports[0].host_port)
        found = world.engine.networks.inspect("dual")
        two = net.up("two")
        for address in (found.gateway, found.gateway6):
            assert reaches(world, two, address, port), address
            assert hears(port, address), address
        with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError):
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::", port))  # reserved


def test_an_ipv6_port_needs_an_ipv6_network(world: World) -> None:
    with network(world, "four") as net, pytest.raises(Unsupported, match="no IPv6 address"):
        net.up("one", port_bindings=(PortBinding(80, host_ip="::1"),))


def test_a_network_may_publish_on_one_address_only(world: World) -> None:
    options = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
    with network(world, "local", options=options) as net:
        one = net.up("one", *SERVE, port_bindings=(PortBinding(80),))
        binding = world.engine.containers.inspect(one).ports[0]
        assert binding.host_ip == "127.0.0.1" and hears(int(binding.host_port))
        gateway = world.engine.networks.inspect("local").gateway
        assert not hears(int(binding.host_port), gateway)


def test_a_rate_holds_in_both_directions(world: World) -> None:
    """1 MiB at 16 Mbit/s takes half a second, less what passes at once; without a limit a hundredth of that."""
    with network(world, "slow") as net:
        source = ("nc", "-ll", "-p", "80", "-e", "dd", "if=/dev/zero", "bs=65536", "count=16")
        fast = net.up("fast", *source)
        slow = net.up("slow", *source, net_rate=Rate(egress=16_000_000))
        late = net.up("late", net_rate=Rate(ingress=16_000_000))
        free = net.up("free")

        def seconds(client: str, server: str) -> float:
            start = time.monotonic()
            code, text = world.exec(client, "sh", "-c", f"nc {net.address(server)} 80 | wc -c")
            assert code == 0 and int(text) >= 1 << 20, text  # dd says something, too
            return time.monotonic() - start

        assert seconds(free, slow) > 0.3
        assert seconds(late, fast) > 0.3
        assert seconds(free, fast) < 0.3
        mine = {name for _, name in socket.if_nameindex()}
        assert f"lv{slow[:8]}0i" in mine
        world.engine.containers.stop(slow, 0)
        eventually(lambda: f"lv{slow[:8]}0i" not in {name for _, name in socket.if_nameindex()})


def test_a_rate_needs_a_network_of_its_own(world: World) -> None:
    with pytest.raises(Invalid, match="--net-rate"):
        world.create("true", net="none", net_rate=Rate(egress=1_000_000))
    with pytest.raises(Invalid, match="cannot be held"):
        world.create("true", net="bridge", net_rate=Rate(ingress=7))


def test_build_steps_resolve_names_of_their_network(world: World) -> None:
    with network(world, "yard") as net:
        db = net.up("db")
        taken = world.engine.executor._take("yard")
        try:
            assert taken.named
            from lading.linux import netns
            from lading.network.dns import message

            def go() -> bytes:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.settimeout(5)
                    client.connect(("127.0.0.11", 53))
                    client.send(b"\0\7\1\0\0\1\0\0\0\0\0\0" + message.wire_name("db") + b"\0\1\0\1")
                    return client.recv(4096)

            assert netns.inside(taken.fd, go).endswith(socket.inet_aton(net.address(db)))
        finally:
            world.engine.executor._drop(taken)


def test_a_flood_of_questions_is_the_askers_own_trouble(world: World) -> None:
    """One container asks all it can, by UDP, by many TCP connections and with garbage; its neighbour is answered."""
    with network(world, "busy") as net, upstream():
        flooder, victim = net.up("flooder", dns=("127.0.0.1",)), net.up("victim")
        pid = world.engine.containers.inspect(flooder).state.pid
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        stop = threading.Event()

        def flood() -> None:
            from lading.linux import netns

            def work() -> None:
                streams = []
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.connect(("127.0.0.11", 53))
                    client.setblocking(False)
                    for number in range(100_000):
                        if stop.is_set():
                            break
                        with contextlib.suppress(OSError):
                            client.send(
                                os.urandom(30)
                                if number % 2
                                else b"\0\7\1\0\0\1" + bytes(6) + b"\1x\0\0\1\0\1"
                            )
                        if number % 500 == 0 and len(streams) < 100:
                            with contextlib.suppress(OSError):
                                streams.append(socket.create_connection(("127.0.0.11", 53), 0.1))
                for stream in streams:
                    stream.close()

            netns.inside(fd, work)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(5):
                start = time.monotonic()
                assert net.address(flooder) in resolve(world, victim, "flooder")
                assert time.monotonic() - start < 2
        finally:
            stop.set()
            thread.join()
            os.close(fd)
        assert net.address(victim) in resolve(world, flooder, "victim")


def test_a_firewall_in_the_way_is_told_of(world: World) -> None:
    """In a name of our own, and without a hook where packets of others pass: what is judged is what it says."""
    networks = world.engine.networks
    kernel = networks._open()
    before = kernel.obstacles
    try:
        kernel.obstacles = lambda: ("ip filter FORWARD",)  # type: ignore[method-assign]
        networks._looked = -1e9
        assert any("ip filter FORWARD" in text for text in world.engine.system.info()["Warnings"])
        made = CreateRequest(Config(image="tiny"), HostConfig(), {}, "warned")
        identifier, warnings = world.engine.containers.create(made)
        world.engine.containers.remove(identifier, True, True)
        assert any("ip filter FORWARD" in text for text in warnings)
    finally:
        kernel.obstacles = before  # type: ignore[method-assign]
        networks._looked = -1e9
    assert not any("FORWARD" in text for text in networks.warnings()) or kernel.obstacles()


# -- the daemon is disposable, and so is the resolver --------------------------------------------------------------

HOLDER = """
import sys, time
sys.path[:0] = {path!r}
from lading.assemble import build_engine
from lading.base.paths import Paths
from lading.engine.model import Config, CreateRequest, HostConfig, Rate
engine = build_engine(Paths({root!r}, {run!r}), {{}})
engine.networks.create("stay")
pids = []
for name, rate in (("one", Rate()), ("two", Rate(egress=10_000_000))):
    host = HostConfig(network_mode="stay", net_rate=rate)
    made = engine.containers.create(CreateRequest(Config(image="tiny", cmd=("sleep", "1000")), host, {{}}, name))[0]
    engine.containers.start(made)
    pids.append(engine.containers.inspect(made).state.pid)
print(*pids, flush=True)
time.sleep(1000)
"""


def killed_daemon(paths: Paths) -> list[int]:
    """Containers one and two on the network stay, whose engine was killed: the pids of their inits."""
    script = HOLDER.format(path=sys.path, root=paths.root, run=paths.run)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pids = [int(word) for word in holder.stdout.readline().split()]
        holder.kill()
    if len(pids) != 2:
        with engine_at(paths):  # which takes along what was made so far
            pytest.fail("the engine that was to be killed did not come up")
    return pids


def resolver_of(run: str) -> int:
    """The pid of the resolver whose control socket is in `run`; 0 when none runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        try:
            control.connect(f"{run}/names.sock")
        except OSError:
            return 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "lading-names\n" and run_of(int(pid)) == run:
                    return int(pid)
    return 0


def run_of(pid: int) -> str:
    """The directory of the control socket a resolver listens on."""
    inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) == 8 and f"socket:[{words[6]}]" in inodes and words[7].endswith("/names.sock"):
            return os.path.dirname(words[7])
    return ""


def test_names_outlive_a_killed_daemon_and_a_killed_resolver(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    with engine_at(paths):
        pass
    killed_daemon(paths)
    first = resolver_of(paths.run)
    assert first
    with engine_at(paths) as engine:
        world = World(engine, paths)
        two = engine.networks.containers("stay")[engine.containers.inspect("two").id].ipv4
        assert two in resolve(world, "one", "two")
        assert resolver_of(paths.run) == first  # the same one went on
        os.kill(first, signal.SIGKILL)
        eventually(lambda: resolver_of(paths.run) not in (0, first))  # the daemon sees to it
        engine.containers.rename("two", "second")
        assert two in resolve(world, "one", "second")
        second = resolver_of(paths.run)
        assert second not in (0, first)
        status = Path(f"/proc/{second}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status and "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        engine.containers.kill("one", "SIGKILL")
        engine.containers.remove("one", True, True)
        engine.containers.remove("second", True, True)
        engine.networks.remove("stay")
    eventually(lambda: not os.path.exists(f"/proc/{second}"))
    assert not {"names.sock", "network"} & set(os.listdir(paths.run))


def test_what_ends_without_a_daemon_is_let_go(tmp_path: Path) -> None:
    """The resolver sees the end of a container by itself: its sockets would keep the namespace, and so the veth pair."""
    paths = paths_below(tmp_path)
    with engine_at(paths):
        pass
    pids = killed_daemon(paths)
    resolver = resolver_of(paths.run)
    assert resolver
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{resolver}"))
    bridge = bridge_of(paths)
    eventually(lambda: not os.listdir(f"/sys/class/net/{bridge}/brif"))
    ifbs = {name for _, name in socket.if_nameindex() if name.startswith("lv") and name.endswith("0i")}
    with engine_at(paths) as engine:
        assert [view.state.status for view in engine.containers.list(True)] == ["exited", "exited"]
        mine = {f"lv{view.id[:8]}0i" for view in engine.containers.list(True)}
        assert mine & ifbs  # the kernel kept it: it is in the host's namespace
        eventually(lambda: not mine & {name for _, name in socket.if_nameindex()})
        for view in engine.containers.list(True):
            engine.containers.remove(view.id, True, True)
        engine.networks.remove("stay")
    assert not os.path.exists(f"/sys/class/net/{bridge}") and not os.path.exists(f"{paths.run}/network")


def bridge_of(paths: Paths) -> str:
    """The bridge of the network `stay`, as the database of a killed daemon has it."""
    with contextlib.closing(sqlite3.connect(paths.database)) as db:
        row = db.execute("SELECT record FROM networks WHERE name = 'stay'").fetchone()
    return str(json.loads(row[0])["bridge"])
