"""What control groups this host has: discovered from /proc, never assumed. Creates nothing.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v1/cgroups.rst, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os

if False:  # names for the type checker only; the OCI command line must not import typing
    from collections.abc import Mapping

V1_WANTED = (
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio",
    "perf_event", "rdma",
)  # fmt: skip


class Layout:
    """Mount points by v1 controller, the v2 mount point ("" if none) and the controllers v2 offers there."""

    __slots__ = ("unified", "v1", "v2")

    def __init__(self, v1: Mapping[str, str], unified: str, v2: frozenset[str]) -> None:
        self.v1, self.unified, self.v2 = v1, unified, v2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and (self.v1, self.unified, self.v2) == (
            other.v1,
            other.unified,
            other.v2,
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def mode(self) -> str:
        """v1, v2, hybrid or none."""
        if self.v1:
            return "hybrid" if self.unified else "v1"
        return "v2" if self.unified else "none"

    @property
    def freezes(self) -> bool:
        """Whether containers can be paused."""
        return "freezer" in self.v1 or bool(self.unified)

    def has(self, controller: str) -> bool:
        """Whether limits of this controller can be set at all."""
        return controller in self.v1 or controller in self.v2


def parse(mountinfo: str) -> tuple[dict[str, str], str]:
    """(v1 controller to mount point, v2 mount point) from /proc/self/mountinfo; the first mount of each wins."""
    v1: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3:
            continue
        point = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
        if tail[0] == "cgroup2" and not unified:
            unified = point
        elif tail[0] == "cgroup":
            for option in tail[2].split(","):
                if option in V1_WANTED:
                    v1.setdefault(option, point)
    return v1, unified


def discover(proc: str = "/proc") -> Layout:
    """The host's layout. Missing or unreadable parts count as absent."""
    try:
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            v1, unified = parse(file.read())
    except OSError:
        v1, unified = {}, ""
    offered: frozenset[str] = frozenset()
    if unified:
        try:
            with open(os.path.join(unified, "cgroup.controllers"), encoding="ascii") as file:
                offered = frozenset(file.read().split())
        except OSError:
            unified = ""
    return Layout(v1, unified, offered)
