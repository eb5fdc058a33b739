"""The HTTP client against a socketpair: framing in every size of piece, bounds, broken peers, hijacked streams."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lading.base import paths
from lading.base.errors import Denied, Invalid, Unsupported
from lading.client import api, endpoint, http, wire
from lading.client.http import Broken, Connection


def peer(answer: bytes, piece: int = 0, *, close: bool = True) -> tuple[Connection, socket.socket]:
    """A connection whose other side sends `answer`, cut into pieces, without reading anything."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        step = piece or len(answer) or 1
        try:
            for at in range(0, len(answer), step):
                theirs.sendall(answer[at : at + step])
                if piece:
                    time.sleep(0.0002)
            if close:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the test has seen enough and closed it

    threading.Thread(target=send, daemon=True).start()
    return Connection(ours), theirs


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    b"5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\n"
)
LENGTH = b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nhello world"
CLOSED = b"HTTP/1.0 200 OK\r\n\r\nhello world"


@pytest.mark.parametrize("piece", [0, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("answer", [CHUNKED, LENGTH, CLOSED], ids=["chunked", "length", "close"])
def test_bodies_arrive_whole_however_they_are_cut(answer: bytes, piece: int) -> None:
    connection, theirs = peer(answer, piece)
    with theirs:
        response = connection.receive()
        assert response.read() == b"hello world"
        assert response.read() == b"", "a body is read once"
        assert connection.busy == (answer is CLOSED)
        assert connection.buffer == b""
    connection.close()


def test_two_answers_on_one_connection() -> None:
    connection, theirs = peer(CHUNKED + b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH, 5)
    with theirs:
        first = connection.receive()
        assert (first.status, first.headers["x"], first.read()) == (200, "y", b"hello world")
        second = connection.receive()
        assert (second.status, second.reason, second.read()) == (404, "Not Found", b"hello world")


@pytest.mark.parametrize(
    ("answer", "method"),
    [(b"HTTP/1.1 204 No Content\r\n\r\n", "GET"), (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "HEAD")],
)
def test_answers_without_a_body(answer: bytes, method: str) -> None:
    connection, theirs = peer(answer, close=False)
    with theirs:
        assert connection.receive(method).read() == b""
        assert not connection.busy


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"X" * (http.HEAD_LIMIT + 70000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 20 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
def test_a_broken_peer_is_an_error_and_no_hang(answer: bytes) -> None:
    connection, theirs = peer(answer)
    with theirs, pytest.raises(Broken):
        connection.receive().read()


def test_a_body_has_a_limit() -> None:
    connection, theirs = peer(LENGTH)
    with theirs, pytest.raises(Broken, match="longer than 10 bytes"):
        connection.receive().read(10)


def received(sock: socket.socket) -> bytes:
    data = b""
    sock.settimeout(5)
    while piece := sock.recv(65536):
        data += piece
    return data


def test_requests_on_the_wire() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    connection.send("POST", "/a", b"body", {"Content-Type": "t"})
    connection.send("GET", "/b")
    connection.send("POST", "/c", iter([b"one", b"", b"three"]))
    ours.shutdown(socket.SHUT_WR)
    assert received(theirs) == (
        b"POST /a HTTP/1.1\r\nHost: lading\r\nContent-Type: t\r\nContent-Length: 4\r\n\r\nbody"
        b"GET /b HTTP/1.1\r\nHost: lading\r\n\r\n"
        b"POST /c HTTP/1.1\r\nHost: lading\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"
    )
    theirs.close()


def test_an_answer_that_comes_before_the_body_is_read_is_read() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    theirs.shutdown(socket.SHUT_RD)
    connection = Connection(ours)
    connection.send("PUT", "/", (bytes(65536) for _ in range(1000)))
    assert connection.receive().status == 413
    theirs.close()


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[socket.socket, int], None]], api.Client]]:
    """A client each of whose connections is served by a function in a thread: (socket, number of the connection)."""
    opened: list[socket.socket] = []

    def make(serve: Callable[[socket.socket, int], None]) -> api.Client:
        def dial() -> Any:
            ours, theirs = socket.socketpair()
            opened.append(theirs)
            threading.Thread(target=serve, args=(theirs, len(opened)), daemon=True).start()
            return ours

        return api.Client(dial)

    yield make
    for sock in opened:
        sock.close()


