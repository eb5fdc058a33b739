"""A daemon that answers from a table: real HTTP over a unix socket, hijacked streams too.

Routes are tried in order: (method, path expression, handler). A handler gets the Request and returns a status with a
JSON value, or takes the connection over by writing to `request.sock` itself and returning None.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Handler = Callable[["Request"], Any]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    sock: socket.socket
    match: re.Match[str] | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class Daemon:
    """Serves until closed; `requests` is what came, in order."""

    path: str
    requests: list[Request] = field(default_factory=list)
    routes: list[tuple[str, re.Pattern[str], Handler]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.on("GET|HEAD", "/_ping", lambda _: "OK")
        self.on(
            "GET",
            "/version",
            lambda _: {"Version": "1.0", "ApiVersion": "1.50", "MinAPIVersion": "1.24", "Os": "linux"},
        )
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    def on(self, method: str, path: str, handler: Handler) -> None:
        self.routes.insert(0, (method, re.compile(path), handler))

    def close(self) -> None:
        self.listener.close()

    def last(self, method: str, path: str) -> Request:
        found = [r for r in self.requests if r.method == method and re.fullmatch(path, r.path)]
        assert found, f"no {method} {path} among {[(r.method, r.path) for r in self.requests]}"
        return found[-1]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        try:
            while self._one(sock, stream):
                pass
        except (BrokenPipeError, ConnectionResetError, ValueError):
            pass
        finally:
            stream.close()
            sock.close()

    def _one(self, sock: socket.socket, stream: Any) -> bool:
        line = stream.readline().decode()
        if not line.strip():
            return False
        method, target, _ = line.split()
        headers = {}
        while (text := stream.readline().decode().strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        url = urllib.parse.urlsplit(target)
        path = re.sub(r"^/v1\.\d+", "", urllib.parse.unquote(url.path))
        body = self._body(stream, headers)
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        request = Request(method, path, query, headers, body, sock)
        self.requests.append(request)
        for wanted, pattern, handler in self.routes:
            match = pattern.fullmatch(path)
            if re.fullmatch(wanted, method) and match:
                request.match = match
                answer = handler(request)
                if answer is None:
                    return False
                status, value = answer if isinstance(answer, tuple) else (200, answer)
                respond(sock, status, value, head=method == "HEAD")
                return True
        respond(sock, 404, {"message": f"no route {method} {path}"})
        return True

    def _body(self, stream: Any, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(stream.readline(), 16):
                parts.append(stream.read(size))
                stream.readline()
            stream.readline()
            return b"".join(parts)
        return bytes(stream.read(int(headers.get("content-length", 0))))


def respond(sock: socket.socket, status: int, value: Any, head: bool = False) -> None:
    data = (
        value
        if isinstance(value, bytes)
        else value.encode()
        if isinstance(value, str)
        else json.dumps(value).encode()
    )
    kind = "text/plain" if isinstance(value, str) else "application/json"
    if status == 204:
        sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        return
    lines = f"HTTP/1.1 {status} X\r\nApi-Version: 1.50\r\nOstype: linux\r\nContent-Type: {kind}\r\n"
    sock.sendall(f"{lines}Content-Length: {len(data)}\r\n\r\n".encode() + (b"" if head else data))


def chunked(sock: socket.socket, pieces: list[bytes], kind: str = "application/json") -> None:
    sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for piece in pieces:
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    sock.sendall(b"0\r\n\r\n")


def upgrade(sock: socket.socket, framed: bool) -> None:
    kind = "multiplexed" if framed else "raw"
    sock.sendall(
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
    )


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class Container:
    """A scripted container on a Daemon: created, attached, started; `script(container, stdio)` is what it does."""

    ID = "c0ffee" + "0" * 58

    def __init__(
        self, daemon: Daemon, script: Callable[[Container, Callable[[int, bytes], None]], int]
    ) -> None:
        self.daemon, self.script = daemon, script
        self.body: dict[str, Any] = {}
        self.stdin = bytearray()
        self.stdin_closed = threading.Event()
        self.signals: list[str] = []
        self.signalled = threading.Event()
        self.sizes: list[tuple[str, str]] = []
        self.started = threading.Event()
        self.ended = threading.Event()
        self.code = 0
        self.hint = ""
        daemon.on("POST", "/containers/create", self._create)
        daemon.on("POST", "/containers/[^/]+/attach", self._attach)
        daemon.on("POST", "/containers/[^/]+/wait", self._wait)
        daemon.on("POST", "/containers/[^/]+/start", self._start)
        daemon.on("POST", "/containers/[^/]+/kill", self._kill)
        daemon.on("POST", "/containers/[^/]+/resize", self._resize)
        daemon.on("DELETE", "/containers/[^/]+", lambda _: (204, b""))

    def _create(self, request: Request) -> Any:
        self.body = request.json
        return 201, {"Id": self.ID, "Warnings": []}

    def _attach(self, request: Request) -> None:
        framed = not self.body.get("Tty")
        upgrade(request.sock, framed)

        def write(stream: int, data: bytes) -> None:
            request.sock.sendall(frame(stream, data) if framed else data)

        reader = threading.Thread(target=self._read, args=(request.sock,), daemon=True)
        reader.start()
        self.started.wait(10)
        try:
            self.code = self.script(self, write)
        except BrokenPipeError:
            pass
        finally:
            self.ended.set()
            request.sock.shutdown(socket.SHUT_RDWR)

    def _read(self, sock: socket.socket) -> None:
        try:
            while data := sock.recv(65536):
                self.stdin += data
        except OSError:
            pass
        self.stdin_closed.set()

    def _wait(self, request: Request) -> None:
        request.sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.ended.wait(20)
        answer = {"StatusCode": self.code} | ({"Hint": self.hint} if self.hint else {})
        data = json.dumps(answer).encode()
        request.sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    def _start(self, _request: Request) -> Any:
        self.started.set()
        return 204, b""

    def _kill(self, request: Request) -> Any:
        self.signals.append(request.query["signal"][0])
        self.signalled.set()
        return 204, b""

    def _resize(self, request: Request) -> Any:
        self.sizes.append((request.query["h"][0], request.query["w"][0]))
        return 200, b""


def lading(
    daemon: Daemon | None,
    *argv: str,
    stdin: bytes | int = b"",
    environ: dict[str, str] | None = None,
    cwd: str | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the real command line in a process of its own."""
    env = {**os.environ, "TZ": "UTC", **(environ or {})}
    env.pop("LADING_HOST", None)
    host = ["-H", daemon.host] if daemon else []
    piped: dict[str, Any] = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
    return subprocess.run(
        [sys.executable, "-m", "lading", *host, *argv],
        capture_output=True,
        timeout=30,
        env=env,
        cwd=cwd,
        check=False,
        **piped,
    )
