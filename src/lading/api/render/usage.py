"""/system/df: the engine's measurements as lists, and since API 1.52 as sums beside them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lading.api.ports import CacheRecord
from lading.api.render.json import when

Item = Mapping[str, Any]


def cache_record(row: CacheRecord) -> dict[str, Any]:
    """BuildCache: one remembered step."""
    return {
        "ID": row.id,
        "Type": row.kind,
        "Description": row.description,
        "InUse": row.in_use,
        "Shared": row.shared,
        "Size": row.size,
        "CreatedAt": when(row.created_ns),
        "LastUsedAt": when(row.used_ns),
        "UsageCount": row.uses,
    }


def _sums(
    items: Iterable[Item], size: Callable[[Item], int], active: Callable[[Item], bool], verbose: bool
) -> dict[str, Any]:
    listed = list(items)
    found: dict[str, Any] = {
        "ActiveCount": sum(1 for item in listed if active(item)),
        "TotalCount": len(listed),
        "Reclaimable": sum(size(item) for item in listed if not active(item)),
        "TotalSize": sum(size(item) for item in listed),
    }
    if verbose:
        found["Items"] = listed
    return found


def _usage_size(volume: Item) -> int:
    return max(0, int((volume.get("UsageData") or {}).get("Size", 0)))


_RULES: dict[str, tuple[str, str, Callable[[Item], int], Callable[[Item], bool]]] = {
    "image": ("Images", "ImageUsage", lambda i: i["Size"], lambda i: i.get("Containers", 0) > 0),
    "container": (
        "Containers",
        "ContainerUsage",
        lambda i: i.get("SizeRw") or 0,
        lambda i: i["State"] in ("running", "paused", "restarting"),
    ),
    "volume": (
        "Volumes",
        "VolumeUsage",
        _usage_size,
        lambda i: (i.get("UsageData") or {}).get("RefCount", 0) > 0,
    ),
    "build-cache": (
        "BuildCache",
        "BuildCacheUsage",
        lambda i: i["Size"],
        lambda i: i["InUse"] or i["Shared"],
    ),
}


def disk_usage(
    found: Mapping[str, Any], kinds: frozenset[str], version: int, verbose: bool
) -> dict[str, Any]:
    """`found` has the lists; those of kinds nobody asked for become null. The lists stay also where sums are sent:
    the API is open to more fields, and lading's own command line reads them."""
    made = dict(found)
    for kind, (plural, sums, size, active) in _RULES.items():
        if kinds and kind not in kinds:
            made[plural] = None
        elif version >= 52:
            made[sums] = _sums(found.get(plural) or (), size, active, verbose)
    return made
