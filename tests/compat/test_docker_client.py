"""The real `docker` client and docker-py against a daemon of lading, on a root of their own. Needs root, as lading does."""

from __future__ import annotations

import http.client
import io
import os
import pathlib
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

CLIENTS = [path for path in ("/usr/local/bin/docker", "/usr/bin/docker") if os.access(path, os.X_OK)]
if not CLIENTS and (found := shutil.which("docker")):
    CLIENTS = [found]
BUSYBOX = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.access(path, os.X_OK)), "")
APPLETS = ["sh", "true", "false", "sleep", "cat", "echo", "ls", "id", "env", "head", "wc", "mkdir"]

pytestmark = [
    pytest.mark.skipif(not BUSYBOX, reason="no busybox program here (Debian: busybox-static)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers are made by root"),
]


def rootfs() -> bytes:
    """A tar of a root file system: a static busybox and its names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    return out.getvalue()


class Docker:
    """One docker client program, pointed at the daemon."""

    def __init__(self, program: str, url: str, home: pathlib.Path) -> None:
        self.program, self.url = program, url
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "DOCKER_HOST": url,
            "DOCKER_BUILDKIT": "0",
        }

    def run(self, *words: str, stdin: bytes = b"", timeout: float = 30) -> subprocess.CompletedProcess[bytes]:
        with subprocess.Popen(
            [self.program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                process.kill()  # SIGTERM would be passed on to the container
                out, err = process.communicate()
                pytest.fail(f"docker {' '.join(words)} hung: {out!r} {err!r}")
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done
        return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("daemon")
    env = {**os.environ, "LADING_ROOT": str(base / "root"), "LADING_RUN": str(base / "run")}
    log = open(base / "log", "wb")  # noqa: SIM115
    process = subprocess.Popen([sys.executable, "-m", "lading", "daemon"], env=env, stdout=log, stderr=log)
    path = str(base / "run/lading.sock")
    deadline = time.monotonic() + 15
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            if sock.connect_ex(path) == 0:
                break
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the daemon did not start: {(base / 'log').read_text()}")
        time.sleep(0.05)
    url = f"unix://{path}"
    try:
        import docker

        client = docker.DockerClient(base_url=url)
        client.api.import_image_from_data(rootfs(), repository="bb", tag="latest")
        yield url
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail("the daemon did not end")
        log.close()
    assert "Traceback" not in (base / "log").read_text()


@pytest.fixture(params=CLIENTS or [None], ids=lambda path: str(path).replace("/", "_").strip("_"))
def docker(request: pytest.FixtureRequest, daemon: str, tmp_path: pathlib.Path) -> Iterator[Docker]:
    if request.param is None:
        pytest.skip("no docker client program here")
    client = Docker(request.param, daemon, tmp_path)
    yield client
    left = client("ps", "-aq").split()
    if left:
        client.run("rm", "-fv", *left)


@pytest.fixture
def py(daemon: str) -> Iterator[Any]:
    import docker as module

    client = module.DockerClient(base_url=daemon, timeout=30)
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    client.close()


def test_run_gives_output_input_and_exit_code(docker: Docker) -> None:
    done = docker.run("run", "--rm", "--net", "none", "bb", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 9)
    data = b"line\n" * 50_000
    done = docker.run("run", "--rm", "-i", "--net", "none", "bb", "cat", stdin=data)
    assert (done.stdout == data, done.returncode) == (True, 0), (len(done.stdout), done.stderr)
    done = docker.run("run", "--rm", "-e", "A=b", "-w", "/tmp", "bb", "sh", "-c", "echo $A $PWD")
    assert done.stdout == b"b /tmp\n", done
    assert docker("ps", "-aq") == ""


def test_run_of_what_is_not_there(docker: Docker) -> None:
    done = docker.run("run", "--rm", "--net", "none", "bb", "nosuch")
    assert done.returncode == 127 and done.stderr.count(b"not found in $PATH") == 1, done
    assert docker.run("run", "--rm", "--net", "none", "bb", "/etc").returncode == 126
    done = docker.run("run", "--rm", "127.0.0.1:1/nosuchimage:1", "true")  # nobody listens there
    assert done.returncode == 125
    assert b"lading" in done.stderr
    assert docker("ps", "-aq") == ""


def test_the_life_of_a_container(docker: Docker) -> None:
    script = "echo out; echo err >&2; exec sleep 1000"
    identifier = docker("run", "-d", "--name", "web", "--net", "none", "-l", "k=v", "bb", "sh", "-c", script)
    assert len(identifier) == 64
    row = docker("ps", "--format", '{{.ID}} {{.Image}} {{.Names}} {{.State}} {{.Label "k"}}')
    assert row == f"{identifier[:12]} bb web running v"
    assert docker("ps", "-q", "--filter", "label=k=v", "--no-trunc") == identifier
    assert docker("ps", "-q", "--filter", "name=other") == ""
    deadline = time.monotonic() + 10
    while (logs := docker.run("logs", "web")).stdout != b"out\n" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (logs.stdout, logs.stderr) == (b"out\n", b"err\n")
    assert docker("logs", "--tail", "0", "web") == ""
    assert docker("inspect", "-f", "{{.State.Status}} {{.Config.Cmd}}", "web") == f"running [sh -c {script}]"
    assert "sleep 1000" in docker("top", "web")
    assert "web" in docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}")
    docker("pause", "web")
    assert docker("inspect", "-f", "{{.State.Status}}", "web") == "paused"
    docker("unpause", "web")
    docker("rename", "web", "web2")
    docker("stop", "-t", "0", "web2")
    assert docker("inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", "web2") == "false 137"
    docker("start", "web2")
    docker("restart", "-t", "0", "web2")
    docker("kill", "web2")
    assert docker("wait", "web2") == "137"
    docker("rm", "web2")
    assert docker.run("rm", "web2").returncode == 1


def test_exec(docker: Docker) -> None:
    docker("run", "-d", "--name", "web", "--net", "none", "bb", "sleep", "1000")
    assert docker("exec", "web", "echo", "hi") == "hi"
    assert docker("exec", "-i", "web", "cat", stdin=b"in") == "in"
    assert docker("exec", "-e", "A=b", "-w", "/tmp", "web", "sh", "-c", "echo $A $PWD") == "b /tmp"
    done = docker.run("exec", "web", "sh", "-c", "echo err >&2; exit 7")
    assert (done.stderr, done.returncode) == (b"err\n", 7)
    assert docker.run("exec", "web", "nosuch").returncode == 127
    docker("exec", "-d", "web", "sh", "-c", "echo later > /tmp/later")
    for _ in range(20):
        assert docker.run("exec", "web", "sh", "-c", "exit 3").returncode == 3


def test_a_terminal(docker: Docker) -> None:
    ours, theirs = pty.openpty()
    words = [docker.program, "run", "-it", "--rm", "--net", "none", "bb", "sh"]
    with subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**docker.env, "TERM": "xterm"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        timer = threading.Timer(20, process.kill)
        timer.start()
        try:
            os.write(ours, b"echo $((40+2))-$(tty)\nexit 4\n")
            text = b""
            while True:
                try:
                    piece = os.read(ours, 4096)
                except OSError:  # EIO: the other side of the terminal is closed
                    break
                text += piece
        finally:
            os.close(ours)
            code = process.wait()
            timer.cancel()
    assert (b"42-/dev/" in text, code) == (True, 4), (text, code)


def test_detaching_leaves_it_running(docker: Docker) -> None:
    docker("run", "-dit", "--name", "web", "--net", "none", "bb", "sh")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [docker.program, "attach", "web"], stdin=theirs, stdout=theirs, stderr=theirs, env=docker.env
    ) as process:
        os.close(theirs)
        timer = threading.Timer(20, process.kill)
        timer.start()
        os.write(ours, b"echo $((40+2))\n")
        text = b""
        while b"42" not in text:
            text += os.read(ours, 4096)
        os.write(ours, b"\x10")
        time.sleep(0.1)
        os.write(ours, b"\x11")
        process.wait()  # with 1: the client calls its own detaching an error
        timer.cancel()
        os.close(ours)
    assert docker("inspect", "-f", "{{.State.Status}}", "web") == "running"


def test_a_published_port(docker: Docker) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1::80",
        "bb",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/etc",
    )
    host, _, port = docker("port", "web", "80/tcp").rpartition(":")
    docker("exec", "web", "sh", "-c", "echo page > /etc/index.html")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"page\n"
    connection.close()
    assert docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").count(".") == 3


def test_files(docker: Docker, tmp_path: pathlib.Path) -> None:
    docker("run", "-d", "--name", "web", "--net", "none", "bb", "sleep", "1000")
    (tmp_path / "f").write_text("data")
    docker("cp", str(tmp_path / "f"), "web:/tmp/g")
    assert docker("exec", "web", "cat", "/tmp/g") == "data"
    docker("cp", "web:/tmp/g", str(tmp_path / "h"))
    assert (tmp_path / "h").read_text() == "data"
    assert "A /tmp/g" in docker("diff", "web")
    assert docker.run("cp", "web:/none", str(tmp_path / "i")).returncode == 1
    docker("export", "-o", str(tmp_path / "all.tar"), "web")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "tmp/g" in [name.removeprefix("./") for name in tar.getnames()]
    docker("commit", "-c", "CMD cat /tmp/g", "web", "kept:1")
    assert docker("run", "--rm", "--net", "none", "kept:1") == "data"
    docker("rmi", "kept:1")


def test_images(docker: Docker, tmp_path: pathlib.Path) -> None:
    assert docker("images", "--format", "{{.Repository}}:{{.Tag}}") == "bb:latest"
    docker("tag", "bb", "other/name:2")
    assert docker("image", "inspect", "-f", "{{len .RepoTags}} {{.Os}}", "bb") == "2 linux"
    docker("save", "-o", str(tmp_path / "s.tar"), "other/name:2")
    assert "Untagged: other/name:2" in docker("rmi", "other/name:2")
    assert "Loaded image: other/name:2" in docker("load", "-i", str(tmp_path / "s.tar"))
    docker("rmi", "other/name:2")
    assert "Imported from -" in docker("history", "bb") or "IMAGE" in docker("history", "bb")
    done = docker.run("pull", "127.0.0.1:1/python:3.11-slim")  # nobody listens there
    assert done.returncode == 1
    assert b"bootstrap" in done.stderr


def test_build(docker: Docker, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM bb\nARG WHO=nobody\nRUN echo hello $WHO > /greeting && echo told\nCOPY f /d/f\nLABEL a=b\n"
        'CMD ["cat", "/greeting", "/d/f"]\n'
    )
    (tmp_path / "f").write_text("copied\n")
    words = (
        "build",
        "-t",
        "built:1",
        "--network",
        "none",
        "--build-arg",
        "WHO=you",
        "--label",
        "c=d",
        str(tmp_path),
    )
    done = docker.run(*words, timeout=120)
    text = done.stdout.decode()
    assert done.returncode == 0, done
    assert "Step 1/6 : FROM bb" in text
    assert "told\n" in text
    assert "Successfully tagged built:1" in text
    assert docker("run", "--rm", "--net", "none", "built:1") == "hello you\ncopied"
    assert docker("inspect", "-f", "{{json .Config.Labels}}", "built:1") == '{"a":"b","c":"d"}'
    again = docker.run(*words, timeout=60)
    assert b"Using cache" in again.stdout
    quiet = docker("build", "-q", *words[1:])
    assert quiet == docker("inspect", "-f", "{{.Id}}", "built:1")
    docker("rmi", "built:1")


def test_a_build_that_fails(docker: Docker, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM bb\nRUN exit 3\n")
    done = docker.run("build", "--network", "none", str(tmp_path), timeout=60)
    assert done.returncode != 0
    assert b"3" in done.stderr
    (tmp_path / "Dockerfile").write_text("FROM bb\nRUNN true\n")
    done = docker.run("build", str(tmp_path), timeout=60)
    assert done.returncode == 1
    assert b"RUNN" in done.stderr


def test_volumes_and_networks(docker: Docker) -> None:
    assert docker("volume", "create", "vol") == "vol"
    docker("run", "--rm", "--net", "none", "-v", "vol:/data", "bb", "sh", "-c", "echo kept > /data/f")
    assert docker("run", "--rm", "--net", "none", "-v", "vol:/data:ro", "bb", "cat", "/data/f") == "kept"
    assert "vol" in docker("volume", "ls", "-q").split()
    assert docker("volume", "inspect", "-f", "{{.Driver}}", "vol") == "local"
    docker("volume", "rm", "vol")
    names = docker("network", "ls", "--format", "{{.Name}}").split()
    assert {"bridge", "host", "none"} <= set(names)
    docker("network", "create", "mine")
    docker("network", "rm", "mine")


def test_system(docker: Docker) -> None:
    assert docker("version", "-f", "{{.Server.APIVersion}} {{.Server.Os}}") == "1.54 linux"
    assert docker("info", "-f", "{{.OSType}} {{.Swarm.LocalNodeState}}") == "linux inactive"
    assert "Images" in docker("system", "df")
    assert docker.run("service", "ls").returncode == 1
    docker("events", "--since", "1h", "--until", "0s")
    assert docker.run("login", "-u", "a", "-p", "b", "localhost:1").returncode == 1


def test_docker_py(py: Any) -> None:
    assert py.ping()
    assert py.containers.run("bb", ["echo", "hello"], remove=True, network_mode="none") == b"hello\n"
    container = py.containers.run("bb", ["sleep", "1000"], detach=True, network_mode="none", mem_limit="64m")
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True) == (
        4,
        (b"out\n", b"err\n"),
    )
    code, stream = container.exec_run(["echo", "streamed"], stream=True)
    assert (code, b"".join(stream)) == (None, b"streamed\n")
    assert container.put_archive("/tmp", rootfs())
    bits, stat = container.get_archive("/tmp/bin/busybox")
    assert stat["size"] == os.stat(BUSYBOX).st_size
    assert sum(len(piece) for piece in bits) > stat["size"]
    assert container.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    container.stop(timeout=0)
    container.reload()
    assert container.status == "exited"
    assert container.wait()["StatusCode"] == 137
    container.remove()
    image, log = py.images.build(
        fileobj=io.BytesIO(b"FROM bb\nRUN echo built\n"), tag="py:1", network_mode="none"
    )
    assert any("built" in line.get("stream", "") for line in log)
    assert image.tags == ["py:1"]
    py.images.remove("py:1")


def test_docker_py_attaches_and_follows(py: Any) -> None:
    container = py.containers.create("bb", ["cat"], stdin_open=True, network_mode="none")
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    sock._sock.sendall(b"ping\n")
    assert sock.read(8 + 5) == b"\x01\0\0\0\0\0\0\x05ping\n"
    sock.close()
    following = container.logs(stream=True, follow=True)
    assert next(following) == b"ping\n"
    container.kill()
    assert list(following) == []
    container.remove()


def test_docker_py_sees_events(py: Any) -> None:
    since = int(time.time())
    py.containers.run("bb", ["true"], remove=True, network_mode="none")
    found = [event["Action"] for event in py.events(since=since, until=int(time.time()) + 1, decode=True)]
    wanted = ["create", "start", "die", "destroy"]
    assert [action for action in found if action in wanted][-4:] == wanted
