"""Progress of a pull or push: plain lines, or on a terminal one line a layer, drawn over in place."""

from __future__ import annotations

from lading.cli.context import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Output


class Lines:
    """What changes, one line each; bytes are not counted aloud."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def feed(self, event: dict[str, Any]) -> None:
        if event.get("progressDetail"):
            return
        text = str(event.get("stream") or event.get("status") or "").rstrip("\n")
        if text:
            name = event.get("id")
            self._out.line(printable(f"{name}: {text}" if name else text))
            self._out.flush()


class Bars:
    """Each id has a line; a line that has scrolled out of the terminal is not drawn again."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._places: dict[str, int] = {}
        self._count = 0

    def feed(self, event: dict[str, Any]) -> None:
        text = str(event.get("stream") or event.get("status") or "").rstrip("\n")
        if not text:
            return
        name = str(event.get("id") or "")
        shown = f"{name}: {text}" if name else text
        if event.get("progressDetail"):
            shown += f" {event.get('progress') or ''}"
        line = printable(shown)[: max(self._out.width() - 1, 20)]
        if not name or name not in self._places:
            if name:
                self._places[name] = self._count
            self._count += 1
            self._out.line(line)
        else:
            up = self._count - self._places[name]
            if up < self._rows():
                self._out.write(f"\x1b[{up}A\r{line}\x1b[K\x1b[{up}B\r")
        self._out.flush()

    def _rows(self) -> int:
        import os

        try:
            return os.get_terminal_size(self._out.fd).lines or 24
        except OSError:
            return 24
