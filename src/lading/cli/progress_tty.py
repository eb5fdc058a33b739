"""A build on a terminal: one block that is drawn over in place, and a static summary at the end.

Owns the drawing; what a failed step wrote last is in the error that follows. Lines are cut to the terminal, so that the
cursor can find its way back; escape sequences in the steps' output are taken out for the same reason.
"""

from __future__ import annotations

import re
import threading
import time

from lading.cli.context import printable
from lading.cli.progress import Lines, chunk, one_line, seconds, step_name
from lading.cli.table import width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Output

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_PERIOD = 0.1
_TAIL = 6


class Block:
    """The state of a build and its drawing as lines. Knows no terminal and no clock: both are told."""

    def __init__(self) -> None:
        self.vertices: dict[str, dict[str, Any]] = {}
        self.tails: dict[str, list[str]] = {}
        self.notices: list[str] = []
        self.image = ""
        self.tags: list[str] = []
        self._lines: dict[tuple[str, str], Lines] = {}

    def feed(self, event: dict[str, Any]) -> None:
        if isinstance(vertex := event.get("vertex"), dict):
            self.vertices[str(vertex.get("id", ""))] = vertex
        elif isinstance(log := event.get("log"), dict):
            key = str(log.get("vertex", ""))
            lines = self._lines.setdefault((key, str(log.get("stream", ""))), Lines()).feed(chunk(log))
            tail = self.tails.setdefault(key, [])
            tail += [clean(line) for line in lines]
            del tail[:-_TAIL]
        elif isinstance(notice := event.get("notice"), dict):
            mark = "warning: " if notice.get("kind") == "warning" else ""
            self.notices.append(mark + one_line(str(notice.get("text", ""))))
        elif isinstance(finished := event.get("finished"), dict):
            self.image = str(finished.get("image_id", ""))
            self.tags = [str(tag) for tag in finished.get("tags") or ()]

    def draw(self, now: int, began: int, columns: int, rows: int, final: bool = False) -> list[str]:
        """The block's lines, each at most `columns` wide, at most `rows` of them unless this is the last drawing."""
        steps = [v for v in self.vertices.values() if v.get("started_ns") or v.get("completed_ns")]
        done = sum(1 for v in steps if v.get("completed_ns"))
        total = max([int(v.get("total") or 0) for v in steps], default=0)
        state = " FINISHED" if final and self.image else ""
        head = f"[+] Building {(now - began) / 1e9:.1f}s ({done}/{max(total, len(steps))}){state}"
        body: list[str] = [_cut(f" => {notice}", columns) for notice in self.notices]
        for vertex in steps:
            body.append(_step(vertex, now, columns))
            if not vertex.get("completed_ns"):
                tail = self.tails.get(str(vertex.get("id", "")), [])
                body += [_cut(f" => => # {line}", columns) for line in tail]
        if final and self.image:
            body.append(_cut(f" => writing image {self.image}", columns))
            body += [_cut(f" => naming to {one_line(tag)}", columns) for tag in self.tags]
        if not final and len(body) > rows - 2:
            body = body[-(max(rows - 2, 1)) :]
        return [_cut(head, columns), *body]


def clean(line: str) -> str:
    """A line of output without escape sequences and other control characters; tabs as spaces."""
    return printable(_ESCAPES.sub("", line).replace("\t", "    "))


def _step(vertex: dict[str, Any], now: int, columns: int) -> str:
    mark = "ERROR " if vertex.get("error") else "CACHED " if vertex.get("cached") else ""
    clock = f"{seconds(vertex, now):.1f}s"
    room = columns - len(clock) - 1
    text = _cut(f" => {mark}{step_name(vertex)}", room)
    return text + " " * (room - width(text)) + " " + clock


def _cut(text: str, columns: int) -> str:
    if width(text) <= columns:
        return text
    used, kept = 0, ""
    for char in text:
        used += width(char)
        if used > columns - 1:
            break
        kept += char
    return kept + "…"


class Live:
    """Draws the block again at every tenth of a second, so that the running step's time moves."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._block = Block()
        self._began = time.time_ns()
        self._drawn = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._out.write("\x1b[?25l")  # the cursor would flicker over the block
        self._ticker.start()

    def feed(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._block.feed(event)

    def close(self, done: bool) -> None:
        self._over.set()
        self._ticker.join()
        with self._lock:
            self._draw(final=True)
            self._out.write("\x1b[?25h")
            self._out.flush()

    def _tick(self) -> None:
        while not self._over.wait(_PERIOD):
            with self._lock:
                try:
                    self._draw()
                except OSError:
                    return  # the terminal went away; the main thread meets that too, and ends the command

    def _draw(self, final: bool = False) -> None:
        import os

        try:
            columns, rows = os.get_terminal_size(self._out.fd)
        except OSError:
            columns, rows = 80, 24
        lines = self._block.draw(time.time_ns(), self._began, max(columns, 20), max(rows, 4), final)
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write("\r" + back + "".join([f"{line}\x1b[K\n" for line in lines]) + "\x1b[J")
        self._out.flush()
        self._drawn = len(lines)
