"""The one nftables table: which packets lading translates, masquerades, lets through and drops. Pure.

Owns the ruleset as a list of netlink messages; sends nothing. Every port, bridge and subnet is an element of a
set or map, so publishing a port is one element, and a packet costs one lookup however many there are.

What the table says, chain by chain:

- raw: what does not come from the host itself may carry no address of 127.0.0.0/8. Without this, route_localnet,
  which lets 127.0.0.1 reach containers, would open the host's loopback to its neighbours and to containers
  (CVE-2020-8558), and to both a port that is published on 127.0.0.1 only.
- prerouting, output: a published port goes to its container; first the ports of one address, then those of
  every local address.
- postrouting: what leaves for elsewhere takes the host's address. So does what comes from 127.0.0.1, which could
  not be answered, and what a container sends to a published port, since its neighbour on the same bridge would
  answer it directly, around the translation.
- forward: within a bridge all passes; an internal bridge has no outside; into a bridge pass answers and published
  ports only, so neither another bridge nor a neighbour with a route gets in. The rest is none of lading's.

An accept here does not overrule another table: where dockerd has set the policy of the FORWARD chain of iptables
to DROP, forwarded packets of containers are dropped there (`Networks.obstacles` tells).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

from lading.linux import netlink_nft as nft
from lading.linux.netlink import Message
from lading.network.values import Bridge, Forward, pack_address, parse_subnet

_PROTOCOL = {"tcp": bytes([socket.IPPROTO_TCP]), "udp": bytes([socket.IPPROTO_UDP])}
_PORT = (nft.TYPE_SERVICE, 2)
_PROTO = (nft.TYPE_PROTOCOL, 1)
_NAME = (nft.TYPE_IFNAME, nft.IFNAME_SIZE)

_SETS = (
    "bridges",  # names of all bridges
    "internal",  # names of the internal ones
    "within",  # (name, name): in and out by the same bridge
    "subnets4",
    "subnets6",
    "masquerade4",  # subnets whose packets to elsewhere take the host's address
    "masquerade6",
    "ports4",  # (protocol, port) -> (guest, port): on every local address
    "ports6",
    "ports_at4",  # (address, protocol, port) -> (guest, port)
    "ports_at6",
)
_ID = {name: number for number, name in enumerate(_SETS, 1)}

_PRIORITY_RAW, _PRIORITY_DNAT, _PRIORITY_FILTER, _PRIORITY_SNAT = -300, -100, 0, 100
_LOOPBACK = bytes([127, 0, 0, 0])
_LOOPBACK_MASK = bytes([255, 0, 0, 0])


class _Family:
    """Where an IP version keeps its addresses: offsets in its header, sizes, registers."""

    def __init__(
        self, suffix: str, number: int, size: int, source: int, destination: int, address: int
    ) -> None:
        self.suffix = suffix
        self.number = number
        self.size = size
        self.source = source
        self.destination = destination
        self.type = (address, size)
        self.after = size // 4  # the register that follows an address in R(0)


_V4 = _Family("4", nft.IPV4, 4, 12, 16, nft.TYPE_IPV4)
_V6 = _Family("6", nft.IPV6, 16, 8, 24, nft.TYPE_IPV6)
_FAMILIES = (_V4, _V6)


def ruleset(
    table: str, bridges: Iterable[Bridge], forwards: Mapping[str, Iterable[Forward]]
) -> list[Message]:
    """The whole table, replacing any earlier one; for one nfnetlink batch."""
    known = tuple(bridges)
    messages = [nft.add_table(table), nft.delete_table(table), nft.add_table(table)]
    messages += _sets(table)
    messages += _bridge_elements(table, known)
    messages += publish(table, [forward for some in forwards.values() for forward in some])
    messages += _chains(table)
    messages += _raw_rules(table)
    for family in _FAMILIES:
        for chain in ("prerouting", "output"):
            messages += _translation_rules(table, chain, family)
    messages += _postrouting_rules(table)
    messages += _forward_rules(table)
    return messages


def nothing(table: str) -> list[Message]:
    """Remove the table, whether or not it is there."""
    return [nft.add_table(table), nft.delete_table(table)]


def publish(table: str, forwards: Iterable[Forward]) -> list[Message]:
    """Add ports; EEXIST when one of them is published already."""
    messages: list[Message] = []
    for name, elements in _by_map(forwards).items():
        messages += nft.add_elements(table, name, elements, exclusive=True)
    return messages


def unpublish(table: str, forwards: Iterable[Forward]) -> list[Message]:
    messages: list[Message] = []
    for name, elements in _by_map(forwards).items():
        messages += nft.delete_elements(table, name, elements)
    return messages


def _by_map(forwards: Iterable[Forward]) -> dict[str, list[nft.Element]]:
    found: dict[str, list[nft.Element]] = {}
    for forward in forwards:
        guest = pack_address(forward.guest_ip)
        host = pack_address(forward.host_ip) if forward.host_ip else b""
        suffix = "4" if len(guest) == 4 else "6"
        key = [_PROTOCOL[forward.protocol], struct.pack("!H", forward.host_port)]
        name = f"ports{suffix}"
        if any(host):
            name = f"ports_at{suffix}"
            key.insert(0, host)
        value = nft.join(guest, struct.pack("!H", forward.guest_port))
        found.setdefault(name, []).append((nft.join(*key), value))
    return found


def _sets(table: str) -> Iterator[Message]:
    for name in ("bridges", "internal"):
        yield nft.add_set(table, name, _ID[name], [_NAME])
    yield nft.add_set(table, "within", _ID["within"], [_NAME, _NAME])
    for family in _FAMILIES:
        for name in (f"subnets{family.suffix}", f"masquerade{family.suffix}"):
            yield nft.add_set(table, name, _ID[name], [family.type], interval=True)
        value = [family.type, _PORT]
        everywhere, at = f"ports{family.suffix}", f"ports_at{family.suffix}"
        yield nft.add_set(table, everywhere, _ID[everywhere], [_PROTO, _PORT], value)
        yield nft.add_set(table, at, _ID[at], [family.type, _PROTO, _PORT], value)


def _bridge_elements(table: str, bridges: tuple[Bridge, ...]) -> Iterator[Message]:
    if not bridges:
        return
    names = [nft.ifname(bridge.name) for bridge in bridges]
    yield from nft.add_elements(table, "bridges", [(name, b"") for name in names])
    yield from nft.add_elements(table, "within", [(name + name, b"") for name in names])
    internal = [(nft.ifname(bridge.name), b"") for bridge in bridges if bridge.internal]
    if internal:
        yield from nft.add_elements(table, "internal", internal)
    for suffix in ("4", "6"):
        pairs = [(bridge.subnet if suffix == "4" else bridge.subnet6, bridge) for bridge in bridges]
        subnets = [(subnet, bridge) for subnet, bridge in pairs if subnet]
        yield from nft.add_intervals(table, f"subnets{suffix}", [_interval(subnet) for subnet, _ in subnets])
        hidden = [
            _interval(subnet) for subnet, bridge in subnets if bridge.masquerade and not bridge.internal
        ]
        yield from nft.add_intervals(table, f"masquerade{suffix}", hidden)


def _interval(subnet: str) -> tuple[bytes, bytes]:
    network = parse_subnet(subnet)
    size = network.max_prefixlen // 8
    end = int(network.broadcast_address) + 1
    return network.network_address.packed, end.to_bytes(size, "big") if end >> size * 8 == 0 else b""


def _chains(table: str) -> Iterator[Message]:
    yield nft.add_chain(table, "raw", "filter", nft.PREROUTING, _PRIORITY_RAW)
    yield nft.add_chain(table, "prerouting", "nat", nft.PREROUTING, _PRIORITY_DNAT)
    yield nft.add_chain(table, "output", "nat", nft.OUTPUT, _PRIORITY_DNAT)
    yield nft.add_chain(table, "postrouting", "nat", nft.POSTROUTING, _PRIORITY_SNAT)
    yield nft.add_chain(table, "forward", "filter", nft.FORWARD, _PRIORITY_FILTER)


def _is(family: _Family) -> tuple[bytes, ...]:
    return nft.meta(nft.NFPROTO, nft.R(0)), nft.equal(nft.R(0), bytes([family.number]))


def _in(name: str, key: int, *, inverted: bool = False) -> tuple[bytes, ...]:
    """`iifname @name`, `oifname != @name`."""
    return nft.meta(key, nft.R(0)), nft.lookup(name, _ID[name], nft.R(0), inverted=inverted)


def _source_in(family: _Family, name: str) -> tuple[bytes, ...]:
    whole = f"{name}{family.suffix}"
    load = nft.network_header(family.source, family.size, nft.R(0))
    return *_is(family), load, nft.lookup(whole, _ID[whole], nft.R(0))


def _loopback(offset: int) -> tuple[bytes, ...]:
    return (
        *_is(_V4),
        nft.network_header(offset, 4, nft.R(0)),
        nft.mask(nft.R(0), _LOOPBACK_MASK),
        nft.equal(nft.R(0), _LOOPBACK),
    )


def _dnatted() -> tuple[bytes, ...]:
    """`ct status dnat`."""
    bit = struct.pack("=I", nft.CT_STATUS_DNAT)
    return nft.ct(nft.CT_STATUS, nft.R(0)), nft.mask(nft.R(0), bit), nft.equal(nft.R(0), bit)


def _raw_rules(table: str) -> Iterator[Message]:
    outside = (nft.meta(nft.IIFNAME, nft.R(0)), nft.unequal(nft.R(0), nft.ifname("lo")))
    for offset in (_V4.source, _V4.destination):
        yield nft.add_rule(table, "raw", *outside, *_loopback(offset), nft.verdict(nft.DROP))


def _translation_rules(table: str, chain: str, family: _Family) -> Iterator[Message]:
    address, after = nft.R(0), nft.R(family.after)
    target = nft.dnat(family.number, address, after)

    def protocol_and_port(register: int) -> tuple[bytes, ...]:
        return nft.meta(nft.L4PROTO, register), nft.transport_header(2, 2, register + 1)

    at, everywhere = f"ports_at{family.suffix}", f"ports{family.suffix}"
    yield nft.add_rule(
        table,
        chain,
        *_is(family),
        nft.network_header(family.destination, family.size, address),
        *protocol_and_port(after),
        nft.lookup(at, _ID[at], address, into=address),
        target,
    )
    yield nft.add_rule(
        table,
        chain,
        *_is(family),
        nft.local_destination(nft.R(0)),
        nft.equal(nft.R(0), nft.LOCAL),
        *protocol_and_port(nft.R(0)),
        nft.lookup(everywhere, _ID[everywhere], nft.R(0), into=address),
        target,
    )


def _postrouting_rules(table: str) -> Iterator[Message]:
    to_bridge = _in("bridges", nft.OIFNAME)
    elsewhere = _in("bridges", nft.OIFNAME, inverted=True)
    for family in _FAMILIES:
        yield nft.add_rule(
            table, "postrouting", *elsewhere, *_source_in(family, "masquerade"), nft.masquerade()
        )
        yield nft.add_rule(
            table, "postrouting", *to_bridge, *_dnatted(), *_source_in(family, "subnets"), nft.masquerade()
        )
    yield nft.add_rule(table, "postrouting", *to_bridge, *_loopback(_V4.source), nft.masquerade())


def _forward_rules(table: str) -> Iterator[Message]:
    def rule(*expressions: bytes, verdict: int) -> Message:
        return nft.add_rule(table, "forward", *expressions, nft.verdict(verdict))

    both = (nft.meta(nft.IIFNAME, nft.R(0)), nft.meta(nft.OIFNAME, nft.R(4)))
    yield rule(*both, nft.lookup("within", _ID["within"], nft.R(0)), verdict=nft.ACCEPT)
    yield rule(*_in("internal", nft.IIFNAME), verdict=nft.DROP)
    yield rule(*_in("internal", nft.OIFNAME), verdict=nft.DROP)
    known = struct.pack("=I", nft.CT_ESTABLISHED_OR_RELATED)
    answered = (nft.ct(nft.CT_STATE, nft.R(0)), nft.mask(nft.R(0), known))
    yield rule(*answered, nft.unequal(nft.R(0), b"\0\0\0\0"), verdict=nft.ACCEPT)
    yield rule(*_in("bridges", nft.OIFNAME), *_dnatted(), verdict=nft.ACCEPT)
    yield rule(*_in("bridges", nft.OIFNAME), verdict=nft.DROP)
