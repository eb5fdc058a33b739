"""Which namespaces a process must join to be in a container: those in which its init differs from ourselves."""

from __future__ import annotations

import os

from lading.linux import process


def namespaces(pid: int) -> tuple[int, bool]:
    """(namespace flags that differ from ours and must be joined, whether a user namespace is among them)."""
    names = {
        "mnt": process.CLONE_NEWNS, "uts": process.CLONE_NEWUTS, "ipc": process.CLONE_NEWIPC,
        "pid": process.CLONE_NEWPID, "net": process.CLONE_NEWNET, "cgroup": process.CLONE_NEWCGROUP,
        "user": process.CLONE_NEWUSER, "time": process.CLONE_NEWTIME,
    }  # fmt: skip
    flags = 0
    for name, flag in names.items():
        try:
            if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
                flags |= flag
        except FileNotFoundError:
            continue
    return flags, bool(flags & process.CLONE_NEWUSER)