def answer(sock: socket.socket, status: int, body: Any) -> None:
    data = json.dumps(body).encode()
    sock.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


def test_calls_share_a_connection(server: Any) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        while data := sock.recv(65536):
            answer(sock, 200, {"connection": number, "line": data.split(b"\r\n")[0].decode()})

    client = server(serve)
    assert client.call("GET", "/x", {"a": "b c", "n": None, "l": ["1", "2"], "d": {"k": True}}) == {
        "connection": 1,
        "line": "GET /x?a=b%20c&l=1&l=2&d=%7B%22k%22%3Atrue%7D HTTP/1.1",
    }
    assert client.call("POST", "/y", None, {"z": 1})["connection"] == 1
    client.close()


def test_an_idle_connection_that_was_closed_is_dialled_again_once(server: Any) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        if sock.recv(65536) and number != 3:
            answer(sock, 200, number)
        sock.close()

    client = server(serve)
    assert client.call("GET", "/") == 1
    time.sleep(0.05)
    assert client.call("GET", "/") == 2
    time.sleep(0.05)
    with pytest.raises(Broken):
        client.call("GET", "/")  # the third closes without a word, and so is no idle connection


def test_errors_of_the_api(server: Any) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        sock.recv(65536)
        if number == 1:
            answer(sock, 404, {"message": "No such container: x", "extra": 1})
        else:
            sock.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nproxy")

    client = server(serve)
    with pytest.raises(api.APIError, match="No such container: x") as caught:
        client.call("GET", "/")
    assert caught.value.status == 404 and caught.value.body["extra"] == 1
    client.close()
    with pytest.raises(api.APIError, match="proxy"):
        client.call("GET", "/")


