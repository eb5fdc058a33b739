"""Handing a client's own connection to a container's monitor. Owns the rare cases where a pump must stand between.

The common case leaves the daemon out: the monitor gets the descriptor, writes frames into it and reads stdin from it,
so that a dead daemon cuts no session; it also watches for the detach keys. A pump is needed where bytes of stdin came
with the request, and where the transport is no plain socket.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable

from lading.api import stream
from lading.api.exchange import Exchange
from lading.base.errors import Invalid, LadingError

_log = logging.getLogger("lading.api")
_BLOCK = 64 << 10
DEFAULT_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q


def detach_keys(text: str) -> bytes:
    """The bytes of a sequence such as "ctrl-p,ctrl-q" or "ctrl-@,x". Invalid for anything else."""
    found = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            found += key.encode()
        elif (
            key.startswith("ctrl-")
            and len(key) == 6
            and (key[5].islower() or key[5] in "@[\\]^_")
            and key.isascii()
        ):
            found.append(ord(key[5].upper()) & 0x1F)
        else:
            raise Invalid(
                f'invalid detach keys "{text[:40]}"',
                why="Each is one character, or ctrl- and one of a-z, @, [, \\, ], ^ and _.",
            )
    return bytes(found)


def keys_of(x: Exchange, *, tty: bool, stdin: bool) -> bytes:
    """Which keys the monitor must watch for: none without a terminal, and none when `detach=client` says who watches."""
    wanted = x.text("detachKeys")
    keys = detach_keys(wanted) if wanted else DEFAULT_KEYS
    return keys if tty and stdin and x.text("detach") != "client" else b""


def hand_over(
    x: Exchange,
    start: Callable[[int], object],
    *,
    framed: bool,
    before: bool = False,
) -> None:
    """Answer with a raw stream and let `start` take the connection's descriptor.

    With `before`, `start` only keeps the descriptor for a container that does not run yet, and comes before the head:
    once a client reads the head it may start the container, and must not miss its first words. An error is then an
    answer of its own; after the head it goes into the stream.
    """
    early = x.connection.read_ahead()
    sock, head = x.connection.sock, x.raw_head(framed)
    pumped = bool(early or sock.family != socket.AF_UNIX)
    with contextlib.ExitStack() as opened:
        fd = sock.fileno()
        if pumped:
            ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
            fd = theirs.fileno()
        if before:
            start(fd)
        x.connection.given_away = True
        try:
            sock.sendall(head)
            if not before:
                start(fd)
            if pumped:
                theirs.close()
                pump(sock, ours, early)
        except LadingError as error:
            _tell(sock, f"{error}\r\n".encode(), framed)
        except ConnectionError:
            pass  # the client has gone
        except Exception:
            _log.exception("a stream failed")
            _tell(sock, b"lading failed at this request; the daemon's log has its trace\r\n", framed)


def _tell(sock: socket.socket, text: bytes, framed: bool) -> None:
    try:
        sock.sendall(stream.frame(stream.STDERR, text) if framed else text)
    except OSError:
        pass  # the client has gone; there is nobody to tell


def pump(client: socket.socket, inner: socket.socket, early: bytes) -> None:
    """Copy both ways, each way holding one block at most, until the inner side ends or the client goes."""
    to_inner, to_client = early, b""
    client_open = True
    client.setblocking(False)
    inner.setblocking(False)
    poll = select.poll()
    try:
        while True:
            _interest(poll, client, client_open and not to_inner, bool(to_client))
            _interest(poll, inner, not to_client, bool(to_inner))
            ready = dict(poll.poll())
            at_client, at_inner = ready.get(client.fileno(), 0), ready.get(inner.fileno(), 0)
            if at_client & (select.POLLHUP | select.POLLERR) and not at_client & select.POLLIN:
                return
            if at_client & select.POLLIN and client_open and not to_inner:
                to_inner = client.recv(_BLOCK)
                if not to_inner:
                    client_open = False
                    inner.shutdown(socket.SHUT_WR)
            if at_inner & (select.POLLIN | select.POLLHUP) and not to_client:
                to_client = inner.recv(_BLOCK)
                if not to_client:
                    return
            if to_inner:
                to_inner = to_inner[_some(inner, to_inner) :]
            if to_client:
                to_client = to_client[_some(client, to_client) :]
    except (ConnectionError, TimeoutError):
        return


def _interest(poll: select.poll, sock: socket.socket, reading: bool, writing: bool) -> None:
    """Ask for what can be used now; a socket nothing is wanted of is left out, since a hang-up is always reported."""
    mask = (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0)
    if mask:
        poll.register(sock, mask)
        return
    try:
        poll.unregister(sock)
    except KeyError:
        pass


def _some(sock: socket.socket, data: bytes) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
