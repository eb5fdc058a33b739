"""From an OCI runtime-spec configuration to the ordered steps that init performs. Pure: opens nothing, reads no clock.

A plan is plain data (tuples, bytes, ints), so that it can be printed (`describe`), compared in tests and sent to the
zygote with marshal. Every string becomes bytes here, because init may run no codec once it is among the container's mounts.
Sources: runtime-spec 1.2 config.md and config-linux.md, mount(8), capabilities(7).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lading.base.errors import Invalid, Unsupported
from lading.linux import mount as m
from lading.linux import process as p

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

_FLAGS = {
    "ro": m.MS_RDONLY, "nosuid": m.MS_NOSUID, "nodev": m.MS_NODEV, "noexec": m.MS_NOEXEC, "sync": m.MS_SYNCHRONOUS,
    "dirsync": m.MS_DIRSYNC, "noatime": m.MS_NOATIME, "nodiratime": m.MS_NODIRATIME, "relatime": m.MS_RELATIME,
    "strictatime": m.MS_STRICTATIME, "nosymfollow": m.MS_NOSYMFOLLOW, "silent": m.MS_SILENT, "remount": m.MS_REMOUNT,
    "mand": m.MS_MANDLOCK, "lazytime": m.MS_LAZYTIME,
}  # fmt: skip
_CLEARED = {
    "rw": m.MS_RDONLY, "suid": m.MS_NOSUID, "dev": m.MS_NODEV, "exec": m.MS_NOEXEC, "async": m.MS_SYNCHRONOUS,
    "atime": m.MS_NOATIME, "diratime": m.MS_NODIRATIME, "norelatime": m.MS_RELATIME, "nostrictatime": m.MS_STRICTATIME,
    "symfollow": m.MS_NOSYMFOLLOW, "loud": m.MS_SILENT, "nomand": m.MS_MANDLOCK,
}  # fmt: skip
_PROPAGATION = {
    "private": m.MS_PRIVATE, "rprivate": m.MS_PRIVATE | m.MS_REC, "slave": m.MS_SLAVE, "rslave": m.MS_SLAVE | m.MS_REC,
    "shared": m.MS_SHARED, "rshared": m.MS_SHARED | m.MS_REC, "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}  # fmt: skip
_IGNORED = {"defaults", "tmpcopyup", "create=dir", "create=file"}

_NAMESPACES = {
    "pid": p.CLONE_NEWPID, "network": p.CLONE_NEWNET, "mount": p.CLONE_NEWNS, "ipc": p.CLONE_NEWIPC,
    "uts": p.CLONE_NEWUTS, "user": p.CLONE_NEWUSER, "cgroup": p.CLONE_NEWCGROUP,
}  # fmt: skip

_DEFAULT_DEVICES = (
    ("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/random", 1, 8), ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)  # fmt: skip
_DEFAULT_LINKS = (
    ("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin"), ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"), ("pts/ptmx", "/dev/ptmx"),
)  # fmt: skip

_S_IFCHR, _S_IFBLK, _S_IFIFO = 0o020000, 0o060000, 0o010000
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Step = tuple[Any, ...]


def namespaces(spec: Mapping[str, Any]) -> tuple[int, list[tuple[int, str]]]:
    """(flags to create, [(flag, path) to join]) of `linux.namespaces`; Invalid for unknown or repeated types."""
    create, join, seen = 0, [], set()
    for entry in (spec.get("linux") or {}).get("namespaces") or ():
        kind = entry.get("type")
        if kind == "time":
            raise Unsupported(
                "time namespaces are not supported yet", hint="Remove linux.namespaces' time entry."
            )
        if kind not in _NAMESPACES:
            raise Invalid(
                f"linux.namespaces: unknown type {kind!r}", hint=f"Known: {', '.join(_NAMESPACES)}."
            )
        if kind in seen:
            raise Invalid(f"linux.namespaces: type {kind!r} is given twice")
        seen.add(kind)
        if entry.get("path"):
            join.append((_NAMESPACES[kind], str(entry["path"])))
        else:
            create |= _NAMESPACES[kind]
    return create, join


def mount_options(options: Iterable[str]) -> tuple[int, int, bytes]:
    """(mount flags, propagation flags, data) of an OCI mount's options; what is not a flag goes to the file system."""
    flags = propagation = 0
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in _CLEARED:
            flags &= ~_CLEARED[option]
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option == "bind":
            flags |= m.MS_BIND
        elif option == "rbind":
            flags |= m.MS_BIND | m.MS_REC
        elif option not in _IGNORED:
            data.append(option)
    return flags, propagation, os.fsencode(",".join(data))


