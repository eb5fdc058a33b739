"""A network's subnets, options and the rules of joining: pure."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lading.base.errors import Denied, Invalid, LadingError, Unsupported
from lading.engine import segments
from lading.engine.joining import Joining, wanted_networks
from lading.engine.model import Endpoint, EndpointState, HostConfig, PortBinding
from lading.engine.naming import check_alias
from lading.engine.places import free_index, guest_name, outward
from lading.engine.segments import Network, Pools


def net(name: str = "mine", **fields: object) -> Network:
    return Network(id="0123456789abcdef" * 4, name=name, created_ns=0, **fields)  # type: ignore[arg-type]


def addressed(pools: Pools, *others: Network, **fields: object) -> Network:
    return segments.addressed(net(**fields), pools, others, ("192.0.2.0/24",))


def test_subnets_are_chosen_where_none_is_asked_for() -> None:
    found = addressed(Pools())
    assert (found.subnet, found.gateway, found.subnet6) == ("172.29.0.0/16", "172.29.0.1", "")
    other = addressed(Pools(), found)
    assert other.subnet == "172.30.0.0/16"


def test_an_ipv6_network_gets_a_unique_local_subnet() -> None:
    found = addressed(Pools(), enable_ipv6=True)
    assert (found.subnet6, found.gateway6) == ("fd01:2345:6789:abcd::/64", "fd01:2345:6789:abcd::1")


def test_what_is_asked_for_is_given() -> None:
    pools = Pools(
        "10.1.0.5/24",
        "",
        "fd00:1::/64",
        "fd00:1::9",
        "10.1.0.128/25",
        "",
        {"a": "10.1.0.2", "b": "fd00:1::2"},
    )
    found = addressed(pools)
    assert (found.subnet, found.gateway, found.gateway6) == ("10.1.0.0/24", "10.1.0.1", "fd00:1::9")
    assert (found.ip_range, found.enable_ipv6, dict(found.auxiliary)) == (
        "10.1.0.128/25",
        True,
        pools.auxiliary,
    )


@pytest.mark.parametrize(
    "pools",
    [
        Pools("10.1.0.0"),
        Pools("10.1.0.0/33"),
        Pools("x"),
        Pools("fd00::/64"),
        Pools(subnet6="10.0.0.0/8"),
        Pools("10.1.0.0/24", "10.2.0.1"),
        Pools("10.1.0.0/24", "x"),
        Pools("10.1.0.0/24", ip_range="10.1.0.0/16"),
        Pools("10.1.0.0/24", ip_range="fd00::/64"),
        Pools("10.1.0.0/24", ip_range6="fd00::/64"),
        Pools("10.1.0.0/24", auxiliary={"a": "fd00::1"}),
    ],
)
def test_refused_pools(pools: Pools) -> None:
    with pytest.raises(Invalid):
        addressed(pools)


def test_overlaps_are_refused() -> None:
    first = addressed(Pools("10.1.0.0/16", subnet6="fd00:1::/64"))
    for pools in (Pools("10.1.2.0/24"), Pools("10.9.0.0/24", subnet6="fd00::/16")):
        with pytest.raises(Denied, match="overlaps"):
            addressed(pools, first)


def test_options() -> None:
    bridge = "com.docker.network.bridge."
    found = segments.with_options(
        net(),
        {
            f"{bridge}name": "br7",
            f"{bridge}enable_ip_masquerade": "false",
            f"{bridge}host_binding_ipv4": "127.0.0.1",
            "com.docker.network.driver.mtu": "9000",
            "unknown": "kept",
        },
    )
    assert (found.bridge, found.mtu, found.masquerade, found.host_binding) == (
        "br7",
        9000,
        False,
        "127.0.0.1",
    )
    assert found.options["unknown"] == "kept"
    assert net().masquerade and net().host_binding == "" and not net(internal=True).masquerade


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "ü", "default", "container", "x" * 129])
def test_refused_names(name: str) -> None:
    with pytest.raises(Invalid):
        segments.check_name(name)


@pytest.mark.parametrize("alias", ["", "a b", "a,b", "a\nb", "-a", "a.", "x" * 64, "ü", "a..b"])
def test_refused_aliases(alias: str) -> None:
    """They are words of a line to the resolver, and labels of a name."""
    with pytest.raises(Invalid):
        check_alias(alias)


def state(name: str, gateway: str = "", priority: int = 0, ipv6: str = "") -> EndpointState:
    return EndpointState(
        name, name, ipv4="10.0.0.2", gateway=gateway, ipv6=ipv6, requested=Endpoint(gw_priority=priority)
    )


def test_the_way_out() -> None:
    closed, first, second = state("closed"), state("first", "10.0.0.1"), state("second", "10.1.0.1")
    assert outward([]) is None and outward([closed]) is None
    assert outward([closed, first, second]) == first
    assert outward([first, wins := state("wins", "10.2.0.1", 3), second]) == wins


def test_interface_numbers_are_used_again() -> None:
    names = ["lv012345670", "lv012345672"]
    assert free_index([]) == 0 and free_index(names) == 1 and free_index([*names, "lv012345671"]) == 3
    assert guest_name("lv0123456712") == "eth12"


@pytest.mark.parametrize(
    ("host_ip", "ipv6", "wanted"),
    [
        ("", "", ["10.0.0.2"]),
        ("", "fd00::2", ["10.0.0.2", "fd00::2"]),
        ("0.0.0.0", "fd00::2", ["10.0.0.2"]),
        ("::", "fd00::2", ["fd00::2"]),
        ("2001:db8::1", "fd00::2", ["fd00::2"]),
    ],
)
def test_ports_by_family(host_ip: str, ipv6: str, wanted: list[str]) -> None:
    ports = [PortBinding(80, "tcp", host_ip, "8080")]
    found = Joining.forwards(ports, [state("closed"), state("open", "10.0.0.1", ipv6=ipv6)])
    assert [forward.guest_ip for forward in found] == wanted
    assert not Joining.forwards(ports, [])


def test_an_ipv6_port_without_ipv6() -> None:
    with pytest.raises(Unsupported, match="no IPv6 address"):
        Joining.forwards([PortBinding(80, "tcp", "::", "8080")], [state("open", "10.0.0.1")])


@pytest.mark.parametrize(
    ("mode", "networks", "wanted"),
    [
        ("default", {}, ["bridge"]),
        ("none", {"x": Endpoint()}, []),
        ("container:abc", {}, []),
        ("x", {"x": Endpoint(ipv4="10.0.0.9"), "y": Endpoint()}, ["x", "y"]),
        ("default", {"default": Endpoint(mac="02:00:00:00:00:01"), "y": Endpoint()}, ["bridge", "y"]),
    ],
)
def test_the_networks_of_a_container(mode: str, networks: Mapping[str, Endpoint], wanted: list[str]) -> None:
    assert list(wanted_networks(HostConfig(network_mode=mode), networks)) == wanted


@pytest.mark.parametrize(
    "endpoint", [Endpoint(aliases=("x",)), Endpoint(ipv4="10.0.0.9"), Endpoint(ipv6="fd00::9")]
)
def test_the_default_network_gives_no_choice(endpoint: Endpoint) -> None:
    with pytest.raises(LadingError):
        Joining.check_endpoint(net("bridge"), endpoint)


def test_an_ipv6_address_needs_an_ipv6_network() -> None:
    with pytest.raises(Invalid, match="no IPv6 subnet"):
        Joining.check_endpoint(net(), Endpoint(ipv6="fd00::9"))
