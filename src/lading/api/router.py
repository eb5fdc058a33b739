"""Method and path to handler. Owns the route table's form and the version prefix; never reads a body.

A template's `{name}` is one segment; `{name...}` takes slashes too, for image references.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from lading.api.errors import Refused
from lading.api.exchange import API_VERSION, MIN_VERSION, Exchange
from lading.api.ports import Engine
from lading.base.errors import Invalid

Handler = Callable[[Engine, Exchange], None]
_VERSION = re.compile(r"/v(\d{1,4})\.(\d{1,4})(?=/)")
_PARAM = re.compile(r"\{(\w+)(\.\.\.)?\}")


class Route(NamedTuple):
    """A template and what answers it."""

    method: str
    template: str
    handler: Handler


class Router:
    """Looks a request up: plain paths in a dict, templates by method and first segment."""

    def __init__(self, routes: list[Route]) -> None:
        self._plain: dict[tuple[str, str], Handler] = {}
        self._templates: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        for method, template, handler in routes:
            if "{" not in template:
                self._plain[method, template] = handler
                continue
            pattern = "".join(
                f"(?P<{piece[0]}>{'.+' if piece[1] else '[^/]+'})"
                if isinstance(piece, tuple)
                else re.escape(piece)
                for piece in _pieces(template)
            )
            first = template.split("/", 2)[1]
            self._templates.setdefault((method, first), []).append((re.compile(pattern), handler))

    def find(self, x: Exchange, path: str) -> Handler:
        """The handler for `path`, with `x.params` and `x.version` set. Refused(404) when nothing answers there."""
        found = _VERSION.match(path)
        if found is not None:
            x.version = _version(int(found[1]), int(found[2]))
            path = path[found.end() :]
        handler = self._plain.get((x.method, path))
        if handler is not None:
            return handler
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        for pattern, handler in self._templates.get((x.method, first), ()):
            match = pattern.fullmatch(path)
            if match is not None:
                x.params = {name: unquote(value) for name, value in match.groupdict().items()}
                return handler
        # The reference engine answers a known path with an unknown method the same way.
        raise Refused(404, "page not found")


def _pieces(template: str) -> list[str | tuple[str, bool]]:
    pieces: list[str | tuple[str, bool]] = []
    position = 0
    for match in _PARAM.finditer(template):
        pieces.append(template[position : match.start()])
        pieces.append((match[1], bool(match[2])))
        position = match.end()
    pieces.append(template[position:])
    return pieces


def _version(major: int, minor: int) -> int:
    if (major, minor) < (1, MIN_VERSION):
        raise Invalid(
            f"client version {major}.{minor} is too old. Minimum supported API version is 1.{MIN_VERSION}, "
            "please upgrade your client to a newer version"
        )
    if (major, minor) > (1, API_VERSION):
        raise Invalid(
            f"client version {major}.{minor} is too new. Maximum supported API version is 1.{API_VERSION}"
        )
    return minor
