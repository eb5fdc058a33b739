"""Tracked UDP flows. Owns forgetting those that a change of published ports has made wrong.

The kernel translates the first packet of a flow by the table and all later ones as the first. A UDP client
that keeps sending keeps its flow alive, and would reach a container that is gone, or none, for ever. TCP
needs nothing: the end of a container closes its connections.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable

from lading.linux import netlink_conntrack as conntrack
from lading.linux.netlink import Netlink
from lading.network.values import Forward, pack_address


def forget(netlink: Netlink, forwards: Iterable[Forward]) -> None:
    """Let the next packet to each of these UDP ports be looked at afresh.

    Where the kernel cannot (ctnetlink is an option of its build), flows end as they always do, by silence.
    """
    for forward in forwards:
        if forward.protocol == "udp":
            with contextlib.suppress(OSError):
                _forget(netlink, forward)


def _forget(netlink: Netlink, forward: Forward) -> None:
    family = socket.AF_INET6 if ":" in forward.guest_ip else socket.AF_INET
    host = pack_address(forward.host_ip) if forward.host_ip else b""
    for _, body in netlink.dump(conntrack.find(family, socket.IPPROTO_UDP, forward.host_port)):
        protocol, address, port = conntrack.destination_of(body)
        if (protocol, port) != (socket.IPPROTO_UDP, forward.host_port) or (any(host) and address != host):
            continue
        try:
            netlink.request([conntrack.forget(body)])
        except OSError as error:
            if error.errno != errno.ENOENT:  # it may have timed out meanwhile
                raise
