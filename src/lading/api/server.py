"""Listening sockets and a thread for each connection. Owns accepting, counting, idle exit and shutting down.

Decides nothing about requests: `routes` does. One connection's slowness or failure never reaches another.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Sequence

from lading.api.exchange import Exchange
from lading.api.hangup import Hangups
from lading.api.ports import Engine
from lading.api.routes import ROUTER
from lading.base.errors import Denied, Internal, LadingError
from lading.http.connection import ClientGone, Connection
from lading.linux import memory

_log = logging.getLogger("lading.api")
MOST_CONNECTIONS = 1024
_IDLE_LOOK = 1.0


def listen_unix(path: str, *, group: int = -1) -> socket.socket:
    """A listening unix socket at `path`, mode 0660, in place of whatever socket was left there.

    It is bound beside and renamed, so that nobody meets it with another mode, or bound and not yet listening.
    """
    aside = f"{path}.{os.getpid()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(aside):
            os.unlink(aside)
        sock.bind(aside)
        os.chmod(aside, 0o660)
        if group >= 0:
            os.chown(aside, -1, group)
        sock.listen(128)
        os.rename(aside, path)
    except BaseException:
        sock.close()
        raise
    return sock


class Server:
    """Serves `engine` on `listeners` until `shutdown`, or until it has been idle for `idle_exit` seconds."""

    def __init__(
        self, engine: Engine, listeners: Sequence[socket.socket], idle_exit: float | None = None
    ) -> None:
        self._engine = engine
        self._listeners = list(listeners)
        self._idle_exit = idle_exit
        self._hangups = Hangups()
        self._lock = threading.Lock()
        self._open: dict[int, socket.socket] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._busy_at = time.monotonic()
        self._used = False  # since the last trim

    @property
    def connections(self) -> int:
        """How many connections are open now, hijacked ones not counted: those are their monitor's."""
        with self._lock:
            return len(self._open)

    def serve(self) -> None:
        """Accept until told to stop; on return the listeners are closed and idle connections ended."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        by_fd = {sock.fileno(): sock for sock in self._listeners}
        for fd, sock in by_fd.items():
            sock.setblocking(False)
            poll.register(fd, select.POLLIN)
        try:
            while True:
                ready = poll.poll(self._patience())
                if any(fd == self._wake for fd, _ in ready):
                    return
                for fd, _ in ready:
                    self._accept(by_fd[fd])
                if not ready and self._rest():
                    return
        finally:
            self._close()

    def shutdown(self) -> None:
        """Make `serve` return; safe from a signal handler and from any thread."""
        os.eventfd_write(self._wake, 1)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors, or the client gave up before we came
            _log.warning("accept: %s", error)
            time.sleep(0.05)
            return
        sock.setblocking(True)
        key = id(sock)
        with self._lock:
            full = len(self._open) >= MOST_CONNECTIONS
            if not full:
                self._open[key] = sock
                self._used = True
                self._busy_at = time.monotonic()
        if full:
            _log.warning("refused a connection: %d are open", MOST_CONNECTIONS)
            sock.close()
            return
        try:
            threading.Thread(target=self._serve, args=(sock, key), name="api", daemon=True).start()
        except RuntimeError as error:  # no more threads
            _log.warning("refused a connection: %s", error)
            self._forget(key)
            sock.close()

    def _serve(self, sock: socket.socket, key: int) -> None:
        try:
            serve_connection(self._engine, sock, self._hangups)
        finally:
            self._forget(key)

    def _forget(self, key: int) -> None:
        with self._lock:
            self._open.pop(key, None)
            self._busy_at = time.monotonic()

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do without a request; None: nothing ever."""
        with self._lock:
            if self._used:
                return _IDLE_LOOK * 1000
            if self._idle_exit is None:
                return None
            left = self._busy_at + self._idle_exit - time.monotonic()
        return max(_IDLE_LOOK, left) * 1000

    def _rest(self) -> bool:
        """Give memory back once nobody is connected; whether to end: idle for long enough, and no need of a daemon."""
        with self._lock:
            if self._open:
                return False
            used, self._used = self._used, False
            due = self._idle_exit is not None and time.monotonic() - self._busy_at >= self._idle_exit
        if used:
            memory.trim()
        return due and self._engine.idle()

    def _close(self) -> None:
        for sock in self._listeners:
            sock.close()
        with self._lock:
            left = list(self._open.values())
        for sock in left:
            try:
                sock.shutdown(socket.SHUT_RD)  # the thread meets the end of its input and leaves
            except OSError:
                pass
        self._hangups.close()


def serve_connection(engine: Engine, sock: socket.socket, hangups: Hangups | None = None) -> None:
    """Answer the requests of one connection until either side ends it, then close it. Raises nothing."""
    own = hangups is None
    watch = hangups or Hangups()
    connection = Connection(sock)
    try:
        while _one(engine, connection, watch):
            pass
    except ClientGone:
        pass
    except Exception:
        _log.exception("a connection failed")
    finally:
        connection.close()
        if own:
            watch.close()


def _one(engine: Engine, connection: Connection, hangups: Hangups) -> bool:
    """One request and its answer; whether another may follow."""
    x = Exchange(connection, hangups, "", "", {})
    try:
        request = connection.next_request()
    except LadingError as error:
        if not isinstance(error, ClientGone):
            x.error(error, close=True)
        return False
    if request is None:
        return False
    path, _, query = request.target.decode("latin-1").partition("?")
    x = Exchange(connection, hangups, request.method.decode("ascii"), query, dict(request.headers))
    try:
        _refuse_browsers(x)
        ROUTER.find(x, path)(engine, x)
    except ClientGone:
        return False
    except LadingError as error:
        if isinstance(error, Internal):
            _log.error("%s %s: %s", x.method, path, error, exc_info=True)
        if connection.answered:
            _log.warning("%s %s broke off: %s", x.method, path, error)
            return False
        x.error(error)
    except Exception:
        # A bug. Its trace goes to the log, which only the daemon's owner reads; the client learns that it is one.
        _log.exception("%s %s failed", x.method, path)
        if connection.answered:
            return False
        unexpected = Internal(
            "lading failed at this request", why="It is a defect.", hint="The daemon's log has its trace."
        )
        x.error(unexpected)
    if not connection.answered:
        raise AssertionError(f"{x.method} {path} was not answered")
    return connection.finish()


def _refuse_browsers(x: Exchange) -> None:
    """Over TCP any page that a browser of this host shows could send requests here; browsers name the page as Origin.

    A name that was made to resolve to the loopback address (DNS rebinding) shows in Host.
    """
    if x.connection.sock.family == socket.AF_UNIX:
        return
    host = x.headers.get(b"host", b"").decode("latin-1")
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if b"origin" in x.headers or not (name == "localhost" or _is_address(name.strip("[]"))):
        raise Denied(
            "requests of web pages are refused",
            why="The API gives root on this host to whoever reaches it.",
            hint="Name the daemon by its address, as in tcp://127.0.0.1:PORT.",
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
