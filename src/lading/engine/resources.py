"""Limits as the user gives them to linux.resources of the OCI runtime spec. Owns defaults and checks, no cgroup."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from lading.base.errors import Invalid
from lading.engine.model import Resources, ThrottleDevice

DEFAULT_PIDS = 4096
"""Enough for every trainer seen, and a fork bomb stays inside (issue 3, section 2)."""

MINIMUM_MEMORY = 6 << 20
CPU_PERIOD = 100_000


def check(limits: Resources, cpus: int) -> None:
    """Invalid, naming the field, when limits are out of range or contradict each other."""
    if limits.memory and limits.memory < MINIMUM_MEMORY:
        raise Invalid("minimum memory limit allowed is 6MB", why=f"{limits.memory} bytes were asked for.")
    if limits.memory_swap > 0 and not limits.memory:
        raise Invalid("you should always set the memory limit when using a memory-swap limit")
    if limits.memory_swap < -1 or 0 < limits.memory_swap < limits.memory:
        raise Invalid(
            "minimum memoryswap limit should be larger than the memory limit",
            why="It counts memory and swap together.",
        )
    if limits.memory_reservation and limits.memory and limits.memory_reservation > limits.memory:
        raise Invalid("minimum memory limit can not be less than memory reservation limit")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise Invalid(f"invalid memory swappiness {limits.memory_swappiness}", why="The range is 0 to 100.")
    if limits.nano_cpus:
        if limits.cpu_period or limits.cpu_quota:
            raise Invalid("conflicting options: CPUs and a CPU period or quota cannot both be set")
        if not 10_000_000 <= limits.nano_cpus <= cpus * 1_000_000_000:
            raise Invalid(
                f"range of CPUs is from 0.01 to {cpus}.00", why=f"There are only {cpus} CPUs available."
            )
    if limits.cpu_shares and not 2 <= limits.cpu_shares <= 262144:
        raise Invalid(f"invalid CPU shares {limits.cpu_shares}", why="The range is 2 to 262144.")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise Invalid("CPU CFS period can not be less than 1ms or more than 1s")
    if 0 < limits.cpu_quota < 1000:
        raise Invalid("CPU CFS quota can not be less than 1ms")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise Invalid("range of blkio weight is from 10 to 1000")
    for name, text in (("cpus", limits.cpuset_cpus), ("mems", limits.cpuset_mems)):
        if text and not cpuset(text):
            raise Invalid(f'invalid value "{text}" for cpuset {name}', hint='Write it as "0-2,4".')


def cpuset(text: str) -> bool:
    """Whether `text` is a list such as "0-2,4" (cpuset(7), List format)."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and len(first) < 6):
            return False
        if dash and not (last.isascii() and last.isdigit() and len(last) < 6 and int(last) >= int(first)):
            return False
    return True


def compose(limits: Resources, device_rules: list[dict[str, Any]], *, initial: bool = True) -> dict[str, Any]:
    """linux.resources. With `initial` unset limits get lading's defaults; without, only what is set appears."""
    out: dict[str, Any] = {"devices": device_rules} if device_rules else {}
    memory: dict[str, Any] = {}
    if limits.memory:
        memory["limit"] = limits.memory
    if limits.memory_swap:
        memory["swap"] = limits.memory_swap
    elif limits.memory and initial:
        memory["swap"] = limits.memory * 2  # Docker's default: as much swap as memory
    if limits.memory_reservation:
        memory["reservation"] = limits.memory_reservation
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        memory["swappiness"] = limits.memory_swappiness
    if limits.oom_kill_disable:
        memory["disableOOMKiller"] = True
    if memory:
        out["memory"] = memory
    cpu: dict[str, Any] = {}
    if limits.cpu_shares:
        cpu["shares"] = limits.cpu_shares
    if limits.nano_cpus:
        cpu["period"] = CPU_PERIOD
        cpu["quota"] = limits.nano_cpus * CPU_PERIOD // 1_000_000_000
    else:
        if limits.cpu_period:
            cpu["period"] = limits.cpu_period
        if limits.cpu_quota:
            cpu["quota"] = limits.cpu_quota
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    if cpu:
        out["cpu"] = cpu
    if limits.pids_limit:
        out["pids"] = {"limit": limits.pids_limit}  # -1 lifts it
    elif initial:
        out["pids"] = {"limit": DEFAULT_PIDS if limits.pids_limit is None else -1}
    block: dict[str, Any] = {}
    if limits.blkio_weight:
        block["weight"] = limits.blkio_weight
    for key, devices in (
        ("throttleReadBpsDevice", limits.device_read_bps),
        ("throttleWriteBpsDevice", limits.device_write_bps),
        ("throttleReadIOPSDevice", limits.device_read_iops),
        ("throttleWriteIOPSDevice", limits.device_write_iops),
    ):
        if devices:
            block[key] = _throttles(devices)
    if block:
        out["blockIO"] = block
    return out


def _throttles(devices: Iterable[ThrottleDevice]) -> list[dict[str, int]]:
    found = []
    for device in devices:
        try:
            number = os.stat(device.path).st_rdev
        except OSError as e:
            raise Invalid(f'no such block device "{device.path}"', why=e.strerror or "") from e
        found.append({"major": os.major(number), "minor": os.minor(number), "rate": device.rate})
    return found
