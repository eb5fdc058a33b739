"""Names of containers: which containers use the resolver, and what it is told of them.

Owns the engine's side: what a container is called on each network, when it gets sockets of the resolver's, and telling
it anew what it lost. Answering is lading.network.dns's, in a process of its own, so names work while no daemon runs.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from lading.base.errors import Invalid, LadingError, Unavailable
from lading.engine import etcfiles
from lading.engine.model import EndpointState
from lading.engine.record import Record

if TYPE_CHECKING:
    from lading.base.paths import Paths
    from lading.engine.roster import Entry, Roster
    from lading.network.dns.door import Door, Named, Sockets

log = logging.getLogger(__name__)

_ALIAS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?\Z")


def check_alias(alias: str) -> None:
    """Invalid for what no name server could be asked for."""
    if not _ALIAS.match(alias) or any(not 0 < len(label) < 64 for label in alias.split(".")):
        raise Invalid(
            f'invalid network alias "{alias[:64]}"',
            why="It takes letters, digits, dots, dashes and underscores, at most 63 between dots.",
        )


def names_of(record: Record, state: EndpointState) -> tuple[str, ...]:
    """What peers on a network may call this container, its name first."""
    return tuple(dict.fromkeys(filter(None, [record.name, *state.aliases, record.config.hostname])))


class Naming:
    """The engine's use of the resolver."""

    def __init__(self, roster: Roster, pid_of: Callable[[str], int], paths: Paths) -> None:
        self._roster, self._pid_of, self._paths = roster, pid_of, paths
        self._lock = threading.Lock()
        self._opened: Door | None = None

    def _door(self) -> Door:
        from lading.network.dns.door import Door

        with self._lock:
            if self._opened is None:
                self._opened = Door(self._paths.names, self._again)
            return self._opened

    def wanted(self, record: Record, endpoints: Sequence[EndpointState]) -> bool:
        """Whether it uses the resolver: on every network but the default one, where names were never resolved.

        There, too, where the host's own name servers are on its loopback, which no container reaches.
        """
        if record.host.network_mode.startswith("container:"):
            return False  # it has the other one's files and sockets
        return _uses(endpoints, record.host.dns)

    def sockets(self, netns: int) -> Sockets:
        """The resolver's sockets in a container's namespace; the caller closes them."""
        from lading.network.dns.door import open_sockets

        try:
            return open_sockets(netns)
        except OSError as error:
            raise Unavailable("the resolver has no socket in the container", why=str(error)) from error

    def open(self, record: Record, endpoints: Iterable[EndpointState], sockets: Sockets, pid: int) -> None:
        """The container's questions are answered from now on, and others know its names."""
        endpoints = tuple(endpoints)
        self._door().put(
            record.id, _places(record, endpoints), _outward(endpoints), record.host.dns, sockets, pid
        )

    def lend(self, sandbox_id: str, netns: int, endpoints: Sequence[EndpointState]) -> bool:
        """A sandbox of this process's own, such as a build's, asks like a container and is called nothing."""
        if not _uses(endpoints, ()):
            return False
        sockets = self.sockets(netns)
        try:
            places = _places(None, endpoints)
            self._door().put(sandbox_id, places, _outward(endpoints), (), sockets, os.getpid())
        finally:
            sockets.close()
        return True

    def update(self, entry: Entry, endpoints: Sequence[EndpointState] | None = None) -> None:
        """Its name or its networks have changed while it runs; where need be it gets sockets now."""
        endpoints = entry.history.endpoints if endpoints is None else endpoints
        door, record = self._opened, entry.record
        if door is not None and door.has(entry.id):
            door.put(record.id, _places(record, endpoints), _outward(endpoints), record.host.dns)
        elif self.wanted(record, endpoints):
            self._admit(self._door(), entry, endpoints)
            etcfiles.write(
                self._paths.container_dir(entry.id),
                [("resolv.conf", etcfiles.container_resolver(record.host, True))],
            )

    def close(self, container_id: str) -> None:
        """It has ended."""
        if self._opened is not None:
            self._opened.drop(container_id)

    def recover(self, live: Iterable[Entry]) -> None:
        """After a restart of the daemon: the resolver that went on meanwhile, or a new one."""
        entries = [entry for entry in live if self.wanted(entry.record, entry.history.endpoints)]
        if not entries and not os.path.exists(self._paths.names):
            return
        door = self._door()
        strangers = door.recover() - {entry.id for entry in entries}
        for container_id in strangers:
            door.drop(container_id)
        for entry in entries:
            try:
                self.update(entry)
            except LadingError as error:
                log.warning("names of %s: %s", entry.id[:12], error)

    def shut(self) -> None:
        """Let go of the resolver, which goes on while containers need it."""
        if self._opened is not None:
            self._opened.close()

    def _again(self, door: Door) -> None:
        """A new resolver is told of every container that runs. Takes no container's lock: its caller may hold one."""
        for entry in self._roster.all():
            endpoints = entry.history.endpoints
            if entry.running and self.wanted(entry.record, endpoints):
                try:
                    self._admit(door, entry, endpoints)
                except LadingError as error:
                    log.warning("names of %s: %s", entry.id[:12], error)

    def _admit(self, door: Door, entry: Entry, endpoints: Sequence[EndpointState]) -> None:
        """Sockets for a container that runs already."""
        pid = self._pid_of(entry.id)
        if not pid:
            return
        try:
            netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it has just ended
        try:
            sockets = self.sockets(netns)
        finally:
            os.close(netns)
        record = entry.record
        try:
            door.put(
                record.id, _places(record, endpoints), _outward(endpoints), record.host.dns, sockets, pid
            )
        finally:
            sockets.close()


def _uses(endpoints: Sequence[EndpointState], dns: Sequence[str]) -> bool:
    if any(state.network_name != "bridge" for state in endpoints):
        return True
    return bool(endpoints) and not dns and etcfiles.host_has_only_loopback()


def _places(record: Record | None, endpoints: Iterable[EndpointState]) -> list[Named]:
    """What the resolver is told; of the default network nothing, whose containers have no names for each other."""
    from lading.network.dns.door import Named

    found = []
    for state in endpoints:
        if state.network_name == "bridge":
            continue
        pairs = [
            (address, prefix)
            for address, prefix in ((state.ipv4, state.prefix), (state.ipv6, state.prefix6))
            if address
        ]
        found.append(
            Named(
                state.network_id,
                state.network_name,
                tuple(address for address, _ in pairs),
                tuple(f"{address}/{prefix}" for address, prefix in pairs),
                names_of(record, state) if record is not None else (),
            )
        )
    return found


def _outward(endpoints: Iterable[EndpointState]) -> bool:
    """Whether one of its networks has an outside: else no question of its leaves the host, not even by way of ours."""
    return any(state.gateway or state.gateway6 for state in endpoints)
