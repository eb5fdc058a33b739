"""The verbs about containers that exist: state, list, kill, delete, ps, pause, resume, update, events."""

from __future__ import annotations

import os
import time

from lading.base import jsontext
from lading.base.errors import Conflict, Invalid, NotFound
from lading.runtime.oci import bundle, flags, making, schema, state
from lading.runtime.oci.entry import write

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

    from lading.runtime.oci.entry import Context

_PATIENCE = 10.0


def _shown(container: state.Container) -> dict[str, Any]:
    """The state with what runc adds to it and its callers read."""
    status = container.status()
    shown = container.oci(status)
    shown["pid"] = 0 if status == "stopped" else container.pid
    return shown | {
        "rootfs": container.data["rootfs"],
        "created": container.data["created"],
        "owner": "root" if os.geteuid() == 0 else str(os.geteuid()),
    }


def state_(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """The container's state as JSON."""
    return write(jsontext.dumps(_shown(state.Container.found(context.root, arguments[0]))) + "\n")


def listing(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """All containers as a table, JSON or ids."""
    found = state.all_of(context.root)
    if options.get("quiet"):
        return write("".join(f"{container.id}\n" for container in found))
    rows = [_shown(container) for container in found]
    if _format(options) == "json":
        return write(jsontext.dumps(rows or None) + "\n")
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    table = [tuple(key.upper() for key in keys), *[tuple(str(row[key]) for key in keys) for row in rows]]
    widths = [max(len(line[column]) for line in table) for column in range(len(keys))]
    return write(
        "".join(
            "  ".join(w.ljust(n) for w, n in zip(line, widths, strict=True)).rstrip() + "\n" for line in table
        )
    )


def _format(options: dict[str, Any]) -> str:
    form = str(options.get("format") or "table")
    if form not in ("table", "json"):
        raise Invalid(f"--format: {form!r} is not table or json")
    return form


def kill(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """A signal to init, or with --all to every process of the group."""
    container = state.Container.found(context.root, arguments[0])
    number = _signal_number(arguments[1] if len(arguments) > 1 else "SIGTERM")
    group = container.group()
    if options.get("all"):
        if number == 9:
            group.kill()
        else:
            for pid in group.pids():
                _send(pid, number)
    elif not container.alive():
        raise Conflict("container not running")
    else:
        if number == 9 and not container.data["pidns"]:
            group.kill()  # without a pid namespace nobody else ends with the first process
        pidfd = os.pidfd_open(container.pid)
        try:
            if not container.alive():
                raise Conflict("container not running")
            import _signal  # type: ignore[import-not-found]

            _signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
    if number == 9 and group.frozen():
        group.freeze(False)  # a frozen v1 group does not die before it thaws
    return 0


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _signal_number(text: str) -> int:
    """A number from 1 to 64 or a name, with SIG or without."""
    if text.isdecimal():
        if 0 < int(text) <= 64:
            return int(text)
        raise Invalid(f"kill: {text} is not a signal from 1 to 64")
    import signal

    name = "SIG" + text.upper().removeprefix("SIG")
    for base, start in (("SIGRTMIN", 34), ("SIGRTMAX", 64)):
        if name.startswith(base) and (name == base or name[len(base) + 1 :].isdecimal()):
            offset = int(name[len(base) :] or 0)
            if 34 <= start + offset <= 64:
                return start + offset
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise Invalid(f"kill: {text!r} is not a signal") from None


def delete(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """Remove a stopped container; with --force any, and none is fine."""
    force = bool(options.get("force"))
    try:
        container = state.Container.found(context.root, arguments[0])
    except NotFound:
        if force:
            _remove_half_made(context.root, arguments[0])
            return 0
        raise
    group = container.group()
    status = container.status(group)
    if status != "stopped":
        if not force:
            raise Conflict(
                f"cannot delete container {container.id} that is not stopped: {status}",
                hint="Kill it first, or use --force.",
            )
        group.kill()
        if container.alive():
            _send(container.pid, 9)
        if status == "paused":
            group.freeze(False)
        deadline = time.monotonic() + _PATIENCE
        while container.alive() and time.monotonic() < deadline:
            time.sleep(0.002)
    making.finish(context, container)
    return 0


def _remove_half_made(root: str, identifier: str) -> None:
    """The directory of one whose creator was killed before it wrote a state."""
    container = state.Container(root, identifier)
    if os.path.isdir(container.directory):
        container.remove()


def ps(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """The container's processes: pids as JSON, or what ps(1) says of them."""
    container = state.Container.found(context.root, arguments[0])
    pids = sorted(container.group().pids())
    if _format(options) == "json":
        return write(jsontext.dumps(pids) + "\n")
    reader, writer = os.pipe()
    child = os.posix_spawnp(
        "ps",
        ["ps", *(arguments[1:] or ["-ef"])],
        dict(os.environ),
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
    )
    os.close(writer)
    with os.fdopen(reader) as said:
        lines = said.read().splitlines()
    os.waitpid(child, 0)
    if not lines or "PID" not in lines[0].split():
        raise Invalid("ps: its output has no column PID")
    column = lines[0].split().index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines[1:] if len(line.split()) > column and line.split()[column] in wanted]
    return write("\n".join([lines[0], *kept]) + "\n")


def pause(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """Freeze every process."""
    container = state.Container.found(context.root, arguments[0])
    group = container.group()
    if container.status(group) not in ("running", "created"):
        raise Conflict(f"cannot pause a container that is {container.status(group)}")
    group.freeze(True)
    return 0


def resume(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """Thaw every process."""
    container = state.Container.found(context.root, arguments[0])
    group = container.group()
    if container.status(group) != "paused":
        raise Conflict(f"cannot resume a container that is {container.status(group)}")
    group.freeze(False)
    return 0


_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"), "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"), "cpu-share": ("cpu", "shares"), "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"), "cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems"),
    "cpu-idle": ("cpu", "idle"), "memory": ("memory", "limit"), "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"), "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"), "pids-limit": ("pids", "limit"),
}  # fmt: skip


def update(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """Change limits of a container that lives, from a file (- is standard input) or flags."""
    container = state.Container.found(context.root, arguments[0])
    if not container.alive():
        raise Conflict("cannot update a container that is stopped")
    resources: dict[str, Any] = {}
    if source := options.get("resources"):
        resources = bundle.read_json("/dev/stdin" if source == "-" else source, "--resources")
    for flag, (part, key) in _NUMBERS.items():
        if flag in options:
            value = options[flag]
            if flag in ("memory", "memory-reservation", "memory-swap", "kernel-memory", "kernel-memory-tcp"):
                value = _bytes(flag, value)
            resources.setdefault(part, {})[key] = value
    schema.check(resources, schema.RESOURCES, "resources")
    resources.pop("devices", None)  # as runc: rules stay what they were
    bundle.check_resources(resources)
    container.group().apply(resources)
    return 0


def _bytes(flag: str, text: str) -> int:
    """A size with an optional unit: b, k, m, g."""
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    lower = text.lower()
    if lower[-1:] in units:
        return flags.number(flag, lower[:-1]) * units[lower[-1]]
    return flags.number(flag, text)


def events(context: Context, options: dict[str, Any], arguments: list[str]) -> int:
    """Counters once (--stats) or at intervals, and a line for every new out-of-memory kill."""
    from lading.runtime.cgroup import stats

    container = state.Container.found(context.root, arguments[0])
    group = container.group()
    if not container.alive():
        raise Conflict("container not running")
    interval = _seconds(str(options.get("interval") or "5s"))
    kills = 0
    while True:
        read = stats.read(group)
        if read["memory"]["oom_kills"] > kills:
            kills = read["memory"]["oom_kills"]
            write(jsontext.dumps({"type": "oom", "id": container.id}) + "\n")
        write(jsontext.dumps({"type": "stats", "id": container.id, "data": _stats(read)}) + "\n")
        if options.get("stats"):
            return 0
        deadline = time.monotonic() + interval
        while time.monotonic() < deadline:
            if not container.alive():
                return 0
            time.sleep(min(0.2, interval))


def _seconds(text: str) -> float:
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit) and text[: -len(unit)].replace(".", "", 1).isdecimal():
            seconds = float(text[: -len(unit)]) * factor
            if seconds > 0:
                return seconds
    raise Invalid(f"--interval: {text!r} is not a duration such as 5s")


def _stats(read: dict[str, Any]) -> dict[str, Any]:
    """In the shape of runc's events, which containerd and others read."""
    cpu, memory, pids = read["cpu"], read["memory"], read["pids"]
    usage = {key: memory["stats"].get(key, 0) for key in ("cache",)}
    limits = {
        "limit": memory["limit"],
        "usage": memory["usage"],
        "max": memory["max_usage"],
        "failcnt": memory["failcnt"],
    }
    rows = [
        {"major": row["major"], "minor": row["minor"], "op": row["op"].capitalize()} for row in read["io"]
    ]
    return {
        "cpu": {
            "usage": {
                "total": cpu["usage_ns"], "percpu": cpu["percpu"], "kernel": cpu["system_ns"], "user": cpu["user_ns"],
            },
            "throttling": {
                "periods": cpu["periods"], "throttledPeriods": cpu["throttled_periods"],
                "throttledTime": cpu["throttled_ns"],
            },
        },
        "cpuset": {},
        "memory": {**usage, "usage": limits, "raw": memory["stats"]},
        "pids": {"current": pids["current"], "limit": pids["limit"]},
        "blkio": {
            "ioServiceBytesRecursive": [{**new, "value": row["bytes"]} for new, row in zip(rows, read["io"], strict=True)],
            "ioServicedRecursive": [{**new, "value": row["count"]} for new, row in zip(rows, read["io"], strict=True)],
        },
        "hugetlb": {},
        "pressure": read["pressure"],
    }  # fmt: skip
