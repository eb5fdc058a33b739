"""Tells long requests that their client has gone. Owns one epoll thread for a whole server; never reads a socket."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

_log = logging.getLogger("lading.api")


class Hangups:
    """Watches sockets for the other side's end. The thread starts with the first watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._callbacks: dict[int, Callable[[], object]] = {}

    @contextlib.contextmanager
    def watch(self, sock: socket.socket, callback: Callable[[], object]) -> Iterator[None]:
        """While inside, `callback` is called once, from another thread, when the client of `sock` hangs up.

        A half-closed unix connection still has a reader (EPOLLHUP comes only when both ways are shut); over TCP a
        peer that closed looks like one that half-closed, and is taken as gone.
        """
        fd = sock.fileno()
        events = select.EPOLLONESHOT | (0 if sock.family == socket.AF_UNIX else select.EPOLLRDHUP)
        with self._lock:
            epoll = self._started()
            self._callbacks[fd] = callback
            epoll.register(fd, events)
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(fd, None)
                if self._epoll is not None:
                    self._epoll.unregister(fd)

    def _started(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._wake, select.EPOLLIN)
            threading.Thread(
                target=self._run, args=(self._epoll, self._wake), name="api-hangups", daemon=True
            ).start()
        return self._epoll

    def _run(self, epoll: select.epoll, wake: int) -> None:
        while True:
            for fd, _ in epoll.poll():
                if fd == wake:
                    epoll.close()
                    os.close(wake)
                    return
                with self._lock:
                    callback = self._callbacks.pop(fd, None)
                if callback is None:
                    continue
                try:
                    callback()
                except Exception:
                    _log.exception("a hang-up callback failed")

    def close(self) -> None:
        """End the thread; open watches are no longer told."""
        with self._lock:
            if self._epoll is not None:
                self._epoll = None
                os.eventfd_write(self._wake, 1)
