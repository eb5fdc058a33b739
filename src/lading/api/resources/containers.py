"""/containers: the verbs that answer at once. Streams are in `streams`, files in `archives`."""

from __future__ import annotations

import contextlib

from lading.api import parse
from lading.api.errors import Refused, status_of
from lading.api.exchange import Exchange
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render import containers as render
from lading.api.router import Route
from lading.base import clock
from lading.base.errors import Invalid, LadingError, NotFound


def list_(engine: Engine, x: Exchange) -> None:
    limit = x.integer("limit", -1)
    filters = x.filters()
    everything = x.flag("all") or limit > 0 or "status" in filters
    views = engine.containers.list(everything, max(limit, 0), filters, x.flag("size"))
    now = clock.now_ns()
    x.json([render.summary(view, now) for view in views])


def create(engine: Engine, x: Exchange) -> None:
    request = parse.create(x.json_body(), x.text("name"), x.text("platform"))
    try:
        identifier, warnings = engine.containers.create(request)
    except NotFound as error:
        if not _has_image(engine, request.config.image):
            raise
        # Clients read 404 here as "no such image", fetch it and try again; something else is missing.
        raise Refused(400, str(error), error.exit_code) from error
    x.json({"Id": identifier, "Warnings": list(warnings)}, 201)


def _has_image(engine: Engine, name: str) -> bool:
    try:
        engine.images.inspect(name)
    except LadingError:
        return False
    return True


def inspect(engine: Engine, x: Exchange) -> None:
    x.json(render.inspect(engine.containers.inspect(x.params["id"], x.flag("size")), x.version))


def _done(x: Exchange, changed: bool | None) -> None:
    """204, or 304 when the container was so already."""
    x.empty(304 if changed is False else 204)


def start(engine: Engine, x: Exchange) -> None:
    """A container that goes by itself (--rm) also goes when it cannot start: its client waits for that."""
    ref = x.params["id"]
    try:
        changed = engine.containers.start(ref)
    except LadingError as error:
        with contextlib.suppress(LadingError):  # the first error is the one to tell
            view = engine.containers.inspect(ref)
            if view.host.auto_remove and view.state.status in ("created", "exited"):
                engine.containers.remove(view.id, False, True)
        # 126 and 127: the command is at fault, not the path that was asked for
        status = 400 if error.exit_code in (126, 127) else status_of(error)
        raise Refused(status, str(error), error.exit_code) from error
    _done(x, changed)


def _timeout(x: Exchange) -> int | None:
    return x.integer("t") if x.text("t") else None


def stop(engine: Engine, x: Exchange) -> None:
    _done(x, engine.containers.stop(x.params["id"], _timeout(x), x.text("signal")))


def restart(engine: Engine, x: Exchange) -> None:
    engine.containers.restart(x.params["id"], _timeout(x), x.text("signal"))
    x.empty()


def kill(engine: Engine, x: Exchange) -> None:
    engine.containers.kill(x.params["id"], x.text("signal") or "SIGKILL")
    x.empty()


def pause(engine: Engine, x: Exchange) -> None:
    engine.containers.pause(x.params["id"])
    x.empty()


def unpause(engine: Engine, x: Exchange) -> None:
    engine.containers.unpause(x.params["id"])
    x.empty()


def rename(engine: Engine, x: Exchange) -> None:
    new = x.text("name").removeprefix("/")
    if not new:
        raise Invalid("a container cannot be renamed to nothing")
    engine.containers.rename(x.params["id"], new)
    x.empty()


def update(engine: Engine, x: Exchange) -> None:
    fields = Fields(x.json_body())
    policy = parse.restart(fields) if fields.object("RestartPolicy").text("Name") else None
    warnings = engine.containers.update(x.params["id"], parse.resources(fields), policy)
    x.json({"Warnings": list(warnings)})


def remove(engine: Engine, x: Exchange) -> None:
    if x.flag("link"):
        raise Invalid("container links are not supported")
    engine.containers.remove(x.params["id"], x.flag("force"), x.flag("v"))
    x.empty()


def resize(engine: Engine, x: Exchange) -> None:
    engine.containers.resize(x.params["id"], x.integer("h"), x.integer("w"))
    x.empty(200)


def top(engine: Engine, x: Exchange) -> None:
    titles, rows = engine.containers.top(x.params["id"], x.text("ps_args", "-ef"))
    x.json({"Titles": list(titles), "Processes": [list(row) for row in rows]})


def changes(engine: Engine, x: Exchange) -> None:
    found = [
        {"Path": change.path, "Kind": change.kind} for change in engine.containers.changes(x.params["id"])
    ]
    x.json(found or None)


def prune(engine: Engine, x: Exchange) -> None:
    deleted, reclaimed = engine.containers.prune(x.filters())
    x.json({"ContainersDeleted": list(deleted) or None, "SpaceReclaimed": reclaimed})


def commit(engine: Engine, x: Exchange) -> None:
    image = engine.containers.commit(
        x.text("container"),
        x.text("repo"),
        x.text("tag"),
        x.text("comment"),
        x.text("author"),
        x.texts("changes"),
        x.flag("pause", True),
    )
    x.json({"Id": image}, 201)


ROUTES = [
    Route("GET", "/containers/json", list_),
    Route("POST", "/containers/create", create),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/update", update),
    Route("POST", "/containers/{id}/resize", resize),
    Route("GET", "/containers/{id}/top", top),
    Route("GET", "/containers/{id}/changes", changes),
    Route("DELETE", "/containers/{id}", remove),
    Route("POST", "/commit", commit),
]
