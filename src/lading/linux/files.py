"""File system calls Python's os module lacks: openat2(2), renameat2(2), syncfs(2)."""

from __future__ import annotations

import ctypes
import os

from lading.linux import calls

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` below `dirfd` as if `dirfd` were the root (openat2(2), Linux 5.6); returns a close-on-exec descriptor.

    Symlinks, absolute ones too, and `..` cannot leave `dirfd` under the default RESOLVE_IN_ROOT. The kernel may answer
    EAGAIN when a rename races with `..`; the call is repeated a bounded number of times.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    for attempt in range(64):
        fd = calls.syscall(calls.OPENAT2, dirfd, raw, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != 11 or attempt == 63:  # EAGAIN
            break
    return calls.check(fd, "openat2", path)


def renameat2(olddir: int, old: str | bytes, newdir: int, new: str | bytes, flags: int = 0) -> None:
    """renameat2(2): RENAME_NOREPLACE and RENAME_EXCHANGE."""
    calls.check(calls.libc.renameat2(olddir, os.fsencode(old), newdir, os.fsencode(new), flags), "renameat2", new)


def syncfs(fd: int) -> None:
    """Write the whole file system that holds `fd` to disk (syncfs(2))."""
    calls.check(calls.libc.syncfs(fd), "syncfs")
