"""The network room of an ordinary user: the same room, run in the keeper's network, with host ports by the keeper.

Owns nothing but the way there: bridges and addresses are made in the namespace, while a published port is reserved in
the host's network, where this process is, and its socket is handed to the keeper.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lading.base.errors import Denied, LadingError, Unavailable
from lading.linux import process
from lading.network import ports
from lading.network.networks import Networks

if TYPE_CHECKING:
    from lading.network.values import Bridge, Forward
    from lading.rootless.enter import Entered

log = logging.getLogger(__name__)

_SYSCTL = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_THREADS = 4
_MAX_PORTS = 100


class Inside:
    """A `Networks` whose calls to the kernel are made by threads that live in the keeper's network."""

    def __init__(self, run_dir: str, entered: Entered) -> None:
        self._entered = entered
        self._reserved: dict[tuple[str, str, int], tuple[int, int]] = {}  # descriptor and inode
        self._guard = threading.Lock()
        enter = functools.partial(process.setns, entered.network, process.CLONE_NEWNET)
        self._threads = ThreadPoolExecutor(_THREADS, "network", enter)
        self._room: Networks = self._threads.submit(Networks, run_dir).result()

    def __getattr__(self, name: str) -> Any:
        """Every other method of the room's, inside."""
        method = getattr(self._room, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._threads.submit(method, *arguments, **named).result()

        return call

    def close(self) -> None:
        self._threads.submit(self._room.close).result()
        self._threads.shutdown()

    def reserve(self, protocol: str, host_ip: str, port: int) -> int:
        """In the host's network, where this thread is; `publish` gives the keeper a copy of the descriptor."""
        try:
            fd = self._room.reserve(protocol, host_ip, port)
        except Denied as error:
            raise Denied(
                error.what,
                why=f"An ordinary user may use ports from {unprivileged_start()} on.",
                hint="Choose a higher host port, or have the administrator lower the setting "
                "net.ipv4.ip_unprivileged_port_start.",
            ) from error
        key = (protocol, host_ip, port or ports.port_of(fd))
        with self._guard:
            self._reserved[key] = (fd, os.fstat(fd).st_ino)
        return fd

    def _bound(self, forward: Forward) -> int:
        """The reservation's descriptor, which whoever reserved it holds until the container has started."""
        with self._guard:
            fd, inode = self._reserved.pop((forward.protocol, forward.host_ip, forward.host_port), (-1, 0))
        try:
            if os.fstat(fd).st_ino == inode:
                return fd
        except OSError:
            pass
        raise Unavailable(f"port {forward.host_port} was not reserved before it was published")

    def publish(self, id: str, forwards: tuple[Forward, ...]) -> None:
        if len(forwards) > _MAX_PORTS:
            raise Unavailable(f"an ordinary user's container publishes at most {_MAX_PORTS} ports")
        fds = [self._bound(some) for some in forwards]
        self._threads.submit(self._room.publish, id, forwards).result()
        places = [(some.protocol, some.guest_ip, some.guest_port) for some in forwards]
        try:
            self._entered.ask(("publish", id, places), fds)
        except LadingError:
            self._threads.submit(self._room.unpublish, id).result()
            raise

    def unpublish(self, id: str) -> None:
        try:
            self._entered.ask(("withdraw", id))
        except (
            Unavailable
        ) as error:  # without a keeper the port is free already, and an end must come to its end
            log.warning("ports of %s: %s", id[:12], error)
        self._threads.submit(self._room.unpublish, id).result()

    def rebuild(self, bridges: Iterable[Bridge], forwards_by_id: Mapping[str, Iterable[Forward]]) -> None:
        """The keeper has kept the ports of those that live; those of containers that ended meanwhile go."""
        self._threads.submit(self._room.rebuild, bridges, forwards_by_id).result()
        for identifier in self._entered.ask(("published",))[1]:
            if identifier not in forwards_by_id:
                self._entered.ask(("withdraw", identifier))


def unprivileged_start() -> int:
    """The first port that needs no privilege (ip-sysctl.rst)."""
    try:
        with open(_SYSCTL, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024
