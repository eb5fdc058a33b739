"""Questions that are not about containers, asked of the host's own resolvers and answered as they answer.

Owns one question's way: a fresh socket and number for each server (so that answers cannot be guessed), servers in turn,
twice over, and giving up. Messages pass as they came, EDNS and all; an answer cut short (TC) makes the client ask again
by TCP, and then so do we. Runs in the host's namespace, so servers on the host's loopback work.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from lading.network.dns import message

WAIT = 1.5  # seconds for one server: resolv.conf(5) clients give up after five
ROUNDS = 2
_LARGEST = 65535
_PORT = 53
RESOLV_CONF = "/etc/resolv.conf"


class Loop(Protocol):
    """What a question needs of the server's loop."""

    def watch(self, sock: socket.socket, events: int, act: Callable[[int], None]) -> None:
        """Call `act(events)` when the socket is ready."""
        ...

    def forget(self, sock: socket.socket) -> None:
        """Stop watching, and close it."""
        ...

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act()` once, later; there is no taking back."""
        ...


class Forward:
    """One question on its way. `done` gets the answer under the client's number, or None: nobody answered."""

    def __init__(
        self,
        loop: Loop,
        question: message.Question,
        data: bytes,
        servers: Sequence[str],
        stream: bool,
        done: Callable[[bytes | None], None],
    ) -> None:
        self._loop, self._question, self._data, self._stream = loop, question, data, stream
        self._left = list(servers) * ROUNDS
        self._done = done
        self._last: bytes | None = None
        self._socket: socket.socket | None = None
        self._number = 0
        self._out = self._in = b""
        self._turn = 0
        self._next()

    def _close(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket)
            self._socket = None

    def _finish(self, data: bytes | None) -> None:
        self._close()
        self._data = self._in = b""  # a timer may hold on to this object for a while
        self._done(message.renumbered(data, self._question.number) if data is not None else None)

    def _next(self) -> None:
        """Ask the next server; without one, give what the last one said, if it said anything."""
        self._close()
        while self._left:
            server = self._left.pop(0)
            try:
                self._ask(server)
            except OSError:
                self._close()
                continue
            self._turn += 1
            self._loop.after(WAIT, functools.partial(self._late, self._turn))
            return
        self._finish(self._last)

    def _late(self, turn: int) -> None:
        if self._socket is not None and turn == self._turn:
            self._next()

    def _ask(self, server: str) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        self._socket = sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._number = int.from_bytes(os.urandom(2), "big")
        data = message.renumbered(self._data, self._number)
        code = sock.connect_ex(_address(server))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        if self._stream:
            self._out, self._in = struct.pack("!H", len(data)) + data, b""
            self._loop.watch(sock, select.EPOLLOUT, self._stream_ready)
        else:
            sock.send(data)
            self._loop.watch(sock, select.EPOLLIN, self._datagram_ready)

    def _datagram_ready(self, _: int) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error: nobody serves there
            self._next()
            return
        self._heard(data)

    def _stream_ready(self, events: int) -> None:
        assert self._socket is not None
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out) :]
                if not self._out:
                    self._loop.watch(self._socket, select.EPOLLIN, self._stream_ready)
                return
            piece = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            self._next()
            return
        self._in += piece
        if not piece:
            self._next()
        elif len(self._in) >= 2 and len(self._in) >= 2 + int.from_bytes(self._in[:2], "big"):
            self._heard(self._in[2 : 2 + int.from_bytes(self._in[:2], "big")])

    def _heard(self, data: bytes) -> None:
        if not message.answers_to(data, self._number, self._question.raw):
            if self._stream:
                self._next()  # a datagram may be a forgery, to be passed over; a stream is the server's own
            return
        if message.rcode_of(data) in (message.SERVFAIL, message.REFUSED, message.NOTIMP) and self._left:
            self._last = data
            self._next()
        else:
            self._finish(data)


def _address(server: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """For connect(2); "fe80::1%eth0" names an interface of the host."""
    host, _, zone = server.partition("%")
    return (host, _PORT, 0, socket.if_nametoindex(zone)) if zone else (host, _PORT)


class Host:
    """The host's name servers, read again when its resolv.conf has changed."""

    def __init__(self, path: str = RESOLV_CONF) -> None:
        self._path = path
        self._mark: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def servers(self) -> tuple[str, ...]:
        try:
            found = os.stat(self._path)
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if mark != self._mark:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = tuple(servers_in(file.read(65536)))
                self._mark = mark
        except OSError:
            self._servers, self._mark = (), None
        return self._servers


def servers_in(text: str) -> list[str]:
    """The name servers of resolv.conf(5), the first three, as the C library has it (MAXNS)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and is_address(words[1].partition("%")[0]):
            found.append(words[1])
    return found[:3]


def is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True
