"""One request and its answer, as a handler sees them. Owns the reading of queries and bodies and the shapes of answers.

Knows the connection but no path and no engine; nothing a client sends is trusted here beyond its bounds.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from lading import __version__
from lading.api import stream
from lading.api.errors import Refused, status_of
from lading.api.hangup import Hangups
from lading.api.render.json import dumps
from lading.base.errors import Invalid, LadingError
from lading.http.connection import ClientGone, Connection, Headers

API_VERSION = 54  # of 1.x: the newest that lading answers
MIN_VERSION = 24
JSON_LIMIT = 4 << 20
_FALSE = frozenset(("", "0", "no", "false", "none"))
_STAMP = [
    ("Api-Version", f"1.{API_VERSION}"),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"lading/{__version__} (linux)"),
]
_STAMP_TEXT = "".join(f"{name}: {value}\r\n" for name, value in _STAMP)
_dated: tuple[int, Headers] = (0, [])

T = TypeVar("T")


def _stamp() -> Headers:
    """The headers of every answer; the date is made anew once a second (RFC 9110, 6.6.1 asks for it)."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, [*_STAMP, ("Date", formatdate(now, usegmt=True))])
    return _dated[1]


class Exchange:
    """What a handler is given: `params` from the path, `version` the minor number of the API asked for."""

    __slots__ = ("_query", "connection", "hangups", "headers", "method", "params", "query_text", "version")

    def __init__(
        self,
        connection: Connection,
        hangups: Hangups,
        method: str,
        query_text: str,
        headers: Mapping[bytes, bytes],
    ) -> None:
        self.connection = connection
        self.hangups = hangups
        self.method = method
        self.query_text = query_text
        self.headers = headers
        self.params: Mapping[str, str] = {}
        self.version = API_VERSION
        self._query: dict[str, list[str]] | None = None

    # The query

    @property
    def query(self) -> dict[str, list[str]]:
        if self._query is None:
            found: dict[str, list[str]] = {}
            if self.query_text:
                try:
                    pairs = parse_qsl(self.query_text, keep_blank_values=True, max_num_fields=1000)
                except ValueError as error:
                    raise Invalid("the query has too many fields") from error
                for key, value in pairs:
                    found.setdefault(key, []).append(value)
            self._query = found
        return self._query

    def text(self, name: str, default: str = "") -> str:
        values = self.query.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        return self.query.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's truth: anything but empty, 0, no, false and none."""
        values = self.query.get(name)
        return default if not values else values[0].strip().lower() not in _FALSE

    def integer(self, name: str, default: int = 0) -> int:
        value = self.text(name)
        if not value:
            return default
        try:
            return int(value[:24])
        except ValueError:
            raise Invalid(
                f'invalid value "{value[:40]}" for {name}', why="It must be a whole number."
            ) from None

    def json_field(self, name: str) -> Any:
        """A query value that is itself JSON; None when it is absent."""
        value = self.text(name)
        return _loads(value, f"the {name} of the query") if value else None

    def filters(self) -> dict[str, tuple[str, ...]]:
        """`filters`, in either of its two forms: {"label": ["a=b"]} or the older {"label": {"a=b": true}}."""
        value = self.json_field("filters")
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise Invalid("invalid filters", why="They must be a JSON object of lists.")
        found: dict[str, tuple[str, ...]] = {}
        for key, wanted in value.items():
            if isinstance(wanted, dict):
                wanted = [text for text, on in wanted.items() if on]
            if not isinstance(wanted, list) or not all(isinstance(text, str) for text in wanted):
                raise Invalid(f'invalid filter "{key[:40]}"', why="Its value must be a list of strings.")
            found[key] = tuple(wanted)
        return found

    # The body

    def body(self, limit: int = JSON_LIMIT) -> bytes:
        """The whole body, which must not be longer than `limit`."""
        parts, size = [], 0
        while piece := self.connection.read_body():
            size += len(piece)
            if size > limit:
                raise Refused(413, f"the request's body is longer than {limit} bytes")
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def json_body(self, *, required: bool = True) -> dict[str, Any]:
        """The body as a JSON object; {} for an empty one that need not be there."""
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        data = self.body()
        if not data.strip():
            if required:
                raise Invalid("the request has no body", why="A JSON object is expected.")
            return {}
        if kind not in (b"", b"application/json", b"text/plain", b"text/json"):
            shown = kind.decode("latin-1")[:60]
            raise Invalid(f'unsupported Content-Type "{shown}"', why="It must be application/json.")
        value = _loads(data, "the request's body")
        if value is None and not required:
            return {}
        if not isinstance(value, dict):
            raise Invalid("the request's body is not a JSON object")
        return value

    def input(self) -> io.BufferedReader:
        """The body as a file that is read once."""
        return io.BufferedReader(_Input(self.connection), 256 << 10)

    # Answers

    def json(self, value: Any, status: int = 200, headers: Headers | None = None) -> None:
        self.reply(status, "application/json", dumps(value) + b"\n", headers)

    def empty(self, status: int = 204, headers: Headers | None = None) -> None:
        self.connection.respond(status, [*_stamp(), *(headers or ())], b"")

    def reply(self, status: int, content_type: str, body: bytes, headers: Headers | None = None) -> None:
        self.connection.respond(
            status,
            [
                ("Content-Type", content_type),
                ("Content-Length", str(len(body))),
                *_stamp(),
                *(headers or ()),
            ],
            body,
        )

    def error(self, error: LadingError, *, close: bool = False) -> None:
        headers = [("Connection", "close")] if close else None
        body: dict[str, object] = {"message": str(error)}
        if isinstance(error, Refused) and error.run_code:
            body["exitCode"] = error.run_code
        self.json(body, status_of(error), headers)

    def stream(self, content_type: str, headers: Headers | None = None, status: int = 200) -> Output:
        """A body of unknown length. Its head goes out with the first bytes, so an early error is still an answer."""
        return Output(self.connection, status, [("Content-Type", content_type), *_stamp(), *(headers or ())])

    def raw_head(self, framed: bool) -> bytes:
        """The head that turns the connection into a raw stream: 101 when the client asked to upgrade, else 200."""
        kind = stream.content_type(framed, self.version)
        if b"upgrade" in self.headers.get(b"connection", b"").lower() and b"upgrade" in self.headers:
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
        return f"{head}{_STAMP_TEXT}\r\n".encode("ascii")

    # The client

    def wait_for(self, future: Future[T]) -> T:
        """The future's result; ClientGone as soon as the client hangs up."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.is_set():
            with self.hangups.watch(self.connection.sock, done.set):
                done.wait()
        if not future.done():
            raise ClientGone
        return future.result()

    def peer_uid(self) -> int | None:
        """The user on the other side of a unix socket (SO_PEERCRED, unix(7)); None over anything else."""
        sock = self.connection.sock
        if sock.family != socket.AF_UNIX:
            return None
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)


class Output:
    """A response body in pieces; also usable as a callable and a file. Close it with `end`, only when it is whole."""

    __slots__ = ("_connection", "_headers", "_status", "started")

    def __init__(self, connection: Connection, status: int, headers: Headers) -> None:
        self._connection, self._status, self._headers = connection, status, headers
        self.started = False

    def start(self) -> None:
        """Send the head now."""
        if not self.started:
            self.started = True
            self._connection.start(self._status, self._headers)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.start()
        self._connection.write(data if isinstance(data, bytes) else bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def line(self, value: dict[str, Any]) -> None:
        """One JSON line."""
        self.write(stream.line(value))

    def end(self) -> None:
        self.start()
        self._connection.end()


class _Input(io.RawIOBase):
    """The request's body, piece by piece."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._connection.read_body())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _loads(data: str | bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} is not valid JSON", why=str(error)[:200]) from None
