"""/exec: commands beside a container's init. Owns the request's form; the monitor owns the streams."""

from __future__ import annotations

from lading.api import hijack, parse
from lading.api.exchange import Exchange
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render import containers as render
from lading.api.router import Route
from lading.base.errors import Conflict


def create(engine: Engine, x: Exchange) -> None:
    request = parse.execution(x.json_body())
    if request.detach_keys:
        hijack.detach_keys(request.detach_keys)  # refused now rather than in the middle of the stream
    x.json({"Id": engine.execs.create(x.params["id"], request)}, 201)


def start(engine: Engine, x: Exchange) -> None:
    fields = Fields(x.json_body(required=False))
    exec_id = x.params["id"]
    if fields.flag("Detach"):
        engine.execs.start(exec_id, None, True, False, b"")
        x.empty(200)
        return
    found = engine.execs.inspect(exec_id)
    if found.started:
        raise Conflict(f"exec {exec_id} has already been run")
    request = found.request
    framed = not (request.tty or fields.flag("Tty"))
    keys = b""
    if request.tty and request.attach_stdin and x.text("detach") != "client":
        keys = hijack.detach_keys(request.detach_keys) if request.detach_keys else hijack.DEFAULT_KEYS
    size = [item for item in fields.items("ConsoleSize") if isinstance(item, int)]

    def take(fd: int) -> None:
        engine.execs.start(exec_id, fd, False, framed, keys)
        if request.tty and len(size) == 2 and all(size):
            engine.execs.resize(exec_id, size[0], size[1])

    hijack.hand_over(x, take, framed=framed)


def inspect(engine: Engine, x: Exchange) -> None:
    x.json(render.execution(engine.execs.inspect(x.params["id"])))


def resize(engine: Engine, x: Exchange) -> None:
    engine.execs.resize(x.params["id"], x.integer("h"), x.integer("w"))
    x.empty(200)


ROUTES = [
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
]
