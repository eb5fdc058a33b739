"""HTTP/1.1 to registries: connections that are kept, TLS, proxies, time limits. Owns sockets; knows no registry.

One Wire serves one pull or push and is closed, or aborted from another thread, with it. Nothing here retries,
follows a redirect or adds credentials: `remote.py` decides that.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lading import __version__
from lading.base import errors
from lading.registry.client.origin import Origin, Url

Body = bytes | Iterable[bytes] | None
CHUNK = 256 << 10
_USER_AGENT = f"lading/{__version__}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds. `rate` is the bytes a second below which a transfer counts as stalled."""

    connect: float = 20.0
    head: float = 60.0  # until the whole head of an answer is there
    window: float = 30.0  # the time over which the rate is looked at, and the longest silence
    rate: int = 512
    attempts: int = 5
    backoff: float = 0.4  # doubled with every attempt


PATIENCE = Patience()


class Broken(errors.Unavailable):
    """The connection failed or went silent. Trying again may help."""


class Unreachable(Broken):
    """No connection could be made at all."""


class Response:
    """An answer whose body is read with `read`. Close it; a connection whose body was read to its end is kept."""

    def __init__(
        self, wire: Wire, url: Url, raw: http.client.HTTPResponse, conn: http.client.HTTPConnection
    ) -> None:
        self._wire, self._raw, self._conn = wire, raw, conn
        self.url = url
        self.status = raw.status
        self.headers = raw.headers
        self._start, self._count = time.monotonic(), 0

    def header(self, name: str) -> str:
        """One header's value; "" where absent. Of several the first."""
        return self.headers.get(name, "") or ""

    @property
    def length(self) -> int | None:
        """What Content-Length promises."""
        return self._raw.length

    def read(self, size: int = CHUNK) -> bytes:
        """What has come, up to `size` bytes; b"" at the end. Broken when it stalls."""
        try:
            data = self._raw.read1(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _translate(self.url.origin, error, "the connection broke") from error
        self._count += len(data)
        patience = self._wire.patience
        elapsed = time.monotonic() - self._start
        if elapsed > patience.window:
            if self._count < patience.rate * elapsed:
                raise Broken(
                    f"{self.url.origin} sends too slowly", why=f"{self._count} bytes in {elapsed:.0f} s."
                )
            self._start, self._count = time.monotonic(), 0
        return data

    def text(self, limit: int) -> bytes:
        """The whole body; Invalid when it is larger than `limit`, Broken when it ends early."""
        promised, parts, size = self.length, [], 0
        if promised is not None and promised > limit:
            raise errors.Invalid(f"{self.url.shown} is larger than {limit} bytes")
        while data := self.read():
            parts.append(data)
            size += len(data)
            if size > limit:
                raise errors.Invalid(f"{self.url.shown} is larger than {limit} bytes")
        if promised is not None and size < promised:
            raise Broken(f"{self.url.shown} ended early", why=f"{size} of {promised} bytes came.")
        return b"".join(parts)

    def close(self) -> None:
        self._wire.release(
            self.url.origin, self._conn, reuse=self._raw.isclosed() and not self._raw.will_close
        )

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wire:
    """Connections to any number of origins. Thread-safe."""

    def __init__(
        self,
        tls: Callable[[Origin], ssl.SSLContext],
        proxy: Callable[[Origin], str],
        patience: Patience = PATIENCE,
    ) -> None:
        self._tls, self._proxy, self.patience = tls, proxy, patience
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._aborted = False

    def request(self, method: str, url: Url, headers: Mapping[str, str], body: Body = None) -> Response:
        """Send one request and wait for the answer's head; Broken when that fails."""
        conn = self._connection(url.origin)
        try:
            with self._deadline(conn):
                conn.request(
                    method, self._target(url, conn), body=body, headers={"User-Agent": _USER_AGENT, **headers}
                )
                raw = conn.getresponse()
            return Response(self, url, raw, conn)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.release(url.origin, conn, reuse=False)
            raise _translate(url.origin, error, "the request failed") from error
        except BaseException:
            self.release(url.origin, conn, reuse=False)
            raise

    def _target(self, url: Url, conn: http.client.HTTPConnection) -> str:
        """Through a proxy for plain HTTP the whole URL is the target (RFC 9112, 3.2.2)."""
        proxied = not url.origin.secure and self._proxy(url.origin)
        return str(url) if proxied else url.target

    @contextlib.contextmanager
    def _deadline(self, conn: http.client.HTTPConnection) -> Iterator[None]:
        """Cut the connection when the head takes too long in all: a time-out of each recv(2) never ends a server that
        sends one byte a second.
        """
        late = threading.Event()

        def cut() -> None:
            late.set()
            _cut(conn)

        timer = threading.Timer(self.patience.head, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError):
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if late.is_set():  # what was read may be half a head, which http.client takes for a whole one
            raise TimeoutError

    def _connection(self, origin: Origin) -> http.client.HTTPConnection:
        conn: http.client.HTTPConnection | None = None
        with self._lock:
            idle = self._idle.get(origin, [])
            while idle and conn is None:
                candidate = idle.pop()
                if _fresh(candidate):
                    conn = candidate
                else:
                    candidate.close()
            if conn is None:
                conn = self._new(origin)
            self._busy.add(conn)
            if self._aborted:
                self._busy.discard(conn)
                raise errors.Cancelled("the transfer was cancelled")
        try:
            if conn.sock is None:
                _connect(conn, self.patience.window)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.release(origin, conn, reuse=False)
            raise _translate(origin, error, "it cannot be reached", Unreachable) from error
        return conn

    def _new(self, origin: Origin) -> http.client.HTTPConnection:
        proxy = self._proxy(origin)
        host, port, headers = (origin.host, origin.port, {}) if not proxy else _proxy_parts(proxy)
        patience = self.patience.connect
        conn: http.client.HTTPConnection
        if origin.secure:
            conn = http.client.HTTPSConnection(host, port, timeout=patience, context=self._tls(origin))
            if proxy:
                conn.set_tunnel(origin.host, origin.port, headers)
        else:
            conn = http.client.HTTPConnection(host, port, timeout=patience)
        conn.blocksize = CHUNK
        return conn

    def release(self, origin: Origin, conn: http.client.HTTPConnection, *, reuse: bool) -> None:
        """Take a connection back."""
        with self._lock:
            self._busy.discard(conn)
            if reuse and not self._aborted and conn.sock is not None:
                self._idle.setdefault(origin, []).append(conn)
                return
        conn.close()

    def abort(self) -> None:
        """Cut every connection, so that whoever waits on one stops."""
        with self._lock:
            self._aborted = True
            busy = list(self._busy)
        for conn in busy:
            _cut(conn)
        self.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for conns in idle.values():
            for conn in conns:
                conn.close()


def _connect(conn: http.client.HTTPConnection, window: float) -> None:
    """Connect; from then on every silence is bounded by the window."""
    conn.connect()
    conn.sock.settimeout(window)


def _cut(conn: http.client.HTTPConnection) -> None:
    sock = conn.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            # Below TLS: SSLSocket.shutdown would take the TLS state away from the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _fresh(conn: http.client.HTTPConnection) -> bool:
    """Nothing is readable on an idle connection that still lives; an end or stray bytes are."""
    if conn.sock is None:
        return False
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return not poll.poll(0)


def _proxy_parts(text: str) -> tuple[str, int, dict[str, str]]:
    """(host, port, headers) of a proxy's URL."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise errors.Unsupported(
            "the proxy of this host cannot be used", why="Its URL must be http://host:port."
        )
    headers = {}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode()
    return host, port or 80, headers


def _translate(
    origin: Origin, error: Exception, what: str, kind: type[Broken] = Broken
) -> errors.LadingError:
    """An error of socket, TLS or HTTP in lading's words."""
    where = f"registry {origin.netloc}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.Unavailable(
            f"{where} has a certificate that cannot be trusted",
            why=f"{error.verify_message}.",
            hint=f"Put its CA into /etc/lading/certs.d/{origin.netloc}/ca.crt.",
        )
    if isinstance(error, TimeoutError):
        return kind(f"{where}: {what}", why="It does not answer in time.")
    if isinstance(error, socket.gaierror):
        return kind(f"{where}: {what}", why=f"Its name is not known: {error.strerror}.")
    if isinstance(error, ssl.SSLError):
        return kind(f"{where}: {what}", why=f"TLS fails: {error.reason or error}.")
    if isinstance(error, OSError):
        return kind(f"{where}: {what}", why=f"{error.strerror or error}.")
    return kind(f"{where}: {what}", why=f"It does not speak HTTP properly: {type(error).__name__}.")
