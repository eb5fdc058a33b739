"""ctnetlink messages: finding and forgetting tracked connections (linux/netfilter/nfnetlink_conntrack.h).

Owns the encoding of a dump by protocol and original destination port, and of a deletion; sends nothing.
"""

from __future__ import annotations

import socket
import struct

from lading.linux.netlink import Message, attr, attributes, nested, u32

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS = 1, 25, 1
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_DESTINATION: dict[int, int] = {socket.AF_INET: 2, socket.AF_INET6: 4}  # CTA_IP_V4_DST, CTA_IP_V6_DST
_MATCH_PROTOCOL_AND_DST_PORT = 1 << 3 | 1 << 5  # net/netfilter/nf_internals.h, CTA_FILTER_F_CTA_PROTO_*


def _generic(family: int) -> bytes:
    return struct.pack("!BBH", family, 0, 0)


def find(family: int, protocol: int, port: int) -> Message:
    """Dump the connections first sent to `port`.

    The kernel filters since Linux 5.8; an older one returns all, so the caller looks at each with
    `destination_of`.
    """
    wanted = attr(_PROTO_NUM, bytes([protocol])) + attr(_PROTO_DST_PORT, struct.pack("!H", port))
    body = _generic(family) + nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, wanted))
    body += nested(_FILTER, u32(_FILTER_ORIG_FLAGS, _MATCH_PROTOCOL_AND_DST_PORT))
    return Message(_SUBSYSTEM | _GET, 0, body, "list tracked connections")


def destination_of(body: bytes) -> tuple[int, bytes, int]:
    """(protocol, address, port) that the first packet of a dumped connection was sent to."""
    tuple_ = attributes(attributes(body, 4).get(_TUPLE_ORIG, b""))
    address = attributes(tuple_.get(_TUPLE_IP, b"")).get(_DESTINATION.get(body[0], 0), b"")
    proto = attributes(tuple_.get(_TUPLE_PROTO, b""))
    return (
        int.from_bytes(proto.get(_PROTO_NUM, b""), "big"),
        address,
        int.from_bytes(proto.get(_PROTO_DST_PORT, b""), "big"),
    )


def forget(body: bytes) -> Message:
    """Delete a connection that a dump has shown."""
    found = attributes(body, 4)
    tuple_ = nested(_TUPLE_ORIG, found.get(_TUPLE_ORIG, b""))
    return Message(_SUBSYSTEM | _DELETE, 0, _generic(body[0]) + tuple_, "forget a tracked connection")
