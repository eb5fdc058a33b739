"""Who this process is among the kernel's identities: the host's root, or root of a user namespace only.

Reads /proc/self/uid_map and gid_map (user_namespaces(7)) anew each time, since a process may enter a namespace.
"""

from __future__ import annotations

import os

_ALL = 0xFFFFFFFF


def ranges(kind: str) -> list[tuple[int, int, int]]:
    """(inside, outside, count) of "uid" or "gid"; without /proc it is taken for the host's own."""
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return [(0, 0, _ALL)]
    return [(int(row[0]), int(row[1]), int(row[2])) for row in rows]


def host_root() -> bool:
    """Whether root here is root of the host: device nodes, trusted attributes and limits are its to set."""
    return os.geteuid() == 0 and ranges("uid") == [(0, 0, _ALL)]


def single() -> bool:
    """Whether this process's own identity is the only one it can give to a file."""
    return sum(row[2] for row in ranges("uid")) <= 1 or sum(row[2] for row in ranges("gid")) <= 1


def may_set_groups() -> bool:
    """Whether setgroups(2) is allowed: a namespace made without help forbids it for good."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() != "deny"
    except OSError:
        return True
