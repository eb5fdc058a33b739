"""Which subnet a network takes and which address a container. Pure: what is taken is told, nothing is
remembered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable

from lading.base.errors import Conflict, Invalid, Unavailable
from lading.network.values import pack_address, parse_subnet

_SEARCH_LIMIT = 1 << 20
"""More addresses than any host has containers: an IPv6 subnet is not walked to its end."""


def allocate(
    subnet: str, taken: Container[str], requested: str = "", *, after: str = "", within: str = ""
) -> str:
    """A free address of `subnet`: the requested one, or the next free one after `after`, coming round.

    Chosen ones come from the range `within`, where one is given.

    `taken` holds addresses in their canonical text, the gateway's among them. Giving the address that was
    handed out last as `after` keeps a freed address unused for as long as possible, so that nobody still
    holds its MAC address or a connection to its former owner.
    """
    network = parse_subnet(subnet)
    first, last = _usable(network)
    if requested:
        number = int.from_bytes(pack_address(requested), "big")
        same = (":" in requested) == (network.version == 6)
        if not same or not first <= number <= last:
            raise Invalid(
                f"address {requested} cannot be given out",
                why=f"It is not one of the host addresses of subnet {subnet}.",
            )
        text = str(ipaddress.ip_address(requested))
        if text in taken:
            raise Conflict(f"address {text} is in use", hint="Choose another, or let lading choose one.")
        return text
    if within:
        part = parse_subnet(within)
        first, last = max(first, int(part[0])), min(last, int(part[-1]))
    make = type(network.network_address)
    start = int.from_bytes(pack_address(after), "big") + 1 if after else first
    if not first <= start <= last:
        start = first
    size = last - first + 1
    for step in range(min(size, _SEARCH_LIMIT)):
        number = first + (start - first + step) % size
        text = str(make(number))
        if text not in taken:
            return text
    raise Unavailable(
        f"no address is left in {f'range {within} of ' if within else ''}subnet {subnet}",
        hint="Remove containers that are no longer needed, or make a network with a larger subnet.",
    )


def _usable(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
    """First and last host address: the network's own and IPv4's broadcast are none, but in a /31 (RFC 3021)."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.max_prefixlen - network.prefixlen < 2:
        return first, last
    return first + 1, last - (1 if network.version == 4 else 0)


def mac_of(ipv4: str) -> str:
    """A locally administered MAC address that follows from an IPv4 address: unique where that is."""
    packed = pack_address(ipv4)
    if len(packed) != 4:
        raise Invalid(f"{ipv4} is not an IPv4 address")
    return ":".join(f"{byte:02x}" for byte in b"\x02\x4c" + packed)


default_subnets: tuple[str, ...] = (
    *(f"172.{number}.0.0/16" for number in (29, 30, 28, 27, 26, 25, 24)),
    *(f"10.{number}.0.0/16" for number in range(210, 220)),
    *(f"192.168.{number}.0/20" for number in range(112, 256, 16)),
)
"""Private ranges (RFC 1918) in order of preference; the ones other engines and clouds take first come late
or never.
"""


def pick_subnet(taken: Iterable[str]) -> str:
    """The first default subnet that overlaps none of `taken`: the host's routes and other networks."""
    used = [network for network in map(parse_subnet, taken) if network.version == 4]
    for subnet in default_subnets:
        candidate = ipaddress.ip_network(subnet)
        if not any(candidate.overlaps(network) for network in used):
            return subnet
    raise Unavailable(
        "no subnet is left for a new network",
        why="Each of the default ones overlaps a route of this host or another network.",
        hint="Give one with --subnet, or remove networks that are no longer needed.",
    )
