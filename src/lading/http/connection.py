"""One HTTP/1.1 connection on a blocking socket, the server's side: h11 decides what the bytes mean, this file moves them.

Owns framing, bounds, patience with slow clients, keep-alive, `Expect: 100-continue`, and giving the socket away for a raw
stream (hijack). Knows no path and no engine.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO

import h11

from lading.base.errors import Cancelled, Invalid
from lading.http.refused import Refused

HEAD_LIMIT = 64 << 10
_HEAD_READ = 16 << 10
_BODY_READ = 256 << 10
_DRAIN_LIMIT = 64 << 20  # how much of an unread body is thrown away so that the client sees the answer
_DRAIN_SECONDS = 2.0
_FILE_READ = 256 << 10

Headers = list[tuple[str, str]]
_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class ClientGone(Cancelled):
    """The client closed or broke the connection; there is nobody to answer."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a client may take: until its next request begins, for that request's whole head, and for any one
    move of bytes after it."""

    idle: float
    head: float
    stall: float


class _Span:
    """Stands for bytes that go past h11, which only counts them (h11's send_with_data_passthrough)."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def _response(status: int, headers: Headers) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b""))


class Connection:
    """The server's side of one connection. Not thread-safe: one thread reads and writes it."""

    def __init__(self, sock: socket.socket, patience: Patience | None = None) -> None:
        self.sock = sock
        self.given_away = False
        self._patience = patience
        self._head_by: float | None = None  # while a head is read under patience
        self._head_began = False
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._body_read = False
        self._bodiless = False  # the request was HEAD

    # Reading

    def next_request(self) -> h11.Request | None:
        """The next request's head; None when the client is done. Refused for bytes that are no HTTP."""
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        self._body_read = False
        if self._patience is not None:
            self._head_by, self._head_began = time.monotonic() + self._patience.idle, False
        event = self._next_event(_HEAD_READ)
        if self._patience is not None:
            self._head_by = None
            self.sock.settimeout(self._patience.stall)
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in (b"1.0", b"1.1"):
            raise Refused(505, "the request's version of HTTP is not 1.1")
        self._bodiless = event.method == b"HEAD"
        return event

    def read_body(self) -> bytes:
        """The next piece of the request's body; b"" at its end."""
        while not self._body_read:
            if self._h11.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            event = self._next_event(_BODY_READ)
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._body_read = True
            else:
                raise ClientGone
        return b""

    def _next_event(self, size: int) -> object:
        try:
            while True:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    self._h11.receive_data(self._recv(size))
                elif event is h11.PAUSED:
                    return None
                else:
                    return event
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status in (None, 400):
                raise Invalid(f"the request is not HTTP/1.1: {error}") from error
            raise Refused(status, f"the request cannot be read: {error}") from error

    def _recv(self, size: int) -> bytes:
        try:
            if self._head_by is not None:
                # A deadline, not a timeout: one byte now and then must not hold the thread for ever.
                self.sock.settimeout(max(self._head_by - time.monotonic(), 0.001))
            data = self.sock.recv(size)
        except OSError as error:
            raise ClientGone from error
        if self._head_by is not None and self._patience is not None and not self._head_began:
            self._head_by, self._head_began = time.monotonic() + self._patience.head, True
        return data

    # Writing

    @property
    def answered(self) -> bool:
        """Whether a response head has gone out for the present request."""
        return self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.given_away

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole response at once."""
        head = self._h11.send(_response(status, headers))
        data = self._h11.send(h11.Data(data=body)) if body and not self._bodiless else b""
        end = self._h11.send(h11.EndOfMessage())
        self._write(b"".join(part for part in (head, data, end) if part))

    def start(self, status: int, headers: Headers) -> None:
        """A response head; `write` and `end` follow."""
        self._send(_response(status, headers))

    def write(self, data: bytes) -> None:
        """A piece of the body: one chunk, sent before this returns."""
        if data:
            self._send(h11.Data(data=data))

    def send_file(self, source: BinaryIO, offset: int, size: int) -> None:
        """`size` bytes of a regular file as a piece of the body: sendfile(2), or reads where TLS wants to see them."""
        span: Any = _Span(size)
        for part in self._h11.send_with_data_passthrough(h11.Data(data=span)) or ():
            if part is not span:
                self._write(part)
        try:
            sent = size
            if not isinstance(self.sock, ssl.SSLSocket):
                sent = self.sock.sendfile(source, offset, size) if size else 0
            else:
                for at in range(offset, offset + size, _FILE_READ):
                    self.sock.sendall(os.pread(source.fileno(), min(_FILE_READ, offset + size - at), at))
        except OSError as error:
            raise ClientGone from error
        if sent != size:
            raise ClientGone  # the file is shorter than it was: all that can be done is to break off

    def end(self) -> None:
        """The body is complete."""
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage) -> None:
        data = self._h11.send(event)
        if data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise ClientGone from error

    # Giving the socket away, and ending

    def read_ahead(self) -> bytes:
        """What the client has sent after its request, for one that wants the connection as a raw stream.

        Whoever sets `given_away` afterwards owns the socket from then on, and sends the head that answers.
        """
        while self.read_body():
            pass
        early, _ = self._h11.trailing_data
        return bytes(early)

    def finish(self) -> bool:
        """After a request: throw away what is left of its body. Whether the connection can take another one."""
        if self.given_away or self._h11.our_state is not h11.DONE:
            return False
        if self._h11.their_state is h11.SEND_BODY and not self._h11.they_are_waiting_for_100_continue:
            self._drain()
        return self._h11.their_state is h11.DONE

    def _drain(self) -> None:
        """Read on for a while: closing with unread bytes resets the connection, and the answer would be lost."""
        deadline, left = time.monotonic() + _DRAIN_SECONDS, _DRAIN_LIMIT
        before = self.sock.gettimeout()
        try:
            while left > 0 and (rest := deadline - time.monotonic()) > 0:
                self.sock.settimeout(rest)
                piece = self.read_body()
                if not piece:
                    return
                left -= len(piece)
        except (ClientGone, Invalid, Refused):
            return
        finally:
            self.sock.settimeout(before)

    def close(self) -> None:
        """Close; when there is input nobody will read, say so with a half-close and let the client catch up first."""
        if not self.given_away and self._h11.their_state in (h11.SEND_BODY, h11.ERROR):
            try:
                self.sock.shutdown(socket.SHUT_WR)
                self._discard()
            except OSError:
                pass  # the client has gone already
        self.sock.close()

    def _discard(self) -> None:
        deadline, left = time.monotonic() + _DRAIN_SECONDS, _DRAIN_LIMIT
        while left > 0 and (rest := deadline - time.monotonic()) > 0:
            self.sock.settimeout(rest)
            piece = self.sock.recv(_BODY_READ)
            if not piece:
                return
            left -= len(piece)
