"""Published ports: from what was asked to reserved host ports. Owns ranges, ephemeral ports and the descriptors.

A port is reserved by binding it before the container starts; the container's monitor keeps the descriptor, so the
port stays taken as long as the container lives, also when the daemon is killed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lading.base.errors import Conflict, Invalid
from lading.engine.model import PortBinding
from lading.engine.request import check_port, host_range

Reserve = Callable[[str, str, int], int]

_EPHEMERAL = range(32768, 61000)  # ip_local_port_range's default, where users look for such ports
_TRIES = 512


@dataclass
class Reserved:
    """Host ports held by descriptors. A `with` closes them here; the monitor has its own copies by then."""

    bindings: tuple[PortBinding, ...] = ()
    descriptors: tuple[int, ...] = ()

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = ()


def wanted(bindings: Iterable[PortBinding], exposed: Iterable[str], publish_all: bool) -> list[PortBinding]:
    """What is to be published: the bindings, and with -P every exposed port that has none."""
    found = list(bindings)
    if publish_all:
        have = {(binding.container_port, binding.protocol) for binding in found}
        for text in exposed:
            for port, protocol in exposed_ports(text):
                if (port, protocol) not in have:
                    found.append(PortBinding(port, protocol))
    return found


def exposed_ports(text: str) -> list[tuple[int, str]]:
    """ "5000/tcp", "5000" or "5000-5002/udp" as numbers."""
    numbers, _, protocol = text.partition("/")
    ports = host_range(numbers)
    if not ports:
        raise Invalid(f'invalid exposed port "{text[:40]}"', why="The range is 1 to 65535.")
    return [(port, (protocol or "tcp").lower()) for port in ports]


class Publisher:
    """Reserves ports. Ephemeral ones go round the range, so that a freed port is not reused at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = itertools.cycle(_EPHEMERAL)

    def reserve(self, asked: Iterable[PortBinding], reserve: Reserve, both: bool = False) -> Reserved:
        """Hold every port, or none: Conflict names the port that is taken.

        With `both`, a port on every address is one of IPv4 and one of IPv6 with the same number.
        """
        held = Reserved()
        try:
            for binding in asked:
                check_port(binding)
                port, fds = self._one(binding, reserve, both)
                held.descriptors = (*held.descriptors, *fds)
                held.bindings = (*held.bindings, replace(binding, host_port=str(port)))
        except BaseException:
            held.close()
            raise
        return held

    def _one(self, binding: PortBinding, reserve: Reserve, both: bool) -> tuple[int, tuple[int, ...]]:
        addresses = ("", "::") if both and not binding.host_ip else (binding.host_ip,)
        ports = host_range(binding.host_port)
        if len(ports) == 1:
            return ports[0], _all(binding.protocol, addresses, ports[0], reserve)
        if ports:
            candidates: Iterable[int] = ports
        else:
            with self._lock:
                candidates = list(itertools.islice(self._next, _TRIES))
        last: Conflict | None = None
        for port in candidates:
            try:
                return port, _all(binding.protocol, addresses, port, reserve)
            except Conflict as e:
                last = e
        raise Conflict(
            f"no free host port in {binding.host_port or 'the ephemeral range'} for {binding.container_port}",
            why=str(last) if last else "",
        )


def _all(protocol: str, addresses: Iterable[str], port: int, reserve: Reserve) -> tuple[int, ...]:
    """The port on every one of these addresses, or on none."""
    held: tuple[int, ...] = ()
    try:
        for address in addresses:
            held = (*held, reserve(protocol, address, port))
    except BaseException:
        for fd in held:
            os.close(fd)
        raise
    return held
