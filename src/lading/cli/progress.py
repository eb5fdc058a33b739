"""A build's events to text: the plain form, one line after another. Owns which renderer is used; `progress_tty` is the
live one. Events are those of `lading.build.progress.to_json`.
"""

from __future__ import annotations

from lading.cli.context import printable
from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from lading.cli.context import Context, Output

    class Renderer(Protocol):
        """Takes events as they come; `close` says whether the build succeeded."""

        def feed(self, event: dict[str, Any]) -> None: ...
        def close(self, done: bool) -> None: ...


_LINE_LIMIT = 1 << 16


def renderer(context: Context, mode: str) -> Renderer:
    """The renderer for a mode."""
    if mode == "quiet":
        return Quiet(context.err)
    if mode == "rawjson":
        return RawJSON(context.out)
    if mode == "tty":
        from lading.cli.progress_tty import Live

        return Live(context.err)
    return Plain(context.err)


def step_name(vertex: dict[str, Any]) -> str:
    """`[2/7] WORKDIR /app`, with the stage's name where there are several."""
    stage = str(vertex.get("stage") or "")
    stage = f"stage-{stage} " if stage.isdigit() else f"{stage} " if stage else ""
    return one_line(f"[{stage}{vertex.get('number', 0)}/{vertex.get('total', 0)}] {vertex.get('name', '')}")


def one_line(text: str) -> str:
    """`text` as a part of one line: no line ends, no control characters."""
    return printable(" ".join(text.split()))


def seconds(vertex: dict[str, Any], until: int) -> float:
    """How long a step has run, or ran."""
    start = int(vertex.get("started_ns") or 0)
    return max((int(vertex.get("completed_ns") or 0) or until) - start, 0) / 1e9 if start else 0.0


def chunk(log: dict[str, Any]) -> str:
    """A log event's text; bytes that are no UTF-8 become replacement characters."""
    if "text" in log:
        return str(log["text"])
    import binascii

    try:
        return binascii.a2b_base64(str(log.get("base64", ""))).decode("utf-8", "replace")
    except ValueError:
        return ""


class Lines:
    """Cuts chunks into lines. Of a line that is drawn over with carriage returns only the last drawing stays."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > _LINE_LIMIT:
            lines.append(self._rest)
            self._rest = ""
        return [last_drawing(line) for line in lines]

    def last(self) -> list[str]:
        """What came after the last line's end."""
        rest, self._rest = self._rest, ""
        return [last_drawing(rest)] if rest else []


def last_drawing(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


class Quiet:
    """Nothing but warnings."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def feed(self, event: dict[str, Any]) -> None:
        notice = event.get("notice")
        if isinstance(notice, dict) and notice.get("kind") == "warning":
            self._out.line(f"warning: {printable(str(notice.get('text', '')))}")
            self._out.flush()

    def close(self, done: bool) -> None:
        pass


class RawJSON:
    """The events themselves, one a line."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def feed(self, event: dict[str, Any]) -> None:
        self._out.line(dumps(event))
        self._out.flush()

    def close(self, done: bool) -> None:
        pass


class Plain:
    """`#5 [2/7] WORKDIR /app`, `#5 1.234 output`, `#5 DONE 0.1s`: BuildKit's plain form."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._numbers: dict[str, int] = {}
        self._vertices: dict[str, dict[str, Any]] = {}
        self._lines: dict[tuple[str, str], Lines] = {}
        self._current = ""

    def feed(self, event: dict[str, Any]) -> None:
        if isinstance(vertex := event.get("vertex"), dict):
            self._vertex(vertex)
        elif isinstance(log := event.get("log"), dict):
            self._log(log)
        elif isinstance(notice := event.get("notice"), dict):
            mark = "warning: " if notice.get("kind") == "warning" else ""
            self._break()
            self._out.line(mark + one_line(str(notice.get("text", ""))))
        elif isinstance(finished := event.get("finished"), dict):
            self._break()
            self._out.line(f"writing image {finished.get('image_id', '')}")
            for tag in finished.get("tags") or ():
                self._out.line(f"naming to {one_line(str(tag))}")
        self._out.flush()

    def close(self, done: bool) -> None:
        self._out.flush()

    def _break(self) -> None:
        """An empty line before something else begins."""
        if self._current:
            self._out.line()
            self._current = ""

    def _turn(self, identifier: str) -> int:
        """Head the output of this step, when the last line was another's."""
        new = identifier not in self._numbers
        number = self._numbers.setdefault(identifier, len(self._numbers) + 1)
        if self._current != identifier:
            self._break()
            self._current = identifier
            name = step_name(self._vertices[identifier]) if identifier in self._vertices else ""
            self._out.line(f"#{number} {name}" if new or name else f"#{number} ...")
        return number

    def _vertex(self, vertex: dict[str, Any]) -> None:
        identifier = str(vertex.get("id", ""))
        self._vertices[identifier] = vertex
        if not vertex.get("started_ns") and not vertex.get("completed_ns"):
            return
        number = self._turn(identifier)
        if not vertex.get("completed_ns"):
            return
        for stream in ("stdout", "stderr"):
            for line in self._lines.pop((identifier, stream), Lines()).last():
                self._out.line(f"#{number} {seconds(vertex, 0):.3f} {line}")
        if vertex.get("error"):
            self._out.line(f"#{number} ERROR: {printable(str(vertex['error']))}")
        elif vertex.get("cached"):
            self._out.line(f"#{number} CACHED")
        else:
            self._out.line(f"#{number} DONE {seconds(vertex, 0):.1f}s")

    def _log(self, log: dict[str, Any]) -> None:
        identifier = str(log.get("vertex", ""))
        lines = self._lines.setdefault((identifier, str(log.get("stream", ""))), Lines()).feed(chunk(log))
        if not lines:
            return
        number = self._turn(identifier)
        vertex = {**self._vertices.get(identifier, {}), "completed_ns": 0}
        at = seconds(vertex, int(log.get("ns") or 0))
        for line in lines:
            self._out.line(f"#{number} {at:.3f} {line}")
