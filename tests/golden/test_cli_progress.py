"""A build's events as text: the plain form and the live block, word for word."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lading.build.progress import Finished, Log, Notice, Vertex, to_json
from lading.cli.context import Context, Output
from lading.cli.progress import Plain, Quiet, RawJSON, renderer
from lading.cli.progress_tty import Block, Live

HERE = Path(__file__).parent
S = 1_000_000_000
T = 1_700_000_000 * S


def vertex(number: int, name: str, start: float = 0, end: float = 0, **more: Any) -> Vertex:
    return Vertex(
        id=f"v{number}",
        name=name,
        number=number,
        total=4,
        started_ns=T + int(start * S),
        completed_ns=T + int(end * S) if end else 0,
        **more,
    )


# Two stages at once, a cached step, output cut in the middle of lines and characters, a bar drawn over itself.
EVENTS = [
    Notice(
        "host trust is on for RUN steps: the host's CA bundle and proxies are visible to them, and recorded nowhere"
    ),
    vertex(1, "FROM python:3.11-slim", 0),
    vertex(1, "FROM python:3.11-slim", 0, 0.04, cached=True),
    vertex(2, "COPY requirements.txt .", 0.1, stage="1"),
    vertex(2, "COPY requirements.txt .", 0.1, 0.2, stage="1"),
    vertex(3, "RUN pip install -r requirements.txt", 0.2),
    Log("v3", "stdout", b"Collecting sci", T + int(0.5 * S)),
    Log(
        "v3",
        "stdout",
        "kit-learn\nDownloading ▏  0%\rDownloading ██ 50%\rDownloading ███ 100%\n".encode(),
        T + int(1.25 * S),
    ),
    Log("v3", "stderr", b"WARNING: running pip as root \xff\n", T + int(1.5 * S)),
    vertex(4, "RUN make -C docs", 0.3, stage="docs"),
    Log("v4", "stdout", b"\x1b[32mgreen\x1b[0m\tdone\n", T + int(1.75 * S)),
    Log("v3", "stdout", b"Successfully installed", T + int(2 * S)),
    vertex(3, "RUN pip install -r requirements.txt", 0.2, 2.4),
]
GOOD = [
    *EVENTS,
    vertex(4, "RUN make -C docs", 0.3, 3.0, stage="docs"),
    Finished("sha256:" + "ab" * 32, ("docker.io/library/meu-modelo-ml:v1.0",)),
]
BAD = [*EVENTS, vertex(4, "RUN make -C docs", 0.3, 3.0, stage="docs", error="exit code 2")]


def written(make: Any, events: list[Any], done: bool = True) -> str:
    reader, writer = os.pipe()
    shown = make(Output(writer))
    for event in events:
        shown.feed(json.loads(json.dumps(to_json(event))))
    shown.close(done)
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read().decode()


def golden(name: str, text: str) -> None:
    file = HERE / f"cli_progress_{name}.txt"
    if os.environ.get("LADING_WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_plain() -> None:
    golden("plain", written(Plain, GOOD))


def test_plain_failure() -> None:
    golden("plain_failed", written(Plain, BAD, done=False))


def drawn(events: list[Any], at: float, columns: int, rows: int, final: bool = False) -> list[str]:
    block = Block()
    for event in events:
        block.feed(to_json(event))
    lines = block.draw(T + int(at * S), T, columns, rows, final)
    assert all(len(line) <= columns for line in lines)
    return lines


def test_the_live_block() -> None:
    text = ""
    for title, events, at, columns, rows, final in (
        ("running", EVENTS, 2.2, 80, 24, False),
        ("narrow", EVENTS, 2.2, 40, 24, False),
        ("low", EVENTS, 2.2, 80, 5, False),
        ("finished", GOOD, 3.1, 80, 24, True),
        ("failed", BAD, 3.1, 80, 24, True),
    ):
        text += f"--- {title}\n" + "\n".join(drawn(events, at, columns, rows, final)) + "\n"
    golden("tty", text)


def test_live_draws_over_itself_and_leaves_the_cursor() -> None:
    text = written(Live, GOOD)
    assert text.startswith("\x1b[?25l") and text.endswith("\x1b[?25h")
    last = text.rpartition("\r")[2]
    assert "FINISHED" in last and last.count("\n") == len(drawn(GOOD, 3.1, 80, 24, True))
    assert "\x1b[32m" not in text and "\x00" not in text


def test_quiet_and_raw() -> None:
    assert written(Quiet, GOOD) == ""
    assert written(Quiet, [Notice("mind this", "warning"), *GOOD]) == "warning: mind this\n"
    lines = [json.loads(line) for line in written(RawJSON, GOOD).splitlines()]
    assert lines == [to_json(event) for event in GOOD]


def test_hostile_events_are_shown_harmlessly() -> None:
    bad: list[dict[str, Any]] = [
        {}, {"vertex": 1}, {"log": None}, {"vertex": {"id": "x", "name": "RUN \x1b[2J\n", "started_ns": 1}},
        {"log": {"vertex": "nobody", "text": "a\x1b]0;x\x07b\n"}}, {"log": {"vertex": "x", "base64": "***"}},
        {"log": {"vertex": "x", "base64": base64.b64encode(b"\xff\n").decode()}}, {"notice": {"text": "\x1bc"}},
        {"log": {"vertex": "x", "text": "y" * 200_000}},
    ]  # fmt: skip
    null = os.open("/dev/null", os.O_WRONLY)
    block, plain = Block(), Plain(Output(null))
    for event in bad:
        block.feed(event)
        plain.feed(event)
    assert not any("\x1b" in line or "\n" in line for line in block.draw(5, 0, 60, 10))
    os.close(null)


@pytest.mark.parametrize(("mode", "kind"), [("plain", Plain), ("quiet", Quiet), ("rawjson", RawJSON)])
def test_the_mode_chooses(mode: str, kind: type) -> None:
    assert isinstance(renderer(Context({}), mode), kind)
