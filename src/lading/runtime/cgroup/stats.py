"""Counters of one container's control groups, read and given one shape whatever the cgroup version. Writes nothing."""

from __future__ import annotations

from typing import Any

from lading.runtime.cgroup.group import Group

_UNLIMITED_V1 = 0x7FFFFFFFFFFFF000


def read(group: Group) -> dict[str, Any]:
    """{"cpu": {usage_ns, user_ns, system_ns, periods, throttled_periods, throttled_ns, percpu}, "memory": {usage,
    max_usage, limit (0: none), failcnt, oom_kills, stats}, "pids": {current, limit (0: none)}, "io": [{major, minor, op,
    bytes, count}], "pressure": {cpu|memory|io: {...}}}. Absent controllers give zeros.
    """
    return {
        "cpu": _cpu_v1(group) if "cpuacct" in group.v1 else _cpu_v2(group),
        "memory": _memory_v1(group) if "memory" in group.v1 else _memory_v2(group),
        "pids": _pids(group),
        "io": _io_v1(group) if "blkio" in group.v1 else _io_v2(group),
        "pressure": {
            name: pressure for name in ("cpu", "memory", "io") if (pressure := _pressure(group, name))
        },
    }


def _text(directory: str | None, file: str) -> str:
    if not directory:
        return ""
    try:
        with open(f"{directory}/{file}", encoding="ascii") as handle:
            return handle.read()
    except OSError:
        return ""


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _table(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _cpu_v1(group: Group) -> dict[str, Any]:
    accounting = group.v1["cpuacct"]
    throttle = _table(_text(group.v1.get("cpu"), "cpu.stat"))
    return {
        "usage_ns": _number(_text(accounting, "cpuacct.usage")),
        "user_ns": _number(_text(accounting, "cpuacct.usage_user")),
        "system_ns": _number(_text(accounting, "cpuacct.usage_sys")),
        "periods": throttle.get("nr_periods", 0),
        "throttled_periods": throttle.get("nr_throttled", 0),
        "throttled_ns": throttle.get("throttled_time", 0),
        "percpu": [int(value) for value in _text(accounting, "cpuacct.usage_percpu").split()],
    }


def _cpu_v2(group: Group) -> dict[str, Any]:
    table = _table(_text(group.unified, "cpu.stat"))
    return {
        "usage_ns": table.get("usage_usec", 0) * 1000,
        "user_ns": table.get("user_usec", 0) * 1000,
        "system_ns": table.get("system_usec", 0) * 1000,
        "periods": table.get("nr_periods", 0),
        "throttled_periods": table.get("nr_throttled", 0),
        "throttled_ns": table.get("throttled_usec", 0) * 1000,
        "percpu": [],
    }


def _memory_v1(group: Group) -> dict[str, Any]:
    directory = group.v1["memory"]
    limit = _number(_text(directory, "memory.limit_in_bytes"))
    return {
        "usage": _number(_text(directory, "memory.usage_in_bytes")),
        "max_usage": _number(_text(directory, "memory.max_usage_in_bytes")),
        "limit": 0 if limit >= _UNLIMITED_V1 else limit,
        "failcnt": _number(_text(directory, "memory.failcnt")),
        "oom_kills": _table(_text(directory, "memory.oom_control")).get("oom_kill", 0),
        "stats": _table(_text(directory, "memory.stat")),
    }


def _memory_v2(group: Group) -> dict[str, Any]:
    events = _table(_text(group.unified, "memory.events"))
    return {
        "usage": _number(_text(group.unified, "memory.current")),
        "max_usage": _number(_text(group.unified, "memory.peak")),
        "limit": _number(_text(group.unified, "memory.max")),
        "failcnt": events.get("max", 0),
        "oom_kills": events.get("oom_kill", 0),
        "stats": _table(_text(group.unified, "memory.stat")),
    }


def _pids(group: Group) -> dict[str, int]:
    directory = group.v1.get("pids") or group.unified
    return {
        "current": _number(_text(directory, "pids.current")),
        "limit": _number(_text(directory, "pids.max")),
    }


def _io_v1(group: Group) -> list[dict[str, Any]]:
    found: dict[tuple[int, int, str], dict[str, Any]] = {}
    for file, key in (("blkio.throttle.io_service_bytes", "bytes"), ("blkio.throttle.io_serviced", "count")):
        for line in _text(group.v1["blkio"], file).splitlines():
            parts = line.split()
            if len(parts) != 3 or parts[1] not in ("Read", "Write"):
                continue
            major, _, minor = parts[0].partition(":")
            row = found.setdefault(
                (int(major), int(minor), parts[1]),
                {"major": int(major), "minor": int(minor), "op": parts[1].lower(), "bytes": 0, "count": 0},
            )
            row[key] = int(parts[2])
    return list(found.values())


def _io_v2(group: Group) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line in _text(group.unified, "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = {
            name: int(value) for name, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()
        }
        for op, size, count in (("read", "rbytes", "rios"), ("write", "wbytes", "wios")):
            rows.append(
                {"major": int(major), "minor": int(minor), "op": op, "bytes": values.get(size, 0),
                 "count": values.get(count, 0)}
            )  # fmt: skip
    return rows


def _pressure(group: Group, name: str) -> dict[str, dict[str, float]]:
    """Pressure stall information (accounting/psi.rst), where the kernel gives it."""
    result: dict[str, dict[str, float]] = {}
    for line in _text(group.unified, f"{name}.pressure").splitlines():
        kind, *pairs = line.split()
        result[kind] = {key: float(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    return result
