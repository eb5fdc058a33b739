"""The whole table of routes. Owns the order: where two templates match one path, the earlier answers."""

from __future__ import annotations

from lading.api.resources import (
    archives,
    builds,
    containers,
    execs,
    images,
    networks,
    refused,
    registries,
    streams,
    system,
    volumes,
)
from lading.api.router import Router

ROUTER = Router(
    [
        *containers.ROUTES,
        *streams.ROUTES,
        *archives.ROUTES,
        *execs.ROUTES,
        *images.ROUTES,
        *builds.ROUTES,
        *volumes.ROUTES,
        *networks.ROUTES,
        *system.ROUTES,
        *registries.ROUTES,
        *refused.ROUTES,
    ]
)
