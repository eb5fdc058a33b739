"""/containers files: archive (docker cp) and export. Owns the stat header and the bounds; the engine walks the trees."""

from __future__ import annotations

import base64
from typing import Any

from lading.api.exchange import Exchange
from lading.api.ports import Engine
from lading.api.render.json import dumps
from lading.api.router import Route
from lading.base.errors import Invalid

_TAR = "application/x-tar"


def _path(x: Exchange) -> str:
    path = x.text("path")
    if not path:
        raise Invalid("the query has no path", why="It names the file inside the container.")
    if "\0" in path:
        raise Invalid("a path cannot contain a NUL byte")
    return path


def _header(stat: dict[str, Any]) -> list[tuple[str, str]]:
    return [("X-Docker-Container-Path-Stat", base64.b64encode(dumps(stat)).decode("ascii"))]


def head(engine: Engine, x: Exchange) -> None:
    x.empty(200, _header(engine.containers.archive_head(x.params["id"], _path(x))))


def get(engine: Engine, x: Exchange) -> None:
    ref, path = x.params["id"], _path(x)
    stat = engine.containers.archive_head(ref, path)
    out = x.stream(_TAR, _header(stat))
    engine.containers.archive_get(ref, path, out.write)
    out.end()


def put(engine: Engine, x: Exchange) -> None:
    engine.containers.archive_put(
        x.params["id"],
        _path(x),
        x.input(),
        no_overwrite=x.flag("noOverwriteDirNonDir"),
        copy_owner=x.flag("copyUIDGID"),
    )
    x.empty(200)


def export(engine: Engine, x: Exchange) -> None:
    out = x.stream("application/octet-stream")
    engine.containers.export(x.params["id"], out.write)
    out.end()


ROUTES = [
    Route("HEAD", "/containers/{id}/archive", head),
    Route("GET", "/containers/{id}/archive", get),
    Route("PUT", "/containers/{id}/archive", put),
    Route("GET", "/containers/{id}/export", export),
]
