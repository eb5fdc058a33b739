"""Records with descriptors over SEQPACKET sockets: how daemon, zygote, monitor and init speak (unix(7), SCM_RIGHTS).

Messages are marshalled tuples. Both ends are lading's own; nothing a container sends comes this way.
"""

from __future__ import annotations

import _socket
import marshal
import os

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any

MAX_FDS = 128
_ONE = _socket.CMSG_SPACE(4)


def receive(channel: _socket.socket, flags: int = 0) -> tuple[tuple[Any, ...] | None, int]:
    """(message, descriptor or -1); (None, -1) at the end of the stream."""
    data, ancillary, _, _ = channel.recvmsg(65536, _ONE, flags | _socket.MSG_CMSG_CLOEXEC)
    fd = -1
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fd = int.from_bytes(payload[:4], "little")
    return (marshal.loads(data), fd) if data else (None, fd)


def go(channel: _socket.socket) -> int:
    """Wait for the other side's word, and take the descriptor that came with it (-1: none).

    When the other side is gone, so is this process.
    """
    data, ancillary, _, _ = channel.recvmsg(64, _ONE, _socket.MSG_CMSG_CLOEXEC)
    if not data:
        os._exit(70)
    return int.from_bytes(ancillary[0][2][:4], "little") if ancillary else -1


def receive_many(channel: _socket.socket) -> tuple[bytes, list[int]]:
    """(record, its descriptors); an empty record is the end of the stream."""
    data, ancillary, _, _ = channel.recvmsg(65536, _socket.CMSG_SPACE(4 * MAX_FDS), _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for _level, _kind, payload in ancillary:
        fds += [int.from_bytes(payload[at : at + 4], "little") for at in range(0, len(payload) - 3, 4)]
    return data, fds


def send_many(channel: _socket.socket, data: bytes, fds: list[int]) -> None:
    """One record with descriptors (unix(7), SCM_RIGHTS)."""
    packed = b"".join(fd.to_bytes(4, "little") for fd in fds)
    channel.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])


def send(channel: _socket.socket, message: tuple[Any, ...], fd: int = -1) -> None:
    """One record to the monitor, with a descriptor when `fd` is one (unix(7), SCM_RIGHTS)."""
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
    channel.sendmsg([marshal.dumps(message)], ancillary)
