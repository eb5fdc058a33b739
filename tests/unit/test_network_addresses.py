"""Which address and which subnet: the pure part, and the values' checks."""

from __future__ import annotations

import ipaddress

import pytest

from lading.base.errors import Conflict, Invalid, Unavailable, Unsupported
from lading.network import Bridge, Forward, Interface
from lading.network.addresses import allocate, default_subnets, mac_of, pick_subnet
from lading.network.values import check_interface_name, pack_mac


def test_addresses_go_upwards_and_come_round() -> None:
    taken = {"10.213.0.1"}
    given = []
    last = ""
    for _ in range(5):
        last = allocate("10.213.0.0/29", taken, after=last)
        taken.add(last)
        given.append(last)
    assert given == [f"10.213.0.{number}" for number in range(2, 7)]
    taken.remove("10.213.0.3")
    assert allocate("10.213.0.0/29", taken, after=last) == "10.213.0.3"
    taken.add("10.213.0.3")
    with pytest.raises(Unavailable, match=r"no address is left in subnet 10\.213\.0\.0/29"):
        allocate("10.213.0.0/29", taken)


def test_a_freed_address_rests() -> None:
    assert allocate("10.213.0.0/24", {"10.213.0.1"}, after="10.213.0.2") == "10.213.0.3"
    assert allocate("10.213.0.0/24", {"10.213.0.1"}, after="192.0.2.1") == "10.213.0.2"
    assert allocate("10.213.0.0/24", set(), after="10.213.0.254") == "10.213.0.1"


@pytest.mark.parametrize(
    ("subnet", "first"),
    [
        ("10.0.0.0/31", "10.0.0.0"),
        ("10.0.0.4/32", "10.0.0.4"),
        ("fd00::/64", "fd00::1"),
        ("fd00::/127", "fd00::"),
    ],
)
def test_small_and_ipv6_subnets(subnet: str, first: str) -> None:
    assert allocate(subnet, set()) == first


def test_an_ipv6_subnet_is_not_walked_to_its_end() -> None:
    class Everything:
        def __contains__(self, _: object) -> bool:
            return True

    with pytest.raises(Unavailable):
        allocate("fd00::/64", Everything())


def test_a_requested_address() -> None:
    assert allocate("10.213.0.0/24", set(), "10.213.0.9") == "10.213.0.9"
    assert allocate("fd00::/64", set(), "FD00:0::9") == "fd00::9"
    with pytest.raises(Conflict, match="in use"):
        allocate("fd00::/64", {"fd00::9"}, "fd00:0::9")


@pytest.mark.parametrize(
    "wish", ["10.213.1.9", "10.213.0.0", "10.213.0.255", "fd00::9", "::ad5:9", "nonsense", "10.1"]
)
def test_an_address_that_cannot_be_given(wish: str) -> None:
    with pytest.raises(Invalid):
        allocate("10.213.0.0/24", set(), wish)


def test_a_mac_follows_from_the_address() -> None:
    assert mac_of("10.213.0.2") == "02:4c:0a:d5:00:02"
    assert pack_mac(mac_of("255.255.255.255"))[0] & 3 == 2
    with pytest.raises(Invalid):
        mac_of("fd00::1")


def test_default_subnets_are_private_and_apart() -> None:
    found = [ipaddress.ip_network(subnet) for subnet in default_subnets]
    assert all(network.is_private for network in found)
    assert not any(a.overlaps(b) for a in found for b in found if a is not b)


def test_a_subnet_that_overlaps_nothing() -> None:
    assert pick_subnet([]) == "172.29.0.0/16"
    assert pick_subnet(["172.29.44.0/24", "fd00::/8"]) == "172.30.0.0/16"
    assert pick_subnet(["172.16.0.0/12"]) == "10.210.0.0/16"
    with pytest.raises(Unavailable, match="--subnet"):
        pick_subnet(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "../x", "a/b", "all", "default", "lo", ".", "..", "a b", "a\n", "ü"]
)
def test_names_that_could_leave_their_place(name: str) -> None:
    with pytest.raises(Invalid):
        check_interface_name(name)


@pytest.mark.parametrize(
    "mac", ["", "02:42", "01:00:5e:00:00:01", "00:00:00:00:00:00", "0g:00:00:00:00:00", "02-42-0-0"]
)
def test_mac_addresses_that_cannot_be(mac: str) -> None:
    with pytest.raises(Invalid):
        pack_mac(mac)


@pytest.mark.parametrize(
    "changes",
    [
        {"subnet": "10.213.0.1/24"},
        {"subnet": "fd00::/64"},
        {"subnet": ""},
        {"subnet": "", "gateway": ""},
        {"gateway": "10.214.0.1"},
        {"gateway": "fd00::1"},
        {"subnet6": "10.213.0.0/24"},
        {"gateway6": "fd00::1"},
        {"name": "a/b"},
        {"mtu": 67},
        {"mtu": 70000},
    ],
)
def test_bridges_that_cannot_be(changes: dict[str, object]) -> None:
    fields = {"name": "ladtest0", "subnet": "10.213.0.0/24", "gateway": "10.213.0.1"}
    Bridge(**fields)
    with pytest.raises(Invalid):
        Bridge(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"ipv4": "fd00::1"},
        {"ipv4": "10.213.0.2", "prefix": 33},
        {"ipv4": "10.213.0.2", "prefix": 0},
        {"ipv6": "10.213.0.2", "prefix6": 24},
        {"gateway": "fd00::1"},
        {"gateway6": "10.0.0.1"},
        {"guest_name": "../eth0"},
        {"mac": "no"},
    ],
)
def test_interfaces_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Interface("ladtest0", "vethlt0", **changes)  # type: ignore[arg-type]


def test_forwards_that_cannot_be() -> None:
    Forward("udp", "::", 53, "10.213.0.2", 53)
    with pytest.raises(Unsupported, match="one family"):
        Forward("tcp", "::1", 80, "10.213.0.2", 80)
    with pytest.raises(Unsupported, match="sctp"):
        Forward("sctp", "", 80, "10.213.0.2", 80)
    for host_port, guest_port in ((0, 80), (65536, 80), (80, 0), (80, -1)):
        with pytest.raises(Invalid):
            Forward("tcp", "", host_port, "10.213.0.2", guest_port)
    with pytest.raises(Invalid):
        Forward("tcp", "localhost", 80, "10.213.0.2", 80)
