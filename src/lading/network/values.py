"""The network room's values: a bridge, a container's place on it, a published port.

Owns their fields and the checks that keep hostile text out of kernel names and /proc paths; never touches
the kernel.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from lading.base.errors import Invalid, Unsupported

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\Z")
_RESERVED = frozenset({"all", "default", "lo"})  # names with a meaning of their own in /proc/sys/net/*/conf


def check_interface_name(name: str) -> None:
    """IFNAMSIZ allows 15 bytes; no slash, or a name could leave /proc/sys/net/ipv4/conf."""
    if not isinstance(name, str) or not _NAME.match(name) or name in _RESERVED:
        raise Invalid(
            f"interface name {str(name)[:40]!r} cannot be used",
            why="The kernel takes 1 to 15 letters, digits, dots, dashes and underscores.",
        )


def pack_mac(mac: str) -> bytes:
    """Six bytes of "02:4c:ac:1d:00:02"; a multicast or zero address is refused, as the kernel would."""
    packed = bytes.fromhex(mac.replace(":", "")) if _MAC.match(mac) else b""
    if not packed or packed[0] & 1 or not any(packed):
        raise Invalid(
            f"{mac[:40]!r} is no usable MAC address",
            hint="Give six pairs of hexadecimal digits, the first of them even, such as 02:42:ac:11:00:02.",
        )
    return packed


def pack_address(address: str) -> bytes:
    """4 or 16 bytes; Invalid for anything that is not an IP address."""
    try:
        return ipaddress.ip_address(address).packed
    except ValueError:
        raise Invalid(f"{address[:60]!r} is not an IP address") from None


def parse_subnet(subnet: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that "172.29.0.0/16" names; Invalid when malformed or when host bits are set."""
    try:
        return ipaddress.ip_network(subnet)
    except ValueError as error:
        hint = "Give a network address and a prefix, such as 172.29.0.0/16."
        raise Invalid(f"subnet {subnet[:60]!r} cannot be used", why=f"{error}.", hint=hint) from None


@dataclass(frozen=True)
class Bridge:
    """A bridge of the host. `gateway` is the host's address on it; an `internal` one reaches nothing else."""

    name: str
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    mtu: int = 1500
    masquerade: bool = True

    def __post_init__(self) -> None:
        check_interface_name(self.name)
        if not 68 <= self.mtu <= 65535:
            raise Invalid(f"mtu {self.mtu} cannot be used", why="A bridge takes 68 to 65535 bytes.")
        if not self.subnet and not self.subnet6:
            raise Invalid(f"bridge {self.name} has no subnet")
        for subnet, gateway, version in ((self.subnet, self.gateway, 4), (self.subnet6, self.gateway6, 6)):
            if not subnet and not gateway:
                continue
            network = parse_subnet(subnet)
            if network.version != version:
                raise Invalid(f"subnet {subnet} is not IPv{version}")
            if gateway and ipaddress.ip_address(pack_address(gateway)) not in network:
                raise Invalid(f"gateway {gateway} is not in subnet {subnet}")


@dataclass(frozen=True)
class Rate:
    """Bits a second that a container may send (`egress`) and receive (`ingress`); 0 is without limit."""

    egress: int = 0
    ingress: int = 0

    def __post_init__(self) -> None:
        for bits in (self.egress, self.ingress):
            if bits and not 8000 <= bits <= 10**12:
                raise Invalid(
                    f"network rate of {bits} bits a second cannot be held",
                    why="The range is 8kbit to 1000gbit.",
                )


@dataclass(frozen=True)
class Interface:
    """One veth pair: `host_name` is a port of `bridge`, `guest_name` is in the container.

    An empty address, gateway or mac leaves that out (the kernel draws a random mac).
    """

    bridge: str
    host_name: str
    guest_name: str = "eth0"
    ipv4: str = ""
    prefix: int = 0
    ipv6: str = ""
    prefix6: int = 0
    mac: str = ""
    gateway: str = ""
    gateway6: str = ""
    mtu: int = 1500
    rate: Rate = Rate()

    def __post_init__(self) -> None:
        for name in (self.bridge, self.host_name, self.guest_name):
            check_interface_name(name)
        if self.mac:
            pack_mac(self.mac)
        for address, bits, prefix in ((self.ipv4, 32, self.prefix), (self.ipv6, 128, self.prefix6)):
            if address and not (len(pack_address(address)) * 8 == bits and 1 <= prefix <= bits):
                raise Invalid(
                    f"{address}/{prefix} is not an IPv{4 if bits == 32 else 6} address with a prefix"
                )
        if self.gateway and len(pack_address(self.gateway)) != 4:
            raise Invalid(f"gateway {self.gateway} is not an IPv4 address")
        if self.gateway6 and len(pack_address(self.gateway6)) != 16:
            raise Invalid(f"gateway {self.gateway6} is not an IPv6 address")


@dataclass(frozen=True)
class Forward:
    """A published port. `host_ip` "", "0.0.0.0" or "::" is every local address of the guest's family."""

    protocol: str
    host_ip: str
    host_port: int
    guest_ip: str
    guest_port: int

    def __post_init__(self) -> None:
        check_protocol(self.protocol)
        check_port(self.host_port)
        check_port(self.guest_port)
        guest = pack_address(self.guest_ip)
        host = pack_address(self.host_ip) if self.host_ip else b""
        if any(host) and len(host) != len(guest):
            raise Unsupported(
                f"port {self.host_port} of {self.host_ip} cannot be sent to {self.guest_ip}",
                why="The kernel translates addresses within one family, IPv4 or IPv6, only.",
            )


def check_protocol(protocol: str) -> None:
    if protocol not in ("tcp", "udp"):
        raise Unsupported(
            f"ports of protocol {str(protocol)[:20]!r} cannot be published", hint="Use tcp or udp."
        )


def check_port(port: int) -> None:
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise Invalid(f"{str(port)[:20]} is not a port", why="Ports are 1 to 65535.")
