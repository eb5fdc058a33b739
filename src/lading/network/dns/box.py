"""One container's door to the resolver: its two sockets, its TCP clients, its questions under way, and their limits.

A container can only use up what is its own: questions beyond the limits are refused at once. Owns no names: what a
question's answer is, `ask` says.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable

from lading.network.dns.upstream import Loop

Send = Callable[[bytes], None]

_AT_ONCE = 32  # datagrams taken before others have their turn
_CLIENTS = 32
_UNDER_WAY = 128
_IDLE = 10.0
_UNSENT = 256 * 1024
_LARGEST = 65535


class Box:
    """`ask(box, message, stream, send)` is called for every message that comes in; `send` takes its answer."""

    def __init__(
        self,
        loop: Loop,
        container: str,
        udp: socket.socket,
        tcp: socket.socket,
        ask: Callable[[Box, bytes, bool, Send], None],
    ) -> None:
        self.container = container
        self.forward = False
        self.servers: tuple[str, ...] = ()
        self.under_way = 0
        self.open = True
        self._loop, self._udp, self._tcp, self._ask = loop, udp, tcp, ask
        self._clients: set[Client] = set()
        for sock, act in ((udp, self._datagrams), (tcp, self._connections)):
            sock.setblocking(False)
            loop.watch(sock, select.EPOLLIN, act)

    @property
    def busy(self) -> bool:
        return self.under_way >= _UNDER_WAY

    def close(self) -> None:
        self.open = False
        for client in list(self._clients):
            client.close()
        self._loop.forget(self._udp)
        self._loop.forget(self._tcp)

    def _datagrams(self, _: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, peer = self._udp.recvfrom(_LARGEST)
            except OSError:  # nothing more, or an ICMP error about an answer of ours
                return
            self._ask(self, data, False, lambda answer, peer=peer: self._say(answer, peer))  # type: ignore[misc]

    def _say(self, answer: bytes, peer: tuple[str, int]) -> None:
        if not self.open:
            return
        try:
            self._udp.sendto(answer, peer)
        except OSError:
            return  # whoever asked has gone, or does not read: datagrams may get lost

    def _connections(self, _: int) -> None:
        try:
            connection, _ = self._tcp.accept()
        except OSError:
            return
        if len(self._clients) >= _CLIENTS:
            connection.close()
            return
        self._clients.add(Client(self, connection))

    # What a client needs of its box.

    def heard(self, client: Client, data: bytes) -> None:
        self._ask(self, data, True, client.say)

    def left(self, client: Client) -> None:
        self._clients.discard(client)

    @property
    def loop(self) -> Loop:
        return self._loop


class Client:
    """A TCP connection: messages behind their lengths (RFC 1035, 4.2.2), answers in whatever order they come."""

    def __init__(self, box: Box, connection: socket.socket) -> None:
        self._box, self._socket = box, connection
        self._in = self._out = b""
        self._open = True
        self._idle = 0
        connection.setblocking(False)
        box.loop.watch(connection, select.EPOLLIN, self._ready)
        self._await()

    def _await(self) -> None:
        self._idle += 1
        mark = self._idle
        self._box.loop.after(_IDLE, lambda: self.close() if mark == self._idle else None)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._idle += 1
            self._in = self._out = b""
            self._box.loop.forget(self._socket)
            self._box.left(self)

    def _ready(self, events: int) -> None:
        try:
            if self._out and events & select.EPOLLOUT:
                self._out = self._out[self._socket.send(self._out) :]
                if not self._out:
                    self._box.loop.watch(self._socket, select.EPOLLIN, self._ready)
            if not events & ~select.EPOLLOUT:
                return
            piece = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.close()
            return
        self._await()
        self._in += piece
        while (
            self._open and len(self._in) >= 2 and len(self._in) >= (size := 2 + int.from_bytes(self._in[:2]))
        ):
            data, self._in = self._in[2:size], self._in[size:]
            self._box.heard(self, data)

    def say(self, answer: bytes) -> None:
        if not self._open:
            return
        if len(self._out) > _UNSENT:
            self.close()  # it asks and does not read
            return
        if not self._out:
            self._box.loop.watch(self._socket, select.EPOLLIN | select.EPOLLOUT, self._ready)
        self._out += struct.pack("!H", len(answer)) + answer
