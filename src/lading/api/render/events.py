"""An event as Docker's JSON. Pure."""

from __future__ import annotations

from typing import Any

from lading.api.render.json import present
from lading.engine.model import Event


def event(value: Event, version: int) -> dict[str, Any]:
    """EventMessage. Before API 1.52 containers and images also had the fields of the first API: status, id, from."""
    found: dict[str, Any] = {}
    if version < 52 and value.type in ("container", "image"):
        found = {"status": value.action, "id": value.actor}
        if "image" in value.attributes:
            found["from"] = value.attributes["image"]
    return found | {
        "Type": value.type,
        "Action": value.action,
        "Actor": {"ID": value.actor, "Attributes": present(value.attributes)},
        "scope": value.scope,
        "time": value.ns // 1_000_000_000,
        "timeNano": value.ns,
    }