def capability_mask(names: Iterable[str]) -> int:
    """Bit mask of "CAP_X" names; Invalid for one the kernel headers do not know."""
    mask = 0
    for name in names:
        try:
            mask |= 1 << CAPABILITIES.index(name.removeprefix("CAP_"))
        except ValueError:
            raise Invalid(f"unknown capability {name!r}", hint="See capabilities(7) for the names.") from None
    return mask


def build(
    spec: Mapping[str, Any], rootfs: Step, root_target: str, cgroup_dirs: Mapping[str, str]
) -> list[Step]:
    """The steps from a fresh mount namespace to the finished root, in order.

    `rootfs` is ("overlay", base, lower, upper, work, source, readonly) or ("bind", source, readonly) or ("fd",);
    `cgroup_dirs` maps the name below /sys/fs/cgroup ("" for a pure v2 host) to the container's own directory.
    """
    linux = spec.get("linux") or {}
    root_propagation = str(linux.get("rootfsPropagation") or "")
    if root_propagation and root_propagation not in _PROPAGATION:
        raise Invalid(f"linux.rootfsPropagation: {root_propagation!r} is unknown")
    steps: list[Step] = [
        ("propagate", _PROPAGATION["rshared" if root_propagation.endswith("shared") else "rslave"]),
        (*rootfs, root_target.encode()),
    ]
    for entry in spec.get("mounts") or ():
        steps += _mount(entry, cgroup_dirs)
    steps += _devices(linux.get("devices") or ())
    cwd = str((spec.get("process") or {}).get("cwd") or "/")
    if not cwd.startswith("/"):
        raise Invalid(f"process.cwd: {cwd!r} is not an absolute path")
    if cwd != "/":
        steps.append(("mkdir", os.fsencode(cwd)))
    for key, value in (linux.get("sysctl") or {}).items():
        steps.append(("sysctl", _sysctl_path(key), os.fsencode(str(value))))
    if (spec.get("process") or {}).get("terminal"):
        steps.append(("console",))
    steps += [("readonly_path", os.fsencode(path)) for path in linux.get("readonlyPaths") or ()]
    steps += [("masked_path", os.fsencode(path)) for path in linux.get("maskedPaths") or ()]
    steps.append(("pivot",))
    if (spec.get("root") or {}).get("readonly"):
        steps.append(("root_readonly",))
    if root_propagation:
        steps.append(("root_propagation", _PROPAGATION[root_propagation]))
    return steps


def _mount(entry: Mapping[str, Any], cgroup_dirs: Mapping[str, str]) -> list[Step]:
    destination = str(entry.get("destination") or "")
    if not destination.startswith("/"):
        raise Invalid(f"mounts: destination {destination!r} is not an absolute path")
    target = os.fsencode(posixpath.normpath(destination))
    kind = str(entry.get("type") or "")
    options = [str(option) for option in entry.get("options") or ()]
    if unknown := [o for o in options if o.startswith(("idmap", "ridmap"))]:
        raise Unsupported(f"mount option {unknown[0]} of {destination} is not supported yet")
    flags, propagation, data = mount_options(options)
    if kind == "cgroup":
        return _cgroup_mounts(target, flags, cgroup_dirs)
    if flags & m.MS_BIND or kind == "bind":
        source = str(entry.get("source") or "")
        if not source.startswith("/"):
            raise Invalid(f"mounts: the source {source!r} of {destination} is not an absolute path")
        recursive = bool(flags & m.MS_REC)
        attributes = flags & ~(m.MS_BIND | m.MS_REC)
        return [("bind", os.fsencode(source), target, recursive, attributes, propagation)]
    if not kind:
        raise Invalid(f"mounts: {destination} has no type")
    source_text = os.fsencode(str(entry.get("source") or kind))
    return [("mount", kind.encode(), source_text, target, flags, data, propagation)]


