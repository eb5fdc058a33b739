"""The verbs spec and features: a configuration to begin with, and what this runtime can do."""

from __future__ import annotations

import os

from lading.base import jsontext
from lading.base.errors import Conflict
from lading.runtime.identity import CAPABILITIES
from lading.runtime.oci import bundle
from lading.runtime.oci.entry import write

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

_KEPT = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MASKED = """
/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug
/proc/scsi /sys/firmware
"""
_READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def spec(options: dict[str, Any]) -> int:
    """Write config.json into the bundle; one that is there stays."""
    path = os.path.join(options.get("bundle") or ".", "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Conflict(f"file {path} exists", hint="Remove the existing file first.") from None
    with os.fdopen(fd, "w") as file:
        file.write(_indented(_example(bool(options.get("rootless")))) + "\n")
    return 0


def _example(rootless: bool) -> dict[str, Any]:
    def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": source, "options": list(options)}

    safe = ("nosuid", "noexec", "nodev")
    devpts = (*safe[:2], "newinstance", "ptmxmode=0666", "mode=0620", *(() if rootless else ("gid=5",)))
    sysfs = (
        mount("/sys", "none", "/sys", "rbind", *safe, "ro")
        if rootless
        else mount("/sys", "sysfs", "sysfs", *safe, "ro")
    )
    linux: dict[str, Any] = {
        "resources": {} if rootless else {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [
            {"type": kind}
            for kind in ("pid", "ipc", "uts", "mount", "cgroup", "user" if rootless else "network")
        ],
        "maskedPaths": _MASKED.split(),
        "readonlyPaths": _READ_ONLY.split(),
    }
    if rootless:
        for key, identity in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
            linux[key] = [{"containerID": 0, "hostID": identity, "size": 1}]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": _KEPT, "effective": _KEPT, "permitted": _KEPT},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "lading",
        "mounts": [
            mount("/proc", "proc", "proc"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "devpts", *devpts),
            mount("/dev/shm", "tmpfs", "shm", *safe, "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", *safe),
            sysfs,
            mount("/sys/fs/cgroup", "cgroup", "cgroup", *safe, "relatime", "ro"),
        ],
        "linux": linux,
    }


def features() -> int:
    """What a caller may ask for (features.md, features-linux.md)."""
    from lading.linux.syscall_numbers import AUDIT_ARCH
    from lading.runtime import hooks, options, plan
    from lading.runtime.seccomp import assemble

    return write(
        _indented(
            {
                "ociVersionMin": "1.0.0",
                "ociVersionMax": "1.2.0",
                "hooks": list(hooks.POINTS),
                "mountOptions": options.known(),
                "linux": {
                    "namespaces": list(plan.NAMESPACES),
                    "capabilities": [f"CAP_{name}" for name in CAPABILITIES],
                    "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
                    "seccomp": {
                        "enabled": True,
                        "actions": sorted(assemble.ACTIONS),
                        "operators": sorted(assemble.OPERATORS),
                        "archs": list(AUDIT_ARCH),
                        "knownFlags": sorted(assemble.FLAGS),
                        "supportedFlags": sorted(assemble.FLAGS),
                    },
                    "apparmor": {"enabled": bundle.apparmor_enabled()},
                    "selinux": {"enabled": bundle.selinux_enabled()},
                    "intelRdt": {"enabled": False},
                    "mountExtensions": {"idmap": {"enabled": True}},
                    "netDevices": {"enabled": False},
                },
            }
        )
        + "\n"
    )


def _indented(value: Any, depth: int = 0) -> str:
    """JSON for people: one entry a line."""
    if not isinstance(value, dict | list) or not value:
        return jsontext.dumps(value)
    inner, outer = "\n" + "\t" * (depth + 1), "\n" + "\t" * depth
    if isinstance(value, list):
        return f"[{inner}{(',' + inner).join(_indented(item, depth + 1) for item in value)}{outer}]"
    rows = [f"{jsontext.dumps(key)}: {_indented(item, depth + 1)}" for key, item in value.items()]
    return f"{{{inner}{(',' + inner).join(rows)}{outer}}}"
