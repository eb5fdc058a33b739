"""The registry's answers: from a request to the handler that its route and method name, and every way it can fail.

Owns authentication, read-only refusal and the table of handlers; moves no bytes itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from lading.base.errors import LadingError, Unauthenticated
from lading.http.connection import ClientGone, Connection, Headers
from lading.registry.server import discovery, failures, metrics, paths, pull, push
from lading.registry.server.content import Content
from lading.registry.server.exchange import Exchange
from lading.registry.server.failures import Refusal
from lading.registry.server.metrics import Metrics
from lading.registry.server.mirror import Mirror
from lading.registry.server.paths import Route
from lading.registry.server.uploads import Uploads

_log = logging.getLogger("lading.registry")
_READS = frozenset(("GET", "HEAD"))
# A page shown in a browser may link here, but its scripts may not send requests here: the registry on this machine's
# loopback address usually asks for no password (Fetch standard, Sec-Fetch-Mode).
_SCRIPTS = frozenset(("cors", "no-cors", "same-origin", "websocket"))


class Users(Protocol):
    """Who may come in: the user that an Authorization header proves, or Unauthenticated."""

    def check(self, header: str) -> str: ...


class Service:
    """One registry. `log` takes the access log's lines. With a `mirror` it only serves what that brings."""

    def __init__(
        self,
        content: Content,
        *,
        read_only: bool = False,
        users: Users | None = None,
        mirror: Mirror | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.content = content
        self.uploads = Uploads(content.blobs.writer)
        self.metrics = Metrics()
        self._read_only = read_only or mirror is not None
        self._mirror = mirror
        self._users = users
        self._line = log

    def one(self, connection: Connection, remote: str, began: Callable[[], None]) -> bool:
        """One request and its answer; whether another may follow. `began` is called once its head is there."""
        try:
            request = connection.next_request()
        except LadingError as error:
            if not isinstance(error, ClientGone):
                self._fail(Exchange(connection, "", "", {}), error, close=True)
            return False
        if request is None:
            return False
        began()
        started = time.monotonic()
        x = Exchange(
            connection,
            request.method.decode("ascii"),
            request.target.decode("latin-1"),
            dict(request.headers),
        )
        whole = False
        try:
            whole = self._answer(x)
        finally:
            done = metrics.Done(
                remote,
                x.user,
                x.method,
                x.path,
                x.status or 499,  # nobody was there to be answered
                x.received,
                x.sent,
                time.monotonic() - started,
                x.header(b"user-agent"),
            )
            self.metrics.add(done)
            self._line(metrics.line(done))
        return whole and connection.finish()

    def _answer(self, x: Exchange) -> bool:
        """Whether the answer went out whole."""
        try:
            self._handle(x)
        except ClientGone:
            return False
        except LadingError as error:
            if x.connection.answered:
                _log.warning("%s %s broke off: %s", x.method, x.path[:200], error)
                return False
            return self._fail(x, error)
        except Exception:
            # A bug. Its trace goes to the log; the client learns that it is one.
            _log.exception("%s %s failed", x.method, x.path[:200])
            if x.connection.answered:
                return False
            return self._fail(x, Refusal(500, failures.UNKNOWN, "the registry failed at this request"))
        return True

    def _fail(self, x: Exchange, error: LadingError, *, close: bool = False) -> bool:
        status, code = failures.explain(error)
        headers: Headers = list(error.headers) if isinstance(error, Refusal) else []
        if status == 401:
            headers.append(("WWW-Authenticate", 'Basic realm="lading", charset="UTF-8"'))
        if close:
            headers.append(("Connection", "close"))
        if status >= 500:
            _log.error("%s %s: %s", x.method, x.path[:200], error)
        message = str(error) if not isinstance(error, Unauthenticated) else error.what
        try:
            x.reply(status, headers, failures.body(code, message), "application/json")
        except ClientGone:
            return False
        return True

    def _handle(self, x: Exchange) -> None:
        if x.header(b"origin") or x.header(b"sec-fetch-mode") in _SCRIPTS:
            raise Refusal(403, failures.DENIED, "requests of web pages' scripts are refused")
        if self._users is not None:
            x.user = self._users.check(x.header(b"authorization"))
        route = paths.parse(x.path)
        method = "GET" if x.method == "HEAD" else x.method
        handler = _HANDLERS.get((route.kind, method))
        if handler is None or (self._read_only and x.method not in _READS):
            # What cannot be done at all, and what this registry does not do, are both 405 in the specification.
            allowed = sorted({verb for kind, verb in _HANDLERS if kind == route.kind})
            allowed = [verb for verb in allowed if verb in _READS or not self._read_only]
            why = "It is read-only." if self._read_only and handler is not None else ""
            raise Refusal(
                405,
                failures.UNSUPPORTED,
                f"this registry has no {x.method[:16]} here",
                why=why,
                headers=(("Allow", ", ".join(allowed)),),
            )
        handler(self, x, route)

    def blob(self, x: Exchange, route: Route) -> None:
        """GET of a blob, which a mirror fetches first."""
        if self._mirror is not None:
            self._mirror.blob(route.name, route.reference)
        pull.blob(self.content, x, route.name, route.reference)

    def manifest(self, x: Exchange, route: Route) -> None:
        """GET of a manifest, which a mirror fetches first."""
        if self._mirror is not None:
            self._mirror.manifest(route.name, route.reference)
        pull.manifest(self.content, x, route.name, route.reference)

    def page(self, x: Exchange) -> None:
        """GET /metrics."""
        repositories, manifests, tags, blobs = self.content.catalog.count()
        text = self.metrics.text(
            {
                "uploads_in_progress": ("Blob uploads under way.", len(self.uploads)),
                "repositories": ("Repositories that have a manifest.", repositories),
                "manifests": ("Manifests, in all repositories.", manifests),
                "tags": ("Tags, in all repositories.", tags),
                "blobs": ("Blobs, each counted once.", blobs),
            }
        )
        x.reply(200, [], text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def close(self) -> None:
        self.uploads.close()


_Handler = Callable[[Service, Exchange, Route], None]
_HANDLERS: dict[tuple[str, str], _Handler] = {
    ("base", "GET"): lambda s, x, r: x.json({}),
    ("metrics", "GET"): lambda s, x, r: s.page(x),
    ("catalog", "GET"): lambda s, x, r: discovery.repositories(s.content, x),
    ("tags", "GET"): lambda s, x, r: discovery.tags(s.content, x, r.name),
    ("referrers", "GET"): lambda s, x, r: discovery.referrers(s.content, x, r.name, r.reference),
    ("blob", "GET"): lambda s, x, r: s.blob(x, r),
    ("blob", "DELETE"): lambda s, x, r: push.delete_blob(s.content, x, r.name, r.reference),
    ("manifest", "GET"): lambda s, x, r: s.manifest(x, r),
    ("manifest", "PUT"): lambda s, x, r: push.manifest(s.content, x, r.name, r.reference),
    ("manifest", "DELETE"): lambda s, x, r: push.delete_manifest(s.content, x, r.name, r.reference),
    ("uploads", "POST"): lambda s, x, r: push.start(s.content, s.uploads, x, r.name),
    ("upload", "GET"): lambda s, x, r: push.status(s.uploads, x, r.name, r.reference),
    ("upload", "PATCH"): lambda s, x, r: push.chunk(s.uploads, x, r.name, r.reference),
    ("upload", "PUT"): lambda s, x, r: push.finish(s.content, s.uploads, x, r.name, r.reference),
    ("upload", "DELETE"): lambda s, x, r: push.cancel(s.uploads, x, r.name, r.reference),
}