def _cgroup_mounts(target: bytes, flags: int, directories: Mapping[str, str]) -> list[Step]:
    """The container's own groups, bound below /sys/fs/cgroup: no hierarchy's root, hence no release_agent, is in sight."""
    attributes = flags & ~(m.MS_BIND | m.MS_REC)
    if set(directories) == {""}:
        return [("bind", os.fsencode(directories[""]), target, False, attributes, 0)]
    if not directories:
        return []
    steps: list[Step] = [
        ("mount", b"tmpfs", b"tmpfs", target, attributes & ~m.MS_RDONLY, b"mode=755,size=65536", 0)
    ]
    for name, directory in directories.items():
        steps.append(("bind", os.fsencode(directory), target + b"/" + name.encode(), False, attributes, 0))
    if flags & m.MS_RDONLY:
        steps.append(("remount", target, attributes))
    return steps


def _devices(extra: Sequence[Mapping[str, Any]]) -> list[Step]:
    steps: list[Step] = []
    listed = {str(device.get("path")) for device in extra}
    for path, major, minor in _DEFAULT_DEVICES:
        if path not in listed:
            steps.append(("device", path.encode(), _S_IFCHR | 0o666, major, minor, 0, 0))
    for device in extra:
        path, kind = str(device.get("path") or ""), device.get("type")
        mode = {"c": _S_IFCHR, "u": _S_IFCHR, "b": _S_IFBLK, "p": _S_IFIFO}.get(str(kind))
        if mode is None or not path.startswith("/"):
            raise Invalid(f"linux.devices: {path!r} of type {kind!r} is not a device lading can make")
        permissions = device.get("fileMode")
        bits = 0o666 if permissions is None else int(permissions) & 0o7777
        steps.append(
            ("device", os.fsencode(posixpath.normpath(path)), mode | bits, int(device.get("major") or 0),
             int(device.get("minor") or 0), int(device.get("uid") or 0), int(device.get("gid") or 0))
        )  # fmt: skip
    steps += [("symlink", target.encode(), path.encode()) for target, path in _DEFAULT_LINKS]
    return steps


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def _sysctl_path(key: str) -> bytes:
    """The file below /proc/sys; only namespaced keys, since any other would change the host (config-linux.md "sysctl").

    With a slash in it the key is a path already, so that an interface's name may hold dots (sysctl(8)).
    """
    parts = key.split("/") if "/" in key else key.split(".")
    namespaced = ".".join(parts) in _IPC_SYSCTLS or parts[0] == "net" or parts[:2] == ["fs", "mqueue"]
    if not namespaced or not {"", ".", ".."}.isdisjoint(parts) or not key.isprintable():
        raise Invalid(
            f"sysctl {key!r} is not a namespaced setting",
            why="it would change the host",
            hint="Allowed: kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*, net.*",
        )
    return b"/proc/sys/" + os.fsencode("/".join(parts))


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


def id_maps(spec: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The texts for /proc/PID/uid_map and gid_map (user_namespaces(7)); empty without mappings."""
    linux = spec.get("linux") or {}
    return tuple(  # type: ignore[return-value]
        b"".join(
            b"%d %d %d\n" % (int(e["containerID"]), int(e["hostID"]), int(e["size"]))
            for e in linux.get(key) or ()
        )
        for key in ("uidMappings", "gidMappings")
    )


def describe(steps: Iterable[Step]) -> str:
    """The plan as text, one step a line, for people and golden tests."""
    return "\n".join(
        " ".join(part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in step)
        for step in steps
    )
