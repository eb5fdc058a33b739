"""What a start pays for: the modules that `lading run`, `exec` and `ps` import, counted in a fresh interpreter.

The list is the budget. A module that is not on it costs every start of every container; put it behind the branch that
needs it, or add it here with the reason it is worth it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# Of the standard library, beyond what an interpreter without site has at its start.
STANDARD = {"_json", "_socket", "select", "__future__"}

OWN = {
    "lading", "lading.base", "lading.base.errors", "lading.base.jsontext", "lading.base.paths", "lading.client",
    "lading.client.api", "lading.client.endpoint", "lading.client.http", "lading.client.wire", "lading.cli",
    "lading.cli.context", "lading.cli.entry", "lading.cli.flags", "lading.cli.session", "lading.cli.verbs",
}  # fmt: skip
RUN = {"run", "runflags", "createbody"}
FOREGROUND = {"terminal", "follow", "streams"}

VERBS = {
    "run img true": (RUN | FOREGROUND, STANDARD),
    "run -d --name n --rm -e A=1 --network none img true": (RUN, STANDARD - {"select"}),
    "run --rm -m 512m --cpus 2 img true": (RUN | FOREGROUND | {"units"}, STANDARD),
    "exec c true": ({"exec", "terminal", "follow", "streams"}, STANDARD),
    "ps": ({"ps", "human", "table"}, STANDARD - {"select"}),
    "rm -f c": ({"containers", "images", "human", "ps", "table"}, STANDARD - {"select"}),
}

PROBE = """
import sys
before = set(sys.modules)
from lading.cli import entry
from lading.cli.context import Context
code = entry.run(sys.argv[1:], Context({}))
import os
os.write(2, ("\\n" + repr((code, sorted(set(sys.modules) - before)))).encode())
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """Answers anything well enough for one command to end."""
    path = str(tmp_path / "d.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    yield f"unix://{path}"
    listener.close()


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(sock,), daemon=True).start()


def _serve(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        line = data.split(b"\r\n")[0]
        if b"/attach" in line or b"/exec/x/start" in line:
            sock.sendall(
                b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
            )
            sock.close()
            return
        body = (
            b"[]"
            if b"/containers/json" in line
            else json.dumps({"Id": "x", "StatusCode": 0, "ExitCode": 0}).encode()
        )
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.parametrize("line", VERBS)
def test_no_start_imports_more_than_its_budget(daemon: str, line: str) -> None:
    own, standard = VERBS[line]
    # -S: what a virtual environment's .pth files import is not lading's doing.
    source = str(Path(__file__).parents[2] / "src")
    probe = f"import sys; sys.path.insert(0, {source!r})\n{PROBE}"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", probe, "-H", daemon, *line.split()],
        capture_output=True,
        timeout=30,
        check=True,
    )
    code, modules = eval(ran.stderr.decode().splitlines()[-1])
    assert code == 0, ran.stderr
    # -S leaves these out; with site they are there before lading is.
    from_site = {"os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "os.path"}
    got = set(modules) - from_site
    wanted = OWN | {f"lading.cli.{name}" for name in own} | standard
    assert got - wanted == set(), "imported beyond the budget"
    assert wanted - got <= {"__future__"}, "the budget names what is not imported: take it out"
