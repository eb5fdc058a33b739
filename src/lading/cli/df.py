"""`lading system df`: what takes how much room. Owns the table; the daemon measures."""

from __future__ import annotations

import time

from lading.cli import human
from lading.cli.flags import Flags, Verb
from lading.cli.ps import FORMAT
from lading.cli.table import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

    Item = dict[str, Any]


def _df(context: Context, flags: Flags) -> int:
    usage = context.client.call("GET", "/system/df")
    if flags.on("verbose"):
        _verbose(context, usage)
        return 0
    COLUMNS.show(context, summary(usage), flags.text("format"))
    return 0


def summary(usage: Item) -> list[Item]:
    """The four rows: images, containers, local volumes, build cache."""
    images = usage.get("Images") or []
    layers = usage.get("LayersSize", 0)
    # What active images share with nothing else cannot be told from the list: docker too subtracts whole images.
    used = sum(
        i.get("Size", 0) - max(i.get("SharedSize", 0), 0) for i in images if (i.get("Containers") or 0) > 0
    )
    containers = usage.get("Containers") or []
    busy = [c for c in containers if c.get("State") in ("running", "paused", "restarting")]
    volumes = usage.get("Volumes") or []
    cache = usage.get("BuildCache") or []
    return [
        {
            "type": "Images",
            "total": len(images),
            "active": sum(1 for i in images if (i.get("Containers") or 0) > 0),
            "size": layers,
            "free": max(layers - used, 0),
        },
        {
            "type": "Containers",
            "total": len(containers),
            "active": len(busy),
            "size": sum(c.get("SizeRw") or 0 for c in containers),
            "free": sum(c.get("SizeRw") or 0 for c in containers if c not in busy),
        },
        {
            "type": "Local Volumes",
            "total": len(volumes),
            "active": sum(1 for v in volumes if _references(v) > 0),
            "size": sum(_volume_size(v) for v in volumes),
            "free": sum(_volume_size(v) for v in volumes if not _references(v)),
        },
        {
            "type": "Build Cache",
            "total": len(cache),
            "active": sum(1 for c in cache if c.get("InUse")),
            "size": sum(c.get("Size", 0) for c in cache if not c.get("Shared")),
            "free": sum(c.get("Size", 0) for c in cache if not c.get("Shared") and not c.get("InUse")),
        },
    ]


def _references(volume: Item) -> int:
    return int((volume.get("UsageData") or {}).get("RefCount", 0))


def _volume_size(volume: Item) -> int:
    return max(int((volume.get("UsageData") or {}).get("Size", 0)), 0)


def _free(row: Item) -> str:
    text = human.size(row["free"])
    return f"{text} ({row['free'] * 100 // row['size']}%)" if row["size"] > 0 else text


COLUMNS = Listing(
    (
        ("Type", "TYPE", lambda r: r["type"]),
        ("TotalCount", "TOTAL", lambda r: str(r["total"])),
        ("Active", "ACTIVE", lambda r: str(r["active"])),
        ("Size", "SIZE", lambda r: human.size(r["size"])),
        ("Reclaimable", "RECLAIMABLE", _free),
    ),
    ("Type", "TotalCount", "Active", "Size", "Reclaimable"),
)


def _verbose(context: Context, usage: Item) -> None:
    from lading.cli import images, ps, volumes

    now = time.time()
    out = context.out
    out.write("Images space usage:\n\n")
    rows = [row for image in usage.get("Images") or () for row in images.rows(image, False)]
    shown = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
    images.columns(True, now).show(context, rows, "", shown)
    out.write("\nContainers space usage:\n\n")
    columns = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    ps.columns(True, now).show(context, usage.get("Containers") or [], "", columns)
    out.write("\nLocal Volumes space usage:\n\n")
    volumes.COLUMNS.show(context, usage.get("Volumes") or [], "", ("Name", "Links", "Size"))
    cache = usage.get("BuildCache") or []
    total = sum(c.get("Size", 0) for c in cache if not c.get("Shared"))
    out.write(f"\nBuild cache usage: {human.size(total)}\n\n")
    _CACHE.show(context, cache, "")


_CACHE = Listing(
    (
        ("ID", "CACHE ID", lambda c: human.short_id(c.get("ID", ""))),
        ("CacheType", "CACHE TYPE", lambda c: c.get("Type", "")),
        ("Size", "SIZE", lambda c: human.size(c.get("Size", 0))),
        ("UsageCount", "USAGE", lambda c: str(c.get("UsageCount", 0))),
        ("Shared", "SHARED", lambda c: "true" if c.get("Shared") else "false"),
    ),
    ("ID", "CacheType", "Size", "UsageCount", "Shared"),
)

DF = Verb("df [OPTIONS]", (FORMAT, ("verbose", "v", "bool", "Show detailed information on space usage")), _df)
