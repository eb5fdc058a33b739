"""pull, push, login, logout and a build's credentials against a scripted daemon: what is sent, what is shown."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon, Request, lading

from lading.cli.bars import Bars
from lading.cli.context import Output

PROGRESS = [
    {"status": "Pulling from team/app", "id": "1"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaaa"},
    {
        "status": "Downloading",
        "progressDetail": {"current": 1, "total": 2},
        "progress": "[=>]  1B/2B",
        "id": "aaaa",
    },
    {"status": "Pull complete", "progressDetail": {}, "id": "aaaa"},
    {"status": "Digest: sha256:00\x1b[2J"},
]


def stream(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\r\n" for value in values)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(str(tmp_path / "d.sock"))
    yield served
    served.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def logged_in(home: Path) -> None:
    (home / ".docker").mkdir()
    entry = {"auth": base64.b64encode(b"ada:s3cret").decode()}
    (home / ".docker/config.json").write_text(json.dumps({"auths": {"r.example": entry}}))


def sent(request: Request, name: str = "x-registry-auth") -> Any:
    return json.loads(base64.urlsafe_b64decode(request.headers[name]))


def test_pull_shows_plain_lines_and_brings_credentials(daemon: Daemon, home: Path) -> None:
    daemon.on("POST", "/images/create", lambda _: stream(*PROGRESS))
    ran = lading(daemon, "pull", "r.example/team/app:1")
    assert ran.returncode == 0, ran
    *first, last = ran.stdout.decode().splitlines()
    assert first == ["1: Pulling from team/app", "aaaa: Pulling fs layer", "aaaa: Pull complete"]
    assert last.startswith("Digest: sha256:00") and "\x1b" not in last
    request = daemon.last("POST", "/images/create")
    assert request.query["fromImage"] == ["r.example/team/app"] and request.query["tag"] == ["1"]
    assert "x-registry-auth" not in request.headers
    logged_in(home)
    lading(daemon, "pull", "-q", "r.example/team/app:1")
    assert sent(daemon.last("POST", "/images/create")) == {"username": "ada", "password": "s3cret"}
    lading(daemon, "pull", "-q", "other.example/app@sha256:" + "0" * 64)
    request = daemon.last("POST", "/images/create")
    assert "x-registry-auth" not in request.headers and request.query["tag"] == ["sha256:" + "0" * 64]


def test_an_error_in_the_stream_fails(daemon: Daemon, home: Path) -> None:
    daemon.on(
        "POST", "/images/create", lambda _: stream(PROGRESS[0], {"error": "it broke", "errorDetail": {}})
    )
    ran = lading(daemon, "pull", "a")
    assert ran.returncode == 1 and b"it broke" in ran.stderr
    assert daemon.last("POST", "/images/create").query["tag"] == ["latest"]


def test_push(daemon: Daemon, home: Path) -> None:
    daemon.on(
        "POST", "/images/.*/push", lambda _: stream({"status": "Pushed", "id": "a"}, {"aux": {"Tag": "1"}})
    )
    logged_in(home)
    assert lading(daemon, "push", "r.example:5000/app").stdout == b"a: Pushed\n"
    request = daemon.last("POST", "/images/r.example:5000/app/push")
    assert request.query["tag"] == ["latest"] and sent(request) == {}
    lading(daemon, "push", "-a", "r.example/app")
    request = daemon.last("POST", "/images/r.example/app/push")
    assert "tag" not in request.query and sent(request)["username"] == "ada"
    assert lading(daemon, "push", "a@sha256:" + "0" * 64).returncode != 0


def test_login_asks_the_registry_before_it_keeps_anything(daemon: Daemon, home: Path) -> None:
    def check(request: Request) -> Any:
        return (
            (200, {"Status": "Login Succeeded"})
            if request.json["password"] == "right"
            else (401, {"message": "no"})
        )

    daemon.on("POST", "/auth", check)
    path = home / ".docker/config.json"
    words = ("login", "-u", "ada", "--password-stdin", "https://r.example/v2/")
    assert lading(daemon, *words, stdin=b"wrong\n").returncode == 1 and not path.exists()
    ran = lading(daemon, *words, stdin=b"right\n")
    assert ran.returncode == 0 and b"unencrypted" in ran.stderr
    assert list(json.loads(path.read_text())["auths"]) == ["r.example"]
    assert lading(daemon, "login", "-u", "ada", "r.example", stdin=b"").returncode != 0
    assert lading(daemon, "logout", "r.example").returncode == 0
    assert json.loads(path.read_text())["auths"] == {}


def test_a_build_brings_all_credentials(daemon: Daemon, home: Path) -> None:
    logged_in(home)
    daemon.on("POST", "/build", lambda _: stream({"finished": {"image_id": "sha256:1", "tags": []}}))
    ran = lading(daemon, "build", "-q", "-", stdin=b"FROM scratch\n")
    assert ran.returncode == 0, ran
    config = sent(daemon.last("POST", "/build"), "x-registry-config")
    assert config == {"r.example": {"username": "ada", "password": "s3cret"}}


def test_bars_are_drawn_over_in_place() -> None:
    reader, writer = pty.openpty()
    try:
        shown = Bars(Output(writer))
        for line in PROGRESS:
            shown.feed(line)
        text = ""
        while "Digest" not in text or not text.endswith("\n"):  # the terminal gives it in pieces
            text += os.read(reader, 65536).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert text.count("\n") == 3  # one line each: the tag, the layer, the digest
    assert re.search(r"\x1b\[1A\raaaa: Downloading \[=>\]  1B/2B\x1b\[K\x1b\[1B\r", text)
    assert "\x1b[2J" not in text
