"""Bandwidth limits of a container: token buckets on the host's side, where no container can take them off.

What it receives leaves the host's end of its veth pair, so a bucket there limits it. What it sends arrives at that end,
where nothing can be queued, so it is turned to an ifb, an interface of its own, with a bucket in front. Owns the numbers
of the buckets; remembers nothing.
"""

from __future__ import annotations

import errno

from lading.linux import netlink_route as route
from lading.linux import netlink_tc as tc
from lading.linux.netlink import Message, Netlink
from lading.network import links
from lading.network.values import Rate

_QUEUE = 1000
_MILLISECOND = 1000
_SMALLEST_BURST = 16 * 1024
_SMALLEST_WAITING = 64 * 1024


def limit(netlink: Netlink, host_name: str, rate: Rate) -> None:
    """Hold the container behind `host_name` to these rates; a failure leaves no ifb.

    Raises OSError, EOPNOTSUPP where the kernel was built without tbf, ifb, u32 or mirred (it says ENOENT).
    """
    try:
        _limit(netlink, host_name, rate)
    except FileNotFoundError as error:
        raise OSError(
            errno.EOPNOTSUPP, f"{error.strerror}: the kernel lacks tbf, ifb, u32 or mirred"
        ) from error


def _limit(netlink: Netlink, host_name: str, rate: Rate) -> None:
    if rate.ingress:
        netlink.request([_bucket(links.index_of(host_name), rate.ingress)])
    if rate.egress:
        name = ifb_of(host_name)
        netlink.request([tc.add_ifb(name, _QUEUE)])
        try:
            own, other = links.index_of(host_name), links.index_of(name)
            netlink.request([_bucket(other, rate.egress), tc.ingress(own), tc.redirect(own, other)])
        except BaseException:
            links.delete(netlink, name)
            raise


def _bucket(index: int, bits: int) -> Message:
    """10 ms of traffic at once (one tick of a slow kernel), 100 ms waiting: more would be lag, less would be lost."""
    rate = bits // 8
    burst = max(rate * 10 // _MILLISECOND, _SMALLEST_BURST)
    return tc.token_bucket(index, rate, burst, burst + max(rate * 100 // _MILLISECOND, _SMALLEST_WAITING))


def ifb_of(host_name: str) -> str:
    """The name of the ifb that belongs to a veth pair."""
    return f"{host_name}i"


def sweep(netlink: Netlink) -> None:
    """Delete the ifbs whose veth pair went with its container while no daemon was there to see it."""
    found = [route.link_of(body) for _, body in netlink.dump(route.links())]
    names = {link.name for link in found}
    for link in found:
        orphan = link.name.startswith("lv") and link.name.endswith("i") and link.name[:-1] not in names
        if link.kind == "ifb" and (orphan or link.name.startswith(links.ASIDE)):
            links.delete(netlink, link.name)
