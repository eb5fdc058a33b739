"""A volume as Docker's JSON. Pure."""

from __future__ import annotations

from typing import Any

from lading.api.ports import Volume
from lading.api.render.json import when_seconds


def volume(value: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": when_seconds(value.created_ns),
        "Driver": value.driver,
        "Labels": dict(value.labels) or None,
        "Mountpoint": value.mountpoint,
        "Name": value.name,
        "Options": dict(value.options) or None,
        "Scope": value.scope,
    }
