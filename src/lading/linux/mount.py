"""Mounts: mount(2), umount2(2), pivot_root(2) and the newer descriptor calls. One function per call, no policy."""

from __future__ import annotations

import ctypes

from lading.linux import calls
from lading.linux.abi import *  # noqa: F403 - callers say mount.MS_RDONLY
from lading.linux.abi import (
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLOEXEC,
)


def mount(
    source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None
) -> None:
    """mount(2). Strings are bytes so that init, inside the container's mounts, runs no codec."""
    calls.check(
        calls.held.mount(source, target, fstype, ctypes.c_ulong(flags), data),
        "mount",
        target,
    )


def umount2(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    calls.check(calls.held.umount2(target, flags), "umount2", target)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2); with both "." the old root ends up stacked under the new one and is then detached."""
    calls.check(calls.syscall_held(calls.number("pivot_root"), new_root, put_old), "pivot_root", new_root)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount_setattr(
    fd: int, path: bytes, flags: int, attr_set: int, attr_clr: int = 0, userns_fd: int = 0
) -> None:
    """mount_setattr(2), Linux 5.12: recursive attributes and id-mapped mounts."""
    attr = _MountAttr(attr_set, attr_clr, 0, userns_fd)
    calls.check(
        calls.syscall_held(
            calls.MOUNT_SETATTR, fd, path, flags, ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr))
        ),
        "mount_setattr",
        path,
    )


def open_tree(dirfd: int, path: bytes, flags: int) -> int:
    """open_tree(2), Linux 5.2: with OPEN_TREE_CLONE a detached copy of a mount."""
    return calls.check(
        calls.syscall_held(calls.OPEN_TREE, dirfd, path, flags | OPEN_TREE_CLOEXEC), "open_tree", path
    )


def move_mount(from_fd: int, to_fd: int) -> None:
    """move_mount(2) of the mount behind one descriptor onto the place behind another; no path is looked up."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    calls.check(calls.syscall_held(calls.MOVE_MOUNT, from_fd, b"", to_fd, b"", flags), "move_mount")
