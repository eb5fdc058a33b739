"""HTTP itself: framing, bounds, versions, keep-alive, hang-ups, and that one client cannot harm another."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from api_fake import FakeEngine

from lading.api.server import Server, listen_unix, serve_connection

Call = Callable[..., tuple[int, Any]]


class Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lading")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


@pytest.fixture
def engine(tmp_path: Any) -> FakeEngine:
    return FakeEngine(str(tmp_path / "scratch"))


@pytest.fixture
def served(engine: FakeEngine, tmp_path: Any) -> Iterator[tuple[str, Server]]:
    path = str(tmp_path / "s")
    server = Server(engine, [listen_unix(path)])
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield path, server
    server.shutdown()
    thread.join(5)
    assert not thread.is_alive()


def raw(path: str, data: bytes) -> bytes:
    """Send bytes, half-close, and read everything that comes back."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        found = b""
        while piece := sock.recv(65536):
            found += piece
        return found


def get(path: str, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    peer = Unix(path)
    peer.request(method, target)
    answer = peer.getresponse()
    try:
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        peer.close()


def test_ping_tells_the_api_version_and_the_classic_builder(served: tuple[str, Server]) -> None:
    status, headers, body = get(served[0], "/_ping")
    assert (status, body) == (200, b"OK")
    assert headers["api-version"] == "1.54"
    assert headers["builder-version"] == "1"
    assert headers["ostype"] == "linux"
    assert headers["docker-experimental"] == "false"
    status, headers, body = get(served[0], "/v1.41/_ping", "HEAD")
    assert (status, body, headers["api-version"]) == (200, b"", "1.54")


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("/nope", 404, "page not found"),
        ("/containers/create", 404, "page not found"),  # GET on what only takes POST
        ("/v1.41", 404, "page not found"),
        ("/v1.23/info", 400, "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.54"),
        ("/containers/x/json", 404, "No such container: x"),
        ("/containers/json?filters=%7B", 400, "filters of the query is not valid JSON"),
        ("/containers/json?filters=%7B%22a%22:1%7D", 400, 'invalid filter "a"'),
        ("/containers/json?limit=x", 400, 'invalid value "x" for limit'),
        ("/swarm", 503, "This node is not a swarm manager"),
    ],
)
def test_errors_are_json_messages(served: tuple[str, Server], target: str, status: int, message: str) -> None:
    got, headers, body = get(served[0], target)
    assert got == status
    assert headers["content-type"] == "application/json"
    found = json.loads(body)
    assert list(found) == ["message"]
    assert message in found["message"]


