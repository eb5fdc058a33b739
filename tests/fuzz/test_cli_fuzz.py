"""Whatever is typed or sent, the command line answers with its own errors: never another exception, never a hang."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lading.cli import units
from lading.cli.context import Context, printable
from lading.cli.createbody import create_body
from lading.cli.flags import HelpWanted, UsageError, split
from lading.cli.progress import Lines
from lading.cli.progress_tty import Block, clean
from lading.cli.runflags import RUN
from lading.cli.streams import Demultiplexer
from lading.cli.template import Template
from lading.cli.template_words import TemplateError
from lading.cli.values import publish
from lading.cli.values_mounts import mount
from lading.client import wire
from lading.client.http import Broken, Connection

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
WORDS = (
    ". .A .A.B $ $x := | ( ) if else end range with and or not eq lt len index slice json join split upper printf",
    'print println title truncate pad "s" "%d" 0 1 -3 1.5 true nil break continue , {{ }} {{- -}} /* */ `',
)
ACTIONS = st.sampled_from([word for line in WORDS for word in line.split()])


@given(st.lists(ACTIONS | st.just(" "), max_size=14).map(" ".join) | st.text(max_size=30), VALUES)
@settings(max_examples=400, deadline=None)
def test_templates(text: str, value: Any) -> None:
    for whole in (text, "{{" + text + "}}"):
        try:
            Template(whole).render({"A": value, "B": 1})
        except TemplateError:
            pass


@given(st.text(max_size=12) | st.text(alphabet="0123456789.kmgbsh:-/[]ptcudi", max_size=14))
@settings(max_examples=400, deadline=None)
def test_values(text: str) -> None:
    for parse in (units.parse_size, units.parse_duration, units.parse_cpus):
        try:
            assert isinstance(parse(text), int)
        except ValueError:
            pass
    for read in (publish, lambda item: mount(Context({}), item)):
        try:
            read(text)
        except UsageError:
            pass


FLAGS = st.sampled_from([f"--{row[0]}" for row in RUN] + [f"-{row[1]}" for row in RUN if row[1]])


@given(st.lists(FLAGS | st.text(alphabet="abc:=/,.-0123456789", max_size=10), max_size=8))
@settings(max_examples=400, deadline=None)
def test_run_flags(argv: list[str]) -> None:
    try:
        flags = split("run", RUN, argv, interspersed=False)
        if flags.args and not flags.given("env-file") and not flags.given("label-file"):
            body = create_body(Context({}), flags, flags.on("detach"))
            assert json.loads(wire.dumps(body)) == body
    except (UsageError, HelpWanted):
        pass


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_responses(data: bytes) -> None:
    for head in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 200 OK\r\n"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(head + data)
            theirs.shutdown(socket.SHUT_WR)
            try:
                Connection(ours).receive().read()
            except Broken:
                pass


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_json(data: bytes) -> None:
    try:
        value = wire.loads(data)
    except ValueError:
        return
    if "inf" not in repr(value):  # 1e999 is JSON, and no number that can be written again
        assert wire.loads(wire.dumps(value).encode()) == value


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20)), max_size=6), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_frames_arrive_whole_however_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    pipes = os.pipe(), os.pipe()
    stream = b"".join([bytes([n, 0, 0, 0]) + len(d).to_bytes(4, "big") + d for n, d in frames])
    sink = Demultiplexer(pipes[0][1], pipes[1][1])
    for at in range(0, len(stream), step):
        sink.feed(stream[at : at + step])
    for number, (reader, writer) in enumerate(pipes, 1):
        os.close(writer)
        with open(reader, "rb") as file:
            assert file.read() == b"".join([d for n, d in frames if n == number])


@given(
    st.lists(st.text(alphabet="ab\r\n\x1b[0m\t模\x00", max_size=12), max_size=8),
    st.integers(20, 60),
    st.integers(4, 12),
)
@settings(max_examples=200, deadline=None)
def test_build_output(chunks: list[str], columns: int, rows: int) -> None:
    lines = Lines()
    got = [line for chunk in chunks for line in lines.feed(chunk)] + lines.last()
    assert not any("\n" in line for line in got)
    block = Block()
    block.feed({"vertex": {"id": "1", "name": "".join(chunks), "number": 1, "total": 1, "started_ns": 1}})
    for chunk in chunks:
        block.feed({"log": {"vertex": "1", "stream": "stdout", "text": chunk}})
    drawn = block.draw(10**9, 0, columns, rows)
    assert len(drawn) <= rows and all(clean(line) == line and printable(line) == line for line in drawn)
