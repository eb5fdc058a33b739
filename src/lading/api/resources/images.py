"""/images: list, inspect, name, remove, save, load, import. Owns the request's form."""

from __future__ import annotations

from typing import Any

from lading.api.exchange import Exchange, Output
from lading.api.ports import Engine
from lading.api.render import images as render
from lading.api.resources import registries
from lading.api.router import Route
from lading.base.errors import Invalid
from lading.image import reference


def list_(engine: Engine, x: Exchange) -> None:
    filters = x.filters()
    if x.text("filter"):  # the older, single form
        filters["reference"] = (x.text("filter"),)
    x.json([render.summary(image) for image in engine.images.list(filters)])


def inspect(engine: Engine, x: Exchange) -> None:
    x.json(render.inspect(engine.images.inspect(x.params["name"]), x.version))


def history(engine: Engine, x: Exchange) -> None:
    x.json(list(engine.images.history(x.params["name"])))


def tag(engine: Engine, x: Exchange) -> None:
    repo, name = x.text("repo"), x.text("tag")
    if not repo:
        raise Invalid("the new name is missing", why="The query's `repo` holds it.")
    engine.images.tag(x.params["name"], f"{repo}:{name}" if name else repo)
    x.empty(201)


def remove(engine: Engine, x: Exchange) -> None:
    x.json(list(engine.images.remove(x.params["name"], x.flag("force"), not x.flag("noprune"))))


def prune(engine: Engine, x: Exchange) -> None:
    deleted, reclaimed = engine.images.prune(x.filters())
    x.json({"ImagesDeleted": list(deleted) or None, "SpaceReclaimed": reclaimed})


def save_one(engine: Engine, x: Exchange) -> None:
    _save(engine, x, [x.params["name"]])


def save_many(engine: Engine, x: Exchange) -> None:
    names = [name for text in x.texts("names") for name in text.split(",") if name]
    if not names:
        raise Invalid("no image is named", why="The query's `names` holds them.")
    _save(engine, x, names)


def _save(engine: Engine, x: Exchange, names: list[str]) -> None:
    out = x.stream("application/x-tar")
    engine.images.save(names, out.write)
    out.end()


def load(engine: Engine, x: Exchange) -> None:
    def work(out: Output) -> None:
        def progress(line: dict[str, Any]) -> None:
            if not x.flag("quiet"):
                out.line(line)

        for name in engine.images.load(x.input(), progress):
            kind = "image ID" if name.startswith("sha256:") else "image"
            out.line({"stream": f"Loaded {kind}: {name}\n"})

    registries.progressing(x, work)


def create(engine: Engine, x: Exchange) -> None:
    """Pull (fromImage) or import a root file system (fromSrc=-)."""
    source, wanted = x.text("fromSrc"), x.text("fromImage")
    if bool(source) == bool(wanted):
        raise Invalid("one of fromImage and fromSrc must be given")
    name = x.text("tag")

    def work(out: Output) -> None:
        if wanted:
            separator = "@" if name.startswith("sha256:") else ":"
            ref = f"{wanted}{separator}{name}" if name else wanted
            with registries.access(x, reference.parse(ref).domain) as access:
                engine.registry.pull(ref, x.text("platform"), out.line, access)
            return
        if source != "-":
            raise Invalid(
                "an image cannot be imported from a URL",
                hint="Fetch the archive and send it as the request's body.",
            )
        repo = x.text("repo")
        ref = f"{repo}:{name}" if repo and name else repo
        out.line({"status": engine.images.import_(x.input(), ref, x.texts("changes"), x.text("message"))})

    registries.progressing(x, work)


ROUTES = [
    Route("GET", "/images/json", list_),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/get", save_many),
    Route("GET", "/images/{name...}/get", save_one),
    Route("GET", "/images/{name...}/json", inspect),
    Route("GET", "/images/{name...}/history", history),
    Route("POST", "/images/{name...}/tag", tag),
    Route("DELETE", "/images/{name...}", remove),
]
