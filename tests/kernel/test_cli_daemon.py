"""The whole path with the real daemon: started on demand, once; the verbs on real containers; terminals; --here; deaths."""

from __future__ import annotations

import io
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUSYBOX = shutil.which("busybox")
TOOLS = ("sh", "cat", "ls", "sleep", "echo", "true", "stty", "kill", "tail", "head", "trap", "seq")


@dataclass
class Home:
    """A data root and a run directory of one's own."""

    root: Path
    idle: str = "30"

    @property
    def environ(self) -> dict[str, str]:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LADING_")}
        own = {
            "LADING_ROOT": f"{self.root}/root",
            "LADING_RUN": f"{self.root}/run",
            "LADING_IDLE_EXIT": self.idle,
            "TERM": "xterm",
        }
        return {**plain, **own}

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "lading", *argv]

    def __call__(
        self, *argv: str, stdin: bytes = b"", code: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        ran = subprocess.run(
            self.argv(*argv), input=stdin, capture_output=True, timeout=60, env=self.environ, check=False
        )
        assert code is None or ran.returncode == code, (argv, ran.returncode, ran.stdout, ran.stderr)
        return ran

    def daemons(self) -> list[int]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if (
                b"daemon" in words
                and b"--idle-exit" in words
                and f"LADING_RUN={self.root}/run".encode() in environ
            ):
                found.append(int(pid))
        return found

    def stop(self, number: int = signal.SIGTERM) -> None:
        for pid in self.daemons():
            os.kill(pid, number)
        until(lambda: not self.daemons())


def until(done: Callable[[], Any], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    if made.daemons():
        for identifier in made("ps", "-aq").stdout.split():
            made("rm", "-fv", identifier.decode(), code=None)
    made.stop()


@pytest.fixture
def box(home: Home) -> Home:
    """With an image `box` of busybox."""
    if (
        not BUSYBOX
        or b"statically"
        not in subprocess.run(["file", "-L", BUSYBOX], capture_output=True, check=False).stdout
    ):
        pytest.skip("needs a static busybox (package busybox-static) and file")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for tool in TOOLS:
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("proc", "sys", "dev", "tmp", "etc"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
    home("import", "-c", "ENV PATH=/bin", "-", "box", stdin=buffer.getvalue())
    return home


def test_ten_commands_at_once_start_one_daemon(home: Home) -> None:
    running = [
        subprocess.Popen(home.argv("ps", "-q"), env=home.environ, stdout=-1, stderr=-1) for _ in range(10)
    ]
    for one in running:
        out, err = one.communicate(timeout=60)
        assert (one.returncode, out, err) == (0, b"", b"")
    assert len(home.daemons()) == 1


def test_a_daemon_that_cannot_start_says_why(home: Home) -> None:
    (home.root / "root").write_text("a file where the data root should be")
    ran = home("ps", code=1)
    text = ran.stderr.decode()
    assert text.startswith("lading: the daemon did not start: ") and "Traceback" not in text
    assert f"{home.root}/root" in text and f"{home.root}/run/daemon.log" in text
    assert home.daemons() == []


def test_an_idle_daemon_ends_and_comes_back(home: Home) -> None:
    home.idle = "1"
    home("ps")
    until(lambda: not home.daemons())
    assert not (home.root / "run/lading.sock").exists()
    home("ps")


def test_version_and_info_name_the_socket(home: Home) -> None:
    assert home("info", "-f", "{{.Socket}}").stdout.decode().strip() == f"{home.root}/run/lading.sock"
    assert b"Server:" in home("version").stdout


def test_the_verbs_on_a_real_container(box: Home) -> None:
    identifier = (
        box(
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "none",
            "--label",
            "a=b",
            "box",
            "sh",
            "-c",
            "echo up; sleep 100",
        )
        .stdout.decode()
        .strip()
    )
    assert len(identifier) == 64
    assert box("ps", "--format", "{{.Names}} {{.State}} {{.Image}}").stdout == b"web running box\n"
    assert box("ps", "-q", "-f", "label=a=b", "--no-trunc").stdout.decode().strip() == identifier
    until(lambda: box("logs", "web").stdout == b"up\n")
    assert box("exec", "-e", "A=1", "web", "sh", "-c", "echo $A; exit 4", code=4).stdout == b"1\n"
    assert box("exec", "-i", "web", "cat", stdin=b"typed").stdout == b"typed"
    assert (
        box("inspect", "-f", '{{.State.Status}} {{index .Config.Labels "a"}}', "web").stdout == b"running b\n"
    )
    (box.root / "file").write_text("content")
    box("cp", f"{box.root}/file", "web:/tmp/")
    assert box("exec", "web", "cat", "/tmp/file").stdout == b"content"
    box("cp", "web:/tmp/file", f"{box.root}/back")
    assert (box.root / "back").read_text() == "content"
    assert b"A /tmp/file" in box("diff", "web").stdout
    assert b"sleep 100" in box("top", "web").stdout
    assert b"web" in box("stats", "--no-stream").stdout
    box("pause", "web")
    assert b"(Paused)" in box("ps").stdout
    box("unpause", "web")
    assert box("rm", "web", code=1).stdout == b""
    box("stop", "-t", "0", "web")
    assert box("wait", "web").stdout == b"137\n"
    box("start", "web")
    assert box("rm", "-f", "web").stdout == b"web\n"
    assert box("ps", "-aq").stdout == b""


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("exit 3", 3), ("sh -c 'kill -9 $$'; exit $?", 137), ("nonsense", 127)]
)
def test_exit_codes(box: Home, command: str, code: int) -> None:
    box("run", "--rm", "--network", "none", "box", "sh", "-c", command, code=code)
    assert box("ps", "-aq").stdout == b""


def test_commands_that_cannot_run(box: Home) -> None:
    missing = box("run", "--rm", "--network", "none", "box", "nosuch", code=127)
    assert b"nosuch" in missing.stderr
    box("run", "--rm", "--network", "none", "box", "/tmp", code=126)
    unknown = box("run", "nothing-here", code=125)
    assert (
        unknown.stderr.startswith(b"Unable to find image 'nothing-here:latest' locally\nlading: ")
        and b"lading bootstrap" in unknown.stderr
    )
    assert box("ps", "-aq").stdout == b""


def test_a_megabyte_through_a_container(box: Home) -> None:
    payload = os.urandom(1 << 20) * 4
    assert box("run", "--rm", "-i", "--network", "none", "box", "cat", stdin=payload).stdout == payload


def test_a_signal_reaches_the_container(box: Home) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while true; do sleep 0.1; done"
    client = subprocess.Popen(
        box.argv("run", "--rm", "--network", "none", "box", "sh", "-c", script),
        env=box.environ,
        stdout=-1,
        stderr=-1,
    )
    assert client.stdout and client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=20)
    assert (client.returncode, out, err) == (5, b"caught\n", b"")


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, home: Home, *argv: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, home.argv(*argv), home.environ)
        self.text = b""

    def expect(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 20
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 4096)
        self.text = self.text.partition(wanted)[2]

    def end(self) -> int:
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass  # EIO: the other side is closed
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_shell_on_a_terminal(box: Home) -> None:
    import fcntl
    import struct
    import termios

    terminal = Terminal(box, "run", "-it", "--name", "shell", "--network", "none", "box", "sh")
    terminal.expect(b"# ")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    until(lambda: b"31 97" in box("exec", "shell", "sh", "-c", "stty size < /proc/1/fd/0").stdout)
    os.write(terminal.fd, b"echo a''b\n")
    terminal.expect(b"ab\r\n")
    os.write(terminal.fd, b"\x10\x11")
    assert terminal.end() == 0
    assert box("inspect", "-f", "{{.State.Running}}", "shell").stdout == b"true\n"
    again = Terminal(box, "attach", "shell")
    os.write(again.fd, b"exit 6\n")
    assert again.end() == 6


def test_a_terminal_in_exec(box: Home) -> None:
    box("run", "-d", "--name", "one", "--network", "none", "box", "sleep", "100")
    terminal = Terminal(box, "exec", "-it", "one", "sh")
    terminal.expect(b"# ")
    os.write(terminal.fd, b"exit 9\n")
    assert terminal.end() == 9


def test_a_killed_daemon_cuts_no_stream_and_loses_no_exit_code(box: Home) -> None:
    script = "echo first; sleep 2; echo second; exit 8"
    client = subprocess.Popen(
        box.argv("run", "--network", "none", "box", "sh", "-c", script), env=box.environ, stdout=-1, stderr=-1
    )
    assert client.stdout and client.stdout.readline() == b"first\n"
    box.stop(signal.SIGKILL)
    out, err = client.communicate(timeout=30)
    assert (client.returncode, out, err) == (8, b"second\n", b"")


def test_here_needs_no_daemon(box: Home) -> None:
    box.stop()
    ran = box("--here", "run", "--rm", "-i", "--network", "none", "box", "cat", stdin=b"through a socketpair")
    assert ran.stdout == b"through a socketpair" and ran.stderr == b""
    assert b"box" in box("--here", "images").stdout
    assert box.daemons() == []
