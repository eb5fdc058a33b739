"""The verbs of networks: create, list, remove, connect, disconnect, prune. Owns their rules for users."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Conflict, Denied, LadingError, Unsupported
from lading.base.ids import new_id, short
from lading.engine import filters as filtering
from lading.engine import segments
from lading.engine.filters import Filters
from lading.engine.joining import PREDEFINED, Joined, Joining, wanted_networks
from lading.engine.model import Endpoint, EndpointState
from lading.engine.places import guest_name, outward
from lading.engine.record import History
from lading.engine.segments import Network, Pools

if TYPE_CHECKING:
    from lading.engine.roster import Entry

log = logging.getLogger(__name__)

_LOOK_AGAIN = 10.0
NO_POOLS = Pools()
Names = list[str]  # `list` is a verb below


class Networks(Joining):
    """Everything `lading` and the API ask of networks."""

    _looked = -1e9
    _obstacles: tuple[str, ...] = ()

    def create(
        self,
        name: str,
        driver: str = "bridge",
        pools: Pools = NO_POOLS,
        *,
        internal: bool = False,
        attachable: bool = False,
        enable_ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Network:
        """A new bridge network; subnets are chosen where none is given."""
        if driver not in ("", "bridge"):
            raise Unsupported(f'no network driver "{driver[:40]}"', hint="Only bridge is built in.")
        segments.check_name(name)
        with self._lock:
            if any(network.name == name for network in self._networks.values()):
                raise Conflict(f"network with name {name} already exists")
            identifier = new_id()
            network = Network(
                id=identifier,
                name=name,
                created_ns=clock.now_ns(),
                bridge=f"lad-{identifier[:10]}",
                internal=internal,
                attachable=attachable,
                enable_ipv6=enable_ipv6 or bool(pools.subnet6),
                labels=dict(labels or {}),
            )
            network = self._addressed(segments.with_options(network, options or {}), pools)
            if any(network.bridge == other.bridge for other in self._networks.values()):
                raise Conflict(f"bridge {network.bridge} belongs to another network")
            with self._db.transaction() as cx:
                self._write(cx, network)
        self._events.say("network", "create", network.id, {"name": name, "type": "bridge"})
        return network

    def list(self, filters: Filters | None = None) -> list[Network]:
        """Networks by name; filters name, id, driver, type, label, scope, dangling."""
        wanted = filters or {}
        filtering.known(wanted, ("name", "id", "driver", "type", "label", "scope", "dangling"))
        dangling = filtering.truth(wanted, "dangling")
        with self._lock:
            networks = sorted(self._networks.values(), key=lambda network: network.name)
        return [
            network
            for network in networks
            if (not wanted.get("name") or any(text in network.name for text in wanted["name"]))
            and (not wanted.get("id") or any(network.id.startswith(text) for text in wanted["id"]))
            and (not wanted.get("driver") or network.driver in wanted["driver"])
            and (
                not wanted.get("type")
                or ("builtin" if network.name in PREDEFINED else "custom") in wanted["type"]
            )
            and (not wanted.get("scope") or network.scope in wanted["scope"])
            and filtering.labels(network.labels, wanted.get("label", ()))
            and (
                dangling is None
                or dangling == (network.name not in PREDEFINED and not self._containers(network))
            )
        ]

    def containers(self, ref: str) -> dict[str, EndpointState]:
        """Container id to its endpoint on this network, for those that are up."""
        network = self.inspect(ref)
        return {
            entry.id: state
            for entry in self._roster.all()
            if entry.running
            for state in entry.history.endpoints
            if state.network_id == network.id
        }

    def _containers(self, network: Network) -> Names:
        """Names of containers that are on it, or will be when they start."""
        return [
            entry.record.name
            for entry in self._roster.all()
            if any(
                self._same(network, name)
                for name in wanted_networks(entry.record.host, entry.record.networks)
            )
        ]

    def warnings(self) -> Names:
        """What keeps containers from other hosts though everything of ours is right; looked at every few seconds."""
        if time.monotonic() > self._looked + _LOOK_AGAIN:
            self._looked = time.monotonic()
            self._obstacles = self._open().obstacles()
        return [
            f"the firewall chain {chain} drops forwarded packets: containers reach no other host, nor are reached, "
            "until it accepts those of their bridges"
            for chain in self._obstacles
        ]

    def remove(self, ref: str) -> None:
        """Remove a network nobody is on."""
        network = self.inspect(ref)
        if network.name in PREDEFINED:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        with self._lock:
            active = self.containers(network.id)
            if active:
                raise Denied(
                    f"error while removing network: network {network.name} has active endpoints",
                    why=f"On it: {', '.join(short(i) for i in list(active)[:5])}.",
                    hint="Stop or disconnect those containers first.",
                )
            with self._db.transaction() as cx:
                cx.execute("DELETE FROM networks WHERE id = ?", (network.id,))
            del self._networks[network.id]
            self._remove_bridge(network)
        self._events.say("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    def connect(self, ref: str, container: str, endpoint: Endpoint | None = None) -> None:
        """Put a container on one more network, at once when it runs."""
        network, entry = self.inspect(ref), self._roster.find(container)
        endpoint = endpoint or Endpoint()
        self.check_endpoint(network, endpoint)
        with entry.lock:
            mode = entry.record.host.network_mode
            if network.driver != "bridge" or mode in ("host",) or mode.startswith("container:"):
                raise Denied(
                    f"container {entry.record.name} cannot be connected to network {network.name}",
                    why="Host, none and container networks stand alone.",
                )
            joined = wanted_networks(entry.record.host, entry.record.networks)
            if any(self._same(network, name) for name in joined):
                raise Denied(
                    f"endpoint with name {entry.record.name} already exists in network {network.name}"
                )
            host = entry.record.host
            if mode == "none":
                host = replace(host, network_mode=network.name)
            networks = {**(entry.record.networks or joined), network.name: endpoint}
            record = replace(entry.record, networks=networks, host=host)
            before = entry.record
            self._roster.amend(entry, record)
            try:
                if entry.running:
                    self._join_running(entry, network, endpoint)
            except BaseException:
                self._roster.amend(entry, before)
                raise
        self._say(network, "connect", entry.id)

    def _join_running(self, entry: Entry, network: Network, endpoint: Endpoint) -> None:
        with self._sandbox(entry) as sandbox:
            history = entry.history
            more = self.claim(entry.id, {network.name: endpoint}, (entry.id[:12],), beside=history.host_names)
            try:
                # Without a gateway: where the default route goes is decided among all.
                quiet = Joined(
                    tuple(replace(s, gateway="", gateway6="") for s in more.endpoints), more.host_names
                )
                self.attach(sandbox, quiet, entry.record.host.net_rate)
                self._moved(
                    entry,
                    sandbox,
                    Joined((*history.endpoints, *more.endpoints), (*history.host_names, *more.host_names)),
                )
            except BaseException:
                self.leave(entry.id, more, alive=True)
                try:
                    self._moved(entry, sandbox, Joined(history.endpoints, history.host_names))
                except LadingError as e:  # the first failure is the one to tell
                    log.warning("networks of %s after a failed connect: %s", entry.id[:12], e)
                raise

    def _moved(self, entry: Entry, sandbox: int, now: Joined) -> None:
        """A running container has other interfaces than before: its routes, ports and names follow."""
        history = entry.history
        way_out, kernel = outward(now.endpoints), self._open()
        if way_out is not None:
            name = guest_name(now.host_names[now.endpoints.index(way_out)])
            kernel.route(sandbox, name, way_out.gateway, way_out.gateway6)
        if history.ports:
            kernel.publish(entry.id, self.forwards(history.ports, now.endpoints))
        self.naming.update(entry, now.endpoints)
        self._roster.note(entry, replace(history, endpoints=now.endpoints, host_names=now.host_names))

    @contextmanager
    def _sandbox(self, entry: Entry) -> Iterator[int]:
        """A running container's network namespace."""
        try:
            sandbox = os.open(f"/proc/{self._pid_of(entry.id)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Conflict(f"container {entry.record.name} is just ending", hint="Try again.") from None
        try:
            yield sandbox
        finally:
            os.close(sandbox)

    def disconnect(self, ref: str, container: str, force: bool = False) -> None:
        """Take a container off a network."""
        network, entry = self.inspect(ref), self._roster.find(container)
        with entry.lock:
            joined = wanted_networks(entry.record.host, entry.record.networks)
            left = {name: value for name, value in joined.items() if not self._same(network, name)}
            if len(left) == len(joined):
                if force:
                    return
                raise Denied(f"container {entry.record.name} is not connected to network {network.name}")
            host = replace(entry.record.host, network_mode=next(iter(left), "none"))
            self._roster.amend(entry, replace(entry.record, networks=left, host=host))
            history = entry.history
            places = [i for i, state in enumerate(history.endpoints) if state.network_id == network.id]
            if entry.running and places:
                kept = [i for i in range(len(history.endpoints)) if i not in places]
                self.leave(entry.id, _some(history, places), alive=True)
                with self._sandbox(entry) as sandbox:
                    self._moved(entry, sandbox, _some(history, kept))
        self._say(network, "disconnect", entry.id)

    def _say(self, network: Network, action: str, container_id: str) -> None:
        attributes = {"name": network.name, "type": network.driver, "container": container_id}
        self._events.say("network", action, network.id, attributes)

    def prune(self, filters: Filters | None = None) -> tuple[Names, int]:
        """Remove every network of the user's that no container names."""
        wanted = filters or {}
        filtering.known(wanted, ("label", "label!", "until"))
        until = filtering.moment(wanted["until"][0]) if wanted.get("until") else 0
        removed: Names = []
        for network in self.list({"type": ("custom",), "label": wanted.get("label", ())}):
            if self._containers(network) or (until and network.created_ns > until):
                continue
            if wanted.get("label!") and filtering.labels(network.labels, wanted["label!"]):
                continue
            self.remove(network.id)
            removed.append(network.name)
        return removed, 0


def _some(history: History, places: Sequence[int]) -> Joined:
    return Joined(tuple(history.endpoints[i] for i in places), tuple(history.host_names[i] for i in places))
