"""OCI resources to cgroup file writes. Pure: no file is opened here; units and conversions are all in this one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lading.base.errors import Invalid


class Write(NamedTuple):
    """One value for one file of one controller. `optional` writes may fail where a kernel lacks the file."""

    controller: str
    file: str
    value: str
    optional: bool = False


_THROTTLE = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def v1(resources: Mapping[str, Any]) -> Iterator[Write]:
    """Writes for v1 hierarchies, in the order the kernel needs them (limit before memory+swap limit)."""
    memory = resources.get("memory") or {}
    if limit := memory.get("limit"):
        yield Write("memory", "memory.limit_in_bytes", str(limit))
    if swap := memory.get("swap"):
        yield Write(
            "memory", "memory.memsw.limit_in_bytes", str(swap), optional=not memory.get("limit") or swap < 0
        )
    if reservation := memory.get("reservation"):
        yield Write("memory", "memory.soft_limit_in_bytes", str(reservation))
    if (swappiness := memory.get("swappiness")) is not None:
        yield Write("memory", "memory.swappiness", str(swappiness))
    if memory.get("disableOOMKiller"):
        yield Write("memory", "memory.oom_control", "1")
    cpu = resources.get("cpu") or {}
    if shares := cpu.get("shares"):
        yield Write("cpu", "cpu.shares", str(shares))
    if period := cpu.get("period"):
        yield Write("cpu", "cpu.cfs_period_us", str(period))
    if quota := cpu.get("quota"):
        yield Write("cpu", "cpu.cfs_quota_us", str(quota))
    yield from _cpuset(cpu)
    if pids := (resources.get("pids") or {}).get("limit"):
        yield Write("pids", "pids.max", str(pids) if pids > 0 else "max")
    block = resources.get("blockIO") or {}
    if weight := block.get("weight"):
        yield Write("blkio", "blkio.bfq.weight", str(weight), optional=True)
    for key, (file, _) in _THROTTLE.items():
        for device in block.get(key) or ():
            yield Write("blkio", file, f"{device['major']}:{device['minor']} {device['rate']}")
    for huge in resources.get("hugepageLimits") or ():
        yield Write("hugetlb", f"hugetlb.{huge['pageSize']}.limit_in_bytes", str(huge["limit"]))
    yield from _devices_v1(resources.get("devices") or ())


def _cpuset(cpu: Mapping[str, Any]) -> Iterator[Write]:
    if cpus := cpu.get("cpus"):
        yield Write("cpuset", "cpuset.cpus", cpus)
    if mems := cpu.get("mems"):
        yield Write("cpuset", "cpuset.mems", mems)


def _devices_v1(rules: Any) -> Iterator[Write]:
    """Device rules in the specification's order; `a` is every device (cgroup-v1/devices.rst)."""
    for rule in rules:
        file = "devices.allow" if rule.get("allow") else "devices.deny"
        kind = rule.get("type") or "a"
        if kind == "a" and rule.get("major") is None:
            yield Write("devices", file, "a")
            continue
        major = "*" if rule.get("major") in (None, -1) else rule["major"]
        minor = "*" if rule.get("minor") in (None, -1) else rule["minor"]
        yield Write("devices", file, f"{kind} {major}:{minor} {rule.get('access') or 'rwm'}")


def v2(resources: Mapping[str, Any]) -> Iterator[Write]:
    """Writes for the unified hierarchy; device rules become a BPF program elsewhere (`devices`)."""
    memory = resources.get("memory") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        yield Write("memory", "memory.max", _max(limit))
    if swap:
        # The specification's swap is memory+swap; v2 counts swap alone (runtime-spec config-linux "memory").
        if swap > 0 and limit > swap:
            raise Invalid(
                "memory+swap is less than memory", hint="Give --memory-swap at least the value of --memory."
            )
        yield Write("memory", "memory.swap.max", _max(swap - limit if swap > 0 else -1), optional=True)
    if reservation := memory.get("reservation"):
        yield Write("memory", "memory.low", _max(reservation))
    cpu = resources.get("cpu") or {}
    if shares := cpu.get("shares"):
        yield Write("cpu", "cpu.weight", str(weight_of_shares(shares)))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or 0
        yield Write("cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}")
    yield from _cpuset(cpu)
    if pids := (resources.get("pids") or {}).get("limit"):
        yield Write("pids", "pids.max", _max(pids))
    block = resources.get("blockIO") or {}
    if weight := block.get("weight"):
        yield Write("io", "io.weight", f"default {1 + (weight - 10) * 9999 // 990}", optional=True)
    for key, (_, name) in _THROTTLE.items():
        for device in block.get(key) or ():
            yield Write("io", "io.max", f"{device['major']}:{device['minor']} {name}={device['rate']}")
    for huge in resources.get("hugepageLimits") or ():
        yield Write("hugetlb", f"hugetlb.{huge['pageSize']}.max", str(huge["limit"]))
    for file, value in (resources.get("unified") or {}).items():
        if "/" in file:
            raise Invalid(f"linux.resources.unified names {file!r}", why="a cgroup file name holds no slash")
        yield Write(file.partition(".")[0], file, value)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10000) of v1 shares (2 to 262144), the linear map runtimes agreed on."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def _max(value: int) -> str:
    return "max" if value < 0 else str(value)
