"""Whatever bytes come from a container or a name server, they are answered or dropped, within bounds, and nothing else."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from lading.network.dns import message
from lading.network.dns.zone import Zone

NAMES = st.lists(st.binary(min_size=1, max_size=63), max_size=6).map(
    lambda labels: b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
)
QUERIES = st.tuples(
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    NAMES | st.binary(max_size=300),
    st.binary(max_size=60),
).map(lambda t: struct.pack("!HHHHHH", t[0], t[1], *t[2]) + t[3] + t[4])


@given(QUERIES | st.binary(max_size=600))
def test_any_query(data: bytes) -> None:
    question = message.read(data)
    if question is None:
        assert len(data) < 12 or data[2] & 0x80
        return
    assert question.raw in data and question.room >= 512
    reply = message.answer(question, question.fault, [(message.A, b"\x0a\0\0\1")] * 50)
    assert len(reply) <= question.room and reply[:2] == data[:2]
    assert message.read(reply) is None  # it is an answer, which nobody answers
    message.reverse(question.name)
    Zone().addresses("x", question.name)


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 65535))
def test_any_answer(data: bytes, raw: bytes, number: int) -> None:
    if message.answers_to(data, number, raw):
        assert len(data) >= 12 + len(raw) and int.from_bytes(data[:2], "big") == number


@given(st.text(max_size=400))
def test_any_name(name: str) -> None:
    packed = message.wire_name(name)
    assert len(packed) <= 255 and packed.endswith(b"\0")
    assert message._labels(packed, 0)[0] == len(packed)
    assert len(message.reverse(name)) in (0, 4, 16)
