"""Whatever the host's files, a user or a broken kernel says, it is read or refused in lading's words, never
a traceback.
"""

from __future__ import annotations

import contextlib
import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from lading.base.errors import LadingError
from lading.linux import netlink, netlink_conntrack, netlink_route
from lading.network.addresses import allocate
from lading.network.resolver import hosts_file, resolv_conf
from lading.network.values import check_interface_name, pack_mac

LINES = st.lists(
    st.tuples(st.sampled_from(["nameserver", "search", "domain", "options", "#", ""]), st.text(max_size=40)),
    max_size=20,
).map(lambda pairs: "\n".join(" ".join(pair) for pair in pairs))


@given(LINES | st.text(max_size=200), st.lists(st.text(max_size=20), max_size=3))
def test_resolv_conf(host: str, words: list[str]) -> None:
    lines = resolv_conf(host).splitlines()
    for line in lines:
        key, _, rest = line.partition(" ")
        assert key in ("nameserver", "search", "options") and rest.isprintable()
    with contextlib.suppress(LadingError):
        lines = resolv_conf(host, words, words, words).splitlines()
        assert len([line for line in lines if line.startswith("search ")]) <= 1
        assert all(line.partition(" ")[0] in ("nameserver", "search", "options") for line in lines)


@given(st.text(max_size=60), st.text(max_size=30))
def test_hosts_have_one_line_each(entry: str, name: str) -> None:
    with contextlib.suppress(LadingError):
        plain = len(hosts_file().splitlines())
        assert len(hosts_file([("192.0.2.1", [name])], [entry]).splitlines()) <= plain + 2


@given(st.binary(max_size=300))
def test_messages_from_the_kernel(data: bytes) -> None:
    """Truncated or overlong attributes are left out; what is decoded stays inside the message."""
    for payload in netlink.attributes(data).values():
        assert payload in data
    padded = data.ljust(16, b"\0")
    netlink_route.link_of(padded)
    netlink_route.address_of(padded)
    netlink_route.route_of(padded)
    netlink_conntrack.destination_of(padded)


@given(st.text(max_size=20))
def test_names_and_macs(text: str) -> None:
    with contextlib.suppress(LadingError):
        check_interface_name(text)
        assert "/" not in text and 0 < len(text.encode()) < 16
    with contextlib.suppress(LadingError):
        assert len(pack_mac(text)) == 6


@given(
    st.integers(0, 2**32 - 1),
    st.integers(20, 32),
    st.sets(st.integers(0, 4095), max_size=50),
    st.text(max_size=20),
)
def test_an_allocated_address_is_free_and_inside(base: int, prefix: int, used: set[int], wish: str) -> None:
    network = ipaddress.ip_network((base, prefix), strict=False)
    start = int(network.network_address)
    taken = {str(ipaddress.ip_address(min(start + step, 2**32 - 1))) for step in used}
    for wanted in ("", wish):
        with contextlib.suppress(LadingError):
            found = allocate(str(network), taken, wanted)
            assert found not in taken and ipaddress.ip_address(found) in network
