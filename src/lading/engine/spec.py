"""From a container's intent to an OCI runtime-spec 1.2 config.json. Pure: every path and number arrives resolved.

Owns the defaults every container starts from (mounts, masked paths, limits on descriptors); looks nothing up and
touches no file. Source of the shapes: runtime-spec config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.base.errors import Invalid
from lading.engine.model import Mount, Ulimit
from lading.engine.users import User

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 64 << 20

MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# setrlimit(2)
_RLIMIT_NAMES = """
as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
_RLIMITS = frozenset(_RLIMIT_NAMES.split())
_INFINITY = (1 << 64) - 1
NOFILE = (1024, 524288)
"""A soft limit that select(2) users survive, a hard one that servers can raise to, whatever the daemon inherited."""

_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup", "time", "user")


@dataclass(frozen=True)
class Bind:
    """A host file or directory shown in the container; `source` is absolute and real."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything `compose` needs, resolved."""

    id: str
    args: tuple[str, ...]
    env: tuple[str, ...]  # "KEY=value", the image's and the user's
    user: User
    cwd: str = "/"
    tty: bool = False
    hostname: str = ""
    domainname: str = ""
    caps: tuple[str, ...] = ()
    no_new_privileges: bool = True
    apparmor: str = ""
    seccomp: Mapping[str, Any] | None = None
    ulimits: tuple[Ulimit, ...] = ()
    nofile: tuple[int, int] = NOFILE
    oom_score_adj: int = 0
    read_only: bool = False
    privileged: bool = False
    system_paths: bool = True
    masked: tuple[str, ...] | None = None
    read_only_paths: tuple[str, ...] | None = None
    shm_size: int = 0
    shm_source: str = ""  # bind this instead of a tmpfs of its own (ipc: container: and host)
    mounts: tuple[Mount | Bind, ...] = ()  # parents before children
    etc: tuple[Bind, ...] = ()  # hosts, hostname, resolv.conf
    trust_env: tuple[tuple[str, str], ...] = ()  # weaker than `env`
    namespaces: Mapping[str, str] = field(
        default_factory=dict
    )  # kind -> "" own, path to join; absent: host's
    sysctls: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[Mapping[str, Any], ...] = ()
    device_mounts: tuple[Mapping[str, Any], ...] = ()  # in the runtime specification's words already
    hooks: Mapping[str, Any] = field(default_factory=dict)  # likewise
    id_mappings: tuple[tuple[int, int, int], ...] = ()  # container, host, size
    cgroups_path: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


def environment(plan: Plan) -> list[str]:
    """The process's environment: lading's defaults, then host trust, then the image's and the user's own."""
    values = {"PATH": PATH, "HOSTNAME": plan.hostname}
    if plan.tty:
        values["TERM"] = "xterm"
    values.update(plan.trust_env)
    for item in plan.env:
        key, separator, value = item.partition("=")
        if separator:
            values[key] = value
        else:
            values.pop(key, None)
    values.setdefault("HOME", plan.user.home)
    return [f"{key}={value}" for key, value in values.items()]


def process(plan: Plan) -> dict[str, Any]:
    """The `process` object, for a container's init."""
    out: dict[str, Any] = {
        "terminal": plan.tty,
        "user": {
            "uid": plan.user.uid,
            "gid": plan.user.gid,
            "additionalGids": list(plan.user.groups),
        },
        "args": list(plan.args),
        "env": environment(plan),
        "cwd": plan.cwd or "/",
        # Inheritable and ambient stay empty, so that a file capability gains nothing (capabilities(7)).
        "capabilities": {
            "bounding": list(plan.caps),
            "effective": list(plan.caps),
            "permitted": list(plan.caps),
        },
        "noNewPrivileges": plan.no_new_privileges,
        "rlimits": rlimits(plan.ulimits, plan.nofile),
    }
    if plan.oom_score_adj:
        out["oomScoreAdj"] = plan.oom_score_adj
    if plan.apparmor:
        out["apparmorProfile"] = plan.apparmor
    return out


