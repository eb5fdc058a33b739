"""Listening, a thread for each connection, TLS, and the sweep in the background. Owns accepting and stopping.

Decides nothing about requests. Connections are bounded: when all are taken the one that has idled longest makes room, and
a client that stalls is dropped after a while, so that nobody waits for another.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass

from lading.base.errors import LadingError
from lading.http.connection import ClientGone, Connection, Patience
from lading.registry.server import sweep
from lading.registry.server.service import Service

_log = logging.getLogger("lading.registry")
MOST_CONNECTIONS = 512
PATIENCE = Patience(idle=75.0, head=20.0, stall=60.0)
_PARTING = 3.0  # seconds that answers under way get when the server stops
_LOOK = 60.0  # seconds between looks for uploads that nobody continues


@dataclass(slots=True)
class _Open:
    sock: socket.socket
    idle_since: float | None  # None while a request is under way

    def begin(self) -> None:
        self.idle_since = None


class Server:
    """Serves `service` on one listening socket until `shutdown`. `sweep_every` seconds of 0: no sweep."""

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        patience: Patience = PATIENCE,
        most: int = MOST_CONNECTIONS,
        sweep_every: float = 0.0,
        sweep_age: float = sweep.AGE,
    ) -> None:
        self._service = service
        self._listener = listener
        self._tls = tls
        self._patience = patience
        self._most = most
        self._sweep_every, self._sweep_age = sweep_every, sweep_age
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._stop = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def address(self) -> tuple[str, int]:
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def serve(self) -> None:
        """Accept until told to stop; on return nothing listens and connections are ended."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        self._listener.setblocking(False)
        poll.register(self._listener, select.POLLIN)
        background = threading.Thread(target=self._background, name="registry-sweep", daemon=True)
        background.start()
        try:
            while True:
                ready = poll.poll()
                if any(fd == self._wake for fd, _ in ready):
                    return
                self._accept()
        finally:
            self._close()
            background.join()

    def shutdown(self) -> None:
        """Make `serve` return; safe from a signal handler and from any thread."""
        os.eventfd_write(self._wake, 1)

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors, or the client gave up before we came
            _log.warning("accept: %s", error)
            time.sleep(0.05)
            return
        with self._lock:
            if len(self._open) >= self._most and not self._make_room():
                _log.warning("refused a connection of %s: %d are open", address[0], self._most)
                sock.close()
                return
            entry = self._open[id(sock)] = _Open(sock, time.monotonic())
        try:
            threading.Thread(
                target=self._connection, args=(entry, str(address[0])), name="registry", daemon=True
            ).start()
        except RuntimeError as error:  # no more threads
            _log.warning("refused a connection: %s", error)
            self._forget(entry)
            sock.close()

    def _make_room(self) -> bool:
        """Drop the connection that has waited longest between requests; False when all are at work."""
        idle = [entry for entry in self._open.values() if entry.idle_since is not None]
        if not idle:
            return False
        longest = min(idle, key=lambda entry: entry.idle_since or 0.0)
        del self._open[id(longest.sock)]
        _end(longest.sock)
        return True

    def _forget(self, entry: _Open) -> None:
        with self._lock:
            self._open.pop(id(entry.sock), None)

    def _connection(self, entry: _Open, remote: str) -> None:
        sock = entry.sock
        connection: Connection | None = None
        try:
            sock.settimeout(self._patience.head)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = sock
            if self._tls is not None:
                wrapped = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                with self._lock:  # the plain socket object is spent: wrap_socket took its descriptor
                    if self._open.pop(id(sock), None) is None:
                        wrapped.close()
                        return
                    entry.sock = wrapped
                    self._open[id(wrapped)] = entry
                wrapped.do_handshake()
            connection = Connection(wrapped, self._patience)
            while self._service.one(connection, remote, entry.begin):
                entry.idle_since = time.monotonic()
        except ClientGone:
            pass
        except (OSError, LadingError) as error:
            _log.info("a connection of %s ended: %s", remote, error)
        except Exception:
            _log.exception("a connection failed")
        finally:
            self._forget(entry)
            if connection is not None:
                connection.close()
            else:
                entry.sock.close()

    def _background(self) -> None:
        swept = time.monotonic()
        while not self._stop.wait(_LOOK if not self._sweep_every else min(_LOOK, self._sweep_every)):
            self._service.uploads.expire()
            if self._sweep_every and time.monotonic() - swept >= self._sweep_every:
                swept = time.monotonic()
                try:
                    done = sweep.sweep(self._service.content, age=self._sweep_age)
                except (LadingError, OSError) as error:
                    _log.error("the sweep failed: %s", error)
                    continue
                if done.blobs or done.links:
                    _log.info("swept %d blobs, %d bytes", done.blobs, done.size)

    def _close(self) -> None:
        self._stop.set()
        self._listener.close()
        with self._lock:
            left = list(self._open.values())
        for entry in left:
            _end(entry.sock)
        deadline = time.monotonic() + _PARTING
        while self._open and time.monotonic() < deadline:
            time.sleep(0.02)
        self._service.close()


def _end(sock: socket.socket) -> None:
    """Its thread meets the end of its input, answers what it is at, and leaves."""
    try:
        # Not the method of an SSLSocket, which would take the session away from the thread that uses it.
        socket.socket.shutdown(sock, socket.SHUT_RD)
    except OSError:
        pass  # the client has gone already
