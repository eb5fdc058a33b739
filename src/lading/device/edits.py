"""The edits of chosen devices as one, in the runtime specification's words. Owns merging and looking at host nodes.

Reads stat(2) of the nodes and mount sources that the specs name, and nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lading.base.errors import Invalid, NotFound, Unsupported
from lading.device.model import Device, Edits, Hook, Mount, Node, Spec

LIST_VARIABLE = "LD_LIBRARY_PATH"
"""Extended where a spec sets it, not replaced: the image's own directories must stay on it (ld.so(8))."""


HOOK_SECONDS = 30
"""The longest a device's hook may take: a start waits for it."""


@dataclass(frozen=True)
class Granted:
    """What a container gets with its devices. Nodes carry `hostPath`, which the runtime specification has not."""

    env: tuple[str, ...] = ()
    nodes: tuple[dict[str, Any], ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    hooks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    gids: tuple[int, ...] = ()


def merge(chosen: Iterable[tuple[Spec, Device]]) -> Edits:
    """Each spec's shared edits once, before those of its devices, in the order in which the devices were asked for."""
    seen: set[tuple[str, str]] = set()
    found: list[Edits] = []
    for spec, device in chosen:
        if (spec.origin, spec.kind) not in seen:
            seen.add((spec.origin, spec.kind))
            found.append(spec.edits)
        if device.edits not in found:
            found.append(device.edits)
    return Edits(
        env=tuple(item for one in found for item in one.env),
        nodes=tuple(item for one in found for item in one.nodes),
        mounts=tuple(item for one in found for item in one.mounts),
        hooks=tuple(dict.fromkeys(item for one in found for item in one.hooks)),
        gids=tuple(dict.fromkeys(item for one in found for item in one.gids)),
        refused=tuple(dict.fromkeys(item for one in found for item in one.refused)),
    )


def grant(edits: Edits) -> Granted:
    """The edits with the host looked at: a node's numbers, a source's existence. All of them or an error."""
    if edits.refused:
        raise Unsupported(
            f"the spec of these devices asks for {' and '.join(edits.refused)}",
            why="lading cannot make this edit, and a device with half of its edits would not be what its vendor means.",
            hint="`lading cdi show NAME` shows the spec.",
        )
    nodes: dict[str, dict[str, Any]] = {}
    rules: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in edits.nodes:
        made = node(item)
        nodes[made["path"]] = made  # a later edit of one path replaces the earlier
        if made["type"] in "bcu":
            kind = "b" if made["type"] == "b" else "c"
            rule = {"allow": True, "type": kind, "major": made["major"], "minor": made["minor"]}
            rules[(*rule.values(), item.permissions)] = {**rule, "access": item.permissions}
    mounts = {item.container_path: _mount(item) for item in edits.mounts}
    hooks: dict[str, list[dict[str, Any]]] = {}
    for hook in edits.hooks:
        hooks.setdefault(hook.point, []).append(_hook(hook))
    return Granted(
        edits.env, tuple(nodes.values()), tuple(rules.values()), tuple(mounts.values()), hooks, edits.gids
    )


def node(asked: Node) -> dict[str, Any]:
    """linux.devices' entry for a node; what the spec leaves open is the host's."""
    host = asked.host_path or asked.path
    found: dict[str, Any] = {"path": asked.path, "hostPath": host, "type": asked.type}
    complete = asked.type == "p" or (asked.type and asked.major is not None and asked.minor is not None)
    mode = asked.mode
    try:
        info = os.stat(host)
    except OSError as e:
        if not complete:
            raise NotFound(
                f"the device node {host} cannot be looked at",
                why=e.strerror or str(e),
                hint="Load the device's driver, or make its spec anew.",
            ) from e
    else:
        kind = _kind(info.st_mode)
        if not complete or not (asked.major or asked.minor):
            if not kind:
                raise Invalid(f"{host} is not a device node", hint="Correct the spec's hostPath.")
            if asked.type and asked.type.replace("u", "c") != kind:
                raise Invalid(f"{host} is of type {kind}, and the spec says {asked.type}")
            found["type"] = kind
            found["major"], found["minor"] = os.major(info.st_rdev), os.minor(info.st_rdev)
        if mode is None and kind:
            mode = stat.S_IMODE(info.st_mode)
    if "major" not in found and asked.type != "p":
        found["major"], found["minor"] = asked.major, asked.minor
    if mode is not None:
        found["fileMode"] = stat.S_IMODE(mode)
    for key, value in (("uid", asked.uid), ("gid", asked.gid)):
        if value is not None:
            found[key] = value
    return found


def _kind(mode: int) -> str:
    if stat.S_ISCHR(mode):
        return "c"
    if stat.S_ISBLK(mode):
        return "b"
    return "p" if stat.S_ISFIFO(mode) else ""


def _mount(asked: Mount) -> dict[str, Any]:
    options = list(asked.options)
    if asked.type == "tmpfs":
        kind = "tmpfs"
    else:
        kind = "bind"
        if not os.path.exists(asked.host_path):
            raise NotFound(
                f"{asked.host_path}, which the spec mounts at {asked.container_path}, does not exist",
                hint="The driver was changed since the spec was made: make it anew.",
            )
        if "bind" not in options and "rbind" not in options:
            options.insert(0, "rbind")
    return {"destination": asked.container_path, "type": kind, "source": asked.host_path, "options": options}


def _hook(asked: Hook) -> dict[str, Any]:
    """`env` is always there: a hook must never see a variable that an image set (CVE-2025-23266)."""
    seconds = min(asked.timeout or HOOK_SECONDS, HOOK_SECONDS)
    found: dict[str, Any] = {"path": asked.path, "env": list(asked.env), "timeout": seconds}
    if asked.args:
        found["args"] = list(asked.args)
    return found


def environment(base: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """`base` with the devices' variables over it, so that no image or user can undo them; paths of libraries add up."""
    values = {}
    for item in base:
        key, mark, value = item.partition("=")
        values[key] = value if mark else None
    for item in granted:
        key, _, value = item.partition("=")
        before = values.get(key)
        if key == LIST_VARIABLE and before:
            parts = [*value.split(":"), *before.split(":")]
            value = ":".join(dict.fromkeys(filter(None, parts)))
        values[key] = value
    return tuple(key if value is None else f"{key}={value}" for key, value in values.items())


def as_document(edits: Edits) -> dict[str, Any]:
    """Edits in the words of a spec's containerEdits."""
    found: dict[str, Any] = {
        "env": list(edits.env),
        "deviceNodes": [_filled(_NODE_FIELDS, item) for item in edits.nodes],
        "mounts": [_filled(_MOUNT_FIELDS, item) for item in edits.mounts],
        "hooks": [_filled(_HOOK_FIELDS, item) for item in edits.hooks],
        "additionalGids": list(edits.gids),
    }
    return {key: value for key, value in found.items() if value}


_NODE_FIELDS = {
    "path": "path", "hostPath": "host_path", "type": "type", "major": "major", "minor": "minor", "fileMode": "mode",
    "permissions": "permissions", "uid": "uid", "gid": "gid",
}  # fmt: skip
_MOUNT_FIELDS = {
    "hostPath": "host_path",
    "containerPath": "container_path",
    "type": "type",
    "options": "options",
}
_HOOK_FIELDS = {"hookName": "point", "path": "path", "args": "args", "env": "env", "timeout": "timeout"}


def _filled(names: dict[str, str], value: Node | Mount | Hook) -> dict[str, Any]:
    pairs = ((key, getattr(value, name)) for key, name in names.items())
    return {
        key: list(item) if isinstance(item, tuple) else item
        for key, item in pairs
        if item not in (None, "", ())
    }
