"""`lading stats`: use of CPU, memory, network and disk, live or once. Owns the arithmetic and the table."""

from __future__ import annotations

import time

from lading.base.errors import LadingError
from lading.cli import human
from lading.cli.flags import Flags, Verb
from lading.cli.images import path_name
from lading.cli.ps import FORMAT, NO_TRUNC
from lading.cli.table import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

    Item = dict[str, Any]

_PAUSE = 0.5


def _stats(context: Context, flags: Flags) -> int:
    listing = columns(trunc=not flags.on("no-trunc"))
    once = flags.on("no-stream")
    form = flags.text("format")
    live = not once and form in ("", "table") and context.out.is_terminal()
    before: dict[str, Item] = {}
    failed = False
    while not failed:
        samples: dict[str, Item] = {}
        for name in flags.args or _running(context, flags.on("all")):
            try:
                samples[name] = _sample(context, name)
            except LadingError as error:
                if flags.args:  # a container that ended while it was listed is no failure
                    context.complain(str(error))
                    failed = True
        if once and not before and samples:
            before = samples  # a percentage needs two moments
            time.sleep(_PAUSE)
            continue
        if live:
            context.out.write("\x1b[H\x1b[J")
        if samples or not failed:
            listing.show(
                context, [measure(sample, before.get(name)) for name, sample in samples.items()], form
            )
        context.out.flush()
        if once:
            break
        before = samples
        time.sleep(_PAUSE)
    return 1 if failed else 0


def _running(context: Context, everything: bool) -> list[str]:
    found = context.client.call("GET", "/containers/json", {"all": int(everything)})
    return [item["Id"] for item in found]


def _sample(context: Context, name: str) -> Item:
    sample: Item = context.client.call(
        "GET", f"/containers/{path_name(name)}/stats", {"stream": 0, "one-shot": 1}
    )
    return sample


def measure(now: Item, before: Item | None = None) -> Item:
    """A sample as numbers: percentages and byte counts."""
    cpu = now.get("cpu_stats") or {}
    last = (before or {}).get("cpu_stats") or now.get("precpu_stats") or {}
    used = _number(cpu, "cpu_usage", "total_usage") - _number(last, "cpu_usage", "total_usage")
    passed = _number(cpu, "system_cpu_usage") - _number(last, "system_cpu_usage")
    count = cpu.get("online_cpus") or len((cpu.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    percent = used / passed * count * 100 if used > 0 and passed > 0 and last else 0.0
    memory = now.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # What the page cache could give back at once is not counted, as docker's client does: v1 then v2 names.
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    usage = memory.get("usage", 0)
    usage = usage - cache if cache < usage else usage
    limit = memory.get("limit", 0)
    networks = (now.get("networks") or {}).values()
    disk = {"read": 0, "write": 0}
    for entry in (now.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        operation = str(entry.get("op", "")).lower()
        if operation in disk:
            disk[operation] += entry.get("value", 0)
    return {
        "id": now.get("id", ""),
        "name": str(now.get("name", "")).removeprefix("/"),
        "cpu": percent,
        "memory": usage,
        "limit": limit,
        "memory_percent": usage / limit * 100 if limit else 0.0,
        "received": sum(n.get("rx_bytes", 0) for n in networks),
        "sent": sum(n.get("tx_bytes", 0) for n in networks),
        "read": disk["read"],
        "written": disk["write"],
        "pids": (now.get("pids_stats") or {}).get("current", 0) or 0,
        "alive": not str(now.get("read", "0001")).startswith("0001"),
    }


def _number(values: Item, *keys: str) -> int:
    found: Any = values
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int) else 0


def columns(trunc: bool) -> Listing:
    """What a sample shows; a stopped container shows dashes."""

    def alive(text: str, missing: str, row: Item) -> str:
        return text if row["alive"] else missing

    return Listing(
        (
            ("Container", "CONTAINER ID", lambda r: human.short_id(r["id"]) if trunc else r["id"]),
            ("ID", "CONTAINER ID", lambda r: human.short_id(r["id"]) if trunc else r["id"]),
            ("Name", "NAME", lambda r: r["name"] or "--"),
            ("CPUPerc", "CPU %", lambda r: alive(f"{r['cpu']:.2f}%", "--", r)),
            ("MemUsage", "MEM USAGE / LIMIT",
             lambda r: alive(f"{human.binary(r['memory'])} / {human.binary(r['limit'])}", "-- / --", r)),
            ("MemPerc", "MEM %", lambda r: alive(f"{r['memory_percent']:.2f}%", "--", r)),
            ("NetIO", "NET I/O",
             lambda r: alive(f"{human.size3(r['received'])} / {human.size3(r['sent'])}", "--", r)),
            ("BlockIO", "BLOCK I/O",
             lambda r: alive(f"{human.size3(r['read'])} / {human.size3(r['written'])}", "--", r)),
            ("PIDs", "PIDS", lambda r: alive(str(r["pids"]), "--", r)),
        ),
        ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
    )  # fmt: skip


STATS = Verb(
    "stats [OPTIONS] [CONTAINER...]",
    (
        ("all", "a", "bool", "Show all containers (default shows just running)"),
        FORMAT,
        ("no-stream", "", "bool", "Disable streaming stats and only pull the first result"),
        NO_TRUNC,
    ),
    _stats,
    most=-1,
)
