"""HTTP/1.1 over one connected socket, client side (RFC 9112). Owns framing and its bounds; never dials, never retries.

The peer is a local daemon, yet every size it sends is bounded and a broken frame is an error, not a hang or a traceback.
"""

from __future__ import annotations

from lading.base.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    class Socket(Protocol):
        """What this file needs of `_socket.socket`."""

        def sendall(self, data: bytes, /) -> object: ...
        def send(self, data: bytes | memoryview, flags: int = ..., /) -> int: ...
        def recv(self, size: int, flags: int = ..., /) -> bytes: ...
        def fileno(self) -> int: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...


HEAD_LIMIT = 64 << 10
BODY_LIMIT = 256 << 20
CHUNK = 64 << 10


class Broken(Unavailable):
    """The peer closed or garbled the connection.

    `early` says that no byte of a response had come, `unread` that the peer had not even read the request: the kernel
    resets a unix connection that is closed with data unread, or before it was accepted (unix_release_sock).
    """

    def __init__(self, why: str, early: bool = False, unread: bool = False) -> None:
        super().__init__(
            "the daemon's answer broke off",
            why=why,
            hint="Its log tells more; `lading info` names the socket.",
        )
        self.early = early
        self.unread = unread


class Connection:
    """One connection; requests go out and responses come in, strictly one after the other."""

    __slots__ = ("buffer", "busy", "reset", "sock")

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.reset = False  # the peer closed without reading all that was sent
        self.busy = False  # a body that is not read to its end keeps the connection from being used again

    def close(self) -> None:
        self.sock.close()

    def send(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Write one request. An iterable body goes out chunked; a peer that stops reading it has an answer ready."""
        lines = [f"{method} {target} HTTP/1.1", "Host: lading"]
        for name, value in (headers or {}).items():
            lines.append(f"{name}: {value}")
        whole = body if isinstance(body, bytes) else b""
        if not (body is None or isinstance(body, bytes)):
            lines.append("Transfer-Encoding: chunked")
        elif whole or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(whole)}")
        try:
            self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + whole)
            if body is not None and not isinstance(body, bytes):
                for piece in body:
                    if piece:
                        self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # The server may answer (an error, most often) and close before it has read the whole body; where there is
            # no answer, `receive` tells.
            self.reset = True

    def receive(self, method: str = "GET") -> Response:
        """Read one response's head; its body is read through the Response. Interim 1xx answers but 101 are passed over."""
        while True:
            status, reason, headers = self._head()
            if status == 101 or status >= 200:
                return Response(self, method, status, reason, headers)

    def _fill(self, early: bool = False) -> None:
        try:
            data = self.sock.recv(CHUNK)
        except ConnectionResetError:
            data, self.reset = b"", True
        if not data:
            raise Broken("the connection was closed", early, early and self.reset)
        self.buffer += data

    def _head(self) -> tuple[int, str, dict[str, str]]:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > HEAD_LIMIT:
                raise Broken(f"its header is longer than {HEAD_LIMIT} bytes")
            self._fill(early=not self.buffer)
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        self.buffer = self.buffer[end + 4 :]
        version, _, rest = lines[0].partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdigit():
            raise Broken("it does not speak HTTP/1.1")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(code), reason, headers

    def line(self) -> bytes:
        """One line of the chunked framing, without its end."""
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > HEAD_LIMIT:
                raise Broken("a chunk's size line has no end")
            self._fill()
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        return line

    def some(self, most: int) -> bytes:
        """At least one and at most `most` bytes of the body; b"" at the end of the connection."""
        if not self.buffer:
            try:
                return self.sock.recv(min(most, CHUNK))
            except ConnectionResetError:
                return b""
        data, self.buffer = self.buffer[:most], self.buffer[most:]
        return data


class Response:
    """A response whose body has yet to be read: once, with `read` or `chunks`."""

    __slots__ = ("connection", "headers", "reason", "status", "whole")

    def __init__(
        self, connection: Connection, method: str, status: int, reason: str, headers: dict[str, str]
    ) -> None:
        self.connection = connection
        self.status = status
        self.reason = reason
        self.headers = headers
        self.whole = method == "HEAD" or status in (101, 204, 304) or headers.get("content-length") == "0"
        connection.busy = not self.whole or self._closes()

    def _closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close" or self.status == 101

    def chunks(self) -> Iterator[bytes]:
        """The body's bytes as they come, in pieces of no particular size."""
        if self.whole:
            return
        self.whole = True
        peer = self.connection
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            yield from self._chunked()
        elif "content-length" in self.headers:
            left = _number(self.headers["content-length"], 10)
            while left:
                data = peer.some(left)
                if not data:
                    raise Broken(f"{left} bytes of the body are missing")
                left -= len(data)
                yield data
        else:
            while data := peer.some(CHUNK):
                yield data
            return  # ended by the close of the connection, which therefore stays busy
        peer.busy = self._closes()

    def _chunked(self) -> Iterator[bytes]:
        peer = self.connection
        while left := _number(peer.line().split(b";")[0].decode("latin-1"), 16):
            while left:
                data = peer.some(left)
                if not data:
                    raise Broken("the body stopped in the middle of a chunk")
                left -= len(data)
                yield data
            if peer.line():
                raise Broken("a chunk does not end where it said")
        while peer.line():
            pass

    def read(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body; an error when it is longer than `limit`."""
        parts, size = [], 0
        for data in self.chunks():
            size += len(data)
            if size > limit:
                raise Broken(f"its body is longer than {limit} bytes")
            parts.append(data)
        return b"".join(parts)


def _number(text: str, base: int) -> int:
    digits = text.strip()
    if (
        not digits
        or len(digits) > 16
        or digits.strip("0123456789abcdefABCDEF" if base == 16 else "0123456789")
    ):
        raise Broken(f"{text[:40]!r} is not a size")
    return int(digits, base)
