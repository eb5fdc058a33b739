"""Processes: clone3(2), pidfds, namespaces, capabilities, prctl(2). One function per call, no policy.

The zygote, the monitor and init use these with one thread and the interpreter lock held, which is what makes a raw
clone3 safe: the child is a whole copy of a single-threaded process (clone(2), "C library/kernel differences").
"""

from __future__ import annotations

import ctypes
import os

from lading.linux import calls
from lading.linux.abi import *  # noqa: F403 - callers say process.CLONE_NEWPID
from lading.linux.abi import (
    CLONE_INTO_CGROUP,
    CLONE_PARENT,
    CLOSE_RANGE_CLOEXEC,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_SET_NAME,
    SIGCHLD,
)


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


def clone3(flags: int, *, cgroup_fd: int = -1, exit_signal: int = SIGCHLD) -> int:
    """clone3(2) as fork: returns 0 in the child. `cgroup_fd` starts the child in that v2 cgroup (CLONE_INTO_CGROUP).

    CLONE_PARENT demands exit_signal 0; the caller's parent then gets its own exit signal.
    """
    args = _CloneArgs(flags=flags, exit_signal=0 if flags & CLONE_PARENT else exit_signal)
    if cgroup_fd >= 0:
        args.flags = flags | CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    return calls.check(
        calls.syscall_held(calls.CLONE3, ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))), "clone3"
    )


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    return calls.check(calls.syscall(calls.PIDFD_OPEN, pid, 0), "pidfd_open")


def setns(fd: int, flags: int) -> None:
    """setns(2); with a pidfd several namespaces at once (Linux 5.8)."""
    calls.check(calls.held.setns(fd, flags), "setns")


def unshare(flags: int) -> None:
    """unshare(2)."""
    calls.check(calls.held.unshare(ctypes.c_int(flags)), "unshare")


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """prctl(2) with integer arguments."""
    return calls.check(
        calls.held.prctl(
            option, ctypes.c_ulong(arg2), ctypes.c_ulong(arg3), ctypes.c_ulong(0), ctypes.c_ulong(0)
        ),
        "prctl",
    )


def personality(persona: int) -> None:
    """personality(2) of the calling process, kept across execve."""
    calls.check(calls.held.personality(ctypes.c_ulong(persona)), "personality")


def ioprio_set(value: int) -> None:
    """ioprio_set(2) for the calling thread: the class in the upper bits (IOPRIO_PRIO_VALUE), the level below."""
    calls.check(calls.syscall_held(calls.number("ioprio_set"), 1, 0, value), "ioprio_set")


class _SchedAttr(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


def sched_setattr(
    policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    """sched_setattr(2) for the calling thread; Python's own call knows no deadline scheduling."""
    attr = _SchedAttr(48, policy, flags, nice, priority, runtime, deadline, period)
    calls.check(calls.syscall_held(calls.number("sched_setattr"), 0, ctypes.byref(attr), 0), "sched_setattr")


def set_name(name: bytes) -> None:
    """The thread's name as ps shows it, at most 15 bytes (PR_SET_NAME)."""
    calls.check(calls.held.prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0), "prctl(PR_SET_NAME)")


def set_command_line(text: bytes) -> None:
    """What /proc/PID/cmdline shows of this process and of what it forks, instead of the arguments it was started with.

    The kernel reads it from the process's own memory between arg_start and arg_end (proc(5)); where the last byte there
    is not zero, it shows one string up to the first zero (fs/proc/base.c, get_mm_proctitle).
    """
    stat = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(stat, 4096).rpartition(b")")[2].split()  # from the third field on
    finally:
        os.close(stat)
    start, end = int(fields[48 - 3]), int(fields[49 - 3])
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(memory, text[: end - start - 2].ljust(end - start - 1, b"\0") + b".", start)
    finally:
        os.close(memory)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2), Linux 5.9 (the CLOEXEC flag 5.11); older kernels: one fcntl or close at a time."""
    if calls.syscall_held(calls.CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), flags) == 0:
        return
    for text in os.listdir("/proc/self/fd"):
        fd = int(text)
        if first <= fd <= last:
            try:
                if flags & CLOSE_RANGE_CLOEXEC:
                    os.set_inheritable(fd, False)
                else:
                    os.close(fd)
            except OSError:
                pass  # the directory's own descriptor is gone by now


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


_CAP_VERSION_3 = 0x20080522


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread; each argument is a bit mask of capability numbers."""
    header = _CapHeader(_CAP_VERSION_3, 0)
    data = (_CapData * 2)()
    for index in range(2):
        shift = 32 * index
        data[index].effective = effective >> shift & 0xFFFFFFFF
        data[index].permitted = permitted >> shift & 0xFFFFFFFF
        data[index].inheritable = inheritable >> shift & 0xFFFFFFFF
    calls.check(
        calls.syscall_held(calls.number("capset"), ctypes.byref(header), ctypes.byref(data)), "capset"
    )


def ambient_clear() -> None:
    """Empty the ambient set (PR_CAP_AMBIENT_CLEAR_ALL)."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def ambient_raise(capability: int) -> None:
    """Add one capability to the ambient set; it must be permitted and inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    calls.check(calls.held.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def setdomainname(name: bytes) -> None:
    """setdomainname(2)."""
    calls.check(calls.held.setdomainname(name, ctypes.c_size_t(len(name))), "setdomainname")


def ioctl(fd: int, request: int, argument: int = 0) -> int:
    """ioctl(2) with an integer argument."""
    return calls.check(calls.held.ioctl(fd, ctypes.c_ulong(request), ctypes.c_ulong(argument)), "ioctl")


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks after boot at which the process started; tells a recycled pid (proc(5)).

    Raises ProcessLookupError when there is no such process or it is a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(3, f"no process {pid}") from None
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(3, f"process {pid} has ended")
    return int(fields[19])
