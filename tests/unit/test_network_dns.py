"""DNS messages and the zone: what is read, what is answered, who may know whom. No socket is opened."""

from __future__ import annotations

import socket
import struct

import pytest

from lading.network.dns import message
from lading.network.dns.server import _place
from lading.network.dns.upstream import Host, servers_in
from lading.network.dns.zone import Place, Zone


def query(
    name: str, kind: int = message.A, *, number: int = 77, flags: int = 0x0100, more: bytes = b""
) -> bytes:
    head = struct.pack("!HHHHHH", number, flags, 1, 0, 0, 1 if more else 0)
    return head + message.wire_name(name) + struct.pack("!HH", kind, message.IN) + more


def opt(size: int) -> bytes:
    return b"\0" + struct.pack("!HHIH", message.OPT, size, 0, 0)


def read(data: bytes) -> message.Question:
    question = message.read(data)
    assert question is not None
    return question


def test_a_question() -> None:
    question = read(query("Web.Front", message.AAAA))
    assert (question.number, question.name, question.kind) == (77, "web.front", message.AAAA)
    assert (question.room, question.edns, question.fault) == (512, False, 0)
    assert read(query("")).name == ""


def test_edns_says_how_much_room_there_is() -> None:
    assert read(query("web", more=opt(4096))).room == 4096
    assert read(query("web", more=opt(100))).room == 512
    question = read(query("web", more=opt(1400)))
    assert message.answer(question, 0).endswith(opt(1232))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (query("web")[:-1], message.FORMERR),
        (query("web", flags=0x2800), message.NOTIMP),  # a dynamic update
        (struct.pack("!HHHHHH", 1, 0, 2, 0, 0, 0) + query("web")[12:] * 2, message.FORMERR),
        (
            struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
            message.FORMERR,
        ),  # a pointer to itself
        (struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3f" * 300, message.FORMERR),
        (query("web")[:-1] + b"\3", message.REFUSED),  # class CHAOS
    ],
)
def test_faults(data: bytes, fault: int) -> None:
    question = read(data)
    assert question.fault == fault
    assert message.answer(question, fault)[:2] == data[:2]
    assert message.rcode_of(message.answer(question, fault)) == fault


@pytest.mark.parametrize("data", [b"", b"\0" * 11, query("web", flags=0x8180)])
def test_no_answer_to_answers(data: bytes) -> None:
    """Two resolvers that answer each other's answers would never stop."""
    assert message.read(data) is None


@pytest.mark.parametrize("label", [b"a.b", b"a\0b", b"\xff", b"a b"])
def test_labels_that_no_container_has(label: bytes) -> None:
    raw = bytes([len(label)]) + label + b"\0" + struct.pack("!HH", message.A, message.IN)
    assert read(struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + raw).name == ""


def test_an_answer() -> None:
    question = read(query("web"))
    packed = socket.inet_aton("10.0.0.2")
    data = message.answer(question, message.NOERROR, [(message.A, packed)], ttl=5)
    head = struct.unpack_from("!HHHHHH", data)
    assert head == (77, 0x8580, 1, 1, 0, 0)  # QR AA RD RA
    assert data[12:].startswith(question.raw)
    assert data.endswith(b"\xc0\x0c" + struct.pack("!HHIH", message.A, message.IN, 5, 4) + packed)


def test_a_long_answer_is_cut_and_says_so() -> None:
    question = read(query("web"))
    records = [(message.A, bytes([10, 0, 0, number])) for number in range(100)]
    data = message.answer(question, message.NOERROR, records)
    assert len(data) <= 512 and data[2] & 0x02
    assert struct.unpack_from("!H", data, 6)[0] == (512 - 12 - len(question.raw)) // 16
    whole = message.answer(question, message.NOERROR, records, room=65535)
    assert not whole[2] & 0x02 and struct.unpack_from("!H", whole, 6)[0] == 100


def test_what_answers_a_question() -> None:
    sent = query("web.test", number=5)
    raw = read(sent).raw
    reply = message.answer(read(sent), 0)
    assert message.answers_to(reply, 5, raw)
    assert message.answers_to(reply.replace(b"web", b"WEB"), 5, raw)
    assert not message.answers_to(reply, 6, raw)
    assert not message.answers_to(reply.replace(b"web", b"bad"), 5, raw)
    assert not message.answers_to(sent, 5, raw)
    assert not message.answers_to(b"\0\5", 5, raw)


