"""Every resource over a real connection: what reaches the engine, what comes back, and how streams begin and end."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from api_fake import BUSYBOX, FakeEngine, tar_of

from lading.api.server import serve_connection
from lading.base.errors import Conflict
from lading.engine.model import Endpoint, PortBinding, Restart


class World:
    """A fake engine and as many in-process connections as a test wants."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.threads: list[threading.Thread] = []
        self.peers: list[http.client.HTTPConnection] = []

    def dial(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        thread = threading.Thread(target=serve_connection, args=(self.engine, theirs))
        thread.start()
        self.threads.append(thread)
        return ours

    def peer(self) -> http.client.HTTPConnection:
        peer = http.client.HTTPConnection("lading")
        peer.sock = self.dial()
        self.peers.append(peer)
        return peer

    def call(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(status, decoded JSON or bytes)."""
        peer = self.peer()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        peer.request(method, target, body, headers)
        answer = peer.getresponse()
        data = answer.read()
        peer.close()
        if answer.getheader("Content-Type") == "application/json" and data.count(b"\n") <= 1 and data:
            return answer.status, json.loads(data)
        return answer.status, data

    def lines(self, method: str, target: str, body: bytes | None = None, **headers: str) -> list[Any]:
        status, data = self.call(method, target, body, **headers)
        assert status == 200, data
        if isinstance(data, dict):
            return [data]
        return [json.loads(line) for line in data.splitlines()]

    def hijack(
        self, target: str, body: bytes = b"", early: bytes = b"", upgrade: bool = True
    ) -> tuple[bytes, socket.socket]:
        """(response head, the raw socket after it)."""
        sock = self.dial()
        head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        if upgrade:
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        sock.sendall(head.encode() + b"\r\n" + body + early)
        found = b""
        while not found.endswith(b"\r\n\r\n"):
            piece = sock.recv(1)
            assert piece, found
            found += piece
        return found, sock

    def container(self, *cmd: str, name: str = "one", **more: Any) -> str:
        status, answer = self.call(
            "POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": list(cmd), **more}
        )
        assert status == 201, answer
        return str(answer["Id"])


@pytest.fixture
def world(tmp_path: Any) -> Iterator[World]:
    made = World(FakeEngine(str(tmp_path)))
    yield made
    for peer in made.peers:
        peer.close()
    for ref in list(made.engine.containers.boxes):
        made.engine.containers.remove(ref, True, True)
    for thread in made.threads:
        thread.join(5)
        assert not thread.is_alive(), "a connection outlived its client"


def rest(sock: socket.socket) -> bytes:
    found = b""
    while piece := sock.recv(65536):
        found += piece
    sock.close()
    return found


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, size = struct.unpack(">BxxxL", data[:8])
        found.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


# Containers


def test_a_container_from_creation_to_removal(world: World) -> None:
    ref = world.container("sleep", "9", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    assert world.call("GET", "/containers/json")[1] == []
    assert world.call("POST", f"/containers/{ref}/start")[0] == 204
    assert world.call("POST", "/containers/one/start")[0] == 304
    (row,) = world.call("GET", "/containers/json")[1]
    assert (row["Names"], row["State"], row["Command"]) == (["/one"], "running", "sleep 9")
    assert row["Status"].startswith("Up ")
    assert row["Ports"] == [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]
    assert world.call("DELETE", "/containers/one")[0] == 409
    assert world.call("POST", "/containers/one/pause")[0] == 204
    assert world.call("GET", "/containers/one/json")[1]["State"]["Paused"] is True
    assert world.call("POST", "/containers/one/unpause")[0] == 204
    assert world.call("POST", "/containers/one/rename?name=two")[0] == 204
    assert world.call("POST", "/containers/two/stop?t=3&signal=SIGINT")[0] == 204
    assert world.engine.containers.calls[-1] == ("stop", "two", 3, "SIGINT")
    assert world.call("POST", "/containers/two/stop")[0] == 304
    found = world.call("GET", "/containers/two/json?size=1")[1]
    assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 137)
    assert (found["SizeRw"], found["SizeRootFs"]) == (10, 1000)
    assert world.call("POST", "/containers/two/kill")[0] == 409
    assert world.call("DELETE", "/containers/two?v=1")[0] == 204
    assert world.call("DELETE", "/containers/two")[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "no body"),
        (b"[]", 400, "not a JSON object"),
        (b"{", 400, "not valid JSON"),
        (b"null", 400, "not a JSON object"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b'{"Image": 5}', 400, "Image must be a string, not a whole number"),
        (b'{"Image": "busybox", "Cmd": [1]}', 400, "Cmd[] must be a string"),
        (
            b'{"Image": "busybox", "HostConfig": {"Memory": "1g"}}',
            400,
            "HostConfig.Memory must be a whole number",
        ),
        (
            b'{"Image": "busybox", "HostConfig": {"Memory": true}}',
            400,
            "HostConfig.Memory must be a whole number",
        ),
        (
            b'{"Image": "busybox", "HostConfig": {"Memory": 1e3}}',
            400,
            "HostConfig.Memory must be a whole number",
        ),
        (
            b'{"Image": "busybox", "HostConfig": {"Memory": 99999999999999999999}}',
            400,
            "does not fit in 64 bits",
        ),
        (b'{"Image": "busybox", "HostConfig": {"PortBindings": {"x": []}}}', 400, 'invalid port "x"'),
        (b'{"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "npipe"}]}}', 400, "invalid mount type"),
        (b'{"Image": "nosuch"}', 404, "No such image: nosuch"),
    ],
)
def test_a_bad_create_is_refused_with_the_name_of_the_field(
    world: World, body: bytes, status: int, message: str
) -> None:
    got, answer = world.call("POST", "/containers/create", body, **{"Content-Type": "application/json"})
    assert (got, message in answer["message"]) == (status, True), answer
    assert not world.engine.containers.boxes


def test_a_taken_name_is_a_conflict(world: World) -> None:
    world.container("true")
    status, answer = world.call("POST", "/containers/create?name=one", {"Image": "busybox"})
    assert (status, answer["message"]) == (409, 'the name "/one" is in use')


def test_list_passes_what_it_was_asked(world: World) -> None:
    world.call("GET", "/containers/json?all=0&size=1&filters=" + '{"label":{"a=b":true,"c":false}}')
    assert world.engine.containers.calls[-1] == ("list", False, 0, {"label": ("a=b",)}, True)
    world.call("GET", "/containers/json?limit=3")
    assert world.engine.containers.calls[-1] == ("list", True, 3, {}, False)
    world.call("GET", '/containers/json?filters={"status":["exited"]}')
    assert world.engine.containers.calls[-1] == ("list", True, 0, {"status": ("exited",)}, False)


def test_wait_sends_its_head_before_the_container_ends(world: World) -> None:
    ref = world.container("sleep")
    peer = world.peer()
    peer.request("POST", f"/containers/{ref}/wait?condition=next-exit")
    answer = peer.getresponse()  # the head is here although the container was not even started
    assert answer.status == 200
    world.engine.containers.start(ref)
    world.engine.containers.stop(ref, 0)
    assert json.loads(answer.read()) == {"StatusCode": 137}
    assert world.call("POST", f"/containers/{ref}/wait")[1] == {"StatusCode": 137}
    assert world.call("POST", f"/containers/{ref}/wait?condition=never")[0] == 400
    assert world.call("POST", "/containers/none/wait")[0] == 404


def test_wait_for_removal(world: World) -> None:
    ref = world.container("echo", HostConfig={"AutoRemove": True})
    peer = world.peer()
    peer.request("POST", f"/containers/{ref}/wait?condition=removed")
    answer = peer.getresponse()
    world.call("POST", f"/containers/{ref}/start")
    assert json.loads(answer.read()) == {"StatusCode": 0}
    assert world.call("GET", f"/containers/{ref}/json")[0] == 404


def test_attach_before_start_loses_no_byte(world: World) -> None:
    ref = world.container("echo", "hello")
    head, sock = world.hijack(f"/v1.44/containers/{ref}/attach?stream=1&stdout=1&stderr=1")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"Content-Type: application/vnd.docker.multiplexed-stream\r\n" in head
    assert b"Upgrade: tcp\r\n" in head
    world.call("POST", f"/containers/{ref}/start")
    assert frames(rest(sock)) == [(1, b"hello\n")]


@pytest.mark.parametrize("early", [b"", b"x"])
def test_attach_is_in_place_when_its_head_comes(world: World, monkeypatch: Any, early: bytes) -> None:
    """A client starts the container as soon as it reads the head; a slow attach must not lose what is said then."""
    attach = world.engine.containers.attach

    def slow(*given: Any) -> None:
        time.sleep(0.2)
        attach(*given)

    monkeypatch.setattr(world.engine.containers, "attach", slow)
    ref = world.container("echo", "first words")
    _, sock = world.hijack(f"/containers/{ref}/attach?stream=1&stdin=1&stdout=1", early=early)
    world.call("POST", f"/containers/{ref}/start")
    assert frames(rest(sock)) == [(1, b"first words\n")]


def test_attach_that_fails_before_its_head_is_an_answer(world: World, monkeypatch: Any) -> None:
    def refused(*given: Any) -> None:
        raise Conflict("it is being removed")

    monkeypatch.setattr(world.engine.containers, "attach", refused)
    ref = world.container("echo")
    assert world.call("POST", f"/containers/{ref}/attach?stream=1&stdout=1") == (
        409,
        {"message": "it is being removed"},
    )


def test_attach_without_upgrade_and_older_version(world: World) -> None:
    ref = world.container("complain")
    head, sock = world.hijack(f"/v1.40/containers/{ref}/attach?stream=1&stderr=1", upgrade=False)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in head
    world.call("POST", f"/containers/{ref}/start")
    assert frames(rest(sock)) == [(2, b"bad\n")]


def test_attach_with_a_terminal_is_raw(world: World) -> None:
    ref = world.container("echo", "hello", Tty=True)
    head, sock = world.hijack(f"/containers/{ref}/attach?stream=1&stdout=1")
    assert b"vnd.docker.raw-stream" in head
    world.call("POST", f"/containers/{ref}/start")
    assert rest(sock) == b"hello\n"


@pytest.mark.parametrize("size", [0, 3, 300_000])
def test_stdin_that_came_with_the_request_arrives_first(world: World, size: int) -> None:
    ref = world.container("cat", OpenStdin=True, StdinOnce=True)
    early, late = b"e" * size, b"late"
    collected: list[bytes] = []
    _, sock = world.hijack(f"/containers/{ref}/attach?stream=1&stdin=1&stdout=1", early=early[:2000])
    world.call("POST", f"/containers/{ref}/start")
    reader = threading.Thread(target=lambda: collected.append(rest(sock)))
    reader.start()
    sock.sendall(early[2000:] + late)
    sock.shutdown(socket.SHUT_WR)
    reader.join(10)
    assert b"".join(data for _, data in frames(collected[0])) == early + late


@pytest.mark.parametrize(
    ("query", "tty", "keys"),
    [
        ("stdin=1", True, b"\x10\x11"),
        ("stdin=1&detachKeys=ctrl-a,x", True, b"\x01x"),
        ("stdin=1&detach=client", True, b""),
        ("stdout=1", True, b""),
        ("stdin=1", False, b""),
    ],
)
def test_the_monitor_is_told_which_keys_detach(world: World, query: str, tty: bool, keys: bytes) -> None:
    ref = world.container("cat", OpenStdin=True, Tty=tty)
    world.hijack(f"/containers/{ref}/attach?stream=1&{query}")[1].close()
    assert world.engine.containers.calls[-1] == ("attach", keys)


def test_keys_that_are_none_are_refused(world: World) -> None:
    ref = world.container("cat", OpenStdin=True, Tty=True)
    assert world.call("POST", f"/containers/{ref}/attach?stream=1&stdin=1&detachKeys=ctrl-1")[0] == 400


def test_attach_to_nothing(world: World) -> None:
    assert world.call("POST", "/containers/none/attach?stream=1")[0] == 404


def test_attach_for_logs_alone(world: World) -> None:
    ref = world.container("echo", "said")
    world.call("POST", f"/containers/{ref}/start")
    world.call("POST", f"/containers/{ref}/wait")
    _, sock = world.hijack(f"/containers/{ref}/attach?logs=1&stdout=1")
    assert frames(rest(sock)) == [(1, b"said\n")]


def test_logs(world: World) -> None:
    ref = world.container("echo", "said")
    world.call("POST", f"/containers/{ref}/start")
    world.call("POST", f"/containers/{ref}/wait")
    assert frames(world.call("GET", f"/containers/{ref}/logs?stdout=1")[1]) == [(1, b"said\n")]
    ((_, line),) = frames(world.call("GET", f"/containers/{ref}/logs?stdout=1&timestamps=1")[1])
    assert line.endswith(b"Z said\n")
    assert line[:2] == b"20"
    assert world.call("GET", f"/containers/{ref}/logs")[0] == 400
    world.call("GET", f"/containers/{ref}/logs?stdout=1&since=1.5&until=2026-01-01T00:00:00Z&tail=7")
    assert world.engine.containers.calls[-1] == ("logs", False, 1_500_000_000, 1767225600_000000000, 7)
    assert world.call("GET", f"/containers/{ref}/logs?stdout=1&since=yesterday")[0] == 400
    assert world.call("GET", f"/containers/{ref}/logs?stdout=1&tail=x")[0] == 400


def test_following_logs_stops_with_the_client(world: World) -> None:
    ref = world.container("sleep")
    world.engine.containers.start(ref)
    peer = world.peer()
    peer.request("GET", f"/containers/{ref}/logs?stdout=1&follow=1")
    answer = peer.getresponse()
    world.engine.containers.say(world.engine.containers.find(ref), [], "stdout", b"now\n")
    assert answer.read(12) == b"\x01\0\0\0\0\0\0\x04now\n"
    answer.close()
    peer.close()
    deadline = time.monotonic() + 5
    while ("logs stopped",) not in world.engine.containers.calls:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stats(world: World) -> None:
    ref = world.container("sleep")
    one = world.call("GET", f"/containers/{ref}/stats?stream=0&one-shot=1")[1]
    assert one["precpu_stats"] == {}
    two = world.call("GET", f"/containers/{ref}/stats?stream=0")[1]
    assert two["precpu_stats"]["at"] == two["preread"] < two["cpu_stats"]["at"]
    peer = world.peer()
    peer.request("GET", f"/containers/{ref}/stats")
    answer = peer.getresponse()
    first, second = json.loads(answer.readline()), json.loads(answer.readline())
    assert second["precpu_stats"] == first["cpu_stats"]


def test_smaller_verbs(world: World) -> None:
    ref = world.container("sleep")
    assert world.call("GET", f"/containers/{ref}/top?ps_args=aux")[1] == {
        "Titles": ["PID", "CMD"],
        "Processes": [["1", "aux"]],
    }
    assert world.call("GET", f"/containers/{ref}/changes")[1][1] == {"Path": "/etc/new", "Kind": 1}
    assert world.call("POST", f"/containers/{ref}/resize?h=24&w=80")[0] == 200
    assert world.engine.containers.calls[-1] == ("resize", ref, 24, 80)
    body = {"Memory": 1 << 20, "RestartPolicy": {"Name": "always"}}
    assert world.call("POST", f"/containers/{ref}/update", body) == (200, {"Warnings": []})
    _, limits, policy = world.engine.containers.calls[-1]
    assert (limits.memory, policy) == (1 << 20, Restart("always"))
    status, answer = world.call(
        "POST",
        f"/commit?container={ref}&repo=r&tag=t&comment=c&author=a&pause=0&changes=CMD%20x&changes=USER%20y",
        {},
    )
    assert (status, answer) == (201, {"Id": BUSYBOX})
    assert world.engine.containers.calls[-1] == (
        "commit",
        ref,
        "r",
        "t",
        "c",
        "a",
        ("CMD x", "USER y"),
        False,
    )
    assert world.call("POST", "/containers/prune")[1] == {"ContainersDeleted": None, "SpaceReclaimed": 0}


def test_archive(world: World) -> None:
    ref = world.container("sleep")
    peer = world.peer()
    peer.request("HEAD", f"/containers/{ref}/archive?path=/f")
    answer = peer.getresponse()
    header = answer.getheader("X-Docker-Container-Path-Stat")
    assert header is not None
    assert json.loads(base64.b64decode(header))["name"] == "f"
    assert (answer.status, answer.read()) == (200, b"")
    peer.request("HEAD", f"/containers/{ref}/archive?path=/missing")
    answer = peer.getresponse()
    assert (answer.status, answer.read()) == (404, b"")
    status, data = world.call("GET", f"/containers/{ref}/archive?path=/f")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert (status, tar.getnames()) == (200, ["f"])
    assert world.call("GET", f"/containers/{ref}/archive?path=/missing")[0] == 404
    assert world.call("GET", f"/containers/{ref}/archive")[0] == 400
    status, _ = world.call(
        "PUT",
        f"/containers/{ref}/archive?path=/d&noOverwriteDirNonDir=1&copyUIDGID=true",
        tar_of({"g": b"1"}),
    )
    assert status == 200
    assert world.engine.containers.calls[-1] == ("put", "/d", ["g"], True, True)


def test_export_that_breaks_does_not_look_whole(world: World) -> None:
    ref = world.container("sleep", name="breaks")
    assert world.call("GET", f"/containers/{ref}/export")[1] == b"x" * 100_000 + b"y"
    peer = world.peer()
    peer.request("GET", "/containers/breaks/export")
    with pytest.raises(http.client.IncompleteRead):
        peer.getresponse().read()


def test_a_container_that_goes_by_itself_goes_when_it_cannot_start(world: World) -> None:
    ref = world.container("nosuch", HostConfig={"AutoRemove": True})
    peer = world.peer()
    peer.request("POST", f"/containers/{ref}/wait?condition=removed")
    answer = peer.getresponse()
    status, error = world.call("POST", f"/containers/{ref}/start")
    assert (status, "executable file not found" in error["message"]) == (400, True)
    assert error["exitCode"] == 127
    assert json.loads(answer.read())["StatusCode"] == 0
    assert world.call("GET", f"/containers/{ref}/json")[0] == 404


# Exec


def test_exec(world: World) -> None:
    ref = world.container("sleep")
    assert world.call("POST", f"/containers/{ref}/exec", {"Cmd": ["echo"]})[0] == 409
    world.engine.containers.start(ref)
    assert world.call("POST", f"/containers/{ref}/exec", {"Cmd": []})[0] == 400
    made = world.call("POST", f"/containers/{ref}/exec", {"Cmd": ["echo", "a", "b"], "AttachStdout": True})[
        1
    ]["Id"]
    head, sock = world.hijack(f"/exec/{made}/start", b'{"Detach": false, "Tty": false}')
    assert b"multiplexed-stream" in head
    assert frames(rest(sock)) == [(1, b"a b")]
    found = world.call("GET", f"/exec/{made}/json")[1]
    assert (found["ExitCode"], found["ContainerID"], found["OpenStdout"]) == (0, ref, True)
    assert found["ProcessConfig"]["arguments"] == ["a", "b"]
    assert world.call("POST", f"/exec/{made}/start", {"Detach": False})[0] == 409
    assert world.call("POST", "/exec/none/start", {})[0] == 404


def test_exec_with_input(world: World) -> None:
    ref = world.container("sleep")
    world.engine.containers.start(ref)
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}
    made = world.call("POST", f"/containers/{ref}/exec", body)[1]["Id"]
    _, sock = world.hijack(f"/exec/{made}/start", b"{}", early=b"one")
    sock.sendall(b"two")
    sock.shutdown(socket.SHUT_WR)
    assert frames(rest(sock)) == [(1, b"onetwo")]
    assert world.call("GET", f"/exec/{made}/json")[1]["ExitCode"] == 5


def test_exec_of_nothing_tells_in_its_stream(world: World) -> None:
    ref = world.container("sleep")
    world.engine.containers.start(ref)
    made = world.call("POST", f"/containers/{ref}/exec", {"Cmd": ["nosuch"]})[1]["Id"]
    _, sock = world.hijack(f"/exec/{made}/start", b"{}")
    ((stream, text),) = frames(rest(sock))
    assert stream == 2
    assert b"executable file not found" in text
    assert world.call("GET", f"/exec/{made}/json")[1]["ExitCode"] == 127


def test_detached_exec(world: World) -> None:
    ref = world.container("sleep")
    world.engine.containers.start(ref)
    made = world.call("POST", f"/containers/{ref}/exec", {"Cmd": ["echo"]})[1]["Id"]
    assert world.call("POST", f"/exec/{made}/start", {"Detach": True}) == (200, b"")
    assert world.call("POST", f"/exec/{made}/resize?h=1&w=2")[0] == 200


# Images


def test_images(world: World) -> None:
    (row,) = world.call("GET", "/images/json?filters=" + '{"dangling":["true"]}')[1]
    assert world.engine.images.calls[-1] == ("list", {"dangling": ("true",)})
    assert (row["Id"], row["RepoTags"], row["Size"], row["Labels"]) == (
        BUSYBOX,
        ["busybox:latest"],
        1234,
        {"a": "b"},
    )
    found = world.call("GET", "/images/library/busybox/json")[1]
    assert (found["Config"]["Cmd"], found["RootFS"]["Type"]) == (["sh"], "layers")
    assert "VirtualSize" not in found
    assert world.call("GET", "/v1.43/images/busybox/json")[1]["VirtualSize"] == 1234
    assert world.call("GET", "/images/nosuch/json")[0] == 404
    assert world.call("GET", "/images/busybox/history")[1][0]["Id"] == BUSYBOX
    assert world.call("POST", "/images/busybox/tag?repo=reg:5000/a/b&tag=2")[0] == 201
    assert world.engine.images.calls[-1] == ("tag", "busybox", "reg:5000/a/b:2")
    assert world.call("POST", "/images/busybox/tag")[0] == 400
    assert world.call("DELETE", "/images/busybox:latest?force=1&noprune=1")[1][0] == {
        "Untagged": "busybox:latest"
    }
    assert world.engine.images.calls[-1] == ("remove", "busybox:latest", True, False)
    assert world.call("POST", "/images/prune")[1] == {"ImagesDeleted": None, "SpaceReclaimed": 0}


def test_save_and_load(world: World) -> None:
    status, data = world.call("GET", "/images/get?names=busybox&names=library/busybox")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        assert file.read() == b"busybox,library/busybox"
    assert world.call("GET", "/images/busybox/get")[0] == 200
    assert world.call("GET", "/images/nosuch/get")[0] == 404
    assert world.call("GET", "/images/get")[0] == 400
    assert world.lines("POST", "/images/load", data) == [
        {"status": "Loading"},
        {"stream": "Loaded image: busybox:latest\n"},
    ]
    assert world.lines("POST", "/images/load?quiet=1", data) == [{"stream": "Loaded image: busybox:latest\n"}]


def test_credentials_reach_the_registry_verbs(world: World) -> None:
    said = base64.urlsafe_b64encode(json.dumps({"username": "ada", "password": "right"}).encode()).decode()
    headers = {"X-Registry-Auth": said}
    registry = world.engine.registry
    assert world.lines("POST", "/images/r.example/a/b/push?tag=1", b"", **headers) == [{"status": "Pushed"}]
    assert registry.calls[-1] == (
        "push", "r.example/a/b", "1", {"r.example": {"username": "ada", "password": "right"}},
    )  # fmt: skip
    assert world.call("GET", "/distribution/r.example/a/b:1/json")[1] == {"Descriptor": {"digest": BUSYBOX}}
    assert (
        world.call("POST", "/auth", {"username": "ada", "password": "right"})[1]["Status"]
        == "Login Succeeded"
    )
    assert world.call("POST", "/auth", {"username": "ada", "password": "no"})[0] == 401
    assert world.call("POST", "/images/a/push", b"", **{"X-Registry-Auth": "%%"})[0] == 400


def test_pull_says_how_to_get_an_image(world: World) -> None:
    status, answer = world.call("POST", "/images/create?fromImage=python&tag=3.11-slim")
    assert status == 503
    assert "python:3.11-slim" in answer["message"]
    assert "lading bootstrap" in answer["message"]
    first, second = world.lines("POST", "/images/create?fromImage=half&tag=sha256:" + "0" * 64)
    assert first == {"status": "Pulling"}
    assert second["error"] == second["errorDetail"]["message"]
    assert "half@sha256:000" in second["error"]


def test_import(world: World) -> None:
    target = "/images/create?fromSrc=-&repo=r&tag=1&changes=CMD%20x&message=m"
    assert world.lines("POST", target, b"tar") == [{"status": BUSYBOX}]
    assert world.engine.images.calls[-1] == ("import", "r:1", ("CMD x",), "m", 3)
    assert world.call("POST", "/images/create?fromSrc=http://a/b")[0] == 400
    assert world.call("POST", "/images/create")[0] == 400


# Build


def test_build_from_a_tar_as_the_classic_builder_tells_it(world: World, tmp_path: Any) -> None:
    context = tar_of({"Dockerfile": b"FROM a", "f": b"1"})
    query = "t=q:1&t=q:2&buildargs=%7B%22A%22:null,%22B%22:%22c%22%7D&labels=%7B%22l%22:%22m%22%7D&target=s&nocache=1"
    found = world.lines("POST", f"/build?{query}&memory=4096&networkmode=none", context)
    text = "".join(line.get("stream", "") for line in found)
    assert text == (
        "host trust is on\n"
        "Step 1/2 : RUN echo hi\n"
        f" ---> Running in {'f' * 12}\n"
        "hé\n"
        f"Removing intermediate container {'f' * 12}\n"
        f" ---> {'1' * 12}\n"
        "Step 2/2 : COPY a /a\n"
        " ---> Using cache\n"
        f" ---> {'2' * 12}\n"
        f"Successfully built {'b' * 12}\n"
        "Successfully tagged q:1\n"
    )
    assert {"aux": {"ID": BUSYBOX}} in found
    (request,) = world.engine.builder.requests
    assert (request.tags, request.build_args, request.labels) == (
        ("q:1", "q:2"),
        {"A": None, "B": "c"},
        {"l": "m"},
    )
    assert (request.target, request.no_cache, request.network_mode) == ("s", True, "none")
    assert (request.limits.memory, request.ephemeral, request.host_trust) == (4096, True, None)
    assert world.engine.builder.seen == {"Dockerfile": b"FROM a", "f": b"1"}
    assert list(tmp_path.iterdir()) == []


def test_build_from_a_directory_with_lading_events(world: World, tmp_path: Any) -> None:
    (tmp_path / "Dockerfile").write_bytes(b"FROM a")
    found = world.lines("POST", f"/build?contextdir={tmp_path}&progress=vertex&hosttrust=0")
    assert [next(iter(line)) for line in found] == [
        *("notice", "vertex", "vertex", "log", "log", "vertex", "vertex", "vertex", "finished")
    ]
    (request,) = world.engine.builder.requests
    assert (request.context_dir, request.ephemeral, request.host_trust) == (str(tmp_path), False, False)


def test_build_of_a_bare_dockerfile(world: World) -> None:
    world.lines("POST", "/build", b"FROM b", **{"Content-Type": "text/plain"})
    (request,) = world.engine.builder.requests
    assert (request.context_dir, request.dockerfile_text) == ("", b"FROM b")


def test_quiet_build_tells_only_the_id(world: World) -> None:
    assert world.lines("POST", "/build?q=1", tar_of({"Dockerfile": b"FROM a"})) == [
        {"stream": f"{BUSYBOX}\n"}
    ]


def test_a_failing_step_is_the_last_line(world: World) -> None:
    last = world.lines("POST", "/build", tar_of({"Dockerfile": b"FAIL"}))[-1]
    assert last["error"] == last["errorDetail"]["message"]
    assert last["error"].endswith("returned a non-zero code: 1")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("remote=http://a/b", 501),
        ("version=2", 501),
        ("squash=1", 501),
        ("buildargs=1", 400),
        ("buildargs={%22a%22:1}", 400),
        ("labels={%22a%22:1}", 400),
        ("labels={", 400),
        ("ulimits={}", 400),
        ("memory=x", 400),
    ],
)
def test_a_bad_build_query_is_refused(world: World, query: str, status: int) -> None:
    got, answer = world.call("POST", f"/build?{query}", tar_of({"Dockerfile": b"FROM a"}))
    assert (got, list(answer)) == (status, ["message"])
    assert not world.engine.builder.requests


def test_a_context_that_is_no_archive(world: World, tmp_path: Any) -> None:
    status, answer = world.call("POST", "/build", b"this is no tar at all" * 100)
    assert status == 400, answer
    assert list(tmp_path.iterdir()) == []


def test_a_build_is_cancelled_when_its_client_goes(world: World) -> None:
    peer = world.peer()
    peer.request("POST", "/build", tar_of({"Dockerfile": b"WAIT"}))
    answer = peer.getresponse()
    assert answer.readline()
    answer.close()
    peer.close()
    assert world.engine.builder.cancelled.wait(5)


def test_build_prune(world: World) -> None:
    target = "/build/prune?all=1&keep-storage=9&filters=" + '{"until":["1h"]}'
    assert world.call("POST", target)[1] == {"CachesDeleted": ["k1"], "SpaceReclaimed": 5}
    assert world.engine.builder.pruned == ({"until": ("1h",)}, True, 9)


# Volumes, networks, system


def test_volumes(world: World) -> None:
    status, made = world.call("POST", "/volumes/create", {"Name": "v", "Labels": {"a": "b"}})
    assert status == 201
    assert made == {
        "CreatedAt": "2026-01-02T03:04:05Z",
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": "/v/_data",
        "Name": "v",
        "Options": None,
        "Scope": "local",
    }
    assert world.call("GET", "/volumes")[1] == {"Volumes": [made], "Warnings": None}
    assert world.call("GET", "/volumes/v")[1] == made
    assert world.call("POST", "/volumes/prune")[1] == {"VolumesDeleted": ["v"], "SpaceReclaimed": 7}
    assert world.call("DELETE", "/volumes/v?force=1")[0] == 204
    assert world.call("DELETE", "/volumes/v")[0] == 404
    assert world.call("POST", "/volumes/create", {"Name": 1})[0] == 400


def test_networks(world: World) -> None:
    ref = world.container("sleep")
    world.engine.containers.start(ref)
    found = world.call("GET", "/networks/bridge")[1]
    assert found["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]
    assert found["Containers"][ref]["Name"] == "one"
    assert found["Containers"][ref]["IPv4Address"] == "172.18.0.2/16"
    body = {
        "Name": "mine",
        "Internal": True,
        "IPAM": {"Config": [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"}, {"Subnet": "fd00::/64"}]},
    }
    status, made = world.call("POST", "/networks/create", body)
    assert (status, sorted(made)) == (201, ["Id", "Warning"])
    _, name, driver, pools, given = world.engine.networks.calls[-1]
    assert (name, driver, pools.subnet, pools.gateway, pools.subnet6) == (
        *("mine", "bridge", "10.1.0.0/24", "10.1.0.1", "fd00::/64"),
    )
    assert given["internal"] is True
    endpoint = {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.1.0.9"}}
    assert (
        world.call("POST", "/networks/mine/connect", {"Container": ref, "EndpointConfig": endpoint})[0] == 200
    )
    assert world.engine.networks.calls[-1] == (
        "connect",
        "mine",
        ref,
        Endpoint(aliases=("db",), ipv4="10.1.0.9"),
    )
    assert world.call("POST", "/networks/mine/disconnect", {"Container": ref, "Force": True})[0] == 200
    assert world.engine.networks.calls[-1] == ("disconnect", "mine", ref, True)
    assert len(world.call("GET", "/networks")[1]) == 2
    assert world.call("DELETE", "/networks/mine")[0] == 204
    assert world.call("GET", "/networks/mine")[0] == 404
    assert world.call("POST", "/networks/create", {})[0] == 400


def test_version_and_info(world: World) -> None:
    found = world.call("GET", "/version")[1]
    assert (found["ApiVersion"], found["MinAPIVersion"]) == ("1.54", "1.24")
    assert found["Components"][0]["Details"]["ApiVersion"] == "1.54"
    assert world.call("GET", "/info")[1]["Socket"] == "/s"


def test_disk_usage(world: World) -> None:
    ref = world.container("sleep")
    found = world.call("GET", "/v1.51/system/df")[1]
    assert (found["LayersSize"], "ImageUsage" in found) == (15, False)
    assert [row["Id"] for row in found["Containers"]] == [ref]
    assert found["BuildCache"][0]["CreatedAt"] == "2026-01-02T03:04:05Z"
    found = world.call("GET", "/v1.52/system/df")[1]
    assert found["ImageUsage"] == {"ActiveCount": 1, "TotalCount": 2, "Reclaimable": 5, "TotalSize": 15}
    assert found["VolumeUsage"]["Reclaimable"] == 3
    assert found["BuildCacheUsage"]["TotalSize"] == 7
    found = world.call("GET", "/v1.52/system/df?type=container&verbose=1")[1]
    assert found["ContainerUsage"]["Items"] == found["Containers"]
    assert (found["Images"], "ImageUsage" in found) == (None, False)


def test_bootstrap(world: World) -> None:
    found = world.lines("POST", "/bootstrap", b'{"name": "python", "tag": "3.11-slim"}')
    assert found == [{"stream": "unpacking\n"}, {"aux": {"ID": BUSYBOX}}]
    assert world.call("POST", "/bootstrap", {"name": "nosuch"})[0] == 404
    assert world.call("POST", "/bootstrap", {})[0] == 400


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/session", 404),
        ("GET", "/services", 503),
        ("POST", "/swarm/init", 503),
        ("GET", "/tasks/x/logs", 503),
        ("GET", "/images/search?term=a", 501),
        ("GET", "/containers/a/attach/ws", 400),
        ("POST", "/plugins/pull", 501),
    ],
)
def test_what_lading_does_not_do_is_refused_cleanly(
    world: World, method: str, target: str, status: int
) -> None:
    got, answer = world.call(method, target, b"" if method == "POST" else None)
    assert (got, list(answer)) == (status, ["message"])
    assert world.call("GET", "/plugins")[1] == []


def test_ports_are_parsed_and_shown(world: World) -> None:
    ref = world.container(
        "sleep",
        HostConfig={
            "PortBindings": {
                "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
                "80": [{"HostPort": "0"}],
                "81/tcp": None,
            }
        },
        ExposedPorts={"80/tcp": {}, "9/tcp": {}},
    )
    view = world.engine.containers.find(ref).view
    assert view.host.port_bindings == (PortBinding(53, "udp", "127.0.0.1", "5353"), PortBinding(80, "tcp"))
    world.engine.containers.start(ref)
    found = world.call("GET", f"/containers/{ref}/json")[1]
    assert found["NetworkSettings"]["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}],
        "9/tcp": None,
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
    }


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ({"VolumeDriver": "nfs"}, 400),
        ({"StorageOpt": {"size": "1g"}}, 501),
        ({"CgroupParent": "/slice"}, 501),
        ({"VolumeDriver": "local", "StorageOpt": {}, "CgroupParent": ""}, 201),
    ],
)
def test_what_would_change_nothing_is_refused(world: World, host: dict[str, Any], status: int) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    assert world.call("POST", "/containers/create", body)[0] == status


def test_the_storage_driver_is_the_engine_s(world: World) -> None:
    ref = world.container("true")
    box = world.engine.containers.find(ref)
    box.view = replace(box.view, driver="copy")
    found = world.call("GET", f"/containers/{ref}/json")[1]
    assert (found["Driver"], found["GraphDriver"]["Name"]) == ("copy", "copy")
