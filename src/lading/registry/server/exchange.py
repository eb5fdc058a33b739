"""One request to the registry and its answer, as a handler sees them. Owns reading and counting; knows no repository."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import parse_qsl

from lading import __version__
from lading.http.connection import ClientGone, Connection, Headers
from lading.registry.server import failures
from lading.registry.server.failures import Refusal

_STAMP: Headers = [
    # Clients look for this to tell a registry from any other server (distribution-spec, appendix).
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
    ("Server", f"lading/{__version__}"),
]

_WINDOW = 60.0
_RATE = 1024
"""Bytes a second that a body must bring over each window: slower ones would hold a thread and an upload for ever."""


class Exchange:
    """`received` and `sent` count bodies; `status` is what was answered, 0 so far."""

    def __init__(
        self, connection: Connection, method: str, target: str, headers: Mapping[bytes, bytes]
    ) -> None:
        self.connection = connection
        self.method = method
        self.path, _, self._query_text = target.partition("?")
        self._headers = headers
        self._query: dict[str, str] | None = None
        self.user = ""
        self.received = 0
        self.sent = 0
        self.status = 0
        self._window: tuple[float, int] = (
            time.monotonic(),
            0,
        )  # when it began, and what had been received then

    def header(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1").strip()

    def query(self, name: str) -> str | None:
        """The first value of a query parameter."""
        if self._query is None:
            try:
                pairs = parse_qsl(
                    self._query_text, keep_blank_values=True, max_num_fields=64, errors="strict"
                )
            except ValueError:
                raise Refusal(400, failures.UNSUPPORTED, "the query is malformed") from None
            self._query = {}
            for key, value in pairs:
                self._query.setdefault(key, value)
        return self._query.get(name)

    # The body

    def read(self) -> bytes:
        """The next piece; b"" at the end. A client that only drips is gone."""
        piece = self.connection.read_body()
        self.received += len(piece)
        now, (began, had) = time.monotonic(), self._window
        if now - began > _WINDOW:
            if piece and self.received - had < _RATE * (now - began):
                raise ClientGone
            self._window = (now, self.received)
        return piece

    def length(self) -> int | None:
        """What Content-Length says; h11 has checked that it is a number."""
        text = self.header(b"content-length")
        return int(text) if text else None

    def body(self, limit: int) -> bytes:
        """The whole body; 413 when it is longer than `limit`."""
        declared = self.length()
        parts, size = [], 0
        while (declared is None or declared <= limit) and (piece := self.read()):
            size += len(piece)
            if size > limit:
                break
            parts.append(piece)
        if size > limit or (declared or 0) > limit:
            raise Refusal(413, failures.SIZE_INVALID, f"the body is longer than {limit} bytes")
        return b"".join(parts)

    # Answers

    def reply(
        self, status: int, headers: Headers | None = None, body: bytes = b"", content_type: str = ""
    ) -> None:
        """A whole answer; a HEAD request gets the head of it."""
        self.status = status
        if self.method != "HEAD":
            self.sent += len(body)
        self.connection.respond(
            status, [*(headers or ()), *self._head(content_type, len(body), status)], body
        )

    def json(
        self, value: object, headers: Headers | None = None, content_type: str = "application/json"
    ) -> None:
        self.reply(200, headers, json.dumps(value, separators=(",", ":")).encode() + b"\n", content_type)

    def file(
        self, status: int, headers: Headers, content_type: str, source: BinaryIO, offset: int, size: int
    ) -> None:
        """`size` bytes of a file from `offset`."""
        self.status = status
        self.connection.start(status, [*headers, *self._head(content_type, size, status)])
        if self.method != "HEAD" and size:
            self.connection.send_file(source, offset, size)
            self.sent += size
        self.connection.end()

    @staticmethod
    def _head(content_type: str, size: int, status: int) -> Headers:
        head = [*_STAMP, ("Date", formatdate(time.time(), usegmt=True))]
        if content_type:
            head.append(("Content-Type", content_type))
        if status not in (204, 304):  # RFC 9110 8.6: neither has content whose length could be told
            head.append(("Content-Length", str(size)))
        return head