def compose(plan: Plan) -> dict[str, Any]:
    """The whole config.json. The root path is the runtime's own business; it gets the root file system apart."""
    linux: dict[str, Any] = {
        "namespaces": [
            {"type": kind, "path": plan.namespaces[kind]} if plan.namespaces[kind] else {"type": kind}
            for kind in _NAMESPACES
            if kind in plan.namespaces
        ],
        "resources": dict(plan.resources),
        "cgroupsPath": plan.cgroups_path or f"/lading/{plan.id}",
    }
    masked = plan.masked if plan.masked is not None else (MASKED if plan.system_paths else ())
    protected = plan.read_only_paths
    if protected is None:
        protected = READ_ONLY if plan.system_paths else ()
    if masked:
        linux["maskedPaths"] = list(masked)
    if protected:
        linux["readonlyPaths"] = list(protected)
    if plan.seccomp is not None:
        linux["seccomp"] = plan.seccomp
    if plan.sysctls:
        linux["sysctl"] = dict(plan.sysctls)
    if plan.devices:
        linux["devices"] = [dict(node) for node in plan.devices]
    if plan.id_mappings:
        mappings = [{"containerID": a, "hostID": b, "size": c} for a, b, c in plan.id_mappings]
        linux["uidMappings"] = mappings
        linux["gidMappings"] = mappings
    out: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": process(plan),
        "root": {"path": "rootfs", "readonly": plan.read_only},
        "mounts": mounts(plan),
        "linux": linux,
    }
    if "uts" in plan.namespaces and not plan.namespaces["uts"]:
        out["hostname"] = plan.hostname
        if plan.domainname:
            out["domainname"] = plan.domainname
    if plan.hooks:
        out["hooks"] = {point: list(hooks) for point, hooks in plan.hooks.items()}
    if plan.annotations:
        out["annotations"] = dict(plan.annotations)
    return out


def mounts(plan: Plan) -> list[dict[str, Any]]:
    """Mounts in the order they are made: the kernel's own, the three /etc files, then the user's from the root down."""
    access = "rw" if plan.privileged else "ro"
    asked = {mount.target for mount in plan.mounts}
    found: list[dict[str, Any]] = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ),
        _sysfs(plan, access),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    if plan.shm_source:
        found.append(_bind(Bind(plan.shm_source, "/dev/shm")))
    else:
        size = f"size={plan.shm_size or SHM_SIZE}"
        found.append(_mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", size))
    found = [mount for mount in found if mount["destination"] not in asked]
    found.extend(_bind(bind) for bind in plan.etc if bind.target not in asked)
    for mount in plan.mounts:
        found.append(_bind(mount) if isinstance(mount, Bind) else _tmpfs(mount))
    if plan.device_mounts:
        # A device's mount takes its place from another one there (CDI SPEC.md, mounts); parents come before children.
        taken = {mount["destination"] for mount in plan.device_mounts}
        found = [mount for mount in found if mount["destination"] not in taken]
        later = sorted(plan.device_mounts, key=lambda mount: str(mount["destination"]).count("/"))
        found.extend(dict(mount) for mount in later)
    return found


def _sysfs(plan: Plan, access: str) -> dict[str, Any]:
    """sysfs belongs to the network namespace: a user namespace may mount it only over one of its own (sysfs(5))."""
    if "user" in plan.namespaces and plan.namespaces.get("network", "host"):
        return _mount("/sys", "bind", "/sys", "rbind", "rslave", "nosuid", "noexec", "nodev", access)
    return _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access)


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _bind(bind: Bind) -> dict[str, Any]:
    options = ["rbind" if bind.recursive else "bind"]
    options.append("ro" if bind.read_only else "rw")
    options.append(bind.propagation or "rprivate")
    return {"destination": bind.target, "type": "bind", "source": bind.source, "options": options}


def _tmpfs(mount: Mount) -> dict[str, Any]:
    """Docker's defaults: noexec, nosuid, nodev unless asked otherwise; mode 1777."""
    asked = mount.tmpfs_options.split(",") if mount.tmpfs_options else []
    options = [
        option
        for option, opposite in (("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"))
        if opposite not in asked
    ]
    options += [option for option in asked if option not in options and option != "rw"]
    options.append(f"mode={mount.tmpfs_mode:o}")
    if mount.tmpfs_size:
        options.append(f"size={mount.tmpfs_size}")
    options.append("ro" if mount.read_only else "rw")
    return _mount(mount.target, "tmpfs", "tmpfs", *options)


def rlimits(ulimits: Iterable[Ulimit], nofile: tuple[int, int] = NOFILE) -> list[dict[str, Any]]:
    """`--ulimit` values in OCI words, and `nofile` where they do not say it; -1 is unlimited."""
    found = {"RLIMIT_NOFILE": {"type": "RLIMIT_NOFILE", "soft": nofile[0], "hard": nofile[1]}}
    for limit in ulimits:
        if limit.name not in _RLIMITS:
            raise Invalid(
                f'invalid ulimit type "{limit.name}"', hint=f"Known are {', '.join(sorted(_RLIMITS))}."
            )
        soft = _INFINITY if limit.soft == -1 else limit.soft
        hard = _INFINITY if limit.hard == -1 else limit.hard
        if soft < 0 or hard < 0 or soft > hard:
            raise Invalid(
                f"invalid ulimit {limit.name}={limit.soft}:{limit.hard}",
                why="The soft limit must be no larger than the hard limit.",
            )
        name = "RLIMIT_" + limit.name.upper()
        found[name] = {"type": name, "soft": soft, "hard": hard}
    return list(found.values())
