"""The syntax of --device and --gpus. Each function fills in a body, as those of `values` do."""

from __future__ import annotations

from lading.cli.values import fields, pairs, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context
    from lading.cli.flags import Flags

    Body = dict[str, Any]


def devices(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--device PATH[:PATH[:PERMISSIONS]], or a CDI name such as vendor.com/gpu=0."""
    out, named = [], []
    for item in flags.many("device"):
        if not item.startswith("/") and "=" in item and "/" in item.partition("=")[0]:
            named.append(item)
            continue
        parts = item.split(":")
        source, target, permissions = parts[0], parts[0], "rwm"
        if len(parts) == 2 and parts[1] and not parts[1].strip("rwm"):
            permissions = parts[1]
        elif len(parts) > 1:
            target = parts[1] or source
            permissions = parts[2] if len(parts) == 3 else permissions
        if len(parts) > 3 or not source or not permissions or permissions.strip("rwm"):
            raise wrong("device", item, "invalid device specification (write PATH[:PATH-INSIDE[:rwm]])")
        out.append({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions})
    if out:
        host["Devices"] = out
    if named:
        host.setdefault("DeviceRequests", []).append({"Driver": "cdi", "DeviceIDs": named})


def gpus(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--gpus all, COUNT, or fields: device=, count=, driver=, capabilities=, options=."""
    host.setdefault("DeviceRequests", []).extend([request(item) for item in flags.many("gpus")])


def request(item: str) -> Body:
    """One --gpus value. A bare word after device= or capabilities= belongs to that list, so that no quotes are needed."""
    found: Body = {}
    seen: set[str] = set()
    lists = {"device": "DeviceIDs", "capabilities": "Capabilities"}
    last = ""
    for field in fields(item):
        key, mark, value = field.partition("=")
        if not mark and last and key not in ("", "all"):
            found[lists[last]].append(key)
            continue
        if not mark:
            key, value = "count", key
        if key in seen:
            raise wrong("gpus", item, f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        last = key if key in lists else ""
        if key == "count":
            found["Count"] = _count(item, value)
        elif key == "driver":
            found["Driver"] = value
        elif key in lists:
            found[lists[key]] = [part for part in value.split(",") if part]
            if not found[lists[key]]:
                raise wrong("gpus", item, f"{key}= names none")
        elif key == "options":
            found["Options"] = pairs("gpus", [part for part in fields(value) if part])
        else:
            raise wrong("gpus", item, f"unexpected key '{key}' in '{field}'")
    if "Count" in found and "DeviceIDs" in found:
        raise wrong("gpus", item, "it has both a count and devices")
    if "Count" not in found and "DeviceIDs" not in found:
        found["Count"] = 1
    found["Capabilities"] = [[*found.get("Capabilities", ()), "gpu"]]
    return found


def _count(item: str, text: str) -> int:
    if text == "all":
        return -1
    if not (text.removeprefix("-").isdecimal() and text.isascii() and -1 <= int(text) < 1 << 31):
        raise wrong("gpus", item, f'invalid count ({text}): value must be either "all" or an integer')
    return int(text)
