"""Interfaces: bridges of the host, namespaces for containers, and the veth pairs between them.

Owns what is said to the kernel about links, addresses, routes and their sysctls. Never touches packet
rules, and remembers nothing: what exists is what the kernel says. Raises OSError; `networks` translates.
"""

from __future__ import annotations

import _thread
import errno
import ipaddress
import os
import socket
import time

from lading.linux import netlink_route as route
from lading.linux import netns
from lading.linux.netlink import ROUTE, Message, Netlink
from lading.network.addresses import mac_of
from lading.network.values import Bridge, Interface, pack_address, pack_mac, parse_subnet

ASIDE = "ldgone"
"""How the names of interfaces begin that are being deleted."""
_CARRIER_TRIES = 100  # of a millisecond; one is enough since Linux 6.1
_LOOPBACK_INDEX = 1  # every network namespace is born with lo as its first interface (net/core/dev.c)


def sandbox() -> int:
    """A descriptor of a fresh network namespace whose lo is up."""
    return netns.create(_raise_loopback)


def _raise_loopback(_: int) -> None:
    with Netlink(ROUTE) as netlink:
        netlink.request([route.set_up(_LOOPBACK_INDEX)])


def attach(netlink: Netlink, sandbox_fd: int, interface: Interface) -> None:
    """Make the pair, give the container's end its addresses and routes. Whole or not at all."""
    mac = pack_mac(interface.mac) if interface.mac else _random_mac()
    master = index_of(interface.bridge)
    if not master:
        raise OSError(errno.ENODEV, f"bridge {interface.bridge}: {os.strerror(errno.ENODEV)}")
    name = interface.host_name
    netlink.request([route.add_veth(name, interface.mtu, master, interface.guest_name, mac, sandbox_fd)])
    try:
        netlink.request([route.hairpin(name)])
        netns.inside(sandbox_fd, lambda: _configure(interface))
        await_carrier(netlink, index_of(name), master)
    except BaseException:
        delete(netlink, name)
        raise


def set_default_route(sandbox_fd: int, guest_name: str, gateways: tuple[str, ...]) -> None:
    """Replace the default routes of a namespace by those through one of its interfaces."""

    def work() -> None:
        index = index_of(guest_name)
        with Netlink(ROUTE) as netlink:
            netlink.request(
                [route.set_default_route(index, pack_address(gateway)) for gateway in gateways if gateway]
            )

    netns.inside(sandbox_fd, work)


def _random_mac() -> bytes:
    """Locally administered and unicast, by the two low bits of the first byte (IEEE 802)."""
    return b"\x02" + os.urandom(5)


def _configure(interface: Interface) -> None:
    """Inside the container's namespace."""
    index = index_of(interface.guest_name)
    messages: list[Message] = []
    if interface.ipv4:
        messages.append(route.add_address(index, pack_address(interface.ipv4), interface.prefix))
    if interface.ipv6:
        _still_ipv6(interface.guest_name)
        messages.append(route.add_address(index, pack_address(interface.ipv6), interface.prefix6))
    else:
        # No link-local address, no router solicitation: a network without IPv6 has none.
        write_sysctl(f"ipv6/conf/{interface.guest_name}/disable_ipv6", "1", missing_ok=True)
    messages.append(route.set_up(index))
    for gateway in (interface.gateway, interface.gateway6):
        if gateway:
            messages.append(route.add_default_route(index, pack_address(gateway)))
    with Netlink(ROUTE) as netlink:
        netlink.request(messages)


def await_carrier(netlink: Netlink, *indexes: int) -> None:
    """Return when these interfaces pass packets.

    The host's end gets its carrier when the container's end comes up, and the bridge its own from its first port;
    the kernel acts on that a little later, and drops what is sent before. A container that connects at once would
    lose its first packet, and wait a second for the next: it was one start in five.
    """
    for _ in range(_CARRIER_TRIES):
        if all(route.link_of(body).ready for body in netlink.request([route.link(i) for i in indexes])):
            return
        time.sleep(0.001)


def detach(netlink: Netlink, host_name: str) -> None:
    """Cut the interface off and free its name at once; one that is gone already is no error.

    Deleting an interface waits for a grace period of the kernel (30 ms here, and one after the other), so
    that is left to a thread of its own. If the process ends before, the pair goes with its namespace.
    """
    index = index_of(host_name)
    if not index:
        return
    spare = f"{ASIDE}{os.urandom(4).hex()}"
    try:
        netlink.request([route.set_loose(index), route.rename(index, spare)])
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    else:
        try:
            _thread.start_new_thread(_delete_aside, (spare,))
        except RuntimeError:  # no more threads: wait after all
            _delete_aside(spare)


def _delete_aside(name: str) -> None:
    try:
        with Netlink(ROUTE) as netlink:
            delete(netlink, name)
    except OSError:
        pass  # nobody waits for it any more, and it is cut off: it goes with its namespace


