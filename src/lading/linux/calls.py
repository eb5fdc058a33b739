"""The door to libc: one handle, one error check, and the numbers of system calls glibc has no wrapper for.

PyDLL keeps the interpreter lock, which the zygote and init need (clone leaves a single thread, syscalls(2)); CDLL
releases it, which a threaded daemon needs around calls that may block.
"""

from __future__ import annotations

import ctypes
import os

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
held = ctypes.PyDLL(None, use_errno=True)

# Since Linux 5.1 new system calls have one number on every architecture (asm-generic/unistd.h).
OPEN_TREE = 428
MOVE_MOUNT = 429
FSOPEN = 430
FSCONFIG = 431
FSMOUNT = 432
PIDFD_OPEN = 434
CLONE3 = 435
CLOSE_RANGE = 436
OPENAT2 = 437
PIDFD_GETFD = 438
MOUNT_SETATTR = 442

_MACHINE = os.uname().machine
_BY_MACHINE = {
    "x86_64": {
        "pivot_root": 155,
        "seccomp": 317,
        "capset": 126,
        "capget": 125,
        "keyctl": 250,
        "bpf": 321,
        "ioprio_set": 251,
        "sched_setattr": 314,
    },
    "aarch64": {
        "pivot_root": 41,
        "seccomp": 277,
        "capset": 91,
        "capget": 90,
        "keyctl": 219,
        "bpf": 280,
        "ioprio_set": 30,
        "sched_setattr": 274,
    },
}


def number(name: str) -> int:
    """The system call number of `name` on this machine; OSError(ENOSYS) where lading does not know the architecture."""
    try:
        return _BY_MACHINE[_MACHINE][name]
    except KeyError:
        import errno

        raise OSError(errno.ENOSYS, f"{name}: lading knows no system call numbers for {_MACHINE}") from None


def check(result: int, call: str, path: str | bytes | None = None) -> int:
    """Return `result`, or raise OSError(errno, "call: reason", path) when it is negative."""
    if result >= 0:
        return result
    code = ctypes.get_errno()
    raise OSError(code, f"{call}: {os.strerror(code)}", path)


def syscall(nr: int, *args: Any) -> int:
    """syscall(2) with the interpreter lock released; negative on failure, errno through ctypes."""
    return int(libc.syscall(ctypes.c_long(nr), *args))


def syscall_held(nr: int, *args: Any) -> int:
    """syscall(2) with the interpreter lock kept."""
    return int(held.syscall(ctypes.c_long(nr), *args))
