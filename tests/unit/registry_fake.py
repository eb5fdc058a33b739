"""A registry in a thread that keeps every rule until a test tells it to break one. Records what it was asked."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from image_archives import directory, file, tar

from lading.image import descriptor, digest

Hook = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry  # type: ignore[assignment]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        """An answer; header names are written with _ for -. A None leaves a header out."""
        self.send_response(status)
        sent = {"Content_Length": len(body), **headers}
        for name, value in sent.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _serve(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        try:
            for pattern, hook in self.server.hooks:
                if re.fullmatch(pattern, f"{self.command} {self.path}"):
                    hook(self)
                    return
            if self.server.authorized(self):
                self._route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

    def _route(self) -> None:
        server = self.server
        path, _, query = self.path.partition("?")
        if path == "/v2/":
            self.answer(200)
        elif found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            self._manifest(found[1], found[2])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", path):
            self._blob(found[2])
        elif re.fullmatch(r"/v2/.+/blobs/uploads/", path) and self.command == "POST":
            self.body()
            mount = re.search(r"mount=(sha256:[0-9a-f]+)", query)
            if mount and mount[1] in server.mountable:
                server.blobs[mount[1]] = server.mountable[mount[1]]
                self.answer(201)
                return
            server.uploads["u1"] = b""
            self.answer(202, Location=f"{path}u1?state=a%2Fb")
        elif path.endswith("/u1"):
            self._upload(path, query)
        else:
            self.answer(404)

    def _manifest(self, repository: str, reference: str) -> None:
        server = self.server
        if self.command == "PUT":
            data = self.body()
            found = digest.of(data)
            for name in (reference, found):
                server.manifests[name] = (self.headers["Content-Type"], data)
            self.answer(201, Docker_Content_Digest=found)
            return
        if reference not in server.manifests:
            said = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self.answer(404, json.dumps(said).encode(), Content_Type="application/json")
            return
        media, data = server.manifests[reference]
        self.answer(200, data, Content_Type=media, Docker_Content_Digest=digest.of(data))

    def _blob(self, name: str) -> None:
        data = self.server.blobs.get(name)
        if data is None:
            self.answer(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            start = int(asked[1])
            self.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.answer(200, data)

    def _upload(self, path: str, query: str) -> None:
        server = self.server
        server.uploads["u1"] += self.body()
        if self.command == "PATCH":
            self.answer(202, Location=f"{path}?state=a%2Fb", Range=f"0-{len(server.uploads['u1']) - 1}")
            return
        assert self.command == "PUT" and query.startswith("state=a%2Fb&digest=")
        data = server.uploads.pop("u1")
        if digest.of(data) != query.rpartition("=")[2]:
            self.answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            return
        server.blobs[digest.of(data)] = data
        self.answer(201)


class Registry(ThreadingHTTPServer):
    """State and rules of the fake; `password` and `token` switch on basic and bearer authentication."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.mountable: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.hooks: list[tuple[str, Hook]] = []
        self.ranges = True
        self.password = ""
        self.token = ""
        self.realm = f"{self.url}/token"

    @property
    def domain(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.domain}"

    def on(self, pattern: str, hook: Hook) -> None:
        """`hook` answers requests whose "METHOD /path" is `pattern`."""
        self.hooks.append((pattern, hook))

    def authorized(self, handler: Handler) -> bool:
        said = handler.headers.get("Authorization", "")
        basic = "Basic " + base64.b64encode(f"ada:{self.password}".encode()).decode()
        if self.token:
            if handler.path.startswith("/token"):
                if self.password and said != basic:
                    handler.answer(401)
                else:
                    handler.answer(200, json.dumps({"token": self.token, "expires_in": 300}).encode())
                return False
            if said != f"Bearer {self.token}":
                handler.body()
                challenge = f'Bearer realm="{self.realm}",service="fake",scope="repository:a:pull"'
                handler.answer(401, WWW_Authenticate=challenge)
                return False
        elif self.password and said != basic:
            handler.body()
            handler.answer(401, WWW_Authenticate='Basic realm="fake"')
            return False
        return True

    # --- content ---

    def blob(self, data: bytes) -> tuple[str, int]:
        self.blobs[digest.of(data)] = data
        return digest.of(data), len(data)

    def layer(self, name: str = "hello", data: bytes = b"data") -> tuple[dict[str, Any], str]:
        """(descriptor, diffID) of a gzip layer with one file."""
        plain = tar(directory("d"), file(f"d/{name}", data)).getvalue()
        found, size = self.blob(gzip.compress(plain, 1, mtime=0))
        return {"mediaType": descriptor.OCI_LAYER_GZIP, "digest": found, "size": size}, digest.of(plain)

    def config(self, diff_ids: list[str], architecture: str = "amd64") -> dict[str, Any]:
        made = {
            "os": "linux",
            "architecture": architecture,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        found, size = self.blob(json.dumps(made).encode())
        return {"mediaType": descriptor.OCI_CONFIG, "digest": found, "size": size}

    def document(self, value: Any, *names: str, media: str = "") -> str:
        """Store a manifest or index (or raw bytes) under names and its digest."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        sent_as = media or (value["mediaType"] if isinstance(value, dict) else descriptor.OCI_MANIFEST)
        for name in (*names, digest.of(data)):
            self.manifests[name] = (sent_as, data)
        return digest.of(data)

    def image(
        self, *names: str, layers: int = 1, architecture: str = "amd64", **changes: Any
    ) -> dict[str, Any]:
        """A whole image; `changes` replace members of its manifest."""
        made = [self.layer(f"f{number}") for number in range(layers)]
        value = {
            "schemaVersion": 2,
            "mediaType": descriptor.OCI_MANIFEST,
            "config": self.config([diff_id for _, diff_id in made], architecture),
            "layers": [layer for layer, _ in made],
        } | changes
        self.document(value, *names)
        return value


@contextmanager
def serving() -> Iterator[Registry]:
    registry = Registry()
    thread = threading.Thread(target=registry.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.shutdown()
        registry.server_close()
        thread.join()


def closed_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
