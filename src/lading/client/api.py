"""Calls to the Docker Engine API: a kept connection for short ones, one of its own for each stream. Never prints.

The server's `{"message": ...}` becomes an APIError; what the numbers mean for an exit code is the command line's matter.
"""

from __future__ import annotations

from lading.base.errors import LadingError
from lading.client.http import Broken, Connection, Response
from lading.client.wire import dumps, loads, target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from lading.client.http import Socket

JSON = {"Content-Type": "application/json"}
UPGRADE = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
ERROR_LIMIT = 1 << 20


class APIError(LadingError):
    """The server refused: its HTTP status, its message, and whatever else its JSON held."""

    def __init__(self, status: int, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body or {}


class Hijacked:
    """A connection taken over by a stream: the socket, bytes that had already come, and whether output is framed."""

    __slots__ = ("early", "framed", "sock")

    def __init__(self, sock: Socket, early: bytes, framed: bool | None) -> None:
        self.sock = sock
        self.early = early
        self.framed = framed

    def close(self) -> None:
        self.sock.close()


class Client:
    """Talks to one daemon. `dial` gives a new connected socket each time."""

    __slots__ = ("_kept", "_used", "dial")

    def __init__(self, dial: Callable[[], Socket]) -> None:
        self.dial = dial
        self._kept: Connection | None = None
        self._used = False  # an exchange has succeeded on the kept connection

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def call(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        """One short request on the kept connection; its JSON decoded, None when the answer is empty."""
        address = target(path, query)
        try:
            response = self._exchange(method, address, body)
        except Broken as error:
            # An idle connection that the server had closed, or a daemon that ended before it looked at the request.
            if not error.early or not (self._used or error.unread):
                raise
            response = self._exchange(method, address, body)
        self._used = True
        data = _checked(response).read()
        if response.connection.busy:
            self.close()
        if not data:
            return None
        try:
            return loads(data)
        except ValueError as error:
            raise Broken(f"{method} {path}: {error}") from None

    def _exchange(self, method: str, address: str, body: Any) -> Response:
        if self._kept is None:
            self._kept, self._used = Connection(self.dial()), False
        try:
            if body is None:
                self._kept.send(method, address)
            else:
                self._kept.send(method, address, dumps(body).encode(), JSON)
            return self._kept.receive(method)
        except Broken:
            used = self._used
            self.close()
            self._used = used
            raise

    def _begin(
        self, method: str, address: str, body: bytes | Iterable[bytes] | None, headers: dict[str, str] | None
    ) -> Response:
        """A request on a connection of its own; once more when the daemon ended before it read a byte of it."""
        again = body is None or isinstance(body, bytes)
        while True:
            peer = Connection(self.dial())
            try:
                peer.send(method, address, body, headers)
                return _checked(peer.receive(method))
            except BaseException as error:
                peer.close()
                if not (again and isinstance(error, Broken) and error.unread):
                    raise
            again = False

    def open(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """A request on a connection of its own whose answer's body the caller reads; close `.connection` afterwards."""
        return self._begin(method, target(path, query), body, headers)

    def lines(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[Any]:
        """The decoded values of a stream of JSON texts, one a line (progress, events, stats)."""
        response = self.open(method, path, query, body, headers)
        try:
            yield from json_lines(response.chunks())
        finally:
            response.connection.close()

    def hijack(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None
    ) -> Hijacked:
        """Turn a fresh connection into a raw stream (attach, exec start): 101, or 200 without a length from old servers."""
        data = b"" if body is None else dumps(body).encode()
        response = self._begin(method, target(path, query), data, UPGRADE)
        peer = response.connection
        kind = response.headers.get("content-type", "")
        framed = True if "multiplexed" in kind else None
        return Hijacked(peer.sock, peer.buffer, framed)


def json_lines(pieces: Iterable[bytes], limit: int = 8 << 20) -> Iterator[Any]:
    """Values of newline-separated JSON texts that arrive in arbitrary pieces. A line longer than `limit` is an error."""
    rest = b""
    for piece in pieces:
        rest += piece
        if b"\n" not in piece:
            if len(rest) > limit:
                raise Broken(f"a line of its stream is longer than {limit} bytes")
            continue
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line.strip():
                yield _value(line)
    if rest.strip():
        yield _value(rest)


def _value(line: bytes) -> Any:
    try:
        return loads(line)
    except ValueError as error:
        raise Broken(f"a line of its stream is broken: {error}") from None


def _checked(response: Response) -> Response:
    """`response`, or the APIError that it is."""
    if response.status < 400:
        return response
    data = response.read(ERROR_LIMIT)
    body: Any = None
    try:
        body = loads(data)
    except ValueError:
        pass
    if not isinstance(body, dict):
        body = {}
    message = body.get("message")
    if not isinstance(message, str) or not message:
        message = data.decode("utf-8", "replace").strip()[:500] or f"HTTP {response.status} {response.reason}"
    raise APIError(response.status, message, body)
