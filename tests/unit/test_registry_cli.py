"""`lading registry`: what is wrong with its flags is said at once, in one line, before anything listens or is made."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lading.cli import entry
from lading.cli.context import Context


def complaint(tmp_path: Path, *argv: str) -> tuple[int, str]:
    """The exit code and what was said, of a command that does not get as far as to serve."""
    read, write = os.pipe()
    context = Context({"LADING_ROOT": f"{tmp_path}/root"}, stdout=write, stderr=write)
    code = entry.run(["registry", *argv], context)
    os.close(write)
    with os.fdopen(read) as stream:
        return code, stream.read()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["serve", "--addr", "5000"], "ADDRESS:PORT"),
        (["serve", "--addr", "nowhere.example:5000"], "ADDRESS:PORT"),
        (["serve", "--addr", "127.0.0.1:70000"], "ADDRESS:PORT"),
        (["serve", "--auth", "token"], "htpasswd:FILE"),
        (["serve", "--auth", "htpasswd:/no/such/file"], "/no/such/file"),
        (["serve", "--tls-cert", "c.pem"], "go together"),
        (["serve", "--tls-cert", "/no/c.pem", "--tls-key", "/no/k.pem"], "certificate"),
        (["serve", "--addr", "127.0.0.1:0", "--mirror", "ftp://x"], "no http or https URL"),
        (["serve", "extra"], "accepts no arguments"),
        (["gc"], "holds no registry"),
        (["gc", "--age", "soon"], "--age"),
    ],
)
def test_a_wrong_flag_is_told(tmp_path: Path, argv: list[str], said: str) -> None:
    code, text = complaint(tmp_path, *argv)
    assert code != 0
    assert said in text and "Traceback" not in text and "a fault in lading" not in text


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = complaint(tmp_path, "serve", "--addr", f"127.0.0.1:{port}")
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in text
    assert not (tmp_path / "root").exists(), "it made a registry and did not serve it"


def test_a_root_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, text = complaint(tmp_path, "serve", "--root", f"{tmp_path}/file/below")
    assert code == 1
    assert f"{tmp_path}/file" in text
