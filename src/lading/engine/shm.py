"""A container's /dev/shm seen from outside, and what to say when it was too small. Owns one descriptor a container.

A program that writes to shared memory which has no room left dies of SIGBUS (mmap(2), tmpfs(5)), which tells nobody why.
The descriptor keeps the file system, not the container, until the end of the run has been looked at.
"""

from __future__ import annotations

import os

from lading.linux import files

BUS_ERROR = 135
"""128 and SIGBUS: the exit code of a process that signal ended."""

_FULL = 0.97


def hold(pid: int) -> int:
    """A descriptor of /dev/shm of a process, below its root whatever links lie there; -1 where there is none."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return files.openat2(root, b"dev/shm", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.close(root)


def hint(code: int, fd: int) -> str:
    """What a bus error most likely came from; "" for every other end."""
    if code != BUS_ERROR or fd < 0:
        return ""
    try:
        found = os.fstatvfs(fd)
    except OSError:
        return ""
    size = found.f_blocks * found.f_frsize
    if not size:
        return ""
    used = 1 - found.f_bfree / found.f_blocks
    more = f"Give it more shared memory, such as --shm-size {_shown(max(size * 8, 1 << 30))}."
    if used >= _FULL:
        return f"a bus error ended the container (SIGBUS): its /dev/shm of {_shown(size)} is full. {more}"
    return f"a bus error ended the container (SIGBUS): often its /dev/shm, of {_shown(size)} here, had no room left. {more}"


def release(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _shown(size: int) -> str:
    return f"{size >> 30}g" if size >= 1 << 30 and not size % (1 << 30) else f"{size >> 20}m"
