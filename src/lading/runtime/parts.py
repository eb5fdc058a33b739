"""Parts of the request that the runtime composes for a monitor: descriptors, root step, groups, namespaces."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

from lading.base.errors import NotFound
from lading.linux import process
from lading.runtime import plan
from lading.runtime.cgroup.group import Group
from lading.runtime.joined import namespaces as joined_namespaces
from lading.runtime.model import Launch, Rootfs

__all__ = [
    "Descriptors", "extra_controllers", "joined_namespaces", "oom_files", "open_namespace", "root_step", "visible_groups",
]  # fmt: skip


class Descriptors:
    """The descriptors of one request, by index; index 0 is the plan's own memory file."""

    def __init__(self) -> None:
        self.list: list[int] = []

    def add(self, fd: int) -> int:
        self.list.append(fd)
        return len(self.list)


def open_namespace(opened: ExitStack, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(
            f"the namespace {path} cannot be joined",
            why=error.strerror or "",
            hint="Is its container still running?",
        ) from error
    opened.callback(os.close, fd)
    return fd


def entered(entries: list[tuple[int, int]]) -> dict[str, list[tuple[int, int]]]:
    """Which namespaces init's parent joins and which init itself: setns(2) puts into a pid namespace the children alone."""
    return {
        "birth": [entry for entry in entries if entry[0] == process.CLONE_NEWPID],
        "join": [entry for entry in entries if entry[0] != process.CLONE_NEWPID],
    }


def groups_to_join(
    group: Group, fds: Descriptors, opened: ExitStack, besides: Collection[str] = ()
) -> dict[str, Any]:
    """The groups to hand over: v1 ones but for those `besides` that a seat is in already, and the v2 one."""
    procs = group.open_procs(besides)
    for fd in procs:
        opened.callback(os.close, fd)
    unified = group.open_unified()
    if unified >= 0:
        opened.callback(os.close, unified)
    return {
        "cgroup_procs": [fds.add(fd) for fd in procs],
        "cgroup_fd": fds.add(unified) if unified >= 0 else -1,
    }


def root_step(launch: Launch) -> plan.Step:
    rootfs: Rootfs = launch.rootfs
    if rootfs.type == "bind":
        return ("bind_root", os.fsencode(rootfs.source), rootfs.readonly, False)
    lower = b":".join(os.fsencode(path) for path in rootfs.lower)
    extra = os.fsencode("".join(f",{option}" for option in getattr(rootfs, "options", ())))
    return (
        "overlay", os.fsencode(rootfs.base), lower, os.fsencode(rootfs.upper), os.fsencode(rootfs.work), extra,
        rootfs.readonly,
    )  # fmt: skip


def extra_controllers(resources: Mapping[str, Any]) -> list[str]:
    cpu = resources.get("cpu") or {}
    extra = ["cpuset"] if cpu.get("cpus") or cpu.get("mems") else []
    return extra + (["hugetlb"] if resources.get("hugepageLimits") else [])


def visible_groups(group: Group) -> dict[str, str]:
    """What a mount of type cgroup shows, by name below /sys/fs/cgroup."""
    if not group.v1:
        return {"": group.unified} if group.unified else {}
    shown = {os.path.basename(group.layout.v1[c]): path for c, path in group.v1.items()}
    return shown | ({"unified": group.unified} if group.unified else {})


def kill_path(group: Group) -> bytes:
    """The file by which every process of the group can be ended: v2's cgroup.kill, or a list of pids."""
    if group.unified:
        return os.fsencode(f"{group.unified}/cgroup.kill")
    return os.fsencode(f"{group.v1['pids']}/cgroup.procs") if "pids" in group.v1 else b""


def oom_files(group: Group) -> list[bytes]:
    if "memory" in group.v1:
        return [os.fsencode(f"{group.v1['memory']}/memory.oom_control")]
    return [os.fsencode(f"{group.unified}/memory.events")] if group.unified else []
