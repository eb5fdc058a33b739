"""The resolver's loop: one thread, one epoll, a box for every container, and the daemon's control connections.

Owns what is answered from the zone, what is forwarded and what is refused. It has no privileges and needs none: its
sockets were bound inside the containers' namespaces by the daemon and came here as descriptors.

Control messages, one datagram of a SEQPACKET connection each, words apart by spaces, answered by one datagram:

    hello                       -> "<version>", then the ids of its boxes, then "." (several datagrams)
    put ID FORWARD SERVERS      with lines "at NETWORK NAME ADDRESSES SUBNETS NAMES" (lists by commas, "-" for none);
                                a new id comes with three descriptors: udp, tcp, pidfd of its init  -> "ok" or "unknown"
    drop ID                     -> "ok"
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import socket
import time
from collections.abc import Callable

from lading.network.dns import message
from lading.network.dns.box import Box, Send
from lading.network.dns.upstream import Forward, Host, is_address
from lading.network.dns.zone import Place, Zone

VERSION = "lading-names-1"
_TTL = 5  # a name may have another address after a restart
_LARGEST = 1 << 17
_IDS = 500  # in one datagram
_FORWARDS = 1024
_FOREVER = -1.0

Act = Callable[[int], None]


class Server:
    """Runs until nobody needs it: no box, and no daemon connected."""

    def __init__(self, listener: socket.socket, host: Host) -> None:
        self._listener, self._host = listener, host
        self._epoll = select.epoll()
        self._acts: dict[int, Act] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._zone = Zone()
        self._boxes: dict[str, Box] = {}
        self._pidfds: dict[str, int] = {}
        self._controls = 0
        self._greeted = False  # the daemon that started us has come
        self._forwards = 0
        listener.setblocking(False)
        self.watch(listener, select.EPOLLIN, self._accept)

    # -- the loop (upstream.Loop) ----------------------------------------------------------------------------

    def watch(self, sock: socket.socket | int, events: int, act: Act) -> None:
        fd = sock if isinstance(sock, int) else sock.fileno()
        if fd in self._acts:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._acts[fd] = act

    def forget(self, sock: socket.socket | int) -> None:
        fd = sock if isinstance(sock, int) else sock.fileno()
        if self._acts.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        if isinstance(sock, int):
            os.close(sock)
        else:
            sock.close()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), act))

    def run(self) -> None:
        while self._boxes or self._controls or not self._greeted:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else _FOREVER
            for fd, events in self._epoll.poll(wait):
                act = self._acts.get(fd)  # an earlier one of this round may have closed it
                if act is not None:
                    act(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    # -- control ---------------------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        try:
            control, _ = self._listener.accept()
        except OSError:
            return
        self._greeted = True
        self._controls += 1
        self.watch(control, select.EPOLLIN, lambda _: self._control(control))

    def _control(self, control: socket.socket) -> None:
        fds: list[int] = []
        try:
            data, fds, _, _ = socket.recv_fds(control, _LARGEST, 3)
            if not data:
                raise EOFError
            for fd in fds:
                os.set_inheritable(fd, False)
            for reply in self._command(data.decode(), fds):
                control.send(reply.encode())
        except (OSError, EOFError, ValueError, IndexError):
            for fd in fds:
                os.close(fd)
            self._controls -= 1
            self.forget(control)

    def _command(self, text: str, fds: list[int]) -> list[str]:
        """The answers to one control message. Descriptors that are taken are taken out of `fds`."""
        head, *lines = text.split("\n")
        verb, *words = head.split(" ")
        if verb == "hello":
            ids = list(self._boxes)
            pages = [" ".join(ids[start : start + _IDS]) for start in range(0, len(ids), _IDS)]
            return [VERSION, *pages, "."]
        if verb == "drop":
            self._drop(words[0])
            return ["ok"]
        if verb != "put":
            raise ValueError(f"no such verb: {verb[:20]}")
        container, forward, servers = words
        places = tuple(_place(line) for line in lines if line)
        if fds:
            udp, tcp, pidfd = fds
            fds.clear()
            self._drop(container)
            self._boxes[container] = Box(
                self, container, socket.socket(fileno=udp), socket.socket(fileno=tcp), self._ask
            )
            self._pidfds[container] = pidfd
            self.watch(pidfd, select.EPOLLIN, lambda _: self._drop(container))
        box = self._boxes.get(container)
        if box is None:
            return ["unknown"]
        box.forward, box.servers = forward == "1", tuple(filter(is_address, _list(servers)))
        self._zone.put(container, places)
        return ["ok"]

    def _drop(self, container: str) -> None:
        """The container has ended: its sockets would keep its namespace alive."""
        box = self._boxes.pop(container, None)
        if box is not None:
            box.close()
            self.forget(self._pidfds.pop(container))
        self._zone.drop(container)

    # -- questions -------------------------------------------------------------------------------------------

    def _ask(self, box: Box, data: bytes, stream: bool, send: Send) -> None:
        question = message.read(data)
        if question is None:
            return
        room = 65535 if stream else 0
        if question.fault:
            send(message.answer(question, question.fault, room=room))
            return
        found = self._own(box.container, question)
        if found is not None:
            rcode, records = found
            send(message.answer(question, rcode, records, ttl=_TTL, room=room))
        elif not box.forward:
            # A segment without an outside is its own root: what nobody in it is called does not exist. SERVFAIL
            # would make C libraries ask again and again for ten seconds.
            send(message.answer(question, message.NXDOMAIN, room=room))
        else:
            self._forward(box, question, data, stream, send)

    def _own(self, asking: str, question: message.Question) -> tuple[int, list[tuple[int, bytes]]] | None:
        """(rcode, records) where containers are concerned, None for the rest of the world."""
        if not question.name:
            return None
        address = message.reverse(question.name)
        if address:
            name = self._zone.name(asking, address)
            if name is None:
                return None
            known = [(message.PTR, message.wire_name(name))] if name else []
            asked = question.kind in (message.PTR, message.ANY)
            return (message.NOERROR if name else message.NXDOMAIN), known if asked else []
        addresses = self._zone.addresses(asking, question.name)
        if addresses is None:
            return None
        kinds = {4: message.A, 16: message.AAAA}
        records = [(kinds[len(packed)], packed) for packed in addresses]
        return message.NOERROR, [one for one in records if question.kind in (one[0], message.ANY)]

    def _forward(self, box: Box, question: message.Question, data: bytes, stream: bool, send: Send) -> None:
        servers = box.servers or self._host.servers()

        def refuse() -> None:
            send(message.answer(question, message.SERVFAIL))

        if not servers or box.busy or self._forwards >= _FORWARDS:
            refuse()
            return
        box.under_way += 1
        self._forwards += 1

        def done(answer: bytes | None) -> None:
            box.under_way -= 1
            self._forwards -= 1
            if answer is None:
                refuse()
            else:
                send(answer)

        Forward(self, question, data, servers, stream, done)


def _list(text: str) -> list[str]:
    return [] if text == "-" else text.split(",")


def _place(line: str) -> Place:
    """One "at" line; ValueError when malformed."""
    verb, network, network_name, addresses, subnets, names = line.split(" ")
    if verb != "at":
        raise ValueError(f"no such line: {verb[:20]}")
    ranges = [text.partition("/") for text in _list(subnets)]
    return Place(
        network,
        network_name.lower(),
        tuple(_packed(text) for text in _list(addresses)),
        tuple(_list(names.lower())),
        tuple((_packed(base), int(prefix)) for base, _, prefix in ranges),
    )


def _packed(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError as error:
        raise ValueError(f"{text[:40]} is not an address") from error
