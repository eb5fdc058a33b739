"""nf_tables messages and expressions (linux/netfilter/nf_tables.h), for tables of the inet family.

Owns the encoding of tables, chains, sets, set elements and rules; sends nothing and decides nothing. A rule
is a list of expressions; each function below gives one, named as the nft program's language names it.
Registers are the 32-bit ones of a register file of 64 bytes: `R(0)` to `R(15)`; a value of n bytes fills
the n/4 registers that follow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lading.linux.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attr,
    attributes,
    be32,
    nested,
    text,
)

PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4
DROP, ACCEPT = 0, 1
IPV4, IPV6 = 2, 10

# Types that only the nft program reads, to print keys well (libnftables, datatype.h); six bits each when
# concatenated.
TYPE_IPV4, TYPE_IPV6, TYPE_PROTOCOL, TYPE_SERVICE, TYPE_IFNAME = 7, 8, 12, 13, 41

IFNAME_SIZE = 16
IIFNAME, OIFNAME, NFPROTO, L4PROTO = 6, 7, 15, 16
CT_STATE, CT_STATUS = 0, 2
CT_ESTABLISHED_OR_RELATED = 0x2 | 0x4
CT_STATUS_DNAT = 0x20

_SUBSYSTEM = 10 << 8
_INET = 1
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE = 0, 1, 2, 3, 4, 6
_NEWSET, _NEWSETELEM, _DELSETELEM = 9, 12, 14
_SET_INTERVAL, _SET_MAP = 0x4, 0x8
_ELEM_INTERVAL_END = 0x1
_ELEMENTS_PER_MESSAGE = 256


def R(number: int) -> int:
    """The kernel's number of the 32-bit register `number` (NFT_REG32_00 is 8)."""
    return 8 + number


