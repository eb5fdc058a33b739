"""A bundle: config.json read, its types and the sense of its values checked, its paths made absolute. Touches nothing else.

Everything that can be refused without trying is refused here or in the plan, before anything is made.
"""

from __future__ import annotations

import os

from lading.base import jsontext
from lading.base.errors import Invalid, NotFound, Unsupported
from lading.runtime.hooks import POINTS
from lading.runtime.identity import CAPABILITIES
from lading.runtime.oci import schema

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Callable
    from typing import Any

_MAX = 32 << 20
_DEFAULT_RULES = [
    {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
    for kind, major, minor, access in (
        ("c", None, None, "m"), ("b", None, None, "m"),  # nodes may be made, not used
        ("c", 1, 3, "rwm"), ("c", 1, 5, "rwm"), ("c", 1, 7, "rwm"), ("c", 1, 8, "rwm"), ("c", 1, 9, "rwm"),
        ("c", 5, 0, "rwm"), ("c", 5, 1, "rwm"), ("c", 5, 2, "rwm"), ("c", 136, None, "rwm"),
    )
]  # fmt: skip
"""What is always allowed: the default devices and terminals (config-linux.md "Default Devices")."""


_ARCHITECTURES = {
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
        "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
}
"""Those of config-linux.md; one that lading has no numbers for is refused every call (`seccomp.assemble`)."""


def read_json(path: str, what: str) -> Any:
    """The value of a JSON file; NotFound or Invalid, naming `what`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFound(f"{what}: {path} cannot be read", why=error.strerror or "") from None
    try:
        data = b""
        while len(data) <= _MAX and (more := os.read(fd, _MAX)):
            data += more
    except OSError as error:
        raise Invalid(f"{what}: {path} cannot be read", why=error.strerror or "") from None
    finally:
        os.close(fd)
    if len(data) > _MAX:
        raise Invalid(f"{what}: {path} is larger than {_MAX >> 20} MiB")
    try:
        return jsontext.loads(data)
    except ValueError as error:
        raise Invalid(f"{what}: {path} is not JSON", why=str(error)) from None


def load(directory: str, warn: Callable[[str], None]) -> dict[str, Any]:
    """The checked configuration of the bundle at `directory`, with absolute paths."""
    spec = read_json(f"{directory}/config.json", "the bundle's configuration")
    schema.check(spec, schema.CONFIG)
    _check_version(spec["ociVersion"])
    root = spec.get("root")
    if not root:
        raise Invalid("root: is missing")
    root["path"] = os.path.normpath(os.path.join(directory, root["path"]))
    if not os.path.isdir(root["path"]):
        raise Invalid(f"root.path: {root['path']} is not a directory")
    for entry in spec.get("mounts") or ():
        _absolute(entry, directory)
    _check_namespaces(spec)
    if not spec.get("process"):
        raise Invalid("process: is missing")
    check_process(spec["process"], _owns(spec, "user"), warn)
    _check_linux(spec)
    for point, hooks in (spec.get("hooks") or {}).items():
        if point in POINTS:
            for index, hook in enumerate(hooks or ()):
                if not hook["path"].startswith("/"):
                    raise Invalid(f"hooks.{point}[{index}].path: {hook['path']!r} is not an absolute path")
                if hook.get("timeout") is not None and hook["timeout"] <= 0:
                    raise Invalid(f"hooks.{point}[{index}].timeout: must be more than 0 seconds")
    return dict(spec)


def check_process(process: dict[str, Any], new_user_namespace: bool, warn: Callable[[str], None]) -> None:
    """Refuse what cannot be; leave out, with a warning, capabilities nobody can grant (config.md "capabilities")."""
    if not process.get("args"):
        raise Invalid("process.args: no command is given")
    capabilities = process.get("capabilities") or {}
    granted = -1 if new_user_namespace or not capabilities else _own_capabilities()
    left_out: set[str] = set()
    for kind in ("bounding", "permitted", "effective", "inheritable", "ambient"):
        names = list(capabilities.get(kind) or ())
        kept = [name for name in names if _grantable(name, granted)]
        if kind == "ambient":  # only what is permitted and inheritable can be (capabilities(7))
            both = set(capabilities["permitted"]) & set(capabilities["inheritable"])
            kept = [name for name in kept if name in both]
        left_out |= {f"{kind} {name}" for name in names if name not in kept}
        capabilities[kind] = kept
    if left_out:
        warn(f"process.capabilities: left out what cannot be granted here: {', '.join(sorted(left_out))}")
    kinds = [limit["type"] for limit in process.get("rlimits") or ()]
    if len(set(kinds)) != len(kinds):
        raise Invalid("process.rlimits: a type is given twice")
    if process.get("apparmorProfile") in ("", "unconfined"):
        process["apparmorProfile"] = ""
    if process.get("apparmorProfile") and not apparmor_enabled():
        raise Unsupported("process.apparmorProfile: this kernel runs no AppArmor")
    if process.get("selinuxLabel") and not selinux_enabled():
        raise Unsupported("process.selinuxLabel: this kernel runs no SELinux")


def _grantable(name: str, granted: int) -> bool:
    return (
        name.startswith("CAP_")
        and name[4:] in CAPABILITIES
        and bool(granted >> CAPABILITIES.index(name[4:]) & 1)
    )


def apparmor_enabled() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def selinux_enabled() -> bool:
    return os.path.exists("/sys/fs/selinux/enforce")


def _own_capabilities() -> int:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapPrm:"):
                return int(line.split()[1], 16)
    return -1


def _check_version(version: str) -> None:
    major, _, rest = version.partition(".")
    if not major.isdecimal() or not rest.partition(".")[0].isdecimal():
        raise Invalid(f"ociVersion: {version!r} is not a version")
    if major != "1":
        raise Unsupported(f"ociVersion: {version} is not supported", hint="1.0.0 to 1.2.x are.")


def _absolute(entry: dict[str, Any], directory: str) -> None:
    """Destinations are below the root, sources of binds below the bundle, where they are relative (config.md "Mounts")."""
    entry["destination"] = "/" + entry["destination"].lstrip("/")
    options = entry.get("options") or ()
    if "bind" in options or "rbind" in options or entry.get("type") == "bind":
        if not entry.get("source"):
            raise Invalid(f"mounts: {entry['destination']}: source is missing")
        entry["source"] = os.path.normpath(os.path.join(directory, entry["source"]))
        if not os.path.lexists(entry["source"]):
            raise Invalid(f"mounts: {entry['destination']}: there is no {entry['source']}")


def _kinds(spec: dict[str, Any]) -> dict[str, str]:
    linux = spec.get("linux") or {}
    return {entry["type"]: entry.get("path") or "" for entry in linux.get("namespaces") or ()}


def _owns(spec: dict[str, Any], kind: str) -> bool:
    """Whether the container gets a new namespace of `kind`."""
    return _kinds(spec).get(kind) == ""


def _check_namespaces(spec: dict[str, Any]) -> None:
    linux = spec.get("linux") or {}
    kinds = _kinds(spec)
    if "mount" not in kinds:
        raise Unsupported(
            "linux.namespaces: a mount namespace is needed", why="the host's mounts would change"
        )
    for kind, path in kinds.items():
        if path and not path.startswith("/"):
            raise Invalid(f"linux.namespaces: the path {path!r} of {kind} is not absolute")
        if path and not os.path.exists(path):
            raise Invalid(f"linux.namespaces: there is no {path} to join for {kind}")
    for key in ("hostname", "domainname"):
        if spec.get(key) and "uts" not in kinds:
            raise Invalid(f"{key}: needs a uts namespace", why="the host's would be changed")
    mapped = bool(linux.get("uidMappings") and linux.get("gidMappings"))
    if _owns(spec, "user") and not mapped:
        raise Invalid("linux.uidMappings and linux.gidMappings: a new user namespace needs both")
    if "user" not in kinds and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise Invalid("linux.uidMappings: there is no user namespace among linux.namespaces")
    if linux.get("timeOffsets") and not _owns(spec, "time"):
        raise Invalid("linux.timeOffsets: need a new time namespace")
    for key in ("uidMappings", "gidMappings"):
        _check_map(linux.get(key) or (), f"linux.{key}")
    for index, entry in enumerate(spec.get("mounts") or ()):
        for key in ("uidMappings", "gidMappings"):
            _check_map(entry.get(key) or (), f"mounts[{index}].{key}")


def _check_map(entries: Any, field: str) -> None:
    """What the kernel would refuse half-way through (user_namespaces(7)): overlaps, nothing, too much."""
    if len(entries) > 340:
        raise Invalid(f"{field}: the kernel takes 340 lines")
    for side in ("containerID", "hostID"):
        end = -1
        for entry in sorted(entries, key=lambda e: e[side]):
            if entry["size"] == 0 or entry[side] + entry["size"] > 0xFFFFFFFF:
                raise Invalid(f"{field}: {entry} is empty or too large")
            if entry[side] <= end:
                raise Invalid(f"{field}: {side} {entry[side]} is mapped twice")
            end = entry[side] + entry["size"] - 1


def _check_linux(spec: dict[str, Any]) -> None:
    linux = spec.get("linux") or {}
    for field in ("intelRdt", "netDevices"):
        if linux.get(field) is not None:
            raise Unsupported(f"linux.{field}: is not supported by lading-runtime")
    if linux.get("mountLabel") and not selinux_enabled():
        raise Unsupported("linux.mountLabel: this kernel runs no SELinux")
    for field in ("maskedPaths", "readonlyPaths"):
        for path in linux.get(field) or ():
            if not path.startswith("/"):
                raise Invalid(f"linux.{field}: {path!r} is not an absolute path")
    for index, device in enumerate(linux.get("devices") or ()):
        if device["type"] in ("c", "u", "b") and (device.get("major") is None or device.get("minor") is None):
            raise Invalid(f"linux.devices[{index}]: {device['path']} needs a major and a minor number")
    for name in (linux.get("seccomp") or {}).get("architectures") or ():
        if name not in _ARCHITECTURES:
            raise Invalid(f"linux.seccomp.architectures: {name!r} is unknown")
    check_resources(linux.get("resources") or {})


def check_resources(resources: dict[str, Any]) -> None:
    """Values that would fail half-way, and the default devices' rules added to the end of those given."""
    for index, rule in enumerate(resources.get("devices") or ()):
        if rule.get("type") not in (None, "", "a", "b", "c") or set(rule.get("access") or "rwm") - set("rwm"):
            raise Invalid(f"linux.resources.devices[{index}]: {rule} is not a rule")
    if resources.get("devices"):
        resources["devices"] = [*resources["devices"], *_DEFAULT_RULES]
    for text in ((resources.get("cpu") or {}).get("cpus"), (resources.get("cpu") or {}).get("mems")):
        if text and not all(c.isdecimal() or c in ",- " for c in text):
            raise Invalid(f"linux.resources.cpu: {text!r} is not a list of numbers")
    block = resources.get("blockIO") or {}
    if block.get("leafWeight") or any(d.get("leafWeight") for d in block.get("weightDevice") or ()):
        raise Unsupported("linux.resources.blockIO.leafWeight: no kernel since Linux 5.0 has it")
    if (weight := block.get("weight")) and not 10 <= weight <= 1000:
        raise Invalid(f"linux.resources.blockIO.weight: {weight} is not 10 to 1000")
    for huge in resources.get("hugepageLimits") or ():
        if not huge["pageSize"].removesuffix("B")[:-1].isdecimal():
            raise Invalid(f"linux.resources.hugepageLimits: {huge['pageSize']!r} is not a size such as 2MB")
