"""The lesson of the README on real input: base image, build with pip inside, a served model asked over HTTP.

Through the installed console script, with a data root of its own. Needs the package index and the Debian mirror.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LADING = Path(sys.executable).with_name("lading")
EXAMPLE = Path(__file__).parents[2] / "examples/iris-api"
IMAGE, NAME = "meu-modelo-ml:v1.0", "api-modelo-ml"
SETOSA = [5.1, 3.5, 1.4, 0.2]

pytestmark = pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap is not installed")


@dataclass
class Shell:
    """Types commands; the daemon they start is the test's own."""

    home: Path

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "LADING_ROOT": str(self.home / "root"), "LADING_RUN": str(self.home / "run")}

    def type(self, *words: str, code: int = 0) -> str:
        """Standard output of `lading words`, which must exit with `code`."""
        done = subprocess.run(
            [LADING, *words],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == code, (
            f"lading {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout if code == 0 else done.stderr

    def timed(self, *words: str) -> float:
        started = time.monotonic()
        self.type(*words)
        return time.monotonic() - started

    def daemon(self) -> int:
        """Process id of the daemon, by asking the socket who listens (unix(7), SO_PEERCRED)."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.home / "run/lading.sock"))
            return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    def end_daemon(self, number: int) -> None:
        pid = self.daemon()
        os.kill(pid, number)
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not os.path.exists(f"/proc/{pid}"), "the daemon does not end"


@dataclass
class Service:
    """The model's HTTP interface at one port."""

    port: int

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert self.ask("GET", "/health")[0] == 200
                return
            except OSError:
                assert time.monotonic() < deadline, "the model does not answer"
                time.sleep(0.1)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(tmp_path_factory.mktemp("lesson"))
    try:
        yield made
    finally:
        if (made.home / "run/lading.sock").exists():
            ids = made.type("ps", "-aq").split()
            if ids:
                made.type("rm", "-f", *ids)
            made.end_daemon(signal.SIGTERM)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(made.home) not in mounts, "a mount was left behind"
    shutil.rmtree(made.home)


@pytest.fixture(scope="module")
def built(shell: Shell) -> Shell:
    shell.type("bootstrap", "python:3.11-slim")
    shell.type("build", "--progress", "plain", "-t", IMAGE, str(EXAMPLE))
    return shell


@pytest.fixture(scope="module")
def service(built: Shell) -> Service:
    built.type("run", "-d", "-p", "127.0.0.1::5000", "--name", NAME, IMAGE)
    served = Service(int(built.type("port", NAME, "5000").strip().rpartition(":")[2]))
    served.wait()
    return served


def test_the_image_is_what_the_dockerfile_says(built: Shell) -> None:
    (image,) = json.loads(built.type("inspect", "--type", "image", IMAGE))
    config = image["Config"]
    assert config["Cmd"] == ["gunicorn", "--bind", "0.0.0.0:5000", "app:app"]
    assert (config["User"], config["WorkingDir"]) == ("10001:10001", "/app")
    assert config["ExposedPorts"] == {"5000/tcp": {}}
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["io.lading.bootstrap"] == "local"


def test_nothing_of_the_host_is_in_the_image(built: Shell) -> None:
    (image,) = json.loads(built.type("inspect", "--type", "image", IMAGE))
    named = {item.partition("=")[0].lower() for item in image["Config"]["Env"]}
    assert not named & {"http_proxy", "https_proxy", "ssl_cert_file", "pip_cert", "requests_ca_bundle"}
    listing = built.type("run", "--rm", "--network", "none", IMAGE, "ls", "/app").split()
    assert "model.joblib" in listing and "Dockerfile" not in listing, ".dockerignore was not read"


def test_the_model_answers_over_http(service: Service) -> None:
    status, answer = service.ask("POST", "/predict", {"features": SETOSA})
    assert (status, answer["class_name"]) == (200, "setosa")
    assert service.ask("POST", "/predict", {"features": [6.7, 3.0, 5.2, 2.3]})[1]["class_name"] == "virginica"


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"features": [1, 2, 3]}, {"features": [1, 2, 3, "x"]}, {"features": [1, 2, 3, 1e400]}],
)
def test_bad_input_is_the_clients_fault(service: Service, body: Any) -> None:
    status, answer = service.ask("POST", "/predict", body)
    assert status == 400
    assert answer["error"]


def test_the_container_is_seen_and_entered(built: Shell, service: Service) -> None:
    assert built.type("ps", "--format", "{{.Names}}\t{{.Image}}").strip() == f"{NAME}\t{IMAGE}"
    assert (
        "Listening at"
        in subprocess.run(
            [LADING, "logs", NAME], env=built.environ, capture_output=True, text=True, check=True
        ).stderr
    )
    assert built.type("exec", NAME, "python", "-V").startswith("Python 3.11.")
    assert built.type("exec", NAME, "id", "-u").strip() == "10001"
    assert NAME in built.type("stats", "--no-stream")


def test_a_killed_daemon_loses_nothing(built: Shell, service: Service) -> None:
    built.end_daemon(signal.SIGKILL)
    assert service.ask("POST", "/predict", {"features": SETOSA})[0] == 200, (
        "the container died with its daemon"
    )
    assert built.type("ps", "-q").strip()
    assert service.ask("GET", "/health")[0] == 200


def test_stop_and_start(built: Shell, service: Service) -> None:
    built.type("stop", NAME)
    with pytest.raises(OSError):
        service.ask("GET", "/health")
    built.type("start", NAME)
    again = Service(int(built.type("port", NAME, "5000").strip().rpartition(":")[2]))
    again.wait()
    assert again.ask("POST", "/predict", {"features": SETOSA})[1]["class_name"] == "setosa"


def test_a_rebuild_comes_from_the_cache(built: Shell) -> None:
    (before,) = json.loads(built.type("inspect", "--type", "image", IMAGE))
    assert built.timed("build", "-t", IMAGE, str(EXAMPLE)) < 5, "pip ran again"
    (after,) = json.loads(built.type("inspect", "--type", "image", IMAGE))
    assert before["Id"] == after["Id"]


def test_clean_up(built: Shell, service: Service) -> None:
    assert NAME in built.type("ps") and "container" in built.type("rmi", IMAGE, code=1)
    built.type("rm", "-f", NAME)
    assert built.type("ps", "-aq") == ""
    built.type("rmi", IMAGE)
    assert IMAGE.partition(":")[0] not in built.type("images")
