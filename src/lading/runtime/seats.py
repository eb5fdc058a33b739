"""Monitors made ahead of need, each with a process that sits in v1 control groups of its own ("seats").

A start takes a seat and gives its groups the container's name; a thread makes the next ones. Owns the groups `seat-*`
until they are taken; a seat whose daemon has gone removes itself.

Making a seat holds the kernel's cgroup lock for an RCU grace period, and starts need that lock too: so seats are made a
few at a time, when few are left, and not in the first moments of the start that took one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

from lading.base.errors import Internal, LadingError
from lading.runtime.cgroup.group import PARENT, Group
from lading.runtime.cgroup.layout import Layout
from lading.runtime.starter import Starter

_TIMEOUT = 30.0
_STALE = 120
"""Seconds after which an empty seat is nobody's."""
_LOW = 1
"""Seats left at which more are made."""
_LATER = 0.02
"""Seconds a start is given before more seats are made."""


@dataclass(frozen=True)
class Seat:
    """A waiting monitor's control socket, and its v1 groups by controller."""

    control: socket.socket
    groups: dict[str, str]


class Seats:
    """`take` never waits for a seat that is ready. `ahead` seats are kept once the first has been taken."""

    def __init__(self, starter: Starter, layout: Layout, ahead: int = 3) -> None:
        self._starter, self._layout, self._ahead = starter, layout, ahead
        self._ready: deque[Seat] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def sweep(self) -> None:
        """Remove groups that a daemon killed between mkdir and fork left: empty ones, minutes old, of any engine."""
        for mount in set(self._layout.v1.values()):
            parent = f"{mount}/{PARENT}"
            try:
                names = [name for name in os.listdir(parent) if name.startswith("seat-")]
            except OSError:
                continue
            for name in names:
                try:
                    if time.time() - os.stat(f"{parent}/{name}").st_mtime > _STALE:
                        os.rmdir(f"{parent}/{name}")
                except OSError:
                    pass  # somebody sits in it, or it is gone

    def warm(self) -> None:
        """Begin to make seats in the background."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._refill, name="lading-seats", daemon=True)
                self._thread.start()

    def take(self) -> Seat:
        """A seat, from the ready ones or made now. Raises LadingError."""
        self.warm()
        with self._changed:
            seat = self._ready.popleft() if self._ready else None
            self._changed.notify()
        return seat or self._make()

    def _refill(self) -> None:
        self.sweep()
        while True:
            with self._changed:
                if len(self._ready) >= self._ahead:
                    while len(self._ready) > _LOW and not self._closed:
                        self._changed.wait()
                    self._changed.wait(_LATER)
                if self._closed:
                    return
            try:
                seat = self._make()
            except (LadingError, OSError):
                with self._changed:
                    self._thread = None  # the next take tries in its own thread and can say why
                    return
            with self._changed:
                if self._closed:
                    seat.control.close()
                    return
                self._ready.append(seat)

    def _make(self) -> Seat:
        group = Group(self._layout, f"seat-{os.urandom(8).hex()}")
        group.unified = ""  # v2 groups cannot be renamed; the container's is made with its name
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        procs: list[int] = []
        try:
            group.create({})
            procs = group.open_procs()
            self._starter.request(("seat", list(group.directories)), [theirs.fileno(), *procs])
            theirs.close()
            ours.settimeout(_TIMEOUT)
            if ours.recv(64) != b"seated":
                raise Internal(
                    "a process for the container could not be prepared", hint="See the daemon's log."
                )
            ours.settimeout(None)
        except BaseException:
            ours.close()
            group.remove()
            raise
        finally:
            theirs.close()
            for fd in procs:
                os.close(fd)
        return Seat(ours, group.v1)

    def close(self) -> None:
        """Give all seats up; they remove their groups themselves."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5)
        while self._ready:
            control = self._ready.popleft().control
            control.shutdown(socket.SHUT_WR)
            control.settimeout(5)
            try:
                control.recv(64)  # its end: groups are gone
            except OSError:
                pass
            control.close()
