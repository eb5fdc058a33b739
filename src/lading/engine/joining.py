"""Networks and who is on them: rows, addresses, interfaces. Owns intent; the kernel's side is lading.network.

A bridge is made when the first container joins it and removed when the engine closes with nobody on it, so that
nothing runs when nothing runs. What users ask of networks is in networks.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Invalid, NotFound, Unsupported
from lading.base.ids import new_id
from lading.engine import codec, segments
from lading.engine.events import Events
from lading.engine.model import NO_RATE, Endpoint, EndpointState, HostConfig, PortBinding, Rate
from lading.engine.naming import check_alias
from lading.engine.places import free_index, guest_name, host_name, outward
from lading.engine.segments import Network, Pools

if TYPE_CHECKING:
    from lading import network as room
    from lading.engine.naming import Naming
    from lading.engine.roster import Entry, Roster
    from lading.store.database import Connection, Database

DDL = "CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL)"

DEFAULT_BRIDGE = "lading0"
PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}


@dataclass(frozen=True)
class Joined:
    """What a container got when it joined its networks."""

    endpoints: tuple[EndpointState, ...] = ()
    host_names: tuple[str, ...] = ()


class Joining:
    """Networks by name, and joining and leaving them for the start path."""

    def __init__(
        self,
        db: Database,
        roster: Roster,
        events: Events,
        open_room: Callable[[], room.Networks],
        pid_of: Callable[[str], int],
        naming: Naming,
        trace: str,
        default_bridge: str = DEFAULT_BRIDGE,
    ) -> None:
        """`open_room` opens the kernel's side at first use; `pid_of` gives a container's init pid, 0 when down.

        `trace` is a file that exists while the kernel may hold something of ours: a killed daemon's successor looks.
        Engines over different data roots need different names for their default bridges.
        """
        self._db, self._roster, self._events, self._open = db, roster, events, open_room
        self._pid_of = pid_of
        self.naming = naming
        self._trace = trace
        self._lock = threading.RLock()
        self._last: dict[str, str] = {}  # network id -> address given out last
        self._taken: dict[str, dict[str, str]] = {}  # network id -> address -> container id
        db.ensure("networks", DDL)
        self._networks = {
            row["id"]: codec.load(Network, row["record"])
            for row in db.query("SELECT record, id FROM networks")
        }
        have = {network.name for network in self._networks.values()}
        missing = [
            Network(new_id(), name, clock.now_ns(), driver, bridge=default_bridge if name == "bridge" else "")
            for name, driver in PREDEFINED.items()
            if name not in have
        ]
        if missing:
            with db.transaction() as cx:
                for network in missing:
                    self._write(cx, network)

    def _write(self, cx: Connection, network: Network) -> None:
        cx.execute(
            "INSERT OR REPLACE INTO networks (id, name, record) VALUES (?, ?, ?)",
            (network.id, network.name, codec.dump(network)),
        )
        self._networks[network.id] = network

    def inspect(self, ref: str) -> Network:
        """By id, name or id prefix; "default" is the bridge."""
        with self._lock:
            wanted = "bridge" if ref == "default" else ref
            if wanted in self._networks:
                return self._networks[wanted]
            for network in self._networks.values():
                if network.name == wanted:
                    return network
            matches = [n for n in self._networks.values() if wanted and n.id.startswith(wanted)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise Invalid(f'multiple networks begin with "{ref[:64]}"', hint="Give more digits of the id.")
        raise NotFound(f"network {ref[:80]} not found", hint="lading network ls lists them.")

    @staticmethod
    def _same(network: Network, name: str) -> bool:
        return name in (network.name, network.id) or (name == "default" and network.name == "bridge")

    def _addressed(self, network: Network, asked: Pools) -> Network:
        return segments.addressed(network, asked, self._networks.values(), self._open().subnets_in_use())

    def join(self, container_id: str, sandbox: int, asked: Mapping[str, Endpoint]) -> Joined:
        """Give the sandbox an interface on every network in `asked`; on failure on none."""
        joined = self.claim(container_id, asked)
        try:
            self.attach(sandbox, joined)
        except BaseException:
            self.leave(container_id, joined)
            raise
        return joined

    def claim(
        self,
        container_id: str,
        asked: Mapping[str, Endpoint],
        aliases: Iterable[str] = (),
        beside: Sequence[str] = (),
    ) -> Joined:
        """Addresses on every network in `asked`, or on none; `leave` frees them. `beside` are interfaces it has."""
        joined = Joined()
        try:
            for name, endpoint in asked.items():
                network = self.ensure(self.inspect(name))
                state = self._allocate(network, container_id, endpoint, tuple(aliases))
                number = free_index((*beside, *joined.host_names))
                joined = Joined(
                    (*joined.endpoints, state), (*joined.host_names, host_name(container_id, number))
                )
        except BaseException:
            self.leave(container_id, joined)
            raise
        return joined

    def check(self, host: HostConfig, networks: Mapping[str, Endpoint]) -> None:
        """Refuse what no start could do: networks that are not there, names and addresses they do not have."""
        for name, endpoint in wanted_networks(host, networks).items():
            self.check_endpoint(self.inspect(name), endpoint)
        if host.net_rate != NO_RATE and (host.network_mode in ("none", "host") or _shares(host)):
            raise Invalid(
                "conflicting options: --net-rate needs a network of the container's own",
                why=f"Its network mode is {host.network_mode[:80]}.",
            )
        if host.net_rate != NO_RATE:
            from lading.network.values import Rate as KernelRate

            KernelRate(host.net_rate.egress, host.net_rate.ingress)  # refuses what no bucket can hold

    @staticmethod
    def check_endpoint(network: Network, endpoint: Endpoint) -> None:
        for alias in endpoint.aliases:
            check_alias(alias)
        if network.name == "bridge" and (endpoint.ipv4 or endpoint.ipv6):
            raise Invalid(
                "a static address needs a network of the user's own",
                why="The default network has whatever subnet is free on this host.",
                hint="Make one: lading network create --subnet 10.99.0.0/24 mine.",
            )
        if network.name == "bridge" and endpoint.aliases:
            raise Invalid(
                "an alias needs a network of the user's own",
                why="On the default network names are not resolved.",
                hint="Make one with lading network create.",
            )
        if endpoint.ipv6 and not network.subnet6:
            raise Invalid(
                f"network {network.name} has no IPv6 subnet", hint="Make it with --ipv6, or leave --ip6 out."
            )

    def attach(self, sandbox: int, joined: Joined, rate: Rate = NO_RATE) -> None:
        """Make the interfaces of what was claimed. What was made before a failure is taken away by `leave`."""
        if not joined.endpoints:
            return
        from lading import network as room
        from lading.network.values import Rate as KernelRate

        kernel, way_out = self._open(), outward(joined.endpoints)
        for state, name in zip(joined.endpoints, joined.host_names, strict=True):
            network = self._networks[state.network_id]
            kernel.attach(
                sandbox,
                room.Interface(
                    bridge=network.bridge,
                    host_name=name,
                    guest_name=guest_name(name),
                    ipv4=state.ipv4,
                    prefix=state.prefix,
                    ipv6=state.ipv6,
                    prefix6=state.prefix6,
                    mac=state.mac,
                    gateway=state.gateway if state is way_out else "",
                    gateway6=state.gateway6 if state is way_out else "",
                    mtu=network.mtu,
                    rate=KernelRate(rate.egress, rate.ingress),
                ),
            )

    def leave(self, container_id: str, joined: Joined, *, alive: bool = False) -> None:
        """Take the interfaces away and free the addresses. `alive`: the namespace lives on, and they must be gone."""
        if joined.host_names:
            kernel = self._open()
            for name in joined.host_names:
                kernel.detach(name, wait=alive)
        with self._lock:
            for state in joined.endpoints:
                taken = self._taken.get(state.network_id, {})
                for address in (state.ipv4, state.ipv6):
                    if taken.get(address) == container_id:
                        del taken[address]

    def hold(self, container_id: str, joined: Joined) -> None:
        """Mark the addresses of a container that is already up, after a restart of the daemon."""
        with self._lock:
            for state in joined.endpoints:
                taken = self._taken.setdefault(state.network_id, {})
                for address in (state.ipv4, state.ipv6):
                    if address:
                        taken[address] = container_id

    def _allocate(
        self, network: Network, container_id: str, endpoint: Endpoint, aliases: tuple[str, ...]
    ) -> EndpointState:
        from lading.network import addresses

        for alias in endpoint.aliases:
            check_alias(alias)
        with self._lock:
            taken = self._taken.setdefault(network.id, {})
            used = {*taken, network.gateway, network.gateway6, *network.auxiliary.values()}

            def choose(subnet: str, wanted: str, within: str) -> str:
                # Round and round, so that a freed address rests before somebody else has it.
                last = self._last.get(subnet, "")
                found = addresses.allocate(subnet, used, wanted, after=last, within=within)
                if not wanted:
                    self._last[subnet] = found
                return found

            ipv4 = choose(network.subnet, endpoint.ipv4, network.ip_range)
            ipv6 = choose(network.subnet6, endpoint.ipv6, network.ip_range6) if network.subnet6 else ""
            taken.update({address: container_id for address in (ipv4, ipv6) if address})
        return EndpointState(
            network_name=network.name,
            network_id=network.id,
            endpoint_id=new_id(),
            ipv4=ipv4,
            prefix=int(network.subnet.rpartition("/")[2]),
            gateway="" if network.internal else network.gateway,
            ipv6=ipv6,
            prefix6=int(network.subnet6.rpartition("/")[2]) if ipv6 else 0,
            gateway6="" if network.internal or not ipv6 else network.gateway6,
            mac=endpoint.mac or addresses.mac_of(ipv4),
            aliases=(*endpoint.aliases, *aliases),
            requested=endpoint,
        )

    def ensure(self, network: Network) -> Network:
        """Make the bridge exist, choosing a subnet at the first use of the default one."""
        with self._lock:
            network = self._networks.get(network.id, network)
            if network.driver != "bridge":
                raise Invalid(f"network {network.name} cannot be joined beside others")
            if not network.subnet:
                network = self._addressed(network, Pools())
                with self._db.transaction() as cx:
                    self._write(cx, network)
            if not os.path.exists(self._trace):
                os.close(os.open(self._trace, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._open().ensure_bridge(self._bridge(network))  # quick when there; mends what someone took
            return network

    @staticmethod
    def _bridge(network: Network) -> room.Bridge:
        from lading.network import Bridge

        return Bridge(
            name=network.bridge,
            subnet=network.subnet,
            gateway=network.gateway,
            subnet6=network.subnet6,
            gateway6=network.gateway6,
            internal=network.internal,
            mtu=network.mtu,
            masquerade=network.masquerade,
        )

    @staticmethod
    def forwards(
        ports: Iterable[PortBinding], endpoints: Sequence[EndpointState]
    ) -> tuple[room.Forward, ...]:
        """The kernel room's form of published ports: they go to the container's place on the network it goes out by.

        A port on every address is one of each family that the place has an address of.
        """
        from lading.network import Forward

        state = outward(endpoints) or next(iter(endpoints), None)
        if state is None:
            return ()
        found = []
        for binding in ports:
            at = (binding.protocol, binding.host_ip, int(binding.host_port))
            if ":" not in binding.host_ip:
                found.append(Forward(*at, state.ipv4, binding.container_port))
            elif not state.ipv6:
                raise Unsupported(
                    f"port {binding.host_port} of {binding.host_ip} cannot be published",
                    why=f"The container has no IPv6 address on network {state.network_name}.",
                    hint="Make the network with --ipv6, or publish on an IPv4 address.",
                )
            if state.ipv6 and (not binding.host_ip or ":" in binding.host_ip):
                found.append(Forward(*at, state.ipv6, binding.container_port))
        return tuple(found)

    def recover(self, live: Iterable[Entry]) -> None:
        """After a restart: mark addresses, and bring back bridges and rules of running containers."""
        entries = [entry for entry in live if entry.history.endpoints]
        self.naming.recover(entries)
        if not entries and not os.path.exists(self._trace):
            return  # nothing was ever made: the kernel's side need not be opened
        bridges: dict[str, room.Bridge] = {}
        forwards: dict[str, tuple[room.Forward, ...]] = {}
        with self._lock:
            for entry in entries:
                self.hold(entry.id, Joined(entry.history.endpoints, entry.history.host_names))
                if entry.history.ports:
                    forwards[entry.id] = self.forwards(entry.history.ports, entry.history.endpoints)
                for state in entry.history.endpoints:
                    network = self._networks.get(state.network_id)
                    if network is not None:
                        bridges[network.id] = self._bridge(network)
        kernel = self._open()
        kernel.rebuild(tuple(bridges.values()), forwards)
        kernel.sweep()

    def close(self) -> None:
        """Remove bridges nobody is on, also those that a killed daemon left."""
        self.naming.shut()
        with self._lock:
            if not os.path.exists(self._trace):
                return
            for network in self._networks.values():
                if network.driver == "bridge" and not self._taken.get(network.id):
                    self._remove_bridge(network)
            if not any(self._taken.values()):
                os.unlink(self._trace)

    def _remove_bridge(self, network: Network) -> None:
        if network.subnet:  # it was used; the table may speak of it also where the interface is gone
            self._open().remove_bridge(network.bridge)


def _shares(host: HostConfig) -> bool:
    return host.network_mode.startswith("container:")


def wanted_networks(host: HostConfig, networks: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """The networks a container joins when it starts: those asked for, or the one its mode names."""
    mode = host.network_mode or "default"
    if mode in ("none", "host") or _shares(host):
        return {}
    first = "bridge" if mode == "default" else mode
    found = {
        first: networks.get(first) or networks.get("default" if first == "bridge" else first) or Endpoint()
    }
    for name, endpoint in networks.items():
        if name not in (first, "default"):
            found[name] = endpoint
    return found
