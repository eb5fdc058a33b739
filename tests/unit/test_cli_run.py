"""run, exec, start, attach and logs against a scripted daemon: requests, streams, signals, terminals, exit codes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Container, Daemon, Request, chunked, frame, lading, upgrade


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(str(tmp_path / "d.sock"))
    yield served
    served.close()


def test_streams_and_exit_code(daemon: Daemon) -> None:
    def script(_: Container, write: Any) -> int:
        write(1, b"out\n")
        write(2, b"err\n")
        write(1, b"")
        write(1, b"last")
        return 3

    container = Container(daemon, script)
    ran = lading(daemon, "run", "--rm", "img", "true")
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"out\nlast", b"err\n")
    assert container.body["HostConfig"]["AutoRemove"] is True
    order = [r.path.rpartition("/")[2] for r in daemon.requests]
    assert order == ["create", "attach", "wait", "start"], (
        "whoever starts first may lose output or the exit code"
    )
    assert daemon.last("POST", ".*/wait").query["condition"] == ["removed"]


def test_frames_may_be_cut_anywhere(daemon: Daemon) -> None:
    def script(_: Container, write: Any) -> int:
        sock = daemon.last("POST", ".*/attach").sock
        for byte in frame(1, b"one") + frame(2, b"two") + frame(1, b"three" * 3):
            sock.sendall(bytes([byte]))
        return 0

    Container(daemon, script)
    ran = lading(daemon, "run", "img")
    assert (ran.stdout, ran.stderr) == (b"onethreethreethree", b"two")


def test_a_garbled_stream_is_an_error(daemon: Daemon) -> None:
    def script(_: Container, write: Any) -> int:
        daemon.last("POST", ".*/attach").sock.sendall(b"this is no frame")
        return 0

    Container(daemon, script)
    ran = lading(daemon, "run", "img")
    assert ran.returncode == 125 and b"garbled" in ran.stderr


def test_stdin_is_forwarded_and_half_closed(daemon: Daemon) -> None:
    def script(container: Container, write: Any) -> int:
        assert container.stdin_closed.wait(10)
        write(1, bytes(container.stdin).upper())
        return 0

    container = Container(daemon, script)
    ran = lading(daemon, "run", "-i", "img", "cat", stdin=b"typed\n")
    assert ran.stdout == b"TYPED\n"
    assert container.body["StdinOnce"] and container.body["OpenStdin"] and container.body["AttachStdin"]


def test_a_large_stream_through_both_ways_does_not_stand_still(daemon: Daemon) -> None:
    size = 8 << 20

    def attach(request: Request) -> None:
        """An echo that reads no more input until its output is taken, as `cat` behind a pipe does."""
        upgrade(request.sock, True)
        container.started.wait(10)
        done = 0
        while data := request.sock.recv(65536):
            request.sock.sendall(frame(1, data))
            done += len(data)
        container.ended.set()
        request.sock.close()

    container = Container(daemon, lambda *_: 0)
    daemon.on("POST", "/containers/[^/]+/attach", attach)
    payload = os.urandom(1 << 16) * (size >> 16)
    ran = lading(daemon, "run", "-i", "img", "cat", stdin=payload)
    assert ran.returncode == 0 and ran.stdout == payload


def test_without_i_stdin_is_left_alone(daemon: Daemon) -> None:
    container = Container(daemon, lambda *_: 0)
    assert lading(daemon, "run", "img", stdin=b"not for you").returncode == 0
    assert container.stdin == b"" and daemon.last("POST", ".*/attach").query["stdin"] == ["0"]


def test_detached(daemon: Daemon, tmp_path: Path) -> None:
    Container(daemon, lambda *_: 0)
    cidfile = tmp_path / "cid"
    ran = lading(daemon, "run", "-d", "--cidfile", str(cidfile), "img")
    assert ran.stdout.decode() == Container.ID + "\n" and cidfile.read_text() == Container.ID
    assert [r.path.rpartition("/")[2] for r in daemon.requests] == ["create", "start"]
    again = lading(daemon, "run", "-d", "--cidfile", str(cidfile), "img")
    assert again.returncode == 125 and b"container ID file found" in again.stderr


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"message": 'exec: "x": executable file not found in $PATH', "exitCode": 127}, 127),
        ({"message": "sysctl: no such file or directory", "exitCode": 125}, 125),
        ({"message": "port 80 is taken"}, 125),
        ({"message": "anything", "exitCode": 126}, 126),
    ],
)
def test_a_container_that_cannot_start_is_removed(daemon: Daemon, body: dict[str, Any], code: int) -> None:
    Container(daemon, lambda *_: 0)
    daemon.on("POST", "/containers/[^/]+/start", lambda _: (400, body))
    for flags in ((), ("-d",), ("--rm",)):
        daemon.requests.clear()
        ran = lading(daemon, "run", *flags, "img", "x")
        assert ran.returncode == code and ran.stderr.decode() == f"lading: {body['message']}\n"
        assert daemon.last("DELETE", "/containers/[^/]+").query["force"] == ["1"], "its name is free again"


def test_a_missing_image_is_pulled_and_failing_that_the_daemon_s_advice_is_shown(daemon: Daemon) -> None:
    Container(daemon, lambda *_: 0)
    there = []

    def create(_: Request) -> Any:
        return (
            (201, {"Id": Container.ID, "Warnings": ["mind this"]})
            if there
            else (404, {"message": "No such image: img:latest"})
        )

    def pull(request: Request) -> Any:
        if request.query["fromImage"] == ["img"]:
            there.append(1)
            chunked(request.sock, [b'{"status":"Pulling"}\n{"status":"Done","id":"x"}\n'])
            return None
        return 503, {"message": "no registry answers. Run: lading bootstrap other"}

    daemon.on("POST", "/containers/create", create)
    daemon.on("POST", "/images/create", pull)
    refused = lading(daemon, "run", "other:1")
    assert refused.returncode == 125 and refused.stdout == b""
    assert refused.stderr.decode() == (
        "Unable to find image 'other:1' locally\nlading: no registry answers. Run: lading bootstrap other\n"
    )
    never = lading(daemon, "run", "--pull", "never", "img")
    assert never.returncode == 125 and b"No such image" in never.stderr
    pulled = lading(daemon, "run", "-d", "img")
    assert pulled.returncode == 0 and pulled.stdout.decode() == Container.ID + "\n"
    assert (
        pulled.stderr.decode()
        == "Unable to find image 'img:latest' locally\nPulling\nx: Done\nlading: warning: mind this\n"
    )
    assert daemon.last("POST", "/images/create").query["tag"] == ["latest"]


@pytest.mark.parametrize(
    ("number", "proxied"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGUSR1, True), (signal.SIGINT, False)],
)
def test_signals_go_to_the_container(daemon: Daemon, number: int, proxied: bool) -> None:
    def script(container: Container, write: Any) -> int:
        write(1, b"ready\n")
        container.signalled.wait(5 if proxied else 1)
        return 128 + number

    container = Container(daemon, script)
    client = subprocess.Popen(
        [sys.executable, "-m", "lading", "-H", daemon.host, "run", *([] if proxied else ["--sig-proxy=false"]), "img"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdout and client.stdout.readline() == b"ready\n"
    client.send_signal(number)
    _, err = client.communicate(timeout=10)
    assert err == b""
    if proxied:
        assert client.returncode == 128 + number and container.signals == [str(int(number))]
    else:
        assert client.returncode == 130 and container.signals == []


class Terminal:
    """The command line on a real pseudo-terminal."""

    def __init__(self, daemon: Daemon, *argv: str, size: tuple[int, int] = (33, 101)) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(sys.executable, [sys.executable, "-m", "lading", "-H", daemon.host, *argv])
        self.resize(*size)
        self.text = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 10
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 4096)

    def end(self) -> int:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.02)[0]:
                try:
                    self.text += os.read(self.fd, 4096)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError(f"it did not end: {self.text!r}")


def test_a_terminal_is_raw_sized_and_resized(daemon: Daemon) -> None:
    def script(container: Container, write: Any) -> int:
        write(1, b"$ ")
        while b"\x04" not in container.stdin:
            time.sleep(0.01)
        write(1, b"got " + bytes(container.stdin).replace(b"\x03", b"^C").replace(b"\x04", b"^D"))
        return 7

    container = Container(daemon, script)
    terminal = Terminal(daemon, "run", "-it", "img", "sh")
    terminal.read_until(b"$ ")
    terminal.resize(40, 120)
    os.write(terminal.fd, b"ls\x03")  # raw: ctrl-c is a byte like any other
    while ("40", "120") not in container.sizes:
        time.sleep(0.01)
    os.write(terminal.fd, b"\x04")
    assert terminal.end() == 7
    assert b"got ls^C^D" in terminal.text and container.signals == []
    assert container.body["Tty"] is True


@pytest.mark.parametrize(
    ("keys", "typed"), [((), b"a\x10b\x10\x11"), (("--detach-keys", "ctrl-x,y"), b"a\x18b\x18y")]
)
def test_detach_keys_leave_the_container_running(daemon: Daemon, keys: tuple[str, ...], typed: bytes) -> None:
    def script(container: Container, write: Any) -> int:
        write(1, b"$ ")
        container.stdin_closed.wait(10)
        return 9

    container = Container(daemon, script)
    terminal = Terminal(daemon, "run", "-it", *keys, "img", "sh")
    terminal.read_until(b"$ ")
    for byte in typed:
        os.write(terminal.fd, bytes([byte]))
        time.sleep(0.02)
    assert terminal.end() == 0
    assert bytes(container.stdin) == typed[:3]
    assert container.signals == []


def test_a_pipe_is_no_terminal(daemon: Daemon) -> None:
    for verb in (["run", "-it", "img"], ["exec", "-it", "c", "sh"]):
        ran = lading(daemon, *verb, stdin=b"x")
        assert ran.returncode == 1 and b"the input device is not a TTY" in ran.stderr
    assert daemon.requests == []


def test_exec(daemon: Daemon) -> None:
    def start(request: Request) -> None:
        upgrade(request.sock, True)
        request.sock.sendall(frame(1, b"in\n") + frame(2, b"oops\n"))
        request.sock.close()

    daemon.on("POST", "/containers/[^/]+/exec", lambda _: (201, {"Id": "e1"}))
    daemon.on("POST", "/exec/e1/start", start)
    daemon.on("GET", "/exec/e1/json", lambda _: {"ExitCode": 42})
    ran = lading(daemon, "exec", "-e", "A=1", "-u", "me", "-w", "/x", "c", "sh", "-c", "exit")
    assert (ran.returncode, ran.stdout, ran.stderr) == (42, b"in\n", b"oops\n")
    assert daemon.last("POST", "/containers/c/exec").json == {
        "AttachStdin": False, "AttachStdout": True, "AttachStderr": True, "Cmd": ["sh", "-c", "exit"], "Env": ["A=1"],
        "User": "me", "WorkingDir": "/x",
    }  # fmt: skip


def test_start_prints_names_and_goes_on_after_a_failure(daemon: Daemon) -> None:
    daemon.on("POST", "/containers/(?!bad)[^/]+/start", lambda _: (204, b""))
    daemon.on("POST", "/containers/bad/start", lambda _: (404, {"message": "No such container: bad"}))
    ran = lading(daemon, "start", "a", "bad", "b")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"a\nb\n", b"lading: No such container: bad\n")


def test_start_attached_and_attach(daemon: Daemon) -> None:
    container = Container(daemon, lambda _, write: (write(1, b"hello\n"), 5)[1])
    found = {
        "Id": Container.ID,
        "Config": {"Tty": False, "OpenStdin": False},
        "HostConfig": {},
        "State": {"Running": False},
    }
    daemon.on("GET", "/containers/[^/]+/json", lambda _: found)
    stopped = lading(daemon, "attach", "c")
    assert stopped.returncode == 1 and b"cannot attach to a stopped container" in stopped.stderr
    ran = lading(daemon, "start", "-a", "c")
    assert (ran.returncode, ran.stdout) == (5, b"hello\n")
    found["State"] = {"Running": True}
    container.started.set()
    ran = lading(daemon, "attach", "--no-stdin", "c")
    assert (ran.returncode, ran.stdout) == (5, b"hello\n")
    assert daemon.last("POST", ".*/wait").query["condition"] == ["not-running"]


@pytest.mark.parametrize("tty", [False, True])
def test_logs(daemon: Daemon, tty: bool) -> None:
    daemon.on("GET", "/containers/c/json", lambda _: {"Id": "c", "Config": {"Tty": tty}})
    daemon.on(
        "GET",
        "/containers/c/logs",
        lambda r: chunked(
            r.sock, [b"raw\r\n"] if tty else [frame(1, b"o")[:5], frame(1, b"o")[5:] + frame(2, b"e")]
        ),
    )
    ran = lading(daemon, "logs", "-t", "-n", "5", "--since", "7", "c")
    assert (ran.stdout, ran.stderr) == ((b"raw\r\n", b"") if tty else (b"o", b"e"))
    query = daemon.last("GET", ".*/logs").query
    assert (query["timestamps"], query["tail"], query["since"], query["follow"]) == (
        ["1"],
        ["5"],
        ["7"],
        ["0"],
    )


def test_a_reader_that_goes_away_is_no_traceback(daemon: Daemon) -> None:
    daemon.on(
        "GET",
        "/containers/json",
        lambda _: [{"Id": "a" * 64, "Names": ["/n" * 100], "Created": 1, "Labels": {}}] * 3000,
    )
    client = subprocess.Popen(
        [sys.executable, "-m", "lading", "-H", daemon.host, "ps"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert client.stdout and client.stderr
    client.stdout.read(10)
    client.stdout.close()
    assert client.stderr.read() == b""
    assert client.wait(10) == 141
    client.stderr.close()


def test_ctrl_c_is_no_traceback(daemon: Daemon) -> None:
    daemon.on(
        "GET",
        "/events",
        lambda r: (r.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), time.sleep(5))[
            0
        ],
    )
    client = subprocess.Popen(
        [sys.executable, "-m", "lading", "-H", daemon.host, "events"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not [r for r in daemon.requests if r.path == "/events"]:
        time.sleep(0.01)
    time.sleep(0.1)
    client.send_signal(signal.SIGINT)
    assert client.communicate(timeout=10) == (b"", b"")
    assert client.returncode == 130


def test_messages_of_others_cannot_write_to_the_terminal(daemon: Daemon) -> None:
    daemon.on(
        "POST", "/containers/[^/]+/stop", lambda _: (500, {"message": "evil\x1b]0;title\x07\nsecond line"})
    )
    ran = lading(daemon, "stop", "x")
    assert ran.stderr == b"lading: evil\\x1b]0;title\\x07\nsecond line\n"


def test_half_a_pair_is_printed_as_well_as_it_can_be(daemon: Daemon) -> None:
    daemon.on("GET", "/volumes", lambda _: {"Volumes": [{"Name": "a\ud800b"}, {"Name": "c\udcffd"}]})
    assert lading(daemon, "volume", "ls", "-q").stdout == b"a?b\nc\xffd\n"


def test_output_that_nobody_reads_is_no_traceback(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    client = subprocess.run(
        [sys.executable, "-m", "lading", "-H", daemon.host, "nonsense"],
        stdout=writer,
        stderr=writer,
        timeout=20,
    )
    os.close(writer)
    assert client.returncode == 141


def test_names_are_quoted_in_paths(daemon: Daemon) -> None:
    daemon.on("POST", "/containers/.*/stop", lambda _: (204, b""))
    lading(daemon, "stop", "a?b=c#d e")
    assert daemon.requests[-1].path == "/containers/a?b=c#d e/stop"


def test_advice_on_the_end_is_passed_on_with_the_code(daemon: Daemon) -> None:
    """The daemon's Hint: a full /dev/shm, for one. The code stays the container's."""

    def script(_: Container, write: Any) -> int:
        return 135

    container = Container(daemon, script)
    container.hint = "its /dev/shm of 64m is full"
    ran = lading(daemon, "run", "--rm", "img", "true")
    assert (ran.returncode, ran.stderr) == (135, b"lading: its /dev/shm of 64m is full\n")
