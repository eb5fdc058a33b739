"""/volumes. Owns the request's form and the answer's; where the data lies is the engine's."""

from __future__ import annotations

from lading.api.exchange import Exchange
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render import volumes as render
from lading.api.router import Route


def list_(engine: Engine, x: Exchange) -> None:
    x.json({"Volumes": [render.volume(item) for item in engine.volumes.list(x.filters())], "Warnings": None})


def create(engine: Engine, x: Exchange) -> None:
    fields = Fields(x.json_body(required=False))
    made = engine.volumes.create(
        fields.text("Name"),
        fields.text("Driver") or "local",
        fields.string_map("DriverOpts"),
        fields.string_map("Labels"),
    )
    x.json(render.volume(made), 201)


def inspect(engine: Engine, x: Exchange) -> None:
    x.json(render.volume(engine.volumes.inspect(x.params["name"])))


def remove(engine: Engine, x: Exchange) -> None:
    engine.volumes.remove(x.params["name"], x.flag("force"))
    x.empty()


def prune(engine: Engine, x: Exchange) -> None:
    deleted, reclaimed = engine.volumes.prune(x.filters())
    x.json({"VolumesDeleted": list(deleted) or None, "SpaceReclaimed": reclaimed})


ROUTES = [
    Route("GET", "/volumes", list_),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
]
