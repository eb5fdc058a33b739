"""Who can reach whom: published ports on every path, isolation, internal bridges. Real packets in
namespaces of our own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_world import (
    FAR,
    HOST,
    HOST6,
    INNER,
    NEAR,
    OUTSIDE,
    World,
    ask,
    reaches,
    settles,
    world,
)

from lading.linux import netlink_conntrack as conntrack
from lading.linux import netlink_nft as nft
from lading.linux.netlink import NETFILTER, Netlink, be32
from lading.network import Forward, nat

BRIDGE_NETFILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[World]:
    with world(str(tmp_path)) as made:
        made.networks.ensure_bridge(NEAR)
        made.networks.ensure_bridge(FAR)
        yield made


@pytest.fixture(params=["routed", "br_netfilter"])
def either(request: pytest.FixtureRequest, lab: World) -> World:
    """With and without br_netfilter passing bridged frames through the rules, as docker and Kubernetes want
    it.
    """
    if not os.path.exists(BRIDGE_NETFILTER):
        if request.param == "br_netfilter":
            pytest.skip("this kernel has no br_netfilter")
        return lab
    for name in ("iptables", "ip6tables"):
        Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").write_text(
            "1" if request.param == "br_netfilter" else "0"
        )
    return lab


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_answers_on_every_path(either: World, protocol: str) -> None:
    lab = either
    web = lab.guest("web", NEAR, 2)
    near, far = lab.guest("near", NEAR, 3), lab.guest("far", FAR, 3)
    lab.publish(web, 18080, protocol=protocol)
    asked = {
        "loopback": ask(lab.host, "127.0.0.1", 18080, protocol),
        "all of loopback": ask(lab.host, "127.1.2.3", 18080, protocol),
        "own address": ask(lab.host, HOST, 18080, protocol),
        "gateway": ask(lab.host, NEAR.gateway, 18080, protocol),
        "neighbour": ask(lab.outside, HOST, 18080, protocol),
        "same bridge": ask(near.fd, NEAR.gateway, 18080, protocol),
        "same bridge, host's address": ask(near.fd, HOST, 18080, protocol),
        "other bridge": ask(far.fd, HOST, 18080, protocol),
        "hairpin": ask(web.fd, HOST, 18080, protocol),
    }
    assert {path: answer.split(" ")[0] for path, answer in asked.items()} == dict.fromkeys(asked, "web")
    # The container sees who asks, but for loopback, which it could not answer.
    assert asked["neighbour"] == f"web {OUTSIDE}"
    assert asked["loopback"] == f"web {NEAR.gateway}"


def test_only_the_published_port_answers(lab: World) -> None:
    web = lab.guest("web", NEAR, 2)
    lab.publish(web, 18080)
    assert reaches(lab.outside, HOST, 18080)
    assert not reaches(lab.outside, HOST, 80)
    assert not reaches(lab.outside, HOST, 18080, "udp")


def test_a_port_of_one_address_answers_there_only(lab: World) -> None:
    web = lab.guest("web", NEAR, 2)
    lab.publish(web, 18080, HOST)
    assert reaches(lab.outside, HOST, 18080) and reaches(lab.host, HOST, 18080)
    assert not reaches(lab.host, "127.0.0.1", 18080)
    assert not reaches(web.fd, NEAR.gateway, 18080)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_loopback_port_is_closed_to_neighbours_and_containers(lab: World, protocol: str) -> None:
    """A neighbour may send what it likes: 127.0.0.1 as destination, or the container's own address
    (CVE-2020-8558).
    """
    web, near = lab.guest("web", NEAR, 2), lab.guest("near", NEAR, 3)
    lab.publish(web, 18080, "127.0.0.1", protocol)
    assert ask(lab.host, "127.0.0.1", 18080, protocol) == f"web {NEAR.gateway}"
    assert not reaches(lab.host, HOST, 18080, protocol)
    assert not reaches(near.fd, NEAR.gateway, 18080, protocol)
    for address, port in (("127.0.0.1", 18080), (web.ip, 80), (web.ip, 18080), (HOST, 18080)):
        assert not reaches(lab.outside, address, port, protocol), address


def test_the_loopback_rule_is_what_closes_it(lab: World) -> None:
    """The control of the test above: without chain raw the neighbour's packet to 127.0.0.1 does get in."""
    web = lab.guest("web", NEAR, 2)
    lab.publish(web, 18080, "127.0.0.1")
    assert not reaches(lab.outside, "127.0.0.1", 18080)
    forwards = {web.name: (Forward("tcp", "127.0.0.1", 18080, web.ip, 80),)}
    rules = nat.ruleset(lab.networks.table, (NEAR, FAR), forwards)
    unguard(lab)
    weak = [message for message in rules if not message.label.endswith("chain raw")]
    assert len(weak) < len(rules)
    with nft_socket() as netlink:
        netlink.transaction(nft.BEGIN, weak, nft.END)
    assert reaches(lab.outside, "127.0.0.1", 18080)


