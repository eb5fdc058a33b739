"""The types of config.json, checked before anything is read from it: a hostile bundle may hold anything. Pure.

Owns shapes and the walk over them; what values mean is checked by `bundle` and the plan. Unknown properties are passed
over, as the specification demands (config.md "Extensibility").
"""

from __future__ import annotations

from lading.base.errors import Invalid
from lading.runtime.hooks import POINTS

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

_LIMITS = {
    "i": (-(1 << 63), (1 << 63) - 1),
    "u": (0, (1 << 64) - 1),
    "u32": (0, 0xFFFFFFFF),
    "u16": (0, 0xFFFF),
}

_MAPS = [{"containerID!": "u32", "hostID!": "u32", "size!": "u32"}]
_RATES = [{"major!": "i", "minor!": "i", "rate!": "u"}]
_HOOKS = [{"path!": "s", "args": ["s"], "env": ["s"], "timeout": "i"}]
_RULES = [{"allow!": "b", "type": "s", "major": "i", "minor": "i", "access": "s"}]

RESOURCES = {
    "unified": {"*": "s"},
    "devices": _RULES,
    "memory": {
        "limit": "i", "reservation": "i", "swap": "i", "kernel": "i", "kernelTCP": "i", "swappiness": "u",
        "disableOOMKiller": "b", "useHierarchy": "b", "checkBeforeUpdate": "b",
    },
    "cpu": {
        "shares": "u", "quota": "i", "burst": "u", "period": "u", "realtimeRuntime": "i", "realtimePeriod": "u",
        "cpus": "s", "mems": "s", "idle": "i",
    },
    "pids": {"limit": "i"},
    "blockIO": {
        "weight": "u16", "leafWeight": "u16",
        "weightDevice": [{"major!": "i", "minor!": "i", "weight": "u16", "leafWeight": "u16"}],
        "throttleReadBpsDevice": _RATES, "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES, "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [{"pageSize!": "s", "limit!": "u"}],
    "network": {"classID": "u32", "priorities": [{"name!": "s", "priority!": "u32"}]},
    "rdma": {"*": {"hcaHandles": "u32", "hcaObjects": "u32"}},
}  # fmt: skip

PROCESS = {
    "terminal": "b",
    "consoleSize": {"height!": "u16", "width!": "u16"},
    "user": {"uid": "u32", "gid": "u32", "umask": "u32", "additionalGids": ["u32"]},
    "args": ["s"],
    "env": ["s"],
    "cwd!": "s",
    "capabilities": {
        kind: ["s"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    },
    "rlimits": [{"type!": "s", "soft!": "u", "hard!": "u"}],
    "noNewPrivileges": "b",
    "apparmorProfile": "s",
    "selinuxLabel": "s",
    "oomScoreAdj": "i",
    "scheduler": {
        "policy!": "s", "nice": "i", "priority": "i", "flags": ["s"], "runtime": "u", "deadline": "u", "period": "u",
    },
    "ioPriority": {"class!": "s", "priority": "i"},
    "execCPUAffinity": {"initial": "s", "final": "s"},
}  # fmt: skip

SECCOMP = {
    "defaultAction!": "s",
    "defaultErrnoRet": "u32",
    "architectures": ["s"],
    "flags": ["s"],
    "listenerPath": "s",
    "listenerMetadata": "s",
    "syscalls": [
        {
            "names!": ["s"], "action!": "s", "errnoRet": "u32",
            "args": [{"index!": "u32", "value!": "u", "valueTwo": "u", "op!": "s"}],
        }
    ],
}  # fmt: skip

LINUX = {
    "namespaces": [{"type!": "s", "path": "s"}],
    "uidMappings": _MAPS,
    "gidMappings": _MAPS,
    "timeOffsets": {"*": {"secs": "i", "nanosecs": "u32"}},
    "devices": [
        {
            "type!": "s", "path!": "s", "major": "i", "minor": "i", "fileMode": "u32", "uid": "u32", "gid": "u32",
        }
    ],
    "cgroupsPath": "s",
    "resources": RESOURCES,
    "rootfsPropagation": "s",
    "seccomp": SECCOMP,
    "sysctl": {"*": "s"},
    "maskedPaths": ["s"],
    "readonlyPaths": ["s"],
    "mountLabel": "s",
    "personality": {"domain!": "s", "flags": ["s"]},
    "intelRdt": {},
    "netDevices": {},
}  # fmt: skip

CONFIG = {
    "ociVersion!": "s",
    "process": PROCESS,
    "root": {"path!": "s", "readonly": "b"},
    "hostname": "s",
    "domainname": "s",
    "mounts": [
        {
            "destination!": "s", "type": "s", "source": "s", "options": ["s"], "uidMappings": _MAPS,
            "gidMappings": _MAPS,
        }
    ],
    "hooks": dict.fromkeys(POINTS, _HOOKS),
    "annotations": {"*": "s"},
    "linux": LINUX,
}  # fmt: skip


def check(value: Any, shape: Any, field: str = "") -> None:
    """Invalid, naming the field, where `value` is not of `shape`. null stands for an absent property, as in Go."""
    if isinstance(shape, str):
        _check_plain(value, shape, field)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise Invalid(f"{field}: a list is wanted, not {_name(value)}")
        for index, item in enumerate(value):
            check(item, shape[0], f"{field}[{index}]")
    else:
        if not isinstance(value, dict):
            raise Invalid(f"{field or 'config.json'}: an object is wanted, not {_name(value)}")
        prefix = field + "." if field else ""
        every = shape.get("*")
        for key, item in value.items():
            if every is not None:
                _check_plain(key, "s", field)
                check(item, every, prefix + key)
        for key, inner in shape.items():
            name = key.rstrip("!")
            item = value.get(name)
            if item is not None:
                check(item, inner, prefix + name)
            elif key != name:
                raise Invalid(f"{prefix}{name}: is missing")


def _check_plain(value: Any, kind: str, field: str) -> None:
    if kind == "s":
        if not isinstance(value, str):
            raise Invalid(f"{field}: a string is wanted, not {_name(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(f"{field}: half a character (a lone surrogate) is in it") from None
        if "\0" in value:
            raise Invalid(f"{field}: a NUL character is in it")
    elif kind == "b":
        if not isinstance(value, bool):
            raise Invalid(f"{field}: true or false is wanted, not {_name(value)}")
    else:
        low, high = _LIMITS[kind]
        if not isinstance(value, int) or isinstance(value, bool):
            raise Invalid(f"{field}: a whole number is wanted, not {_name(value)}")
        if not low <= value <= high:
            raise Invalid(f"{field}: {value} is not from {low} to {high}")


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
