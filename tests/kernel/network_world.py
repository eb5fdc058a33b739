"""A whole small world for network tests: a host, its containers and a neighbour, each a network namespace
of our own.

The calling thread itself moves into the host's namespace, so nothing here touches the machine's interfaces,
rules or sysctls, nor an engine that runs on it. Every packet stays inside these namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from lading.linux import netlink_route as route
from lading.linux import netns
from lading.linux.netlink import ROUTE, Netlink
from lading.network import Bridge, Forward, Interface, Networks, links

HOST, OUTSIDE = "203.0.113.1", "203.0.113.2"
HOST6, OUTSIDE6 = "2001:db8:5::1", "2001:db8:5::2"
NEAR = Bridge("ladtest0", "10.213.0.0/24", "10.213.0.1", "fd5a:213::/64", "fd5a:213::1")
FAR = Bridge("ladtest1", "10.213.1.0/24", "10.213.1.1")
INNER = Bridge("ladtest2", "10.213.2.0/24", "10.213.2.1", internal=True)

_libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


class Guest:
    """A container as the network sees it, with servers that answer "name sender"."""

    def __init__(self, world: World, name: str, bridge: Bridge, last: int, *, ipv6: bool = False) -> None:
        self.name = name
        self.fd = world.networks.sandbox()
        world.stack.callback(os.close, self.fd)
        self.ip = f"{bridge.subnet.rpartition('.')[0]}.{last}"
        self.ip6 = f"{bridge.subnet6.partition('/')[0]}{last}" if ipv6 else ""
        self.host_name = f"vethlt{name}"
        world.networks.attach(
            self.fd,
            Interface(
                bridge.name,
                self.host_name,
                ipv4=self.ip,
                prefix=24,
                ipv6=self.ip6,
                prefix6=64 if ipv6 else 0,
                gateway="" if bridge.internal else bridge.gateway,
                gateway6=bridge.gateway6 if ipv6 else "",
            ),
        )
        world.serve(self.fd, name, 80)


class World:
    """The host's namespace (entered), Networks in it, and a neighbour `outside` on a cable."""

    def __init__(self, run_dir: str) -> None:
        self.stack = contextlib.ExitStack()
        home = netns.here()
        self.stack.callback(os.close, home)
        self.stack.callback(_enter, home)
        self.host = links.sandbox()
        self.stack.callback(os.close, self.host)
        _enter(self.host)
        self.before = interfaces()
        self.networks = Networks(run_dir)
        self.netlink = self.stack.enter_context(Netlink(ROUTE))
        # The neighbour's lo stays down: so 127.0.0.1, too, goes out on the cable there.
        self.outside = netns.create(lambda _: None)
        self.stack.callback(os.close, self.outside)
        self.netlink.request([route.add_veth("cable", 1500, 0, "eth0", b"\x02\0\0\0\0\x02", self.outside)])
        self._address(links.index_of("cable"), HOST, HOST6)
        netns.inside(self.outside, self._furnish_outside)
        links.await_carrier(self.netlink, links.index_of("cable"))

    def close(self) -> None:
        self.networks.close()
        self.stack.close()

    def _furnish_outside(self) -> None:
        index = links.index_of("eth0")
        self._address(index, OUTSIDE, OUTSIDE6)
        links.write_sysctl("ipv4/conf/eth0/route_localnet", "1")  # it would hear answers from 127.0.0.1
        with Netlink(ROUTE) as netlink:
            for gateway, family in ((HOST, socket.AF_INET), (HOST6, socket.AF_INET6)):
                netlink.request([route.add_default_route(index, socket.inet_pton(family, gateway))])

    @staticmethod
    def _address(index: int, ipv4: str, ipv6: str) -> None:
        with Netlink(ROUTE) as netlink:
            netlink.request(
                [
                    route.set_up(index),
                    route.add_address(index, socket.inet_pton(socket.AF_INET, ipv4), 24),
                    route.add_address(index, socket.inet_pton(socket.AF_INET6, ipv6), 64),
                ]
            )

    def guest(self, name: str, bridge: Bridge, last: int, *, ipv6: bool = False) -> Guest:
        return Guest(self, name, bridge, last, ipv6=ipv6)

    def publish(self, guest: Guest, port: int, host_ip: str = "", protocol: str = "tcp") -> None:
        """Reserve the port, as the engine does, and send it to the guest's port 80."""
        self.stack.callback(os.close, self.networks.reserve(protocol, host_ip, port))
        self.networks.publish(guest.name, (Forward(protocol, host_ip, port, guest.ip, 80),))

    def serve(self, fd: int, name: str, port: int) -> None:
        """TCP and UDP servers in a namespace, until the world ends."""
        listener = netns.inside(
            fd, lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        datagrams = netns.inside(fd, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", port))
        for server, work in ((listener, _answer_stream), (datagrams, _answer_datagram)):
            thread = threading.Thread(target=_loop, args=(work, server, name))
            thread.start()
            self.stack.callback(thread.join)
            self.stack.callback(server.close)
            self.stack.callback(_wake, server)


def _wake(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)  # ends a blocked accept and recvfrom


def _loop(work: Callable[[socket.socket, str], bool], server: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while work(server, name):
            pass


def _answer_stream(server: socket.socket, name: str) -> bool:
    connection, peer = server.accept()
    with connection:
        connection.sendall(f"{name} {peer[0].removeprefix('::ffff:')}".encode())
    return True


def _answer_datagram(server: socket.socket, name: str) -> bool:
    data, peer = server.recvfrom(100)
    if data:
        server.sendto(f"{name} {peer[0].removeprefix('::ffff:')}".encode(), peer)
    return bool(data)


def ask(fd: int, address: str, port: int, protocol: str = "tcp", *, wait: float = 2.0) -> str:
    """What a server at address:port says to a client in namespace `fd`; "" when none can be reached."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

    def go() -> str:
        with socket.socket(family, kind) as client:
            client.settimeout(wait)
            try:
                client.connect((address, port))
                if protocol == "udp":
                    client.send(b"?")
                return client.recv(200).decode()
            except OSError:
                return ""

    return netns.inside(fd, go)


def reaches(fd: int, address: str, port: int, protocol: str = "tcp") -> bool:
    """Whether a client in `fd` can reach address:port; says no after a short while."""
    return ask(fd, address, port, protocol, wait=0.4) != ""


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def settles(check: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `check` becomes true: the kernel takes dead namespaces apart in its own time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.02)
    return check()


@contextlib.contextmanager
def world(run_dir: str) -> Iterator[World]:
    made = World(run_dir)
    try:
        yield made
    finally:
        made.close()
