"""OCI resources to cgroup file writes. Pure: no file is opened here; units and conversions are all in this one place."""

from __future__ import annotations

from lading.base.errors import Invalid

if False:  # names for the type checker only; the OCI command line must not import typing
    from collections.abc import Iterator, Mapping
    from typing import Any


class Write(tuple):  # type: ignore[type-arg]
    """One value for one file of one controller. `optional` writes may fail where a kernel lacks the file."""

    __slots__ = ()

    def __new__(cls, controller: str, file: str, value: str, optional: bool = False) -> Write:
        return tuple.__new__(cls, (controller, file, value, optional))

    controller: str = property(lambda self: self[0])  # type: ignore[assignment]
    file: str = property(lambda self: self[1])  # type: ignore[assignment]
    value: str = property(lambda self: self[2])  # type: ignore[assignment]
    optional: bool = property(lambda self: self[3])  # type: ignore[assignment]


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
    if kernel := memory.get("kernel"):
        yield Write(
            "memory", "memory.kmem.limit_in_bytes", str(kernel), optional=True
        )  # gone since Linux 6.1
    if tcp := memory.get("kernelTCP"):
        yield Write("memory", "memory.kmem.tcp.limit_in_bytes", str(tcp))
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
    if (burst := cpu.get("burst")) is not None:
        yield Write("cpu", "cpu.cfs_burst_us", str(burst))
    if period := cpu.get("realtimePeriod"):
        yield Write("cpu", "cpu.rt_period_us", str(period))
    if runtime := cpu.get("realtimeRuntime"):
        yield Write("cpu", "cpu.rt_runtime_us", str(runtime))
    if (idle := cpu.get("idle")) is not None:
        yield Write("cpu", "cpu.idle", str(idle))
    yield from _cpuset(cpu)
    if pids := (resources.get("pids") or {}).get("limit"):
        yield Write("pids", "pids.max", str(pids) if pids > 0 else "max")
    block = resources.get("blockIO") or {}
    if weight := block.get("weight"):
        yield Write("blkio", "blkio.bfq.weight", str(weight), optional=True)
    for device in block.get("weightDevice") or ():
        if device.get("weight"):
            yield Write("blkio", "blkio.bfq.weight_device", f"{_numbers(device)} {device['weight']}")
    for key, (file, _) in _THROTTLE.items():
        for device in block.get(key) or ():
            yield Write("blkio", file, f"{_numbers(device)} {device['rate']}")
    for huge in resources.get("hugepageLimits") or ():
        yield Write("hugetlb", f"hugetlb.{huge['pageSize']}.limit_in_bytes", str(huge["limit"]))
    network = resources.get("network") or {}
    if (number := network.get("classID")) is not None:
        yield Write("net_cls", "net_cls.classid", str(number))
    for entry in network.get("priorities") or ():
        yield Write("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")
    yield from _rdma(resources)
    yield from _devices_v1(resources.get("devices") or ())


def _numbers(device: Mapping[str, Any]) -> str:
    return f"{device['major']}:{device['minor']}"


def _rdma(resources: Mapping[str, Any]) -> Iterator[Write]:
    """Both versions have the same file (admin-guide/cgroup-v1/rdma.rst)."""
    for name, limits in (resources.get("rdma") or {}).items():
        words = [
            f"{word}={limits[key]}"
            for word, key in (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
            if limits.get(key) is not None
        ]
        yield Write("rdma", "rdma.max", " ".join([name, *words]))


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
    if (burst := cpu.get("burst")) is not None:
        yield Write("cpu", "cpu.max.burst", str(burst))
    if (idle := cpu.get("idle")) is not None:
        yield Write("cpu", "cpu.idle", str(idle))
    yield from _cpuset(cpu)
    if pids := (resources.get("pids") or {}).get("limit"):
        yield Write("pids", "pids.max", _max(pids))
    block = resources.get("blockIO") or {}
    if weight := block.get("weight"):
        yield Write("io", "io.weight", f"default {1 + (weight - 10) * 9999 // 990}", optional=True)
    for key, (_, name) in _THROTTLE.items():
        for device in block.get(key) or ():
            yield Write("io", "io.max", f"{_numbers(device)} {name}={device['rate']}")
    for device in block.get("weightDevice") or ():
        if device.get("weight"):
            yield Write("io", "io.bfq.weight", f"{_numbers(device)} {device['weight']}")
    for huge in resources.get("hugepageLimits") or ():
        yield Write("hugetlb", f"hugetlb.{huge['pageSize']}.max", str(huge["limit"]))
    yield from _rdma(resources)
    for file, value in (resources.get("unified") or {}).items():
        if "/" in file:
            raise Invalid(f"linux.resources.unified names {file!r}", why="a cgroup file name holds no slash")
        yield Write(file.partition(".")[0], file, value)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10000) of v1 shares (2 to 262144), the linear map runtimes agreed on."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def _max(value: int) -> str:
    return "max" if value < 0 else str(value)
