"""The Docker API over a unix socket, as little of it as the rows need. Owns the connection."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from bench.measure import Failed


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(120)
        self.sock.connect(self._path)


class Api:
    """One kept-alive connection."""

    def __init__(self, path: str) -> None:
        self._connection = _Connection(path)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer; Failed with the engine's message."""
        headers = {"Content-Type": "application/json", "Host": "localhost"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            said = " ".join(data.decode(errors="replace").split())[:160]
            raise Failed(f"{method} {path.partition('?')[0].rpartition('/')[2]}: {said}")
        return json.loads(data) if data.strip().startswith((b"{", b"[")) else None

    def create(self, image: str, command: list[str], network: str) -> str:
        """Id of a new container."""
        body = {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": network}}
        return str(self.call("POST", "/v1.41/containers/create", body)["Id"])

    def start(self, container: str) -> None:
        self.call("POST", f"/v1.41/containers/{container}/start")

    def wait(self, container: str) -> None:
        self.call("POST", f"/v1.41/containers/{container}/wait")

    def remove(self, container: str) -> None:
        self.call("DELETE", f"/v1.41/containers/{container}?force=1&v=1")