def test_streams_of_json_lines(server: Any) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"a":', b'1}\n{"b":2}\r\n\n{"c"', b":3}"):
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")

    assert list(server(serve).lines("GET", "/events")) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_a_line_has_a_limit() -> None:
    with pytest.raises(Broken, match="longer than"):
        list(api.json_lines([b"x" * 50] * 3, limit=100))
    with pytest.raises(Broken, match="broken"):
        list(api.json_lines([b"{nonsense}\n"]))


@pytest.mark.parametrize("kind", ["multiplexed", "raw", ""])
def test_a_hijacked_connection_keeps_bytes_that_came_early(server: Any, kind: str) -> None:
    def serve(sock: socket.socket, number: int) -> None:
        request = sock.recv(65536)
        assert b"Upgrade: tcp" in request
        line = f"Content-Type: application/vnd.docker.{kind}-stream\r\n" if kind else ""
        sock.sendall(f"HTTP/1.1 101 UPGRADED\r\n{line}Connection: Upgrade\r\n\r\n".encode() + b"early")
        sock.sendall(sock.recv(100).upper())
        sock.close()

    stream = server(serve).hijack("POST", "/attach")
    stream.sock.sendall(b"typed")
    data = stream.early
    while piece := stream.sock.recv(100):
        data += piece
    assert data == b"earlyTYPED"
    assert stream.framed is (True if kind == "multiplexed" else None)


VALUES: list[Any] = [
    None,
    True,
    0,
    -5,
    1.5,
    "",
    'é"\\\n\x00',
    [],
    {},
    [1, [2, {"a": None}]],
    {"k": [True, "x"]},
    2**70,
    "\ud800",
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_json_is_json_s(value: Any) -> None:
    assert wire.loads(wire.dumps(value).encode()) == value
    assert json.loads(wire.dumps(value)) == value
    assert wire.loads(b" \n" + json.dumps(value, indent=2).encode() + b"\r\n") == value


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a"}', b"[1,]", b"nul", b"1 2", b"'a'", b"[" * 100_000, b"\xff\xfe"]
)
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        wire.loads(text)


def test_queries() -> None:
    assert (
        wire.target("/p", {"a": True, "b": 0, "c": "", "d": None, "e": [], "f": {}, "g": "ü/ "})
        == "/p?a=1&b=0&g=%C3%BC%2F%20"
    )
    assert wire.quote("a/b:c@d e", b"/:@") == "a/b:c@d%20e"


def test_the_default_endpoint_is_that_of_the_paths() -> None:
    for environ in ({}, {"LADING_RUN": "/x"}, {"XDG_RUNTIME_DIR": "/run/user/5"}, {"HOME": "/h"}):
        for uid in (0, 5):
            assert (
                endpoint.default_host(environ, uid) == f"unix://{paths.from_environment(environ, uid).socket}"
            )
    assert endpoint.default_host({"LADING_HOST": "tcp://h:1"}, 0) == "tcp://h:1"


def test_endpoints(tmp_path: Any) -> None:
    with pytest.raises(endpoint.NotListening, match="no daemon answers"):
        endpoint.dialler(f"unix://{tmp_path}/no.sock")()
    with pytest.raises(endpoint.NotListening):
        endpoint.dialler(f"{tmp_path}/no.sock")()
    for wrong in ("x", "unix://relative", "tcp://nohost", "ftp://x:1"):
        with pytest.raises(Invalid):
            endpoint.dialler(wrong)
    with pytest.raises(Unsupported):
        endpoint.dialler("ssh://x")
    listener = socket.create_server(("127.0.0.1", 0))
    sock = endpoint.dialler(f"tcp://localhost:{listener.getsockname()[1]}")()
    sock.close()
    listener.close()
    with pytest.raises(endpoint.NotListening):
        endpoint.dialler(f"tcp://127.0.0.1:{listener_port(listener)}")()


def test_another_user_s_daemon_is_not_trusted(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        me = os.geteuid()
        endpoint.dialler(f"unix://{tmp_path}/s", (me,))().close()
        with pytest.raises(Denied, match="another user's daemon answers"):
            endpoint.dialler(f"unix://{tmp_path}/s", (me + 1,))()


def listener_port(_closed: socket.socket) -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_a_socket_one_may_not_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert isinstance(endpoint._refused(PermissionError(13, "Permission denied"), "unix:///x"), Denied)


def test_a_daemon_that_ends_before_it_reads_the_request_is_asked_again(tmp_path: Any) -> None:
    """What an idle exit does to a connection that waits to be accepted."""
    path = str(tmp_path / "s")
    served: list[socket.socket] = []

    def dial() -> Any:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        if not served:
            threading.Timer(0.1, listener.close).start()  # never accepted
            served.append(listener)
        else:
            peer, _ = listener.accept()
            served.append(peer)
            threading.Thread(
                target=lambda: (peer.recv(65536), answer(peer, 200, "second")), daemon=True
            ).start()
            listener.close()
        (tmp_path / "s").unlink()
        return sock

    for ask in (
        lambda client: client.call("POST", "/x", None, {}),
        lambda client: json.loads(client.open("GET", "/x").read()),
    ):
        served.clear()
        assert ask(api.Client(dial)) == "second"
        assert len(served) == 2
        served[1].close()


@pytest.mark.parametrize("text", ["{bad", "[1,", '{"a"', '"open', "nul", ""])
def test_no_json_text_is_a_value_error_where_json_was_never_imported(text: str) -> None:
    """The scanner raises an exception of the module json, which the command line does not load."""
    code = (
        "import sys; sys.path[:0] = eval(sys.argv[1])\n"
        "from lading.client import wire\n"
        "try: wire.loads(sys.argv[2].encode())\n"
        "except ValueError: print('json' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", code, repr(sys.path), text], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n", ran.stderr
