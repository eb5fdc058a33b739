"""`Networks`: the room's door. Owns the lock, the table's intent in memory, and the translation of errors.

What a packet may do is in `nat`, what interfaces there are in `links`, who has a port in `ports`.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from lading.base.errors import Conflict, Denied, Internal, LadingError, NotFound, Unavailable, Unsupported
from lading.linux import netlink_nft as nft
from lading.linux.netlink import NETFILTER, ROUTE, Message, Netlink
from lading.network import flows, links, nat, ports, shaping
from lading.network.guard import Guard
from lading.network.values import Bridge, Forward, Interface, check_interface_name, parse_subnet

T = TypeVar("T")

_DEFAULT_RUN = "/run/lading"


class Networks:
    """Bridges, containers' interfaces and published ports of one engine, in the namespace it was made in.

    The kernel keeps them when the engine ends. A new engine calls `rebuild` first, with what it knows from its
    database: until then the table in memory is empty, and the first change would empty the kernel's.
    """

    def __init__(self, run_dir: str, table: str = "") -> None:
        """`table` names the nftables table; by default each run directory has its own, so engines keep apart."""
        if not table:
            mark = hashlib.sha256(run_dir.encode()).hexdigest()[:8]
            table = "lading" if run_dir == _DEFAULT_RUN else f"lading-{mark}"
        self.table = table
        self._lock = threading.Lock()
        self._bridges: dict[str, Bridge] = {}
        self._forwards: dict[str, tuple[Forward, ...]] = {}
        self._wrote = False
        self._guard: Guard | None = None
        self._route = _translated("open a netlink socket", lambda: Netlink(ROUTE))
        self._nft = _translated("open a netfilter socket", lambda: Netlink(NETFILTER))

    def __enter__(self) -> Networks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the kernel; a table that was used here, and has no bridge and no port left, goes too."""
        with self._lock:
            try:
                if self._wrote and not self._bridges and not self._forwards:
                    _translated("remove the nftables table", lambda: self._send(nat.nothing(self.table)))
            finally:
                self._wrote = False
                if self._guard is not None:
                    self._guard.stop()
                    self._guard = None
                self._route.close()
                self._nft.close()

    def sandbox(self) -> int:
        """A descriptor of a fresh network namespace, its lo up; it lives as long as that or a process in it."""
        return _translated("make a network namespace", links.sandbox)

    def attach(self, sandbox_fd: int, interface: Interface) -> None:
        """Join the namespace to a bridge by a veth pair, held to its rates. Whole or not at all."""
        words = f"connect a container to {interface.bridge} as {interface.host_name}"
        _translated(words, lambda: links.attach(self._route, sandbox_fd, interface))
        try:
            words = f"limit the rate of {interface.host_name}"
            _translated(words, lambda: shaping.limit(self._route, interface.host_name, interface.rate))
        except LadingError:
            self.detach(interface.host_name)
            raise

    def route(self, sandbox_fd: int, guest_name: str, gateway: str, gateway6: str = "") -> None:
        """The container goes out by these gateways from now on, on its interface `guest_name`."""
        check_interface_name(guest_name)
        words = f"set the default route of {guest_name}"
        _translated(words, lambda: links.set_default_route(sandbox_fd, guest_name, (gateway, gateway6)))

    def detach(self, host_name: str, *, wait: bool = False) -> None:
        """Cut a veth pair off and free its name, at once. It also goes by itself when its namespace does.

        The container's end goes a little later; `wait` for it where the container lives on and may get another.
        """
        check_interface_name(host_name)
        for name in (host_name, shaping.ifb_of(host_name)):
            cut = links.delete if wait else links.detach
            _translated(f"disconnect {name}", functools.partial(cut, self._route, name))

    def sweep(self) -> None:
        """Take away what the kernel kept of containers that ended while no daemon ran."""
        _translated("look for interfaces nobody uses", lambda: shaping.sweep(self._route))

    def ensure_bridge(self, bridge: Bridge) -> None:
        """The bridge exists, as described, with its rules; quick when it does already."""
        with self._lock:
            if (
                self._bridges.get(bridge.name) == bridge
                and links.index_of(bridge.name)
                and self._table_exists()
            ):
                return
            self._check_overlap(bridge)
            words = f"set up bridge {bridge.name}"
            made = _translated(words, lambda: links.ensure_bridge(self._route, bridge))
            bridges = {**self._bridges, bridge.name: bridge}
            try:
                _translated(words, lambda: self._apply(bridges, self._forwards))
            except LadingError:
                if made:
                    links.delete(self._route, bridge.name)
                raise

    def remove_bridge(self, name: str) -> None:
        """Delete a bridge and what the table says of it; one that is gone already is no error."""
        check_interface_name(name)
        with self._lock:
            _translated(f"remove bridge {name}", lambda: links.remove_bridge(self._route, name))
            bridges = {key: bridge for key, bridge in self._bridges.items() if key != name}
            _translated(f"remove bridge {name}", lambda: self._apply(bridges, self._forwards))

    def publish(self, id: str, forwards: tuple[Forward, ...]) -> None:
        """Send these host ports to the container `id`, instead of any it has had: all of them or none."""
        with self._lock:
            self._check_free(id, forwards)
            after = {key: some for key, some in self._forwards.items() if key != id}
            messages = nat.unpublish(self.table, self._forwards.get(id, ()))
            messages += nat.publish(self.table, forwards)
            if forwards:
                after[id] = forwards
            _translated("publish ports", lambda: self._change(messages, after))
            _translated("forget stale connections", lambda: flows.forget(self._nft, forwards))

    def unpublish(self, id: str) -> None:
        with self._lock:
            if id not in self._forwards:
                return
            after = {key: some for key, some in self._forwards.items() if key != id}
            gone = self._forwards[id]
            messages = nat.unpublish(self.table, gone)
            _translated("withdraw published ports", lambda: self._change(messages, after))
            _translated("forget stale connections", lambda: flows.forget(self._nft, gone))

    def rebuild(self, bridges: Iterable[Bridge], forwards_by_id: Mapping[str, Iterable[Forward]]) -> None:
        """Make the kernel agree: bridges that are missing, and the whole table in one transaction."""
        with self._lock:
            known = {bridge.name: bridge for bridge in bridges}
            forwards = {key: tuple(some) for key, some in forwards_by_id.items()}
            _translated("set up bridges", lambda: self._ensure_all(known.values()))
            _translated("write the nftables table", lambda: self._apply(known, forwards))

    def reserve(self, protocol: str, host_ip: str, port: int) -> int:
        """A bound descriptor that keeps the port; 0 lets the kernel choose (`ports.port_of` tells which)."""
        try:
            return ports.reserve(protocol, host_ip, port)
        except Conflict as error:
            owner = self._publisher(protocol, port)
            if not owner:
                raise
            hint = "Choose another host port, or stop that container."
            raise Conflict(error.what, why=f"Container {owner[:12]} publishes it.", hint=hint) from None

    def subnets_in_use(self) -> tuple[str, ...]:
        """What the host has routes to, for `addresses.pick_subnet`."""
        return _translated("read the routes", lambda: links.subnets_in_use(self._route))

    def obstacles(self) -> tuple[str, ...]:
        """Chains of other programs that drop forwarded packets by default, as "ip filter FORWARD".

        dockerd sets that one so, and no rule of ours can overrule it. Containers then reach each other and the
        host only, and other hosts do not reach them, until its owner lets the bridges' packets pass.
        """
        found = (
            nft.base_chain_of(body)
            for _, body in _translated("read the firewall", lambda: self._nft.dump(nft.chains()))
        )
        return tuple(
            f"{chain.family} {chain.table} {chain.name}"
            for chain in found
            if chain and chain.hook == nft.FORWARD and chain.policy == nft.DROP and chain.table != self.table
        )

    def _ensure_all(self, bridges: Iterable[Bridge]) -> None:
        for bridge in bridges:
            links.ensure_bridge(self._route, bridge)

    def _publisher(self, protocol: str, port: int) -> str:
        with self._lock:
            for id, forwards in self._forwards.items():
                if any((some.protocol, some.host_port) == (protocol, port) for some in forwards):
                    return id
        return ""

    def _check_overlap(self, bridge: Bridge) -> None:
        for other in self._bridges.values():
            if other.name == bridge.name:
                continue
            for ours, theirs in ((bridge.subnet, other.subnet), (bridge.subnet6, other.subnet6)):
                if ours and theirs and parse_subnet(ours).overlaps(parse_subnet(theirs)):
                    raise Conflict(f"subnet {ours} overlaps {theirs} of {other.name}", hint="Choose another.")

    def _check_free(self, id: str, forwards: tuple[Forward, ...]) -> None:
        wanted = {_key(some) for some in forwards}
        if len(wanted) != len(forwards):
            raise Conflict("a host port is published twice", hint="Give every published port once.")
        for other, some in self._forwards.items():
            for forward in some if other != id else ():
                if _key(forward) in wanted:
                    raise Conflict(
                        f"port {forward.host_port}/{forward.protocol} is already published",
                        why=f"Container {other[:12]} has it.",
                        hint="Choose another host port.",
                    )

    def _table_exists(self) -> bool:
        try:
            self._nft.request([nft.get_table(self.table)])
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def _change(self, messages: list[Message], forwards: dict[str, tuple[Forward, ...]]) -> None:
        """A few elements where the table is as we left it; all of it where someone has changed it."""
        try:
            if messages:
                self._send(messages)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            self._apply(self._bridges, forwards)
        self._forwards = forwards

    def _apply(self, bridges: dict[str, Bridge], forwards: dict[str, tuple[Forward, ...]]) -> None:
        """Write the whole table and, when the kernel took it, remember it."""
        self._send(nat.ruleset(self.table, bridges.values(), forwards))
        self._bridges, self._forwards = bridges, forwards

    def _send(self, messages: list[Message]) -> None:
        self._nft.transaction(nft.BEGIN, messages, nft.END)
        self._wrote = True
        if self._guard is None:
            self._guard = Guard(self.table, self._nft.port, self._mend)

    def _mend(self) -> None:
        """Somebody has changed the table: write it again."""
        with self._lock:
            if self._guard is not None:  # not closed meanwhile
                _translated("write the nftables table", lambda: self._apply(self._bridges, self._forwards))


def _key(forward: Forward) -> tuple[str, str, int, bool]:
    """What only one container can have: a port, on an address or on all of a family."""
    return forward.protocol, forward.host_ip, forward.host_port, ":" in forward.guest_ip


def _translated(words: str, work: Callable[[], T]) -> T:
    """Do `work`; an OSError becomes one of lading's errors, saying that lading could not do `words`."""
    try:
        return work()
    except OSError as error:
        raise _error(f"cannot {words}", error) from error


def _error(what: str, error: OSError) -> LadingError:
    why = f"{error.strerror or error}."
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return Denied(
            what, why=why, hint="Networks need root (CAP_NET_ADMIN and CAP_SYS_ADMIN); use --network host."
        )
    if error.errno == errno.EEXIST:
        return Conflict(what, why=why)
    if error.errno in (errno.ENODEV, errno.ENOENT):
        return NotFound(what, why=why)
    if error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOSYS):
        hint = "The kernel needs bridge, veth and nf_tables with inet NAT (Linux 5.6 or newer)."
        return Unsupported(what, why=why, hint=hint)
    if error.errno in (errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EBUSY):
        return Unavailable(what, why=why)
    return Internal(what, why=why)
