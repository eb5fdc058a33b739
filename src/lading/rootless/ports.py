"""Published ports: from the host's network to a container's address in the namespace's, byte for byte.

Owns the sockets on both sides and one asyncio loop in a thread of its own. Who may have which port was decided before:
the host's side comes as a bound socket. The container sees the bridge's gateway as the peer, which is the price of
having no privileges on the host.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple

from lading.linux import netns

_PIECE = 256 << 10
_BACKLOG = 512
_DATAGRAM = 65535
_QUIET = 60.0
"""Seconds after which a UDP peer that nothing passed for is forgotten."""
_PEERS = 1024


class Forward(NamedTuple):
    """One port: the protocol and where its traffic goes."""

    protocol: str
    address: str
    port: int


class Ports:
    """The ports of all containers, by container."""

    def __init__(self, inner: int) -> None:
        self._inner = inner
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        threading.Thread(target=self._loop.run_forever, name="ports", daemon=True).start()

    def ids(self) -> list[str]:
        return list(self._tasks)

    def publish(self, identifier: str, forwards: Iterable[tuple[Forward, socket.socket]]) -> None:
        """Serve these ports instead of any the container has had; the sockets are ours now."""
        self._run(self._publish(identifier, list(forwards)))

    def withdraw(self, identifier: str) -> None:
        self._run(self._withdraw(identifier))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _publish(self, identifier: str, forwards: list[tuple[Forward, socket.socket]]) -> None:
        await self._withdraw(identifier)
        tasks = self._tasks[identifier] = []
        for forward, sock in forwards:
            sock.setblocking(False)
            if forward.protocol == "tcp":
                # Its connections inherit this; without it what is left of them (TIME_WAIT) keeps the port for a minute.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.listen(_BACKLOG)
            serve = self._accept if forward.protocol == "tcp" else self._datagrams
            tasks.append(self._loop.create_task(serve(sock, forward)))

    async def _withdraw(self, identifier: str) -> None:
        """Their connections end with the listening tasks, as the container's do with the container."""
        tasks = self._tasks.pop(identifier, [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _socket(self, address: str, kind: int) -> socket.socket:
        """A socket in the namespace's network, whose life does not depend on the thread that made it."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = netns.inside(self._inner, functools.partial(socket.socket, family, kind | socket.SOCK_CLOEXEC))
        made.setblocking(False)
        return made

    # -- TCP ----------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket, forward: Forward) -> None:
        with listener:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        peer, _ = await self._loop.sock_accept(listener)
                    except OSError:
                        await asyncio.sleep(0.05)  # out of descriptors, or the peer has gone already
                        continue
                    group.create_task(self._connection(peer, forward))

    async def _connection(self, peer: socket.socket, forward: Forward) -> None:
        with peer:
            try:
                inner = self._socket(forward.address, socket.SOCK_STREAM)
            except OSError:
                return
            with inner:
                for sock in (peer, inner):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    await self._loop.sock_connect(inner, (forward.address, forward.port))
                except OSError:
                    return
                await asyncio.gather(self._pump(peer, inner), self._pump(inner, peer))

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """One direction, to its end; the other may go on."""
        buffer = bytearray(_PIECE)
        view = memoryview(buffer)
        try:
            while count := await self._loop.sock_recv_into(source, buffer):
                await self._loop.sock_sendall(sink, view[:count])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, sink):  # one side broke off: the other direction has nothing to wait for
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    # -- UDP ----------------------------------------------------------------------------------------------------

    async def _datagrams(self, sock: socket.socket, forward: Forward) -> None:
        """Every peer has a socket of its own inside, so that answers find their way back."""
        peers: dict[Any, tuple[socket.socket, asyncio.Task[None]]] = {}
        try:
            while True:
                try:
                    data, address = await self._loop.sock_recvfrom(sock, _DATAGRAM)
                except OSError:
                    await asyncio.sleep(0.01)  # an ICMP error of an earlier answer
                    continue
                known = peers.get(address)
                if known is None:
                    if len(peers) >= _PEERS:
                        continue
                    try:
                        inner = self._socket(forward.address, socket.SOCK_DGRAM)
                        inner.connect((forward.address, forward.port))
                    except OSError:
                        continue
                    task = self._loop.create_task(self._answers(inner, sock, address))
                    task.add_done_callback(functools.partial(_forget, peers, address))
                    known = peers[address] = (inner, task)
                try:
                    known[0].send(data)
                except OSError:
                    continue  # nobody listens there now; UDP promises nothing
        finally:
            sock.close()
            for _, task in peers.values():
                task.cancel()

    async def _answers(self, inner: socket.socket, sock: socket.socket, address: Any) -> None:
        with inner:
            while True:
                try:
                    data = await asyncio.wait_for(self._loop.sock_recv(inner, _DATAGRAM), _QUIET)
                    await self._loop.sock_sendto(sock, data, address)
                except TimeoutError:
                    return
                except OSError:
                    await asyncio.sleep(0.01)


def _forget(peers: dict[Any, Any], address: Any, _: object) -> None:
    peers.pop(address, None)
