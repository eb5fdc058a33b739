"""From an OCI runtime-spec configuration to the ordered steps that init performs. Pure: opens nothing, reads no clock.

A plan is plain data (tuples, bytes, ints), so that it can be printed (`describe`), compared in tests and sent to the
zygote with marshal. Every string becomes bytes here, because init may run no codec once it is among the container's mounts.
Sources: runtime-spec 1.2 config.md and config-linux.md, mount(8), capabilities(7).
"""

from __future__ import annotations

import os
import posixpath

from lading.base.errors import Invalid
from lading.linux import abi
from lading.runtime.identity import CAPABILITIES, candidates, capability_mask, process
from lading.runtime.options import PROPAGATION, id_map, mount_maps, mount_options, recursive_attributes

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Step = tuple[Any, ...]

__all__ = [
    "CAPABILITIES", "build", "candidates", "capability_mask", "describe", "id_maps", "mount_options",
    "namespaces", "process",
]  # fmt: skip

NAMESPACES = {
    "pid": abi.CLONE_NEWPID, "network": abi.CLONE_NEWNET, "mount": abi.CLONE_NEWNS, "ipc": abi.CLONE_NEWIPC,
    "uts": abi.CLONE_NEWUTS, "user": abi.CLONE_NEWUSER, "cgroup": abi.CLONE_NEWCGROUP, "time": abi.CLONE_NEWTIME,
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


def namespaces(spec: Mapping[str, Any]) -> tuple[int, list[tuple[int, str]]]:
    """(flags to create, [(flag, path) to join]) of `linux.namespaces`; Invalid for unknown or repeated types."""
    create, join, seen = 0, [], set()
    for entry in (spec.get("linux") or {}).get("namespaces") or ():
        kind = entry.get("type")
        if kind not in NAMESPACES:
            raise Invalid(f"linux.namespaces: unknown type {kind!r}", hint=f"Known: {', '.join(NAMESPACES)}.")
        if kind in seen:
            raise Invalid(f"linux.namespaces: type {kind!r} is given twice")
        seen.add(kind)
        if entry.get("path"):
            join.append((NAMESPACES[kind], str(entry["path"])))
        else:
            create |= NAMESPACES[kind]
    return create, join


def time_offsets(spec: Mapping[str, Any]) -> bytes:
    """The text for /proc/PID/timens_offsets (time_namespaces(7))."""
    lines = []
    for clock, offset in ((spec.get("linux") or {}).get("timeOffsets") or {}).items():
        if clock not in ("monotonic", "boottime"):
            raise Invalid(f"linux.timeOffsets: unknown clock {clock!r}", hint="Known: monotonic, boottime.")
        lines.append(f"{clock} {int(offset.get('secs') or 0)} {int(offset.get('nanosecs') or 0)}\n".encode())
    return b"".join(lines)


def build(
    spec: Mapping[str, Any],
    rootfs: Step,
    root_target: str,
    cgroup_dirs: Mapping[str, str],
    *,
    deep_readonly: bool = True,
) -> list[Step]:
    """The steps from a fresh mount namespace to the finished root, in order.

    `rootfs` is ("overlay", base, lower, upper, work, source, readonly) or ("bind_root", source, readonly, recursive);
    `cgroup_dirs` maps the name below /sys/fs/cgroup ("" for a pure v2 host) to the container's own directory.
    With `deep_readonly` a recursive bind that is "ro" is so all the way down, which the specification leaves to "rro".
    """
    linux = spec.get("linux") or {}
    root_propagation = str(linux.get("rootfsPropagation") or "")
    if root_propagation and root_propagation not in PROPAGATION:
        raise Invalid(f"linux.rootfsPropagation: {root_propagation!r} is unknown")
    steps: list[Step] = [
        ("propagate", PROPAGATION["rshared" if root_propagation.endswith("shared") else "rslave"]),
        (*rootfs, root_target.encode()),
    ]
    for entry in spec.get("mounts") or ():
        steps += _mount(entry, cgroup_dirs, id_maps(spec), deep_readonly)
    if not _host_devices(steps):
        steps += _devices(linux.get("devices") or ())
    cwd = str((spec.get("process") or {}).get("cwd") or "/")
    if not cwd.startswith("/"):
        raise Invalid(f"process.cwd: {cwd!r} is not an absolute path")
    if cwd != "/":
        steps.append(("mkdir", os.fsencode(cwd)))
    for key, value in (linux.get("sysctl") or {}).items():
        steps.append(("sysctl", _sysctl_path(key, spec), os.fsencode(str(value))))
    if (spec.get("process") or {}).get("terminal"):
        steps.append(("console",))
    steps += [("readonly_path", os.fsencode(path)) for path in linux.get("readonlyPaths") or ()]
    steps += [("masked_path", os.fsencode(path)) for path in linux.get("maskedPaths") or ()]
    if any(
        (spec.get("hooks") or {}).get(point) for point in ("prestart", "createRuntime", "createContainer")
    ):
        steps.append(("hooks",))
    steps.append(("pivot",))
    if (spec.get("root") or {}).get("readonly"):
        steps.append(("root_readonly",))
    if root_propagation:
        steps.append(("root_propagation", PROPAGATION[root_propagation]))
    return steps


def _host_devices(steps: Iterable[Step]) -> bool:
    """Whether /dev is a bind of another directory, in which nodes of ours would be made for everybody to see."""
    return any(step[0] in ("bind", "bind_mapped") and step[2] == b"/dev" for step in steps)


def _mount(
    entry: Mapping[str, Any], cgroup_dirs: Mapping[str, str], maps: tuple[bytes, bytes], deep_readonly: bool
) -> list[Step]:
    destination = str(entry.get("destination") or "")
    if not destination.startswith("/"):
        raise Invalid(f"mounts: destination {destination!r} is not an absolute path")
    target = os.fsencode(posixpath.normpath(destination))
    kind = str(entry.get("type") or "")
    options = [str(option) for option in entry.get("options") or ()]
    flags, propagation, data = mount_options(options)
    if kind == "cgroup":
        return _cgroup_mounts(target, flags, cgroup_dirs)
    if flags & abi.MS_BIND or kind == "bind":
        source = str(entry.get("source") or "")
        if not source.startswith("/"):
            raise Invalid(f"mounts: the source {source!r} of {destination} is not an absolute path")
        recursive = bool(flags & abi.MS_REC)
        attributes = flags & ~(abi.MS_BIND | abi.MS_REC)
        mapped = mount_maps(entry, maps)
        step = (os.fsencode(source), target, recursive, attributes, propagation)
        steps: list[Step] = [("bind_mapped", *step, *mapped) if mapped else ("bind", *step)]
        if deep_readonly and recursive and attributes & abi.MS_RDONLY:
            steps.append(("deep_readonly", target))
        return steps + _recursive(target, options)
    if not kind:
        raise Invalid(f"mounts: {destination} has no type")
    if mount_maps(entry, maps):
        raise Invalid(f"mounts: {destination} of type {kind} cannot be id-mapped", hint="Only binds can.")
    source_text = os.fsencode(str(entry.get("source") or kind))
    made: Step = ("mount", kind.encode(), source_text, target, flags, data, propagation)
    if "tmpcopyup" in options and kind == "tmpfs":
        made = ("copy_up", *made[3:])
    return [made, *_recursive(target, options)]


def _recursive(target: bytes, options: list[str]) -> list[Step]:
    set_, clear = recursive_attributes(options)
    return [("attributes", target, set_, clear)] if set_ or clear else []


def _cgroup_mounts(target: bytes, flags: int, directories: Mapping[str, str]) -> list[Step]:
    """The container's own groups, bound below /sys/fs/cgroup: no hierarchy's root, hence no release_agent, is in sight."""
    attributes = flags & ~(abi.MS_BIND | abi.MS_REC)
    if set(directories) == {""}:
        return [("bind", os.fsencode(directories[""]), target, False, attributes, 0)]
    if not directories:
        return []
    steps: list[Step] = [
        ("mount", b"tmpfs", b"tmpfs", target, attributes & ~abi.MS_RDONLY, b"mode=755,size=65536", 0)
    ]
    for name, directory in directories.items():
        steps.append(("bind", os.fsencode(directory), target + b"/" + name.encode(), False, attributes, 0))
    if flags & abi.MS_RDONLY:
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


def _sysctl_path(key: str, spec: Mapping[str, Any]) -> bytes:
    """The file below /proc/sys; only namespaced keys, since any other would change the host (config-linux.md "sysctl").

    With a slash in it the key is a path already, so that an interface's name may hold dots (sysctl(8)).
    """
    parts = key.split("/") if "/" in key else key.split(".")
    kind = ""
    if ".".join(parts) in _IPC_SYSCTLS or parts[:2] == ["fs", "mqueue"]:
        kind = "ipc"
    elif parts[0] == "net":
        kind = "network"
    elif parts == ["kernel", "domainname"]:
        kind = "uts"
    if not kind or not {"", ".", ".."}.isdisjoint(parts) or not key.isprintable():
        raise Invalid(
            f"sysctl {key!r} is not a namespaced setting",
            why="it would change the host",
            hint="Allowed: kernel.shm*, kernel.msg*, kernel.sem, kernel.domainname, fs.mqueue.*, net.*",
        )
    if kind not in {entry.get("type") for entry in (spec.get("linux") or {}).get("namespaces") or ()}:
        raise Invalid(
            f"linux.sysctl: {key!r} needs a {kind} namespace", why="in the host's it would change the host"
        )
    return b"/proc/sys/" + os.fsencode("/".join(parts))


def id_maps(spec: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The texts for /proc/PID/uid_map and gid_map (user_namespaces(7)); empty without mappings."""
    linux = spec.get("linux") or {}
    return id_map(linux.get("uidMappings") or ()), id_map(linux.get("gidMappings") or ())


def describe(steps: Iterable[Step]) -> str:
    """The plan as text, one step a line, for people and golden tests."""
    return "\n".join(
        " ".join(part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in step)
        for step in steps
    )
