"""The control groups that belong to this user: delegated ones (cgroups(7), "Cgroup delegation"), or none.

Owns finding them and, on v2, stepping aside: a group that hands controllers to its children may hold no process itself.
"""

from __future__ import annotations

import os

from lading.runtime.cgroup.layout import Layout, discover

ASIDE = "lading-engine"
NONE = (
    "no control group is delegated to this user, so containers run without limits, pause and statistics; "
    "on a systemd host start the daemon with: systemd-run --user --scope -p Delegate=yes lading daemon"
)


def memberships(text: str) -> dict[str, str]:
    """controller -> path of /proc/self/cgroup; "" is the v2 hierarchy."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            found[name] = path
    return found


def delegated(proc: str = "/proc") -> Layout:
    """The part of the host's layout in which this user may make groups and move processes."""
    host = discover(proc)
    try:
        with open(f"{proc}/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            paths = memberships(file.read())
    except OSError:
        return Layout({}, "", frozenset())
    v1 = {}
    for controller, mount in host.v1.items():
        own = mount + paths.get(controller, "/..").rstrip("/")
        if _ours(own):
            v1[controller] = own
    unified = host.unified + paths.get("", "/..").rstrip("/") if host.unified else ""
    if unified.endswith(f"/{ASIDE}"):
        unified = os.path.dirname(unified)  # the daemon before us stepped aside
    if not unified or not _ours(unified):
        return Layout(v1, "", frozenset())
    try:
        with open(f"{unified}/cgroup.controllers", encoding="ascii") as file:
            offered = frozenset(file.read().split())
    except OSError:
        offered = frozenset()
    return Layout(v1, unified, offered)


def _ours(directory: str) -> bool:
    """Whether groups can be made there. The host's root group is nobody's to delegate."""
    return all(os.access(path, os.W_OK) for path in (directory, f"{directory}/cgroup.procs"))


def step_aside(layout: Layout) -> None:
    """Move this process out of the delegated v2 group, so that its controllers can be handed to containers."""
    if not layout.unified or not layout.v2:
        return
    leaf = f"{layout.unified}/{ASIDE}"
    try:
        os.makedirs(leaf, exist_ok=True)
        with open(f"{layout.unified}/cgroup.procs", encoding="ascii") as file:
            pids = file.read().split()
    except OSError:
        return  # limits that need it are refused when they are set
    for pid in {*pids, str(os.getpid())}:
        try:
            with open(f"{leaf}/cgroup.procs", "w", encoding="ascii") as file:
                file.write(pid)
        except OSError:
            continue  # it has ended, or is somebody else's


def leave(layout: Layout) -> None:
    """Take the leaf away where it is empty; whoever still sits in it keeps it."""
    if layout.unified:
        try:
            os.rmdir(f"{layout.unified}/{ASIDE}")
        except OSError:
            return
