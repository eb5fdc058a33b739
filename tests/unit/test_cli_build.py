"""build: what PATH and -f mean, the query, the fall-back to a tar, and how a build can end."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon, Request, chunked, lading

ID = "sha256:" + "ab" * 32
DONE = [{"finished": {"image_id": ID, "tags": ["docker.io/library/x:latest"]}}]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(str(tmp_path / "d.sock"))
    answer(served, DONE)
    yield served
    served.close()


def answer(daemon: Daemon, events: list[Any]) -> None:
    pieces = [json.dumps(event).encode() + b"\n" for event in events]
    daemon.on("POST", "/build", lambda r: chunked(r.sock, pieces))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "ctx"
    (made / "sub").mkdir(parents=True)
    (made / "Dockerfile").write_text("FROM scratch\n")
    (made / "sub/Dockerfile").write_text("FROM scratch\n")
    (made / "keep.txt").write_text("keep")
    (made / "drop.log").write_text("drop")
    (made / ".dockerignore").write_text("*.log\nDockerfile\nsub\n!sub/kept\n")
    (made / "sub/kept").write_text("kept")
    (made / "link").symlink_to("keep.txt")
    return made


def test_the_daemon_is_told_the_directory(daemon: Daemon, context: Path) -> None:
    ran = lading(
        daemon,
        "build",
        "-t",
        "x",
        "-t",
        "y:1",
        "--build-arg",
        "A=1",
        "--build-arg",
        "FROM_HERE",
        "--build-arg",
        "GONE",
        "--label",
        "k=v",
        "--target",
        "t",
        "--no-cache",
        "--pull",
        "--platform",
        "linux/arm64",
        "--network",
        "none",
        "--add-host",
        "h:1.2.3.4",
        "-m",
        "1g",
        "--host-trust=false",
        "--ulimit",
        "nofile=1:2",
        "--rm",
        "--iidfile",
        str(context.parent / "iid"),
        ".",
        cwd=str(context),
        environ={"FROM_HERE": "yes"},
    )
    assert ran.returncode == 0, ran.stderr
    query = daemon.last("POST", "/build").query
    assert {k: v for k, v in query.items() if k not in ("buildargs", "labels", "ulimits")} == {
        "progress": ["vertex"],
        "contextdir": [str(context)],
        "t": ["x", "y:1"],
        "target": ["t"],
        "nocache": ["1"],
        "pull": ["1"],
        "platform": ["linux/arm64"],
        "networkmode": ["none"],
        "extrahosts": ["h:1.2.3.4"],
        "memory": [str(1 << 30)],
        "hosttrust": ["0"],
    }
    assert json.loads(query["buildargs"][0]) == {"A": "1", "FROM_HERE": "yes", "GONE": None}
    assert json.loads(query["labels"][0]) == {"k": "v"}
    assert json.loads(query["ulimits"][0]) == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert (context.parent / "iid").read_text() == ID
    assert (
        ran.stdout == b""
        and f"writing image {ID}\nnaming to docker.io/library/x:latest\n".encode() in ran.stderr
    )


def test_quiet_prints_the_id_alone(daemon: Daemon, context: Path) -> None:
    ran = lading(daemon, "build", "-q", str(context))
    assert (ran.stdout.decode(), ran.stderr) == (ID + "\n", b"")


def test_where_the_dockerfile_is(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    def asked(*argv: str, stdin: bytes = b"") -> Request:
        ran = lading(daemon, "build", *argv, cwd=str(tmp_path), stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return daemon.last("POST", "/build")

    assert asked("-f", "ctx/sub/Dockerfile", "ctx").query["dockerfile"] == ["sub/Dockerfile"]
    (tmp_path / "Other").write_text("FROM other")
    outside = asked("-f", "Other", "ctx")
    assert (
        outside.body == b"FROM other"
        and outside.headers["content-type"] == "text/plain"
        and "dockerfile" not in outside.query
    )
    typed = asked("-f", "-", "ctx", stdin=b"FROM typed")
    assert typed.body == b"FROM typed" and typed.query["contextdir"] == [str(context)]
    alone = asked("-", stdin=b"FROM alone")
    assert alone.body == b"FROM alone" and "contextdir" not in alone.query


@pytest.mark.parametrize("compressed", [False, True])
def test_a_tar_on_stdin_is_the_context(daemon: Daemon, compressed: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w") as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"), io.BytesIO())
    ran = lading(daemon, "build", "-f", "sub/D", "-", stdin=buffer.getvalue())
    assert ran.returncode == 0
    request = daemon.last("POST", "/build")
    assert (
        request.body == buffer.getvalue()
        and request.query["dockerfile"] == ["sub/D"]
        and "contextdir" not in request.query
    )


@pytest.mark.parametrize("text", [b"", b"FROM typed\n"])
def test_a_daemon_that_may_not_read_the_directory_gets_a_tar(
    daemon: Daemon, context: Path, text: bytes
) -> None:
    def build(request: Request) -> Any:
        if "contextdir" in request.query:
            return 403, {"message": "a build context cannot be named by its directory here"}
        chunked(request.sock, [json.dumps(DONE[0]).encode()])
        return None

    daemon.on("POST", "/build", build)
    ran = lading(daemon, "build", *(["-f", "-"] if text else []), str(context), stdin=text)
    assert ran.returncode == 0, ran.stderr
    request = daemon.last("POST", "/build")
    with tarfile.open(fileobj=io.BytesIO(request.body)) as tar:
        members = {m.name: m for m in tar}
        wanted = {".dockerignore", "keep.txt", "link", "sub/kept"}
        if text:
            name = request.query["dockerfile"][0]
            file = tar.extractfile(name)
            assert file and file.read() == text
            wanted.add(name)
        else:
            wanted.add("Dockerfile")
        assert set(members) == wanted
        assert members["link"].issym() and members["keep.txt"].uid == 0
        kept = tar.extractfile("keep.txt")
        assert kept and kept.read() == b"keep"


def test_a_failed_build(daemon: Daemon, context: Path) -> None:
    iid = context.parent / "iid"
    iid.write_text("old")
    vertex = {
        "id": "1",
        "name": "RUN false",
        "number": 1,
        "total": 1,
        "started_ns": 1,
        "completed_ns": 2,
        "error": "exit code 1",
    }
    answer(
        daemon, [{"vertex": vertex}, {"error": "RUN false failed: exit code 1", "errorDetail": {"code": 1}}]
    )
    ran = lading(daemon, "build", "--iidfile", str(iid), str(context))
    assert ran.returncode == 1
    assert ran.stderr.decode().splitlines()[-2:] == [
        "#1 ERROR: exit code 1",
        "lading: RUN false failed: exit code 1",
    ]
    assert not iid.exists(), "an old id must not pass for the new one"
    answer(daemon, [])
    assert b"ended without an image" in lading(daemon, "build", str(context)).stderr
    daemon.on("POST", "/build", lambda _: (400, {"message": "Dockerfile:1:1: unknown instruction"}))
    assert lading(daemon, "build", str(context)).stderr == b"lading: Dockerfile:1:1: unknown instruction\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["https://example.org/x.git"], "cannot be fetched from a URL"),
        (["/nonexistent"], "There is no such directory"),
        (["ctx/Dockerfile"], "It is a file"),
        (["-f", "nothing", "ctx"], "the Dockerfile 'nothing' does not exist"),
        (["-f", "sub/Dockerfile", "ctx"], "The context has one: -f ctx/sub/Dockerfile"),
        (["-f", "-", "-"], "can't use stdin for both"),
        (["-"], "standard input is empty"),
        (["--progress", "fancy", "ctx"], "invalid progress mode 'fancy'"),
        (["--build-arg", "=x", "ctx"], "it is NAME[=VALUE]"),
        ([], "requires 1 argument"),
    ],
)
def test_refusals(daemon: Daemon, context: Path, argv: list[str], message: str) -> None:
    ran = lading(daemon, "build", *argv, cwd=str(context.parent))
    assert ran.returncode in (1, 125) and message in ran.stderr.decode(), ran.stderr
    assert daemon.requests == []


def test_bootstrap(daemon: Daemon) -> None:
    def make(request: Request) -> Any:
        if request.json["name"] == "nonsense":
            return 404, {"message": "no recipe for nonsense"}
        chunked(request.sock, [b'{"stream":"unpacking\\n"}\n', json.dumps({"aux": {"ID": ID}}).encode()])
        return None

    daemon.on("POST", "/bootstrap", make)
    ran = lading(daemon, "bootstrap", "python:3.11-slim")
    assert (ran.returncode, ran.stdout.decode(), ran.stderr) == (
        0,
        f"python:3.11-slim: {ID}\n",
        b"unpacking\n",
    )
    assert daemon.last("POST", "/bootstrap").json == {"name": "python", "tag": "3.11-slim"}
    assert lading(daemon, "bootstrap", "-q", "busybox").stdout.decode() == ID + "\n"
    assert lading(daemon, "bootstrap", "nonsense").returncode == 1


MEASURE = """
import sys
from lading.cli import entry
from lading.cli.context import Context
code = entry.run(sys.argv[1:], Context({}))
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(code, peak, file=sys.stderr)
"""


def measured(daemon: Daemon, *argv: str) -> int:
    """Run to success; the most memory it held, in KiB. (getrusage would count what this process held when it forked.)"""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, "-H", daemon.host, *argv], capture_output=True, timeout=60, check=True
    )
    code, peak = ran.stderr.split()[-2:]
    assert code == b"0", ran.stderr
    return int(peak)


def test_a_large_file_is_streamed(daemon: Daemon, tmp_path: Path) -> None:
    """save, load: in constant memory, which is far less than the stream."""
    size = 64 << 20
    source = tmp_path / "in.tar"
    with open(source, "wb") as file:
        file.truncate(size)
    received = []

    def load(request: Request) -> Any:
        received.append(len(request.body))
        chunked(request.sock, [b'{"stream":"Loaded image: x:latest\\n"}\n'])

    daemon.on("POST", "/images/load", load)
    daemon.on(
        "GET", "/images/get", lambda r: chunked(r.sock, [bytes(1 << 20)] * (size >> 20), "application/x-tar")
    )
    assert measured(daemon, "load", "-i", str(source)) < 40 << 10
    assert received == [size]
    out = tmp_path / "out.tar"
    assert measured(daemon, "save", "-o", str(out), "a", "b:c") < 40 << 10
    assert out.stat().st_size == size and daemon.last("GET", "/images/get").query["names"] == ["a", "b:c"]
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.suffix] == []


def test_a_broken_save_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    def save(request: Request) -> None:
        request.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        request.sock.close()

    daemon.on("GET", "/images/get", save)
    before = sorted(os.listdir(tmp_path))
    nowhere = lading(daemon, "save", "-o", f"{tmp_path}/none/out.tar", "a")
    assert (
        nowhere.stderr.decode()
        == f"lading: '{tmp_path}/none/out.tar' cannot be written: No such file or directory.\n"
    )
    ran = lading(daemon, "save", "-o", str(tmp_path / "out.tar"), "a")
    assert ran.returncode == 1 and b"broke off" in ran.stderr
    assert sorted(os.listdir(tmp_path)) == before
