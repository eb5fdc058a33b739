"""Networks and who is on them: rows, addresses, interfaces. Owns intent; the kernel's side is lading.network.

A bridge is made when the first container joins it and removed when the engine closes with nobody on it, so that
nothing runs when nothing runs. What users ask of networks is in networks.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Denied, Invalid, NotFound
from lading.base.ids import new_id
from lading.engine import codec
from lading.engine.events import Events
from lading.engine.model import Endpoint, EndpointState, HostConfig, PortBinding

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from lading import network as room
    from lading.engine.naming import Naming
    from lading.engine.roster import Entry, Roster
    from lading.store.database import Connection, Database

DDL = "CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL)"

DEFAULT_BRIDGE = "lading0"
PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}


@dataclass(frozen=True)
class Network:
    """One network. `bridge` is the interface's name on the host; subnets are empty until first use."""

    id: str
    name: str
    created_ns: int
    driver: str = "bridge"
    bridge: str = ""
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    mtu: int = 1500
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    scope: str = "local"


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

    def _addressed(self, network: Network, subnet: str, gateway: str, subnet6: str, gateway6: str) -> Network:
        import ipaddress

        from lading.network import addresses

        used = [other.subnet for other in self._networks.values() if other.subnet]
        if subnet:
            wanted = _subnet(subnet, 4)
            for other in used:
                if wanted.overlaps(ipaddress.ip_network(other)):
                    raise Denied(
                        "invalid pool request: Pool overlaps with other one on this address space",
                        why=f"{wanted} and {other} share addresses.",
                    )
            subnet = str(wanted)
        else:
            subnet = addresses.pick_subnet([*used, *self._open().subnets_in_use()])
        first = str(next(ipaddress.ip_network(subnet).hosts()))
        if gateway and ipaddress.ip_address(gateway) not in ipaddress.ip_network(subnet):
            raise Invalid(f"gateway {gateway} is not in subnet {subnet}")
        if network.enable_ipv6 and not subnet6:
            raise Invalid("an IPv6 network needs a subnet", hint="Give one with --subnet.")
        if subnet6:
            subnet6 = str(_subnet(subnet6, 6))
            gateway6 = gateway6 or str(ipaddress.ip_network(subnet6)[1])
        return replace(
            network,
            subnet=subnet,
            gateway=gateway or first,
            subnet6=subnet6,
            gateway6=gateway6 if subnet6 else "",
        )

    def join(
        self,
        container_id: str,
        sandbox: int,
        asked: Mapping[str, Endpoint],
        aliases: Iterable[str] = (),
        first: int = 0,
    ) -> Joined:
        """Give the sandbox an interface on every network in `asked`, from eth<first> on; on failure on none."""
        joined = self.claim(container_id, asked, aliases, first)
        try:
            self.attach(sandbox, joined, first)
        except BaseException:
            self.leave(container_id, joined)
            raise
        return joined

    def claim(
        self, container_id: str, asked: Mapping[str, Endpoint], aliases: Iterable[str] = (), first: int = 0
    ) -> Joined:
        """Addresses on every network in `asked`, or on none; `leave` frees them."""
        joined = Joined()
        try:
            for index, (name, endpoint) in enumerate(asked.items(), first):
                network = self.ensure(self.inspect(name))
                state = self._allocate(network, container_id, endpoint, tuple(aliases))
                joined = Joined(
                    (*joined.endpoints, state), (*joined.host_names, f"lv{container_id[:8]}{index}")
                )
        except BaseException:
            self.leave(container_id, joined)
            raise
        return joined

    def attach(self, sandbox: int, joined: Joined, first: int = 0) -> None:
        """Make the interfaces of what was claimed. What was made before a failure is taken away by `leave`."""
        if not joined.endpoints:
            return
        from lading.network import Interface

        kernel = self._open()
        for index, (state, host_name) in enumerate(
            zip(joined.endpoints, joined.host_names, strict=True), first
        ):
            network = self._networks[state.network_id]
            kernel.attach(
                sandbox,
                Interface(
                    bridge=network.bridge,
                    host_name=host_name,
                    guest_name=f"eth{index}",
                    ipv4=state.ipv4,
                    prefix=state.prefix,
                    ipv6=state.ipv6,
                    prefix6=state.prefix6,
                    mac=state.mac,
                    gateway=state.gateway if index == 0 else "",
                    gateway6=state.gateway6 if index == 0 else "",
                    mtu=network.mtu,
                ),
            )

    def leave(self, container_id: str, joined: Joined) -> None:
        """Take the interfaces away (the kernel drops them with the namespace anyway) and free the addresses."""
        if joined.host_names:
            kernel = self._open()
            for host_name in joined.host_names:
                kernel.detach(host_name)
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

        with self._lock:
            taken = self._taken.setdefault(network.id, {})
            used = {*taken, network.gateway, network.gateway6}
            # Round and round, so that a freed address rests before somebody else has it.
            last = self._last.get(network.id, "")
            ipv4 = addresses.allocate(network.subnet, used, endpoint.ipv4, after=last)
            ipv6 = addresses.allocate(network.subnet6, used, endpoint.ipv6) if network.subnet6 else ""
            taken.update({address: container_id for address in (ipv4, ipv6) if address})
            if not endpoint.ipv4:
                self._last[network.id] = ipv4
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
                network = self._addressed(network, "", "", "", "")
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
            masquerade=not network.internal,
        )

    def forwards(self, ports: Iterable[PortBinding], endpoint: EndpointState) -> tuple[room.Forward, ...]:
        """The kernel room's form of published ports."""
        from lading.network import Forward

        return tuple(
            Forward(
                binding.protocol,
                binding.host_ip,
                int(binding.host_port),
                endpoint.ipv4,
                binding.container_port,
            )
            for binding in ports
        )

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
                    forwards[entry.id] = self.forwards(entry.history.ports, entry.history.endpoints[0])
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


def wanted_networks(host: HostConfig, networks: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """The networks a container joins when it starts: those asked for, or the one its mode names."""
    mode = host.network_mode or "default"
    if mode in ("none", "host") or mode.startswith("container:"):
        return {}
    first = "bridge" if mode == "default" else mode
    found = {
        first: networks.get(first) or networks.get("default" if first == "bridge" else first) or Endpoint()
    }
    for name, endpoint in networks.items():
        if name not in (first, "default"):
            found[name] = endpoint
    return found


def _subnet(text: str, version: int) -> IPv4Network | IPv6Network:
    import ipaddress

    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as e:
        raise Invalid(f'invalid subnet "{text[:64]}"', why=str(e)) from e
    if network.version != version or network.num_addresses < 4:
        raise Invalid(
            f'invalid subnet "{text[:64]}"', why=f"It must be IPv{version} with room for two hosts."
        )
    return network
