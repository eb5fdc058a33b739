"""Swarm, plugins, search, BuildKit sessions: what lading does not do. Owns clean refusals, so that clients fall back."""

from __future__ import annotations

from lading.api.errors import Refused
from lading.api.exchange import Exchange
from lading.api.ports import Engine
from lading.api.router import Handler, Route
from lading.base.errors import Invalid, Unavailable, Unsupported


def _swarm(engine: Engine, x: Exchange) -> None:
    raise Unavailable(
        "This node is not a swarm manager",
        why="lading runs containers of one machine.",
        hint="Use a Kubernetes backend for several.",
    )


def _no_swarm(engine: Engine, x: Exchange) -> None:
    raise Unavailable("This node is not part of a swarm")


def _nothing(engine: Engine, x: Exchange) -> None:
    x.json([])


def _session(engine: Engine, x: Exchange) -> None:
    raise Refused(404, "page not found: lading builds with the classic builder's API; set DOCKER_BUILDKIT=0")


def _search(engine: Engine, x: Exchange) -> None:
    raise Unsupported("registries cannot be searched", why="The distribution spec has no search.")


def _plugin(engine: Engine, x: Exchange) -> None:
    raise Unsupported("lading has no plugins")


def _websocket(engine: Engine, x: Exchange) -> None:
    raise Invalid("attaching over a WebSocket is not supported", hint="Use POST /containers/{id}/attach.")


def _both(method: str, template: str, handler: Handler) -> list[Route]:
    return [Route(method, template, handler), Route(method, f"{template}/{{rest...}}", handler)]


ROUTES = [
    *(
        route
        for noun in ("swarm", "services", "tasks", "nodes", "secrets", "configs")
        for method in ("GET", "POST", "DELETE")
        for route in _both(method, f"/{noun}", _no_swarm if noun == "swarm" and method == "POST" else _swarm)
    ),
    Route("GET", "/plugins", _nothing),
    Route("GET", "/plugins/{rest...}", _plugin),
    Route("POST", "/plugins/{rest...}", _plugin),
    Route("DELETE", "/plugins/{rest...}", _plugin),
    Route("POST", "/session", _session),
    Route("POST", "/grpc", _session),
    Route("GET", "/images/search", _search),
    Route("GET", "/containers/{id}/attach/ws", _websocket),
]
