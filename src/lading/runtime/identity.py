"""What the new process is: identity, limits, privileges, scheduling, command. From the specification's process, pure.

Everything becomes bytes and ints here, since init may run no codec. Sources: runtime-spec 1.2 config.md "Process",
capabilities(7), getrlimit(2), sched_setattr(2), ioprio_set(2), personality(2).
"""

from __future__ import annotations

import os

from lading.base.errors import Invalid

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Iterable, Mapping
    from typing import Any

CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""Capability names without CAP_, in the kernel's numbering (linux/capability.h)."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def capability_mask(names: Iterable[str]) -> int:
    """Bit mask of "CAP_X" names; Invalid for one the kernel headers do not know."""
    mask = 0
    for name in names:
        try:
            mask |= 1 << CAPABILITIES.index(name.removeprefix("CAP_"))
        except ValueError:
            raise Invalid(f"unknown capability {name!r}", hint="See capabilities(7) for the names.") from None
    return mask


def process(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What init does to itself after the mounts: identity, limits, privileges, command. All bytes and ints."""
    described = spec.get("process") or {}
    argv = [os.fsencode(str(word)) for word in described.get("args") or ()]
    if not argv or not argv[0]:
        raise Invalid(
            "process.args: no command is given", hint="Give a command, or use an image that has one."
        )
    environment: dict[bytes, bytes] = {}
    for item in described.get("env") or ():
        name, _, value = os.fsencode(str(item)).partition(b"=")
        if name:
            environment[name] = value
    for text in (*argv, *environment, *environment.values()):
        if b"\0" in text:
            raise Invalid("process: a NUL byte in an argument or in the environment")
    user = described.get("user") or {}
    capabilities = described.get("capabilities") or {}
    return {
        "argv": argv,
        "env": environment,
        "candidates": candidates(argv[0], environment.get(b"PATH", _DEFAULT_PATH.encode())),
        "cwd": os.fsencode(str(described.get("cwd") or "/")),
        "uid": _identity(user, "uid"),
        "gid": _identity(user, "gid"),
        "groups": [int(group) for group in user.get("additionalGids") or ()],
        "umask": int(user["umask"]) if user.get("umask") is not None else -1,
        "capabilities": {
            kind: capability_mask(capabilities.get(kind) or ())
            for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "no_new_privileges": bool(described.get("noNewPrivileges")),
        "oom_score_adj": described.get("oomScoreAdj"),
        "rlimits": [_rlimit(limit) for limit in described.get("rlimits") or ()],
        "scheduler": _scheduler(described.get("scheduler")),
        "io_priority": _io_priority(described.get("ioPriority")),
        "affinity": cpus((described.get("execCPUAffinity") or {}).get("final")),
        "personality": _personality((spec.get("linux") or {}).get("personality")),
        "labels": [
            (kind, os.fsencode(str(described[key])))
            for kind, key in ((b"apparmor", "apparmorProfile"), (b"selinux", "selinuxLabel"))
            if described.get(key)
        ],
        "tty": bool(described.get("terminal")),
    }


def _identity(user: Mapping[str, Any], key: str) -> int:
    """A uid or gid; 4294967295 is refused, since the kernel reads it as "unchanged" (setresuid(2))."""
    value = user.get(key) or 0
    if not isinstance(value, int) or not 0 <= value < 0xFFFFFFFF:
        raise Invalid(f"process.user.{key}: {value!r} is not an id from 0 to 4294967294")
    return value


def candidates(command: bytes, path: bytes) -> list[bytes]:
    """The files to try to execute, in order; PATH is searched by init with execve alone, never by a library (execvp(3))."""
    if b"/" in command:
        return [command]
    return [(directory or b".") + b"/" + command for directory in path.split(b":")]


_RLIMITS = {
    "CPU": 0, "FSIZE": 1, "DATA": 2, "STACK": 3, "CORE": 4, "RSS": 5, "NPROC": 6, "NOFILE": 7, "MEMLOCK": 8, "AS": 9,
    "LOCKS": 10, "SIGPENDING": 11, "MSGQUEUE": 12, "NICE": 13, "RTPRIO": 14, "RTTIME": 15,
}  # fmt: skip


def _rlimit(limit: Mapping[str, Any]) -> tuple[int, int, int]:
    """(resource, soft, hard); -1 and 2^64-1 mean unlimited (getrlimit(2))."""
    name = str(limit.get("type") or "")
    try:
        resource = _RLIMITS[name.removeprefix("RLIMIT_")]
    except KeyError:
        raise Invalid(
            f"process.rlimits: unknown type {name!r}", hint=f"Known: {', '.join(_RLIMITS)}."
        ) from None
    soft, hard = (_signed(int(limit.get(key, 0))) for key in ("soft", "hard"))
    if hard != -1 and (soft == -1 or soft > hard):
        raise Invalid(f"process.rlimits: {name}'s soft limit exceeds its hard limit")
    return resource, soft, hard


def _signed(value: int) -> int:
    return -1 if value < 0 or value >= 1 << 63 else value


_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}


def _chosen(table: Mapping[str, int], value: Any, field: str) -> int:
    if value not in table:
        raise Invalid(f"{field}: {value!r} is unknown", hint=f"Known: {', '.join(table)}.")
    return table[value]


def _scheduler(entry: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Arguments of sched_setattr(2), or nothing."""
    if not entry:
        return ()
    policy = _chosen(_POLICIES, entry.get("policy"), "process.scheduler.policy")
    flags = 0
    for name in entry.get("flags") or ():
        flags |= _chosen(_SCHED_FLAGS, name, "process.scheduler.flags")
    numbers = [int(entry.get(key) or 0) for key in ("nice", "priority", "runtime", "deadline", "period")]
    if numbers[1] and policy not in (1, 2):
        raise Invalid("process.scheduler.priority: only SCHED_FIFO and SCHED_RR have one")
    if any(numbers[2:]) and policy != 6:
        raise Invalid("process.scheduler: runtime, deadline and period belong to SCHED_DEADLINE")
    return (policy, flags, *numbers)


def _io_priority(entry: Mapping[str, Any] | None) -> int:
    """IOPRIO_PRIO_VALUE, or -1 for none."""
    if not entry:
        return -1
    level = int(entry.get("priority") or 0)
    if not 0 <= level <= 7:
        raise Invalid(f"process.ioPriority.priority: {level} is not 0 to 7")
    return _chosen(_IO_CLASSES, entry.get("class"), "process.ioPriority.class") << 13 | level


def cpus(text: str | None) -> list[int]:
    """A CPU list as cpuset(7) writes it: "0-3,7"."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if not first:
            continue
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) > 8191:
            raise Invalid(f"process.execCPUAffinity: {text!r} is not a list of CPUs")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _personality(entry: Mapping[str, Any] | None) -> int:
    if not entry:
        return -1
    if entry.get("flags"):
        raise Invalid("linux.personality.flags: none is known to the specification")
    return _chosen(_PERSONALITIES, entry.get("domain"), "linux.personality.domain")
