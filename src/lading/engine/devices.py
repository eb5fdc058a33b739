"""Device nodes and device cgroup rules of a container, in OCI shape. Owns the short allow list; reads only stat(2)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from typing import Any

from lading.base.errors import Invalid
from lading.engine.model import Device

_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")


def _allow(kind: str, major: int, minor: int | None) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "major": major, "access": "rwm"}
    if minor is not None:
        rule["minor"] = minor
    return rule


# Deny everything, then: mknod of anything (a node alone opens nothing), null, zero, full, random, urandom, tty,
# console, ptmx and the container's own pts (Documentation/admin-guide/devices.txt).
DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        _allow("c", major, minor)
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
    ),
    _allow("c", 136, None),
)

ALL_RULES: tuple[dict[str, Any], ...] = ({"allow": True, "access": "rwm"},)

_NOT_COPIED = frozenset(("pts", "shm", "fd", "mqueue", "console", "ptmx", "log"))  # the runtime makes its own


def rules(devices: Iterable[Device], extra: Iterable[str], privileged: bool) -> list[dict[str, Any]]:
    """linux.resources.devices: the default list plus what was asked for."""
    if privileged:
        return list(ALL_RULES)
    found = list(DEFAULT_RULES)
    for device in devices:
        for _, node in _nodes(device):
            found.append(
                {
                    "allow": True,
                    "type": node["type"],
                    "major": node["major"],
                    "minor": node["minor"],
                    "access": device.permissions,
                }
            )
    found.extend(parse_rule(text) for text in extra)
    return found


def parse_rule(text: str) -> dict[str, Any]:
    """One `--device-cgroup-rule`, as "c 13:* rwm"."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise Invalid(f'invalid device cgroup rule "{text}"', hint='Write it as "c 13:* rwm".')
    kind, major, minor, access = match.groups()
    rule: dict[str, Any] = {"allow": True, "access": access}
    if kind != "a":
        rule["type"] = kind
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def nodes(devices: Iterable[Device], privileged: bool) -> list[dict[str, Any]]:
    """linux.devices: nodes beside the runtime's defaults. A privileged container sees every node of the host."""
    found: dict[str, dict[str, Any]] = {}
    if privileged:
        for path in _host_nodes("/dev"):
            node = None if os.path.islink(path) else _describe(path, path)
            if node is not None:
                found[path] = node
    for device in devices:
        for _, node in _nodes(device):
            found[node["path"]] = node
    return list(found.values())


def binds(devices: Iterable[Device]) -> list[dict[str, Any]]:
    """The same nodes as bind mounts, for where nobody may make nodes (user_namespaces(7)): the host's own are shown."""
    options = ["bind", "rw", "nosuid", "noexec", "rprivate"]
    return [
        {"destination": node["path"], "type": "bind", "source": real, "options": options}
        for device in devices
        for real, node in _nodes(device)
    ]


def _nodes(device: Device) -> list[tuple[str, dict[str, Any]]]:
    """(path on the host, node) of a device, or of every node in a directory."""
    if not device.permissions or set(device.permissions) - set("rwm"):
        raise Invalid(f'invalid device mode "{device.permissions}"', hint="Use letters of rwm.")
    host, guest = device.host, device.container or device.host
    if not host.startswith("/") or not guest.startswith("/"):
        raise Invalid(f'invalid device "{host}:{guest}"', why="Both paths must be absolute.")
    real = os.path.realpath(host)
    if os.path.isdir(real):
        inside = [(path, guest.rstrip("/") + path[len(real) :]) for path in _host_nodes(real)]
    else:
        inside = [(real, guest)]
    found = [(path, node) for path, to in inside if (node := _describe(path, to)) is not None]
    if not found:
        raise Invalid(
            f'error gathering device information while adding custom device "{host}"',
            why="It is not a device node." if os.path.exists(real) else "There is no such file or directory.",
            hint="ls -l /dev shows the host's devices.",
        )
    return found


def _describe(path: str, guest: str) -> dict[str, Any] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    if stat.S_ISCHR(info.st_mode):
        kind = "c"
    elif stat.S_ISBLK(info.st_mode):
        kind = "b"
    else:
        return None
    return {
        "path": guest,
        "type": kind,
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _host_nodes(root: str) -> list[str]:
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if folder != "/dev" or name not in _NOT_COPIED]
        found.extend(f"{folder}/{name}" for name in names if folder != "/dev" or name not in _NOT_COPIED)
    return found
