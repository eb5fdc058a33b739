"""The verbs of networks: create, list, remove, connect, disconnect, prune. Owns their rules for users."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Conflict, Denied, Invalid, Unsupported
from lading.base.ids import new_id, short
from lading.engine import filters as filtering
from lading.engine.filters import Filters
from lading.engine.joining import PREDEFINED, Joined, Joining, Network, wanted_networks
from lading.engine.model import Endpoint, EndpointState

if TYPE_CHECKING:
    from lading.engine.roster import Entry

Names = list[str]  # `list` is a verb below


class Networks(Joining):
    """Everything `lading` and the API ask of networks."""

    def create(
        self,
        name: str,
        driver: str = "bridge",
        *,
        subnet: str = "",
        gateway: str = "",
        subnet6: str = "",
        gateway6: str = "",
        internal: bool = False,
        attachable: bool = False,
        enable_ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Network:
        """A new bridge network; subnets are chosen where none is given."""
        if driver not in ("", "bridge"):
            raise Unsupported(f'no network driver "{driver[:40]}"', hint="Only bridge is built in.")
        plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
        if not 1 <= len(name) <= 128 or not (name.isascii() and plain.isalnum() and name[0].isalnum()):
            raise Invalid(
                f'invalid network name "{name[:64]}"', why="Only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed."
            )
        if name in ("default", "container"):
            raise Invalid(f'network name "{name}" has a meaning of its own')
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
                enable_ipv6=enable_ipv6 or bool(subnet6),
                mtu=_mtu(options or {}),
                labels=dict(labels or {}),
                options=dict(options or {}),
            )
            network = self._addressed(network, subnet, gateway, subnet6, gateway6)
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
            networks = {**(entry.record.networks or joined), network.name: endpoint}
            pid = self._pid_of(entry.id) if entry.running else 0
            if pid:
                self._join_running(entry, pid, network, endpoint)
            host = entry.record.host
            if mode == "none":
                host = replace(host, network_mode=network.name)
            self._roster.amend(entry, replace(entry.record, networks=networks, host=host))
        self._say(network, "connect", entry.id)

    def _join_running(self, entry: Entry, pid: int, network: Network, endpoint: Endpoint) -> None:
        sandbox = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            history = entry.history
            more = self.join(
                entry.id, sandbox, {network.name: endpoint}, (entry.id[:12],), first=len(history.endpoints)
            )
        finally:
            os.close(sandbox)
        self._roster.note(
            entry,
            replace(
                history,
                endpoints=(*history.endpoints, *more.endpoints),
                host_names=(*history.host_names, *more.host_names),
            ),
        )

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
            history = entry.history
            places = [i for i, state in enumerate(history.endpoints) if state.network_id == network.id]
            if entry.running and places:
                gone = Joined(
                    tuple(history.endpoints[i] for i in places), tuple(history.host_names[i] for i in places)
                )
                self.leave(entry.id, gone)
                kept = [i for i in range(len(history.endpoints)) if i not in places]
                self._roster.note(
                    entry,
                    replace(
                        history,
                        endpoints=tuple(history.endpoints[i] for i in kept),
                        host_names=tuple(history.host_names[i] for i in kept),
                    ),
                )
            mode = next(iter(left), "none")
            host = replace(entry.record.host, network_mode=mode)
            self._roster.amend(entry, replace(entry.record, networks=left, host=host))
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


def _mtu(options: Mapping[str, str]) -> int:
    text = options.get("com.docker.network.driver.mtu", "1500")
    if not (text.isdigit() and 68 <= int(text) <= 65535):
        raise Invalid(f'invalid mtu "{text[:20]}"', why="The range is 68 to 65535.")
    return int(text)
