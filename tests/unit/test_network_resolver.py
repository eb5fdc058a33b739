"""resolv.conf and hosts of a container, from the host's text and the user's wishes."""

from __future__ import annotations

import pytest

from lading.base.errors import Invalid
from lading.network.resolver import hosts_file, loopback_only, parse_extra_host, resolv_conf

HOST = """\
# a comment
nameserver 192.0.2.53
nameserver 127.0.0.53  ; the stub
nameserver fe80::1%eth0
nameserver 2001:db8::53
nameserver nonsense
domain first.example
search example.org sub.example.org
options ndots:2 timeout:1
options rotate
"""


def test_the_hosts_servers_without_its_loopback() -> None:
    assert resolv_conf(HOST) == (
        "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"
        "search example.org sub.example.org\noptions ndots:2 timeout:1 rotate\n"
    )


def test_host_network_keeps_the_stub() -> None:
    assert "nameserver 127.0.0.53\n" in resolv_conf(HOST, keep_loopback=True)


def test_wishes_win_kind_by_kind() -> None:
    text = resolv_conf(HOST, ["192.0.2.1", "127.0.0.1"], ["corp.example"], ["ndots:0"])
    assert text == "nameserver 192.0.2.1\nnameserver 127.0.0.1\nsearch corp.example\noptions ndots:0\n"
    assert "search" not in resolv_conf(HOST, search=["."])
    assert "nameserver 192.0.2.53\n" in resolv_conf(HOST, search=["."])


def test_no_server_is_invented() -> None:
    stub = "nameserver 127.0.0.53\nsearch lan\n"
    assert resolv_conf(stub) == "search lan\n"
    assert loopback_only(stub) and not loopback_only(HOST) and not loopback_only("")
    assert resolv_conf("") == ""


@pytest.mark.parametrize(
    "wishes",
    [
        {"dns": ["dns.example"]},
        {"dns": ["192.0.2.1\nnameserver 192.0.2.2"]},
        {"search": ["a b"]},
        {"search": ["a\nnameserver 192.0.2.2"]},
        {"options": ["ndots:1 rotate"]},
        {"options": [""]},
    ],
)
def test_no_line_can_be_slipped_in(wishes: dict[str, list[str]]) -> None:
    with pytest.raises(Invalid):
        resolv_conf(HOST, **wishes)  # type: ignore[arg-type]


def test_hosts() -> None:
    text = hosts_file(
        [("10.213.0.2", ["web.example", "web"]), ("10.213.1.2", ["", "web"]), ("10.213.2.2", [])],
        ["db:192.0.2.7", "six=[2001:db8::7]", "host.docker.internal:host-gateway"],
        host_gateway="10.213.0.1",
    )
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ")
    assert text.endswith(
        "192.0.2.7\tdb\n2001:db8::7\tsix\n10.213.0.1\thost.docker.internal\n"
        "10.213.0.2\tweb.example web\n10.213.1.2\tweb\n"
    )


def test_extra_hosts() -> None:
    assert parse_extra_host("db:::1") == ("db", "::1")
    assert parse_extra_host("db=::1") == ("db", "::1")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "db",
        ":192.0.2.7",
        "db:",
        "db:name",
        "d b:192.0.2.7",
        "a\nb:192.0.2.7",
        "db:192.0.2.7\n127.0.0.1 x",
    ],
)
def test_extra_hosts_that_cannot_be(entry: str) -> None:
    with pytest.raises(Invalid):
        hosts_file([], [entry])


def test_host_gateway_needs_one() -> None:
    with pytest.raises(Invalid, match="host-gateway"):
        parse_extra_host("a:host-gateway")


def test_own_names_are_checked() -> None:
    with pytest.raises(Invalid):
        hosts_file([("10.213.0.2", ["web\n192.0.2.1 bank.example"])])
    with pytest.raises(Invalid):
        hosts_file([("elsewhere", ["web"])])
