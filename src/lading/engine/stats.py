"""One sample of a container's use of the machine, in the shape of Docker's /containers/{id}/stats. Owns the shape.

Rates are the client's business: it gets the same counters twice. Network counters come from /proc/<pid>/net/dev.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lading.base import clock

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry

# Columns of /proc/PID/net/dev (proc_pid_net(5)).
_COLUMNS = "rx_bytes rx_packets rx_errors rx_dropped _ _ _ _ tx_bytes tx_packets tx_errors tx_dropped"
_DEV = tuple(_COLUMNS.split())


def sample(rooms: Rooms, entry: Entry) -> dict[str, Any]:
    """Counters now; those of a container that does not run are zero."""
    live = rooms.runtime.live(entry.id) if entry.running else None
    out: dict[str, Any] = {
        "id": entry.id,
        "name": f"/{entry.record.name}",
        "read": clock.rfc3339(clock.now_ns()),
        "preread": clock.ZERO,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": None, "io_serviced_recursive": None},
        "cpu_stats": cpu({}, 0),
        "precpu_stats": cpu({}, 0),
        "memory_stats": {},
    }
    if live is None:
        out["read"] = clock.ZERO
        return out
    raw = rooms.runtime.stats(entry.id)
    out["cpu_stats"] = cpu(raw["cpu"], system_ns())
    out["memory_stats"] = memory(raw["memory"], host_memory())
    pids = raw["pids"]
    out["pids_stats"] = {"current": pids["current"]} | ({"limit": pids["limit"]} if pids["limit"] else {})
    out["blkio_stats"] = block(raw["io"])
    networks = network(live.pid)
    if networks:
        out["networks"] = networks
    if raw.get("pressure"):
        out["pressure_stats"] = raw["pressure"]
    return out


def cpu(raw: dict[str, Any], system: int) -> dict[str, Any]:
    """cpu_stats; nanoseconds."""
    usage: dict[str, Any] = {
        "total_usage": raw.get("usage_ns", 0),
        "usage_in_kernelmode": raw.get("system_ns", 0),
        "usage_in_usermode": raw.get("user_ns", 0),
    }
    if raw.get("percpu"):
        usage["percpu_usage"] = raw["percpu"]
    out: dict[str, Any] = {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": raw.get("periods", 0),
            "throttled_periods": raw.get("throttled_periods", 0),
            "throttled_time": raw.get("throttled_ns", 0),
        },
    }
    if system:
        out["system_cpu_usage"] = system
        out["online_cpus"] = os.cpu_count() or 1
    return out


def memory(raw: dict[str, Any], host: int) -> dict[str, Any]:
    """memory_stats; a container without a limit shows the host's memory as its limit, as Docker does."""
    out = {"usage": raw["usage"], "stats": raw["stats"], "limit": raw["limit"] or host}
    if raw.get("max_usage"):
        out["max_usage"] = raw["max_usage"]
    if raw.get("failcnt"):
        out["failcnt"] = raw["failcnt"]
    return out


def block(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """blkio_stats."""
    return {
        name: [
            {"major": row["major"], "minor": row["minor"], "op": row["op"], "value": row[key]} for row in rows
        ]
        for name, key in (("io_service_bytes_recursive", "bytes"), ("io_serviced_recursive", "count"))
    }


def network(pid: int) -> dict[str, dict[str, int]]:
    """Counters by interface inside the container, lo left out."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            lines = file.read(1 << 20).splitlines()[2:]
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        values = rest.split()
        if name.strip() == "lo" or len(values) < 12:
            continue
        found[name.strip()] = {
            key: int(value)
            for key, value in zip(_DEV, values, strict=False)
            if key != "_" and value.isdigit()
        }
    return found


def system_ns() -> int:
    """Time all CPUs spent so far (proc_stat(5)), in nanoseconds."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()[1:8]
    return sum(map(int, fields)) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def host_memory() -> int:
    """Bytes of memory the host has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
