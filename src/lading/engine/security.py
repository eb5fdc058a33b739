"""`--security-opt` and user-given seccomp profiles. Owns their text forms; the default profile is the runtime's.

A profile in Docker's form (includes, excludes, archMap) is lowered to the OCI form for the capabilities granted here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lading.base.errors import Invalid

_ARCHITECTURE = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}
_MAX_PROFILE = 4 << 20


@dataclass(frozen=True)
class Security:
    """What the options ask. `seccomp` is "" for the default, "unconfined", or a profile's JSON text."""

    seccomp: str = ""
    no_new_privileges: bool = True
    apparmor: str = ""
    system_paths: bool = True  # mask and protect /proc and /sys


def parse(options: Iterable[str], privileged: bool) -> Security:
    """Every `--security-opt`; privileged containers start unconfined, as users expect of --privileged."""
    seccomp, quiet, apparmor, paths = "unconfined" if privileged else "", not privileged, "", not privileged
    for text in options:
        key, separator, value = text.partition("=")
        if not separator:
            key, separator, value = text.partition(":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise Invalid(f'invalid --security-opt "{text}"', hint="Use true or false.")
            quiet = value != "false"
        elif key == "seccomp" and value:
            seccomp = "" if value in ("builtin", "default") else value
        elif key == "apparmor" and value:
            apparmor = value
        elif key == "systempaths" and value == "unconfined":
            paths = False
        elif key != "label" or (not value and separator):
            raise Invalid(
                f'invalid --security-opt "{text[:200]}"',
                hint="Known are seccomp=, no-new-privileges, apparmor=, label= and systempaths=unconfined.",
            )
    if seccomp not in ("", "unconfined"):
        lower(seccomp, ())  # refused now rather than when the container starts
    return Security(seccomp, quiet, apparmor, paths)


def _load(text: str) -> dict[str, Any]:
    if len(text) > _MAX_PROFILE:
        raise Invalid("the seccomp profile is larger than 4 MiB")
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Invalid(
            "decoding seccomp profile failed", why=str(e), hint="Give unconfined or a JSON profile."
        ) from e
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise Invalid("decoding seccomp profile failed", why="It has no defaultAction.")
    if not isinstance(profile.get("syscalls") or [], list):
        raise Invalid("decoding seccomp profile failed", why="syscalls is not a list.")
    return profile


def lower(text: str, caps: Iterable[str]) -> dict[str, Any]:
    """A profile as linux.seccomp, with its conditions decided for these capabilities, this machine and kernel."""
    profile = _load(text)
    granted = frozenset(caps)
    machine, architectures = _ARCHITECTURE.get(os.uname().machine, (os.uname().machine, []))
    out: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            out[key] = profile[key]
    out["architectures"] = profile.get("architectures") or architectures
    out["syscalls"] = []
    for rule in profile.get("syscalls") or []:
        if not isinstance(rule, dict) or not isinstance(rule.get("action"), str):
            raise Invalid("decoding seccomp profile failed", why="A rule has no action.")
        if not _applies(rule, granted, machine):
            continue
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Invalid("decoding seccomp profile failed", why="A rule's names are not strings.")
        lowered = {"names": names, "action": rule["action"]}
        for key in ("errnoRet", "args"):
            if rule.get(key):
                lowered[key] = rule[key]
        out["syscalls"].append(lowered)
    return out


def _applies(rule: dict[str, Any], caps: frozenset[str], machine: str) -> bool:
    wanted, spared = (_conditions(rule, key) for key in ("includes", "excludes"))
    release = _version(os.uname().release)
    if not _words(wanted, "caps") <= caps or _words(spared, "caps") & caps:
        return False
    if wanted.get("arches") and machine not in _words(wanted, "arches"):
        return False
    if machine in _words(spared, "arches"):
        return False
    if wanted.get("minKernel") and _version(str(wanted["minKernel"])) > release:
        return False
    return not (spared.get("minKernel") and release >= _version(str(spared["minKernel"])))


def _conditions(rule: dict[str, Any], key: str) -> dict[str, Any]:
    found = rule.get(key) or {}
    if not isinstance(found, dict):
        raise Invalid("decoding seccomp profile failed", why=f"A rule's {key} is not an object.")
    return found


def _words(conditions: dict[str, Any], key: str) -> frozenset[str]:
    found = conditions.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Invalid("decoding seccomp profile failed", why=f"A rule's {key} are not strings.")
    return frozenset(found)


def _version(text: str) -> tuple[int, ...]:
    major, _, rest = text[:20].partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in (major, minor))