def test_bridges_are_apart_and_neighbours_stay_out(lab: World) -> None:
    a, b, c = lab.guest("a", NEAR, 2), lab.guest("b", NEAR, 3), lab.guest("c", FAR, 2)
    assert ask(a.fd, b.ip, 80) == f"b {a.ip}"
    assert ask(lab.host, c.ip, 80) == f"c {FAR.gateway}"
    assert not reaches(a.fd, c.ip, 80) and not reaches(c.fd, a.ip, 80)
    assert not reaches(lab.outside, a.ip, 80) and not reaches(lab.outside, a.ip, 80, "udp")
    unguard(lab)
    flush(lab)  # the control: it is the table that keeps them apart
    assert reaches(a.fd, c.ip, 80) and reaches(lab.outside, a.ip, 80)


def test_containers_reach_the_outside_as_the_host(lab: World) -> None:
    lab.serve(lab.outside, "world", 7000)
    guest = lab.guest("a", NEAR, 2)
    assert ask(guest.fd, OUTSIDE, 7000) == f"world {HOST}"
    assert ask(guest.fd, OUTSIDE, 7000, "udp") == f"world {HOST}"


def test_a_foreign_firewall_is_noticed(lab: World) -> None:
    """dockerd makes the FORWARD chain drop what no rule accepts; the same here, in the inet family."""
    lab.serve(lab.outside, "world", 7000)
    guest = lab.guest("a", NEAR, 2)
    assert lab.networks.obstacles() == ()
    closed = nft.add_chain("other", "FORWARD", "filter", nft.FORWARD, 0)
    closed = closed._replace(body=closed.body.replace(be32(5, nft.ACCEPT), be32(5, nft.DROP)))
    with nft_socket() as netlink:
        netlink.transaction(nft.BEGIN, [nft.add_table("other"), closed], nft.END)
    assert lab.networks.obstacles() == ("inet other FORWARD",)
    assert not reaches(guest.fd, OUTSIDE, 7000)
    assert reaches(lab.host, guest.ip, 80)


def test_an_internal_bridge_has_no_outside(lab: World) -> None:
    lab.networks.ensure_bridge(INNER)
    lab.serve(lab.outside, "world", 7000)
    a, b, other = lab.guest("a", INNER, 2), lab.guest("b", INNER, 3), lab.guest("c", NEAR, 2)
    lab.publish(other, 18080)
    assert ask(a.fd, b.ip, 80) == f"b {a.ip}"
    assert not reaches(a.fd, OUTSIDE, 7000)
    assert not reaches(a.fd, INNER.gateway, 18080)  # translated, so not the host itself any more
    assert not reaches(lab.outside, a.ip, 80)


