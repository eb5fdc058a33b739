"""Whatever bytes come, the API answers with HTTP and JSON, or closes: never a trace, a hang or a dead server."""

from __future__ import annotations

import http.client
import itertools
import json
import pathlib
import socket
import sys
import threading
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "unit"))

from api_fake import FakeEngine

from lading.api import parse
from lading.api.server import serve_connection
from lading.base.errors import LadingError
from lading.engine.model import CreateRequest
from lading.runtime.streams import Client

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CONFIG_NAMES = (
    "Image",
    "Cmd",
    "Env",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "Healthcheck",
    "StopTimeout",
    "Tty",
)
HOST_NAMES = (
    "Binds",
    "Mounts",
    "PortBindings",
    "Memory",
    "Ulimits",
    "Devices",
    "LogConfig",
    "RestartPolicy",
    "Tmpfs",
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(CONFIG_NAMES, JSON),
        "HostConfig": st.fixed_dictionaries({}, optional=dict.fromkeys(HOST_NAMES, JSON)) | JSON,
        "NetworkingConfig": JSON,
    },
)
SETTINGS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(BODIES)
def test_any_json_becomes_a_request_or_a_clear_error(body: dict[str, Any]) -> None:
    try:
        request = parse.create(body, "", "")
    except LadingError as error:
        assert str(error)
    else:
        assert isinstance(request, CreateRequest)
        hash((request.config.cmd, request.host.mounts, request.host.port_bindings))


def _answer(data: bytes, engine: FakeEngine) -> bytes:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve_connection, args=(engine, theirs))
    thread.start()
    ours.settimeout(10)
    found = b""
    try:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        while piece := ours.recv(65536):
            found += piece
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        ours.close()
    thread.join(10)
    assert not thread.is_alive(), data
    return found


METHODS = st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH"])
PATHS = st.sampled_from(
    [
        *(
            "/containers/json",
            "/containers/create",
            "/containers/a/attach",
            "/containers/a/archive",
            "/exec/a/start",
        ),
        *(
            "/images/json",
            "/images/load",
            "/images/a/b/json",
            "/build",
            "/events",
            "/volumes/create",
            "/commit",
        ),
        *(
            "/networks/create",
            "/bootstrap",
            "/v1.41/info",
            "/v1.9/info",
            "/v1.41",
            "//",
            "/%00",
            "/containers/%2e%2e/json",
        ),
    ]
)


@SETTINGS
@given(METHODS, PATHS, st.text("abf={}%2&+[]\"':,1", max_size=20), st.binary(max_size=60), st.booleans())
def test_any_request_gets_an_answer(
    tmp_path: pathlib.Path, method: str, path: str, query: str, body: bytes, as_json: bool
) -> None:
    if path == "/events":
        query = "until=1"
    kind = "application/json" if as_json else "application/x-tar"
    target = f"{path}?{query}".replace(" ", "+")
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    found = _answer(head.encode() + body, FakeEngine(str(tmp_path)))
    assert found.startswith(b"HTTP/1.1 "), found
    assert b"Traceback" not in found
    status = int(found[9:12])
    assert status != 500, found
    if status >= 400 and method != "HEAD":
        assert json.loads(found.partition(b"\r\n\r\n")[2])["message"]
    assert status in http.client.responses or status == 499


@SETTINGS
@given(st.binary(max_size=300))
def test_any_bytes_end_the_connection_or_are_answered(tmp_path: pathlib.Path, data: bytes) -> None:
    found = _answer(data, FakeEngine(str(tmp_path)))
    assert not found or found.startswith(b"HTTP/1.1 ")
    assert b"Traceback" not in found


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_detach_keys_are_found_however_the_bytes_come(data: bytes, cuts: list[int]) -> None:
    keys = b"\x10\x11"
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    ours, theirs = socket.socketpair()
    with theirs:
        client = Client(ours.detach(), True, True, True, False, keys)
    passed, detached = b"", False
    for begin, end in itertools.pairwise(edges):
        piece, detached = client.typed(data[begin:end])
        passed += piece
        if detached:
            break
    if keys in data:
        assert detached
        assert passed == data[: data.index(keys)]
    else:
        assert not detached
        assert data.startswith(passed)
        assert len(data) - len(passed) < len(keys)
