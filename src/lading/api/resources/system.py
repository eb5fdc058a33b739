"""/_ping, /version, /info, /events, /system/df, /bootstrap. Owns their framing; the facts are the engine's."""

from __future__ import annotations

import threading

from lading.api.exchange import API_VERSION, MIN_VERSION, Exchange
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render import containers, usage
from lading.api.render import events as render
from lading.api.resources.streams import moment
from lading.api.router import Route
from lading.api.stream import error_line
from lading.base import clock
from lading.base.errors import Invalid, LadingError

_PING = [
    (
        "Builder-Version",
        "1",
    ),  # the classic builder's API; a client that asks for BuildKit's is refused at /session
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
]


def ping(engine: Engine, x: Exchange) -> None:
    if x.method == "HEAD":
        x.reply(200, "text/plain; charset=utf-8", b"", _PING)
    else:
        x.reply(200, "text/plain; charset=utf-8", b"OK", _PING)


def version(engine: Engine, x: Exchange) -> None:
    """The engine's facts; the versions of the API are this room's to say."""
    known = {"ApiVersion": f"1.{API_VERSION}", "MinAPIVersion": f"1.{MIN_VERSION}"}
    found = engine.system.version()
    # `docker version` prints the server's facts from its component, all of them text.
    facts = {name: str(found.get(name, "")) for name in ("GitCommit", "GoVersion", "BuildTime")}
    for component in found.get("Components") or ():
        if component.get("Name") == "Engine":
            component["Details"] = {
                "Experimental": "false",
                **facts,
                **(component.get("Details") or {}),
                **known,
            }
    x.json({**found, **known})


def info(engine: Engine, x: Exchange) -> None:
    x.json(engine.system.info())


def events(engine: Engine, x: Exchange) -> None:
    since, until = moment(x, "since"), moment(x, "until")
    if since and until and since > until:
        raise Invalid("`since` is later than `until`")
    stop = threading.Event()
    found = engine.events.subscribe(since, until, x.filters(), stop)
    kind = "application/json"
    if x.version >= 52:  # since then the client says which of the line formats it wants
        wanted = x.headers.get(b"accept", b"")
        kind = "application/x-ndjson" if b"application/x-ndjson" in wanted else "application/jsonl"
    out = x.stream(kind)
    out.start()
    with x.hangups.watch(x.connection.sock, stop.set):
        for event in found:
            out.line(render.event(event, x.version))
    if not stop.is_set():
        out.end()


def disk_usage(engine: Engine, x: Exchange) -> None:
    """The engine measures; containers are shown as `ps` shows them."""
    views = engine.containers.list(True, 0, {}, True)
    now = clock.now_ns()
    found = {
        **engine.system.disk_usage(),
        "Containers": [containers.summary(view, now) for view in views],
        "BuildCache": [usage.cache_record(row) for row in engine.builder.usage()],
    }
    x.json(usage.disk_usage(found, frozenset(x.texts("type")), x.version, x.flag("verbose")))


def bootstrap(engine: Engine, x: Exchange) -> None:
    """lading's own: make a base image where no registry answers. JSON lines of progress, then {"aux": {"ID": ...}}."""
    fields = Fields(x.json_body())
    name, tag = fields.text("name"), fields.text("tag")
    if not name:
        raise Invalid("the request names no base image", hint='Send {"name": "python", "tag": "3.11-slim"}.')
    out = x.stream("application/json")
    try:
        image = engine.bootstrap(f"{name}:{tag}" if tag else name, lambda line: out.line(progress(line)))
    except LadingError as error:
        if not out.started:
            raise
        out.write(error_line(error))
    else:
        out.line({"aux": {"ID": image}})
    out.end()


def progress(line: object) -> dict[str, object]:
    """A progress report as a JSON line: text becomes {"stream": ...}."""
    return line if isinstance(line, dict) else {"stream": f"{line}\n"}


ROUTES = [
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/events", events),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/bootstrap", bootstrap),
]
