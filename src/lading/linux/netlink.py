"""AF_NETLINK: encoding of messages and attributes, and a socket that sends a batch and reads its answers.

Owns the wire format shared by every netlink family (netlink(7), linux/netlink.h); what the messages say is in
`netlink_route`, `netlink_nft` and `netlink_conntrack`. No policy.

Why not pyroute2: importing even one of its codecs runs its package's __init__, which costs 143 ms and 22 MB
here, more than everything the daemon otherwise holds, and a container start spends about 0.1 ms in the few
dozen lines below.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ROUTE = 0
NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_SO_SNDBUFFORCE = 32
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1

_SMALL = 65536

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message(NamedTuple):
    """One request: nlmsg_type, nlmsg_flags (REQUEST is added), what follows the header, words for its error."""

    kind: int
    flags: int
    body: bytes
    label: str


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes (NLA_ALIGN); OSError(EMSGSIZE) beyond its length's 16 bits."""
    size = 4 + len(payload)
    if size > 0xFFFF:
        raise OSError(errno.EMSGSIZE, f"netlink attribute {kind} of {size} bytes")
    return _ATTR.pack(size, kind) + payload + _PAD[size & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | _NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attr(kind, os.fsencode(value) + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    """Native byte order, as rtnetlink has it."""
    return attr(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """Network byte order, as nfnetlink has it."""
    return attr(kind, struct.pack("!i" if value < 0 else "!I", value))


def attributes(body: bytes | memoryview, offset: int = 0) -> dict[int, bytes]:
    """The attributes of a body from `offset` on; the last of a kind wins. Stops at a malformed one."""
    found: dict[int, bytes] = {}
    end = len(body)
    while offset + 4 <= end:
        size, kind = _ATTR.unpack_from(body, offset)
        if size < 4 or offset + size > end:
            break
        found[kind & _NLA_TYPE_MASK] = bytes(body[offset + 4 : offset + size])
        offset += (size + 3) & ~3
    return found


class Netlink:
    """A netlink socket of the calling thread's network namespace. A context manager; threads may share it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._lock = threading.Lock()
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            # netlink(7): errors carry the kernel's own words; acknowledgements do not repeat the request.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address, which the kernel names as the author of its changes."""
        return int(self._socket.getsockname()[0])

    def request(self, messages: Sequence[Message]) -> list[bytes]:
        """Send all messages in one datagram; return the bodies of answers; raise OSError for the first failure.

        The kernel handles them in order and goes on after a failure: the caller undoes what it must.
        """
        with self._lock:
            first, packets = self._numbered([(message, NLM_F_ACK) for message in messages])
            self._socket.send(packets)
            answers, failure = self._acknowledgements(first, messages)
        if failure is not None:
            raise failure
        return answers

    def transaction(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Send an nfnetlink batch, which happens whole or not at all; raise OSError for the first failure.

        Only the last message asks for an acknowledgement, so that a large batch cannot overflow the receive
        buffer: errors are reported for any message, and those about the batch itself under the number of
        `begin` (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch).
        """
        with self._lock:
            whole = (begin, *messages, end)
            last = len(messages)
            first, packets = self._numbered([(m, NLM_F_ACK if n == last else 0) for n, m in enumerate(whole)])
            if len(packets) > _SMALL:  # beyond wmem_max, as CAP_NET_ADMIN may (socket(7))
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(packets) * 2)
            self._socket.send(packets)
            failure = self._verdict(first, whole)
        if failure is not None:
            raise failure

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """(type, body) of every object that a dump request yields; a dump torn by a change is taken again."""
        for _ in range(8):
            found: list[tuple[int, bytes]] = []
            with self._lock:
                self._socket.send(self._numbered([(message, NLM_F_DUMP)])[1])
                if self._dumped(message, found):
                    return found
        raise OSError(errno.EINTR, f"{message.label}: the tables changed under every one of 8 reads")

    def _numbered(self, messages: Sequence[tuple[Message, int]]) -> tuple[int, bytes]:
        """(number of the first, packets) of messages with their extra flags; numbers tell answers apart."""
        if self._sequence > 0x7FFF0000:
            self._sequence = 0
        first = self._sequence + 1
        packets = []
        for number, (message, flags) in enumerate(messages, first):
            flags |= message.flags | NLM_F_REQUEST
            packets.append(
                _HEADER.pack(16 + len(message.body), message.kind, flags, number, 0) + message.body
            )
        self._sequence += len(messages)
        return first, b"".join(packets)

    def _dumped(self, message: Message, found: list[tuple[int, bytes]]) -> bool:
        """Fill `found`; False when the kernel says that the dump was interrupted by a change."""
        whole = True
        while True:
            for kind, flags, sequence, body in self._packets(0):
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _NLM_F_DUMP_INTR
                if kind == _NLMSG_DONE:
                    return whole
                if kind == _NLMSG_ERROR:
                    failure = _failure(flags, body, message.label)
                    if failure is not None:
                        raise failure
                    continue
                found.append((kind, body))

    def _acknowledgements(
        self, first: int, messages: Sequence[Message]
    ) -> tuple[list[bytes], OSError | None]:
        """Read answers and one acknowledgement per message: the kernel has written them when send(2) returns."""
        missing = len(messages)
        answers: list[bytes] = []
        failure = None
        while missing:
            for kind, flags, sequence, body in self._packets(socket.MSG_DONTWAIT):
                index = sequence - first
                if not 0 <= index < len(messages):
                    continue
                if kind != _NLMSG_ERROR:
                    answers.append(body)
                    continue
                missing -= 1
                failure = failure or _failure(flags, body, messages[index].label)
        return answers, failure

    def _verdict(self, first: int, whole: Sequence[Message]) -> OSError | None:
        """Read until the batch's last inner message, or the batch itself, has been answered."""
        failure = None
        while True:
            try:
                packets = list(self._packets(socket.MSG_DONTWAIT))
            except BlockingIOError:
                # Everything has been read: an earlier message failed and took the last one's answer with it.
                return failure or OSError(errno.EIO, "nfnetlink batch: the kernel gave no answer")
            done = False
            for kind, flags, sequence, body in packets:
                index = sequence - first
                if kind != _NLMSG_ERROR or not 0 <= index < len(whole):
                    continue
                found = _failure(flags, body, whole[index].label)
                failure = failure or found
                done = done or index == len(whole) - 2 or (index == 0 and found is not None)
            if done:
                return failure

    def _packets(self, flags: int) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, body) of the messages in the next datagram."""
        data = self._socket.recv(1 << 16, flags)
        offset, end = 0, len(data)
        while offset + 16 <= end:
            size, kind, marks, sequence, _ = _HEADER.unpack_from(data, offset)
            if size < 16 or offset + size > end:
                raise OSError(errno.EBADMSG, "netlink: a truncated answer")
            yield kind, marks, sequence, data[offset + 16 : offset + size]
            offset += (size + 3) & ~3


class Notice(NamedTuple):
    """A change of the kernel's tables that somebody made; `port` is the socket's it was asked for by."""

    kind: int
    port: int
    body: bytes


class Listener:
    """Hears of changes in the network namespace it was made in, until `stop` is called from any thread."""

    def __init__(self, protocol: int, group: int) -> None:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            self._socket.bind((0, 1 << (group - 1)))
        except BaseException:
            os.close(self._wake)
            raise

    def stop(self) -> None:
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """By the thread that listens."""
        self._socket.close()
        os.close(self._wake)

    def wait(self, seconds: float | None = None) -> list[Notice] | None:
        """The next changes; none when the time is over, None when it was stopped. Lost ones are Notice(0, 0, b"")."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._wake in ready:
            return None
        if not ready:
            return []
        try:
            data = self._socket.recv(1 << 17, socket.MSG_DONTWAIT)
        except OSError:  # ENOBUFS: more than the buffer holds (netlink(7))
            return [Notice(0, 0, b"")]
        found, offset = [], 0
        while offset + 16 <= len(data):
            size, kind, _, _, port = _HEADER.unpack_from(data, offset)
            if size < 16 or offset + size > len(data):
                break
            found.append(Notice(kind, port, data[offset + 16 : offset + size]))
            offset += (size + 3) & ~3
        return found


def _failure(flags: int, body: bytes, label: str) -> OSError | None:
    """The OSError that an NLMSG_ERROR says, None for an acknowledgement."""
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return None
    words = os.strerror(-code)
    if flags & _NLM_F_ACK_TLVS:
        start = 20
        if not flags & _NLM_F_CAPPED:
            start = 4 + ((struct.unpack_from("=I", body, 4)[0] + 3) & ~3)
        said = attributes(body, start).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0")
        if said:
            words += f" ({said.decode('utf-8', 'replace')})"
    return OSError(-code, f"{label}: {words}")
