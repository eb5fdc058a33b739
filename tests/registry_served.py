"""A registry on a loopback port for tests, and a small client that shows every header. Owns nothing of the server."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lading.http.connection import Patience
from lading.registry.server.content import Content
from lading.registry.server.mirror import Mirror
from lading.registry.server.server import PATIENCE, Server
from lading.registry.server.service import Service, Users
from lading.store.blobs import Blobs
from lading.store.database import Database

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error's code."""
        return str(self.json["errors"][0]["code"])

    @property
    def location(self) -> str:
        return self.headers["location"]


class Peer:
    """HTTP to one registry, a connection a request."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address

    def __call__(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def blob(self, repo: str, data: bytes) -> str:
        """Push a blob in one piece; its digest."""
        answer = self("POST", f"/v2/{repo}/blobs/uploads/?digest={quote(sha(data))}", data)
        assert answer.status == 201, answer
        return sha(data)

    def manifest(
        self, repo: str, reference: str, document: Mapping[str, Any], kind: str = OCI_MANIFEST
    ) -> Answer:
        return self(
            "PUT", f"/v2/{repo}/manifests/{reference}", json.dumps(document).encode(), Content_Type=kind
        )

    def image(self, repo: str, tag: str, layer: bytes = b"layer") -> str:
        """Push a whole small image; its manifest's digest."""
        document = image(self.blob(repo, b"{}"), 2, self.blob(repo, layer), len(layer))
        answer = self.manifest(repo, tag, document)
        assert answer.status == 201, answer
        return answer.headers["docker-content-digest"]


def descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def image(config: str, config_size: int, layer: str = "", layer_size: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config, config_size),
        "layers": [descriptor(OCI_LAYER, layer, layer_size)] if layer else [],
        **more,
    }


@dataclass
class Served:
    """One running registry. `lines` is its access log."""

    peer: Peer
    service: Service
    server: Server
    content: Content
    blobs: Blobs
    lines: list[str]

    def logged(self, count: int) -> list[dict[str, Any]]:
        """The access log once it has `count` lines: a line is written after its answer."""
        deadline = time.monotonic() + 5
        while len(self.lines) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return [json.loads(line) for line in self.lines]

    def files(self) -> list[str]:
        """Every file of the blob store, unfinished ones too."""
        return sorted(path.name for path in Path(f"{self.blobs.root}/sha256").iterdir())


@contextlib.contextmanager
def served(
    root: Path,
    *,
    local: Blobs | None = None,
    read_only: bool = False,
    users: Users | None = None,
    mirror: Callable[[Content], Mirror] | None = None,
    tls: Any = None,
    patience: Patience = PATIENCE,
    most: int = 64,
) -> Iterator[Served]:
    blobs, db = Blobs(f"{root}/blobs"), Database(f"{root}/registry.db")
    content, lines = Content(blobs, db, local), []
    service = Service(
        content,
        read_only=read_only,
        users=users,
        mirror=mirror(content) if mirror else None,
        log=lines.append,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(service, listener, tls=tls, patience=patience, most=most)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield Served(Peer(server.address), service, server, content, blobs, lines)
    finally:
        server.shutdown()
        thread.join(20)
        db.close()
        assert not thread.is_alive()