def test_one_connection_answers_many_requests(served: tuple[str, Server]) -> None:
    peer = Unix(served[0])
    for _ in range(20):
        peer.request("GET", "/v1.44/info")
        answer = peer.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["Socket"] == "/s"
    assert served[1].connections == 1
    peer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n\r\n",  # no Host
        b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_bytes_that_are_no_http_get_400_and_the_end(served: tuple[str, Server], data: bytes) -> None:
    answer = raw(served[0], data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in answer


def test_another_version_of_http_is_refused(served: tuple[str, Server]) -> None:
    assert raw(served[0], b"GET /_ping HTTP/2.0\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 505 ")


def test_a_head_without_end_is_refused(served: tuple[str, Server]) -> None:
    answer = raw(served[0], b"GET /_ping HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (128 << 10))
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_json_body_has_a_bound(served: tuple[str, Server]) -> None:
    body = b'{"Image": "' + b"a" * (5 << 20) + b'"}'
    head = b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = raw(served[0], head + body)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_expects_is_told_to_continue_only_when_its_body_is_wanted(
    served: tuple[str, Server],
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(served[0])
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 19\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head % b"/containers/create")
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 Continue\r\n")
        sock.sendall(b'{"Image":"busybox"}')
        assert sock.recv(4096).startswith(b"HTTP/1.1 201 ")
        sock.sendall(head % b"/nope")
        assert sock.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_an_unread_body_does_not_lose_the_answer(served: tuple[str, Server]) -> None:
    body = b"x" * (3 << 20)
    head = b"POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert raw(served[0], head + body + b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n").count(b"HTTP/1.1 ") == 2


def test_a_bug_is_answered_without_a_trace(
    served: tuple[str, Server], engine: FakeEngine, caplog: Any
) -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError("secret detail")

    engine.system.info = broken  # type: ignore[method-assign]
    status, _, body = get(served[0], "/info")
    assert status == 500
    assert "message" in json.loads(body)
    assert b"secret" not in body
    assert b"Traceback" not in body
    assert "ZeroDivisionError" in caplog.text


def test_a_stalled_client_stalls_nobody(served: tuple[str, Server]) -> None:
    stalled = []
    for data in (
        b"",
        b"GET /_p",
        b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
    ):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(served[0])
        sock.sendall(data)
        stalled.append(sock)
    start = time.monotonic()
    assert get(served[0], "/_ping")[0] == 200
    assert time.monotonic() - start < 1
    for sock in stalled:
        sock.close()


def test_the_socket_is_for_owner_and_group(served: tuple[str, Server]) -> None:
    mode = os.stat(served[0]).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


def test_a_stale_socket_is_replaced(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    listen_unix(path).close()
    with listen_unix(path), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
    assert os.listdir(tmp_path) == ["s"]


def test_idle_exit_waits_for_connections_and_for_the_engine(engine: FakeEngine, tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    engine.is_idle = False
    server = Server(engine, [listen_unix(path)], idle_exit=0.1)
    thread = threading.Thread(target=server.serve)
    thread.start()
    thread.join(1.5)
    assert thread.is_alive(), "the engine was busy"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        engine.is_idle = True
        thread.join(1.5)
        assert thread.is_alive(), "a client was connected"
    thread.join(5)
    assert not thread.is_alive()


def test_shutdown_ends_idle_connections(engine: FakeEngine, tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    server = Server(engine, [listen_unix(path)])
    thread = threading.Thread(target=server.serve)
    thread.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096)
        server.shutdown()
        thread.join(5)
        assert not thread.is_alive()
        assert sock.recv(4096) == b""


def test_in_process_over_a_socketpair(engine: FakeEngine) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_connection, args=(engine, theirs))
    thread.start()
    peer = http.client.HTTPConnection("lading")
    peer.sock = ours
    peer.request("GET", "/info")
    assert json.loads(peer.getresponse().read())["ID"] == "x"
    peer.close()
    thread.join(5)
    assert not thread.is_alive()


def test_events_end_when_the_client_goes(served: tuple[str, Server], engine: FakeEngine) -> None:
    peer = Unix(served[0])
    peer.request("GET", "/v1.51/events")
    line = json.loads(peer.getresponse().readline())
    assert (line["status"], line["from"], line["Action"]) == ("start", "busybox", "start")
    assert line["timeNano"] == 1767323045_123456789
    peer.close()
    assert engine.events.stopped.wait(5)
    status, _, body = get(served[0], "/v1.52/events?until=1")
    assert status == 200
    assert "status" not in json.loads(body)


def test_a_waiting_client_that_goes_frees_its_thread(served: tuple[str, Server], engine: FakeEngine) -> None:
    from lading.engine.model import Config, CreateRequest

    ref, _ = engine.containers.create(CreateRequest(Config(image="busybox", cmd=("sleep",))))
    engine.containers.start(ref)
    peer = Unix(served[0])
    peer.request("POST", f"/containers/{ref}/wait")
    assert peer.getresponse().status == 200
    assert served[1].connections == 1
    peer.sock.close()
    peer.close()
    deadline = time.monotonic() + 5
    while served[1].connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served[1].connections == 0
    engine.containers.stop(ref, 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:2375"}, 200),
        ({"Host": "[::1]:2375"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "rebound.example:2375"}, 403),
        ({"Host": "127.0.0.1:2375", "Origin": "http://page.example"}, 403),
    ],
)
def test_over_tcp_web_pages_are_refused(engine: FakeEngine, headers: dict[str, str], status: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(engine, [listener])
    address = listener.getsockname()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        peer = http.client.HTTPConnection(*address, timeout=5)
        peer.request("GET", "/_ping", headers=headers)
        assert peer.getresponse().status == status
        peer.close()
    finally:
        server.shutdown()
        thread.join(5)