def test_ipv6_ports(lab: World) -> None:
    web = lab.guest("web", NEAR, 2, ipv6=True)
    near = lab.guest("near", NEAR, 3, ipv6=True)
    lab.networks.publish(
        "web", (Forward("tcp", "", 18080, web.ip6, 80), Forward("udp", "::", 18080, web.ip6, 80))
    )
    assert ask(near.fd, web.ip6, 80) == f"web {near.ip6}"
    for protocol in ("tcp", "udp"):
        assert ask(lab.outside, HOST6, 18080, protocol).startswith("web ")
        assert ask(lab.host, HOST6, 18080, protocol).startswith("web ")
        assert ask(near.fd, HOST6, 18080, protocol).startswith("web ")
        assert ask(web.fd, HOST6, 18080, protocol).startswith("web ")
    assert not reaches(lab.outside, web.ip6, 80)
    assert not reaches(lab.host, HOST, 18080)


def test_a_udp_client_that_keeps_sending_follows_the_port(lab: World) -> None:
    first, second = lab.guest("one", NEAR, 2), lab.guest("two", NEAR, 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", 18080))
        lab.networks.publish("x", (Forward("udp", "", 18080, first.ip, 80),))
        client.send(b"?")
        assert client.recv(100).startswith(b"one ")
        lab.networks.publish("x", (Forward("udp", "", 18080, second.ip, 80),))
        client.send(b"?")
        assert client.recv(100).startswith(b"two ")
        lab.networks.unpublish("x")
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def test_the_kernel_filters_the_flows(lab: World) -> None:
    web = lab.guest("web", NEAR, 2)
    lab.publish(web, 18080, protocol="udp")
    for port in (18080, 18081, 18082):
        ask(lab.outside, HOST, port, "udp", wait=0.1)
    ask(lab.outside, HOST, 18080)
    with nft_socket() as netlink:
        shown = netlink.dump(conntrack.find(socket.AF_INET, socket.IPPROTO_UDP, 18080))
    found = [conntrack.destination_of(body) for _, body in shown]
    assert found == [(socket.IPPROTO_UDP, socket.inet_aton(HOST), 18080)]


def test_what_others_take_out_of_the_table_is_put_back_at_once(lab: World) -> None:
    """A firewall that is reloaded flushes all there is; a busy one does it again and again."""
    web, far = lab.guest("web", NEAR, 2), lab.guest("far", FAR, 3)
    lab.publish(web, 18080)
    for _ in range(3):
        flush(lab)
        assert settles(lambda: reaches(lab.outside, HOST, 18080), 3)
    gone = nat.unpublish(lab.networks.table, (Forward("tcp", "", 18080, web.ip, 80),))
    with nft_socket() as netlink:
        netlink.transaction(nft.BEGIN, gone, nft.END)
    assert settles(lambda: reaches(lab.outside, HOST, 18080), 3)
    assert not reaches(web.fd, far.ip, 80)
    own = lab.networks._guard
    lab.networks.unpublish("web")  # what we take out ourselves stays out
    assert lab.networks._guard is own and not reaches(lab.outside, HOST, 18080)


def test_rules_come_back_after_a_flush(lab: World) -> None:
    web = lab.guest("web", NEAR, 2)
    lab.publish(web, 18080)
    unguard(lab)
    flush(lab)
    assert not reaches(lab.outside, HOST, 18080)
    lab.networks.rebuild((NEAR, FAR), {"web": (Forward("tcp", "", 18080, web.ip, 80),)})
    assert reaches(lab.outside, HOST, 18080)
    flush(lab)  # a change notices it, too
    lab.networks.publish("more", (Forward("tcp", "", 18081, web.ip, 80),))
    assert reaches(lab.outside, HOST, 18080) and reaches(lab.outside, HOST, 18081)
    flush(lab)
    lab.networks.unpublish("more")
    assert reaches(lab.outside, HOST, 18080) and not reaches(lab.outside, HOST, 18081)


def nft_socket() -> Netlink:
    return Netlink(NETFILTER)


def unguard(lab: World) -> None:
    """Nobody puts back what is taken out: for the tests that show what it is there for."""
    assert lab.networks._guard is not None
    lab.networks._guard.stop()
    lab.networks._guard._thread.join()


def flush(lab: World) -> None:
    """What `nft flush ruleset` does to our table."""
    with nft_socket() as netlink:
        netlink.transaction(nft.BEGIN, nat.nothing(lab.networks.table), nft.END)
