"""The syntax of --volume, --tmpfs and --mount.

Functions are called as those of `values` are.
"""

from __future__ import annotations

from lading.cli.values import fields, pairs, size_of, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context
    from lading.cli.flags import Flags

    Body = dict[str, Any]


def volumes(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--volume: SOURCE:TARGET[:OPTIONS] is a bind or a named volume; a TARGET alone is an anonymous volume."""
    binds: list[str] = []
    anonymous: Body = {}
    for item in flags.many("volume"):
        source, mark, rest = item.partition(":")
        target = rest.partition(":")[0] if mark else source
        if not target.startswith("/"):
            raise wrong("volume", item, f"invalid mount path: {target!r}: mount path must be absolute")
        if not mark:
            anonymous[target] = {}
            continue
        if not source:
            raise wrong("volume", item, "invalid spec: :" + rest + ": empty section between colons")
        if source.startswith("."):
            source = context.absolute(source)
        binds.append(f"{source}:{rest}")
    if binds:
        host["Binds"] = binds
    if anonymous:
        config["Volumes"] = anonymous


def tmpfs(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--tmpfs PATH[:OPTIONS]."""
    out = {}
    for item in flags.many("tmpfs"):
        path, _, options = item.partition(":")
        if not path.startswith("/"):
            raise wrong("tmpfs", item, f"invalid mount path: {path!r}: mount path must be absolute")
        out[path] = options
    host["Tmpfs"] = out


def mounts(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--mount type=...,source=...,target=..."""
    host["Mounts"] = [mount(context, item) for item in flags.many("mount")]


_MOUNT_KEYS = {
    "type": "", "source": "", "src": "", "target": "", "dst": "", "destination": "", "readonly": "", "ro": "",
    "consistency": "", "bind-propagation": "bind", "bind-nonrecursive": "bind", "bind-recursive": "bind",
    "bind-create-src": "bind", "volume-nocopy": "volume", "volume-label": "volume", "volume-driver": "volume",
    "volume-opt": "volume", "volume-subpath": "volume", "tmpfs-size": "tmpfs", "tmpfs-mode": "tmpfs",
}  # fmt: skip


def mount(context: Context, item: str) -> Body:
    """One --mount as the API's Mount."""
    out: Body = {"Type": "volume"}
    special: dict[str, Body] = {"bind": {}, "volume": {}, "tmpfs": {}}
    used = set()
    for field in fields(item):
        key, mark, value = field.partition("=")
        key = key.strip().lower()
        if key not in _MOUNT_KEYS:
            from lading.cli.suggest import closest

            guess = closest(key, _MOUNT_KEYS)
            raise wrong(
                "mount", item, f"unknown option {key!r}" + (f" (did you mean {guess!r}?)" if guess else "")
            )
        flag = not mark or value.lower() in ("1", "true")
        if not mark and key not in (
            "readonly",
            "ro",
            "volume-nocopy",
            "bind-nonrecursive",
            "bind-create-src",
        ):
            raise wrong("mount", item, f"invalid field {field!r} must be a key=value pair")
        used.add(_MOUNT_KEYS[key])
        _mount_field(item, out, special, key, value, flag)
    kind = out["Type"]
    if "Target" not in out:
        raise wrong("mount", item, "target is required")
    if kind == "bind" and "Source" not in out:
        raise wrong("mount", item, "a bind mount needs source=PATH")
    foreign = used - {"", kind}
    if foreign:
        raise wrong("mount", item, f"cannot mix {min(foreign)!r} options with mount type {kind!r}")
    if kind == "bind" and not out["Source"].startswith("/"):
        out["Source"] = context.absolute(out["Source"])
    for name, key in (("bind", "BindOptions"), ("volume", "VolumeOptions"), ("tmpfs", "TmpfsOptions")):
        if special[name]:
            out[key] = special[name]
    return out


def _mount_field(item: str, out: Body, special: dict[str, Body], key: str, value: str, flag: bool) -> None:
    volume = special["volume"]
    if key == "type":
        out["Type"] = value.lower()
        if out["Type"] not in special:
            raise wrong("mount", item, f"unknown type {value!r}: it is bind, volume or tmpfs")
    elif key in ("source", "src"):
        out["Source"] = value
    elif key in ("target", "dst", "destination"):
        out["Target"] = value
    elif key in ("readonly", "ro"):
        out["ReadOnly"] = flag
    elif key == "consistency":
        out["Consistency"] = value
    elif key == "bind-propagation":
        special["bind"]["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        special["bind"]["NonRecursive"] = flag
    elif key == "bind-recursive":
        if value not in ("enabled", "disabled", "writable", "readonly"):
            raise wrong("mount", item, "bind-recursive is enabled, disabled, writable or readonly")
        special["bind"].update(
            {"disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True}}.get(value, {})
        )
    elif key == "bind-create-src":
        special["bind"]["CreateMountpoint"] = flag
    elif key == "volume-nocopy":
        volume["NoCopy"] = flag
    elif key == "volume-label":
        volume.setdefault("Labels", {}).update(pairs("mount", [value]))
    elif key == "volume-driver":
        volume.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        volume.setdefault("DriverConfig", {}).setdefault("Options", {}).update(pairs("mount", [value]))
    elif key == "volume-subpath":
        volume["Subpath"] = value
    elif key == "tmpfs-size":
        special["tmpfs"]["SizeBytes"] = size_of("mount", item, value)
    elif value.strip("01234567") or not value:
        raise wrong("mount", item, f"invalid value for tmpfs-mode: {value!r} (write an octal mode)")
    else:
        special["tmpfs"]["Mode"] = int(value, 8)
