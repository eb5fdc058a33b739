"""Which control groups a bundle's container gets: linux.cgroupsPath, on whatever hierarchies the host has. Makes none."""

from __future__ import annotations

import os

from lading.base.errors import Conflict, Invalid, Unsupported
from lading.runtime.cgroup.group import PARENT, Group
from lading.runtime.cgroup.layout import Layout

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any


def chosen(layout: Layout, identifier: str, spec: dict[str, Any]) -> Group:
    """The group of `linux.cgroupsPath`: absolute below each hierarchy's root, relative below our own; checked."""
    linux = spec.get("linux") or {}
    path = linux.get("cgroupsPath") or identifier
    if path.count(":") == 2 and "/" not in path:
        path = _from_systemd(path)
    if not path.startswith("/"):
        path = f"{PARENT}/{path}"
    names = [name for name in path.split("/") if name]
    if not names or not {".", ".."}.isdisjoint(names) or any(len(name) > 255 for name in names):
        raise Invalid(f"linux.cgroupsPath: {linux.get('cgroupsPath')!r} names no control group")
    for file in (linux.get("resources") or {}).get("unified") or {}:
        controller = file.partition(".")[0]
        if controller not in (*layout.v2, "cgroup"):
            raise Unsupported(
                f"linux.resources.unified: {file} cannot be set here",
                why=f"the controller {controller} is not on the unified hierarchy",
            )
    group = Group(layout, names[-1], tuple(layout.v1), "/".join(names[:-1]))
    if any(os.path.isdir(directory) for directory in group.directories) and group.pids():
        raise Conflict(f"linux.cgroupsPath: the control group {path} has processes already")
    return group


def _from_systemd(path: str) -> str:
    """`slice:prefix:name` as the directory systemd would make, since there may be no systemd to ask."""
    slice_, prefix, name = path.split(":")
    parts = (slice_ or "system.slice").removesuffix(".slice").split("-")
    above = "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))
    if name.endswith(".slice"):
        return f"{above}/{name}"
    return f"{above}/{prefix}-{name}.scope" if prefix else f"{above}/{name}.scope"


def saved(group: Group) -> dict[str, Any]:
    """What `found` needs, for the state file."""
    return {"v1": dict(group.v1), "unified": group.unified}


def found(layout: Layout, value: dict[str, Any]) -> Group:
    """The group of a state file."""
    group = Group(layout, "")
    group.v1, group.unified = dict(value["v1"]), value["unified"]
    return group


def remove(group: Group) -> None:
    """The groups, and those above that are our own by name and empty now."""
    group.remove()
    for directory in group.directories:
        above = os.path.dirname(directory)
        while f"/{PARENT}" in above:
            try:
                os.rmdir(above)
            except OSError:
                break  # in use by another container
            above = os.path.dirname(above)