def delete(netlink: Netlink, name: str) -> None:
    """Delete an interface now; one that is gone already is no error."""
    try:
        netlink.request([route.delete_link(name)])
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def index_of(name: str) -> int:
    """The kernel's number of an interface of this thread's namespace; 0 when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def ensure_bridge(netlink: Netlink, bridge: Bridge) -> bool:
    """Make the bridge where it is missing (True); give it what it lacks where it is not (False)."""
    link = _link(netlink, bridge.name)
    if link is None:
        packed = pack_mac(mac_of(bridge.gateway)) if bridge.gateway else _random_mac()
        netlink.request([route.add_bridge(bridge.name, packed, bridge.mtu)])
    elif link.kind != "bridge":
        raise OSError(errno.EEXIST, f"interface {bridge.name} exists and is no bridge")
    try:
        _furnish_bridge(netlink, bridge)
    except BaseException:
        if link is None:
            delete(netlink, bridge.name)
        raise
    return link is None


def remove_bridge(netlink: Netlink, name: str) -> None:
    """Delete a bridge; one that is gone already is no error, another kind of interface is."""
    link = _link(netlink, name)
    if link is not None and link.kind != "bridge":
        raise OSError(errno.EEXIST, f"interface {name} is no bridge")
    delete(netlink, name)


def _link(netlink: Netlink, name: str) -> route.Link | None:
    found = (route.link_of(body) for _, body in netlink.dump(route.links()))
    return next((link for link in found if link.name == name), None)


def _furnish_bridge(netlink: Netlink, bridge: Bridge) -> None:
    index = index_of(bridge.name)
    # 127.0.0.1 may be translated to a container behind this bridge; chain "raw" keeps all others from it.
    write_sysctl(f"ipv4/conf/{bridge.name}/route_localnet", "1")
    if bridge.subnet6:
        _still_ipv6(bridge.name)
    else:
        write_sysctl(f"ipv6/conf/{bridge.name}/disable_ipv6", "1", missing_ok=True)
    addresses = _readdress(netlink, index, bridge)
    netlink.request([route.set_mtu(index, bridge.mtu), route.set_up(index), *addresses])
    if bridge.subnet and not bridge.internal:
        write_sysctl("ipv4/ip_forward", "1")
    if bridge.subnet6 and not bridge.internal:
        _forward_ipv6()


def _readdress(netlink: Netlink, index: int, bridge: Bridge) -> list[Message]:
    """Add the gateways it lacks; delete what an earlier life left, whose subnets may be others' now."""
    present = (route.address_of(body) for _, body in netlink.dump(route.addresses()))
    held = {(address, prefix) for owner, address, prefix in present if owner == index}
    pairs = ((bridge.gateway, bridge.subnet), (bridge.gateway6, bridge.subnet6))
    wanted = {
        (str(ipaddress.ip_address(gateway)), parse_subnet(subnet).prefixlen)
        for gateway, subnet in pairs
        if gateway
    }
    stale = [pair for pair in held - wanted if not pair[0].startswith("fe80:")]
    return [
        *(route.delete_address(index, pack_address(address), prefix) for address, prefix in stale),
        *(route.add_address(index, pack_address(address), prefix) for address, prefix in wanted - held),
    ]


def _still_ipv6(name: str) -> None:
    """Heed no router advertisement: on a bridge any container could send one. Use the link-local address at
    once, not after a second of duplicate detection: nobody else chooses addresses here.
    """
    write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
    write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
    write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")


def _forward_ipv6() -> None:
    """Turn IPv6 forwarding on without losing the host's own routes.

    A forwarding host ignores router advertisements unless accept_ra is 2
    (Documentation/networking/ip-sysctl.rst), so interfaces that heed them now go on doing so.
    """
    if read_sysctl("ipv6/conf/all/forwarding") == "1":
        return
    for name in os.listdir("/proc/sys/net/ipv6/conf"):
        if name not in ("all", "default") and read_sysctl(f"ipv6/conf/{name}/accept_ra") == "1":
            write_sysctl(f"ipv6/conf/{name}/accept_ra", "2")
    write_sysctl("ipv6/conf/all/forwarding", "1")


def read_sysctl(name: str) -> str:
    """The text of /proc/sys/net/<name>, "" where the kernel has none."""
    try:
        with open(f"/proc/sys/net/{name}", encoding="ascii") as file:
            return file.read(64).strip()
    except FileNotFoundError:
        return ""


def write_sysctl(name: str, value: str, *, missing_ok: bool = False) -> None:
    """Set /proc/sys/net/<name> of this thread's namespace, unless it says so already (it may be read-only)."""
    path = f"/proc/sys/net/{name}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(fd, 64).strip() == value.encode():
                return
        finally:
            os.close(fd)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except FileNotFoundError:
        if not missing_ok:
            raise


def subnets_in_use(netlink: Netlink) -> tuple[str, ...]:
    """Every destination the host has a route to, default routes and host routes apart."""
    found = []
    for _, body in netlink.dump(route.routes()):
        destination, prefix, _ = route.route_of(body)
        bits = 128 if ":" in destination else 32
        if destination and 0 < prefix < bits:
            found.append(f"{destination}/{prefix}")
    return tuple(dict.fromkeys(found))
