"""DNS messages (RFC 1035, EDNS of RFC 6891), as far as a resolver for container names needs them. Pure.

Owns reading the question of a query and writing short answers to it. Everything read here is hostile: it comes from
containers and from the net. Nothing is copied out of a message but its question; what is forwarded passes as it came.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

_HEADER = struct.Struct("!HHHHHH")
_FIXED = struct.Struct("!HHIH")  # type, class, ttl, length of a record after its name
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE, _RCODE = 0x7800, 0x000F
_TO_QUESTION = b"\xc0\x0c"  # a compression pointer to the name right after the header
_PLAIN = 512  # bytes of an answer by UDP to who does not say more (RFC 1035, 4.2.1)
_ROOM = 1232  # what we say we take: no fragments on any IPv6 path (dnsflagday.net/2020)
_RECORDS = 8  # more additional records than any query has


class Question(NamedTuple):
    """A query. `name` is lower case without the last dot, "" for the root and for names that no host can have."""

    number: int
    flags: int
    name: str
    kind: int
    raw: bytes  # the question section as it came
    room: int  # bytes of an answer by UDP
    edns: bool
    fault: int  # the rcode to refuse it with, 0 for none


def read(data: bytes) -> Question | None:
    """The question of a query; None for what gets no answer at all: too short for a header, or itself an answer."""
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, more = _HEADER.unpack_from(data)
    if flags & _QR:
        return None
    broken = Question(number, flags, "", 0, b"", _PLAIN, False, FORMERR)
    if flags & _OPCODE:
        return broken._replace(fault=NOTIMP)
    end, labels = _labels(data, _HEADER.size)
    if questions != 1 or answers or authorities or not end or end + 4 > len(data):
        return broken
    kind, klass = struct.unpack_from("!HH", data, end)
    name = b".".join(labels).lower()
    # A dot, a control or a non-ASCII byte inside a label is legal and never a container's name.
    plain = name.isascii() and name.count(b".") == max(len(labels) - 1, 0) and min(name, default=0x21) > 0x20
    raw = data[_HEADER.size : end + 4]
    room = _edns(data, end + 4, more)
    fault = NOERROR if klass in (IN, ANY) else REFUSED
    return Question(
        number, flags, name.decode() if plain else "", kind, raw, max(room, _PLAIN), room > 0, fault
    )


def _labels(data: bytes, offset: int) -> tuple[int, list[bytes]]:
    """(end, labels) of an uncompressed name; end 0 when malformed. 255 bytes at most (RFC 1035, 3.1)."""
    labels: list[bytes] = []
    start = offset
    while offset < len(data):
        size = data[offset]
        offset += 1
        if size == 0:
            return (offset, labels) if offset - start <= 255 else (0, [])
        if size > 63 or offset + size > len(data):
            break
        labels.append(data[offset : offset + size])
        offset += size
    return 0, []


def _edns(data: bytes, offset: int, count: int) -> int:
    """The size an OPT record allows, 0 without one."""
    for _ in range(min(count, _RECORDS)):
        end, labels = _labels(data, offset)
        if not end or end + _FIXED.size > len(data):
            return 0
        kind, klass, _, length = _FIXED.unpack_from(data, end)
        if kind == OPT and not labels:
            return klass or _PLAIN
        offset = end + _FIXED.size + length
    return 0


def answer(
    question: Question, rcode: int, records: Iterable[tuple[int, bytes]] = (), *, ttl: int = 0, room: int = 0
) -> bytes:
    """An answer with `records` (type, data) about the question's name, cut to `room` bytes, with TC, if need be."""
    room = room or question.room
    extra = b"\0" + struct.pack("!HHIH", OPT, _ROOM, 0, 0) if question.edns else b""
    flags = _QR | _RA | (question.flags & (_RD | _OPCODE)) | rcode
    if rcode in (NOERROR, NXDOMAIN):
        flags |= _AA
    body, count = b"", 0
    for kind, data in records:
        record = _TO_QUESTION + _FIXED.pack(kind, IN, ttl, len(data)) + data
        if _HEADER.size + len(question.raw) + len(body) + len(record) + len(extra) > room:
            flags |= _TC
            break
        body += record
        count += 1
    head = _HEADER.pack(question.number, flags, 1 if question.raw else 0, count, 0, 1 if extra else 0)
    return head + question.raw + body + extra


def renumbered(data: bytes, number: int) -> bytes:
    """The same message under another number."""
    return struct.pack("!H", number) + data[2:]


def answers_to(data: bytes, number: int, raw: bytes) -> bool:
    """Whether `data` is an answer with this number to this question, whatever the case of its letters."""
    if len(data) < _HEADER.size + len(raw):
        return False
    found, flags, questions = struct.unpack_from("!HHH", data)
    same = data[_HEADER.size : _HEADER.size + len(raw)].lower() == raw.lower()
    return bool(found == number and flags & _QR and questions == 1 and same)


def rcode_of(data: bytes) -> int:
    """The rcode of a message that has a header."""
    return data[3] & _RCODE


def wire_name(name: str) -> bytes:
    """A name as labels, as far as they fit on the wire (63 bytes a label, 255 in all)."""
    found = b""
    for label in name.split("."):
        packed = label.encode()[:63]
        if packed and len(found) + len(packed) < 254:
            found += bytes([len(packed)]) + packed
    return found + b"\0"


def reverse(name: str) -> bytes:
    """The packed address that an in-addr.arpa or ip6.arpa name asks about, b"" for any other (RFC 1035, 3596)."""
    parts = name.split(".")
    if parts[-2:] == ["in-addr", "arpa"] and len(parts) == 6:
        numbers = parts[3::-1]
        if all(text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 256 for text in numbers):
            return bytes(map(int, numbers))
    if parts[-2:] == ["ip6", "arpa"] and len(parts) == 34:
        digits = "".join(parts[31::-1])
        if len(digits) == 32 and all(digit in "0123456789abcdef" for digit in digits):
            return bytes.fromhex(digits)
    return b""