def test_reverse_names() -> None:
    assert message.reverse("4.3.2.10.in-addr.arpa") == bytes([10, 2, 3, 4])
    six = socket.inet_pton(socket.AF_INET6, "fd5a::1")
    assert message.reverse(".".join(reversed(six.hex())) + ".ip6.arpa") == six
    for name in (
        "4.3.2.in-addr.arpa",
        "4.3.2.256.in-addr.arpa",
        "x.3.2.1.in-addr.arpa",
        "web",
        "",
        "in-addr.arpa",
    ):
        assert message.reverse(name) == b""


def test_wire_names_fit() -> None:
    assert message.wire_name("a.bc") == b"\1a\2bc\0"
    assert len(message.wire_name(".".join(["x" * 80] * 10))) <= 255


def packed(last: int, net: int = 0) -> bytes:
    return bytes([10, 0, net, last])


def place(net: int, last: int, *names: str) -> Place:
    return Place(f"n{net}", f"net{net}", (packed(last, net),), names, ((bytes([10, 0, net, 0]), 24),))


def test_names_are_known_on_shared_networks_only() -> None:
    zone = Zone()
    zone.put("a", (place(1, 2, "web"),))
    zone.put("b", (place(1, 3, "db", "store"), place(2, 3, "db")))
    zone.put("c", (place(2, 4, "other"),))
    assert zone.addresses("a", "db") == zone.addresses("a", "store") == (packed(3, 1),)
    assert zone.addresses("c", "db") == (packed(3, 2),)
    assert zone.addresses("a", "other") is None and zone.addresses("c", "store") is None
    assert zone.addresses("a", "db.net1") == (packed(3, 1),)
    assert zone.addresses("a", "db.net2") is None
    assert zone.addresses("stranger", "db") is None
    zone.drop("b")
    zone.drop("b")
    assert zone.addresses("a", "db") is None
    zone.drop("a")
    zone.drop("c")
    assert not zone._names and not zone._owners


def test_bearers_of_one_alias_take_turns() -> None:
    zone = Zone()
    for last in (2, 3, 4):
        zone.put(str(last), (place(1, last, f"c{last}", "web"),))
    answers = [zone.addresses("2", "web") for _ in range(3)]
    assert {found[0] for found in answers if found} == {packed(last, 1) for last in (2, 3, 4)}
    assert all(sorted(found) == sorted(answers[0] or ()) for found in answers if found)


def test_names_of_addresses() -> None:
    zone = Zone()
    zone.put("a", (place(1, 2, "web", "alias"),))
    zone.put("c", (place(2, 4, "other"),))
    assert zone.name("a", packed(2, 1)) == "web.net1"
    assert zone.name("a", packed(9, 1)) == ""  # ours, and free
    assert zone.name("a", packed(4, 2)) is None  # nothing we may know


def test_an_address_goes_to_its_next_bearer() -> None:
    zone = Zone()
    zone.put("old", (place(1, 2, "old"),))
    zone.put("new", (place(1, 2, "new"),))
    zone.drop("old")
    assert zone.name("new", packed(2, 1)) == "new.net1"


def test_servers_of_resolv_conf() -> None:
    text = "nameserver 127.0.0.53\nnameserver bad\n#nameserver 9.9.9.9\nnameserver fe80::1%eth0\nsearch a b\nnameserver"
    assert servers_in(text) == ["127.0.0.53", "fe80::1%eth0"]
    assert len(servers_in("nameserver 10.0.0.1\n" * 9)) == 3


def test_a_changed_resolv_conf_is_read_again(tmp_path: object) -> None:
    path = f"{tmp_path}/resolv.conf"
    host = Host(path)
    assert host.servers() == ()
    with open(path, "w") as file:
        file.write("nameserver 10.0.0.1\n")
    assert host.servers() == ("10.0.0.1",)
    with open(path, "w") as file:
        file.write("nameserver 10.0.0.2\nnameserver 10.0.0.3\n")
    assert host.servers() == ("10.0.0.2", "10.0.0.3")


def test_a_control_line() -> None:
    found = _place("at n1 Front 10.0.1.2,fd5a::2 10.0.1.0/24 Web,alias")
    assert found.network_name == "front" and found.names == ("web", "alias")
    assert found.addresses[0] == packed(2, 1) and found.subnets == ((packed(0, 1), 24),)
    for line in ("at n1", "on n1 f - - -", "at n1 f x - -", "at n1 f - 10.0.0.0/x -"):
        with pytest.raises(ValueError):
            _place(line)
