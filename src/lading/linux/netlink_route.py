"""rtnetlink messages: bridges, veth pairs, addresses, routes (rtnetlink(7), linux/if_link.h).

Owns the encoding of each request and the decoding of the few dumps lading reads; sends nothing and decides
nothing. Addresses are packed (socket.inet_pton), interfaces are kernel indexes unless a name is what the
request needs.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

from lading.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attr,
    attributes,
    nested,
    text,
    u8,
    u32,
)

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_NET_NS_FD = (
    1,
    3,
    4,
    10,
    16,
    18,
    28,
)
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_MODE = 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_IFF_UP = 1
_NLM_F_REPLACE = 0x100
_IF_OPER_UP = b"\6"
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 3, 0, 1

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


class Link(NamedTuple):
    """An interface as a dump shows it; `number` is its index, `kind` its driver's word: "bridge", "veth"."""

    number: int
    name: str
    kind: str
    mtu: int
    up: bool
    master: int
    ready: bool  # its operational state is up (RFC 2863): it passes packets


def _family(address: bytes) -> int:
    return int(socket.AF_INET if len(address) == 4 else socket.AF_INET6)


def add_bridge(name: str, mac: bytes, mtu: int) -> Message:
    """A bridge, still down. Without an address it would take its ports', and change it as they come and go."""
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + attr(_IFLA_ADDRESS, mac)
    body += u32(_IFLA_MTU, mtu) + nested(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"))
    return Message(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create bridge {name}")


def add_veth(name: str, mtu: int, master: int, peer: str, peer_mac: bytes, peer_ns: int) -> Message:
    """A veth pair: this end up and a port of `master` (0 for none), the peer down in the namespace `peer_ns`.

    The peer is born in its namespace, so that nothing needs moving and no name on the host can clash with
    "eth0".
    """
    info = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, peer) + u32(_IFLA_MTU, mtu)
    info += attr(_IFLA_ADDRESS, peer_mac) + u32(_IFLA_NET_NS_FD, peer_ns)
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    if master:
        body += u32(_IFLA_MASTER, master)
    data = nested(_INFO_DATA, nested(_VETH_INFO_PEER, info))
    body += nested(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), data)
    return Message(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth {name}")


def hairpin(name: str) -> Message:
    """Let a bridge port send frames back where they came from.

    Needed for a container that reaches its own published port while br_netfilter is active: the bridge then
    translates the frame's address without it ever leaving layer 2 (net/bridge/br_netfilter_hooks.c,
    br_nf_pre_routing_finish).
    """
    data = nested(_INFO_SLAVE_DATA, u8(_BRPORT_MODE, 1))
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    body += nested(_IFLA_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), data)
    return Message(_NEWLINK, 0, body, f"set hairpin mode of {name}")


def set_up(index: int) -> Message:
    return Message(_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), f"set interface {index} up")


def set_mtu(index: int, mtu: int) -> Message:
    return Message(
        _NEWLINK, 0, _LINK.pack(0, 0, index, 0, 0) + u32(_IFLA_MTU, mtu), f"set the mtu of {index}"
    )


def set_loose(index: int) -> Message:
    """Down, and no longer a port of any bridge."""
    body = _LINK.pack(0, 0, index, 0, _IFF_UP) + u32(_IFLA_MASTER, 0)
    return Message(_NEWLINK, 0, body, f"take interface {index} down")


def rename(index: int, name: str) -> Message:
    """An interface that is down gets another name."""
    body = _LINK.pack(0, 0, index, 0, 0) + text(_IFLA_IFNAME, name)
    return Message(_NEWLINK, 0, body, f"rename interface {index} to {name}")


def delete_link(name: str) -> Message:
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    return Message(_DELLINK, 0, body, f"delete interface {name}")


def add_address(index: int, address: bytes, prefix: int) -> Message:
    """An address with its connected route; IPv6 without duplicate detection, since an allocator chose it."""
    family = _family(address)
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = _ADDRESS.pack(family, prefix, flags, _RT_SCOPE_UNIVERSE, index)
    body += attr(_IFA_LOCAL, address) + attr(_IFA_ADDRESS, address)
    if family == socket.AF_INET and prefix < 31:
        ones = int.from_bytes(address, "big") | (0xFFFFFFFF >> prefix)
        body += attr(_IFA_BROADCAST, ones.to_bytes(4, "big"))
    words = f"add address {socket.inet_ntop(family, address)}/{prefix}"
    return Message(_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, words)


def delete_address(index: int, address: bytes, prefix: int) -> Message:
    family = _family(address)
    body = _ADDRESS.pack(family, prefix, 0, _RT_SCOPE_UNIVERSE, index) + attr(_IFA_LOCAL, address)
    return Message(_DELADDR, 0, body, f"delete address {socket.inet_ntop(family, address)}/{prefix}")


def add_default_route(index: int, gateway: bytes) -> Message:
    """EEXIST when there is one already."""
    return _default_route(index, gateway, NLM_F_CREATE | NLM_F_EXCL)


def set_default_route(index: int, gateway: bytes) -> Message:
    """Instead of the one there is, if there is one."""
    return _default_route(index, gateway, NLM_F_CREATE | _NLM_F_REPLACE)


def _default_route(index: int, gateway: bytes, flags: int) -> Message:
    family = _family(gateway)
    body = _ROUTE.pack(
        family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
    ) + attr(_RTA_GATEWAY, gateway)
    body += u32(_RTA_OIF, index)
    words = f"add the default route via {socket.inet_ntop(family, gateway)}"
    return Message(_NEWROUTE, flags, body, words)


def links() -> Message:
    return Message(_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0), "list interfaces")


def link(index: int) -> Message:
    """One interface. Since Linux 6.1 this also makes the kernel act on a carrier that has just come
    (net/core/rtnetlink.c, rtnl_getlink: linkwatch_sync_dev).
    """
    return Message(_GETLINK, 0, _LINK.pack(0, 0, index, 0, 0), f"look at interface {index}")


def link_of(body: bytes) -> Link:
    """Decode an answer to `link` or one message of the `links` dump."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index,
        found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        info.get(_INFO_KIND, b"").rstrip(b"\0").decode("utf-8", "replace"),
        int.from_bytes(found.get(_IFLA_MTU, b""), sys.byteorder),
        bool(flags & _IFF_UP),
        int.from_bytes(found.get(_IFLA_MASTER, b""), sys.byteorder),
        found.get(_IFLA_OPERSTATE) == _IF_OPER_UP,
    )


def addresses() -> Message:
    return Message(_GETADDR, 0, _ADDRESS.pack(0, 0, 0, 0, 0), "list addresses")


def address_of(body: bytes) -> tuple[int, str, int]:
    """(interface, address, prefix) of one message of the `addresses` dump."""
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    return index, socket.inet_ntop(family, packed) if len(packed) in (4, 16) else "", prefix


def routes() -> Message:
    return Message(_GETROUTE, 0, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "list routes")


def route_of(body: bytes) -> tuple[str, int, int]:
    """(destination, prefix, table) of one message of the `routes` dump; "" for the default route."""
    family, prefix, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
    packed = attributes(body, _ROUTE.size).get(_RTA_DST, b"")
    known = (family, len(packed)) in ((socket.AF_INET, 4), (socket.AF_INET6, 16))
    return socket.inet_ntop(family, packed) if known else "", prefix, table