def _generic(family: int = _INET, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return struct.pack("!BBH", family, 0, resource)


BEGIN = Message(0x10, 0, _generic(0, 10), "nftables batch")
END = Message(0x11, 0, _generic(0, 10), "nftables batch")


GROUP = 7
"""NFNLGRP_NFTABLES: who listens hears of every change."""
DELETIONS = frozenset(_SUBSYSTEM | kind for kind in (2, 5, 8, 11, 14))
"""NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM: their first attribute is the table's name."""


def _message(kind: int, flags: int, body: bytes, label: str) -> Message:
    return Message(_SUBSYSTEM | kind, flags, _generic() + body, label)


def add_table(table: str) -> Message:
    return _message(_NEWTABLE, NLM_F_CREATE, text(1, table), f"create nftables table {table}")


def delete_table(table: str) -> Message:
    return _message(_DELTABLE, 0, text(1, table), f"delete nftables table {table}")


def get_table(table: str) -> Message:
    """Succeeds when the table exists."""
    return _message(_GETTABLE, 0, text(1, table), f"look for nftables table {table}")


def add_chain(table: str, name: str, kind: str, hook: int, priority: int) -> Message:
    """A base chain with policy accept; `kind` is "filter" or "nat"."""
    body = text(1, table) + text(3, name) + nested(4, be32(1, hook), be32(2, priority)) + be32(5, ACCEPT)
    return _message(_NEWCHAIN, NLM_F_CREATE, body + text(7, kind), f"create nftables chain {name}")


class BaseChain(NamedTuple):
    """A chain at a hook, as a dump shows it; family is "ip", "ip6" or "inet"."""

    family: str
    table: str
    name: str
    hook: int
    policy: int


def chains() -> Message:
    """Dump every chain of every table and family."""
    return Message(_SUBSYSTEM | _GETCHAIN, 0, _generic(0), "list nftables chains")


def base_chain_of(body: bytes) -> BaseChain | None:
    """Decode one message of the `chains` dump; None for a chain at no hook, or of another family."""
    found = attributes(body, 4)
    hook = attributes(found.get(4, b"")).get(1, b"")
    family = _FAMILY_NAMES.get(body[0], "")
    if not hook or not family:
        return None
    names = [found.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace") for kind in (1, 3)]
    policy = int.from_bytes(found.get(5, b""), "big")
    return BaseChain(family, names[0], names[1], int.from_bytes(hook, "big"), policy)


_FAMILY_NAMES = {_INET: "inet", IPV4: "ip", IPV6: "ip6"}


def add_set(
    table: str,
    name: str,
    identifier: int,
    key: Sequence[tuple[int, int]],
    value: Sequence[tuple[int, int]] = (),
    *,
    interval: bool = False,
) -> Message:
    """A set, or a map when `value` is given; keys and values are concatenations of (type, size) fields."""
    flags = (_SET_MAP if value else 0) | (_SET_INTERVAL if interval else 0)
    body = text(1, table) + text(2, name) + be32(3, flags) + _shape(4, key)
    if value:
        body += _shape(6, value)
    if len(key) == 1 and key[0][0] == TYPE_IFNAME:
        body += attr(13, _HOST_ORDER_KEY)
    return _message(_NEWSET, NLM_F_CREATE, body + be32(10, identifier), f"create nftables set {name}")


# What the nft program notes for itself (libnftnl, NFTNL_UDATA_SET_KEYBYTEORDER = host), or it prints names
# as "".
_HOST_ORDER_KEY = struct.pack("=BBI", 0, 4, 1)


def _shape(kind: int, fields: Sequence[tuple[int, int]]) -> bytes:
    """NFTA_SET_{KEY,DATA}_TYPE and _LEN: each field fills whole registers."""
    types = size = 0
    for number, width in fields:
        types = types << 6 | number
        size += (width + 3) & ~3
    return be32(kind, types) + be32(kind + 1, size)


def join(*fields: bytes) -> bytes:
    """A concatenation: each field padded to whole registers."""
    return b"".join(field + b"\0" * (-len(field) % 4) for field in fields)


def ifname(name: str) -> bytes:
    """An interface name as a key."""
    return name.encode().ljust(IFNAME_SIZE, b"\0")


Element = tuple[bytes, bytes]
"""A key and its value; the value is b"" in a set."""


def add_elements(
    table: str, name: str, elements: Iterable[Element], *, exclusive: bool = False
) -> Iterator[Message]:
    """Elements for a set or map; `exclusive` makes an element that is already there an error (EEXIST)."""
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
    return _elements(_NEWSETELEM, flags, table, name, elements, "add to")


def delete_elements(table: str, name: str, elements: Iterable[Element]) -> Iterator[Message]:
    return _elements(_DELSETELEM, 0, table, name, elements, "remove from")


def _elements(
    kind: int, flags: int, table: str, name: str, elements: Iterable[Element], words: str
) -> Iterator[Message]:
    # An attribute's length has 16 bits, so that a long list goes in pieces.
    pieces = [nested(1, _data(1, key), _data(2, value) if value else b"") for key, value in elements]
    for start in range(0, len(pieces), _ELEMENTS_PER_MESSAGE):
        body = text(1, table) + text(2, name) + nested(3, *pieces[start : start + _ELEMENTS_PER_MESSAGE])
        yield _message(kind, flags, body, f"{words} nftables set {name}")


def add_intervals(table: str, name: str, intervals: Iterable[tuple[bytes, bytes]]) -> Iterator[Message]:
    """Half-open ranges [start, end) for an interval set; an empty `end` means up to the last key."""
    pieces = []
    for start, end in intervals:
        pieces.append(nested(1, _data(1, start)))
        if end:
            pieces.append(nested(1, _data(1, end), be32(3, _ELEM_INTERVAL_END)))
    if pieces:
        body = text(1, table) + text(2, name) + nested(3, *pieces)
        yield _message(_NEWSETELEM, NLM_F_CREATE, body, f"add to nftables set {name}")


def _data(kind: int, value: bytes) -> bytes:
    """struct nft_data as attributes: a value."""
    return nested(kind, attr(1, value))


def add_rule(table: str, chain: str, *expressions: bytes) -> Message:
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body, f"add a rule to nftables chain {chain}")


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def meta(key: int, register: int) -> bytes:
    return _expression("meta", be32(1, register), be32(2, key))


def ct(key: int, register: int) -> bytes:
    return _expression("ct", be32(1, register), be32(2, key))


def network_header(offset: int, size: int, register: int) -> bytes:
    return _expression("payload", be32(1, register), be32(2, 1), be32(3, offset), be32(4, size))


def transport_header(offset: int, size: int, register: int) -> bytes:
    return _expression("payload", be32(1, register), be32(2, 2), be32(3, offset), be32(4, size))


def equal(register: int, value: bytes) -> bytes:
    return _expression("cmp", be32(1, register), be32(2, 0), _data(3, value))


def unequal(register: int, value: bytes) -> bytes:
    return _expression("cmp", be32(1, register), be32(2, 1), _data(3, value))


def mask(register: int, bits: bytes) -> bytes:
    """register &= bits."""
    return _expression(
        "bitwise",
        be32(1, register),
        be32(2, register),
        be32(3, len(bits)),
        _data(4, bits),
        _data(5, b"\0" * len(bits)),
    )


def lookup(
    name: str, identifier: int, register: int, *, into: int | None = None, inverted: bool = False
) -> bytes:
    """Go on when the key in `register` is in the set (`inverted`: is not); a map's value goes to `into`."""
    parts = [text(1, name), be32(2, register)]
    if into is not None:
        parts.append(be32(3, into))
    parts.append(be32(4, identifier))
    if inverted:
        parts.append(be32(5, 1))
    return _expression("lookup", *parts)


def local_destination(register: int) -> bytes:
    """`fib daddr type` into a register; RTN_LOCAL is `LOCAL`."""
    return _expression("fib", be32(1, register), be32(2, 3), be32(3, 2))


LOCAL = struct.pack("=I", 2)


def dnat(family: int, address: int, port: int) -> bytes:
    return _expression("nat", be32(1, 1), be32(2, family), be32(3, address), be32(5, port))


def masquerade() -> bytes:
    return _expression("masq")


def immediate(register: int, value: bytes) -> bytes:
    """register = value."""
    return _expression("immediate", be32(1, register), _data(2, value))


def verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, code))))
