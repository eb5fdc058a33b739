"""From a CDI document (parsed JSON or YAML) to a Spec. Owns every check of types, bounds, names and versions.

A spec may name programs that run as root on the host, so whoever writes one is trusted with the machine; what is checked
here keeps a broken or half-understood document from doing half of what it says. Unknown fields are refused for that
reason: an edit left out silently is a device that does not work, or one that is open to more than was meant.
Sources: CDI 1.1 SPEC.md and schema.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lading.base.errors import Invalid
from lading.device import model
from lading.device.model import Device, Edits, Hook, Mount, Node, Spec

T = TypeVar("T")

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
LATEST = VERSIONS[-1]

MAX_DEVICES = 4096
MAX_ITEMS = 4096  # of any list of one set of edits
_MAX_TEXT = 4096  # PATH_MAX, and more than a sane variable
_MAX_ID = 0xFFFFFFFE  # 2^32-1 means "unchanged" to the kernel (chown(2))
_RDT = ("closID", "l3CacheSchema", "memBwSchema", "schemata", "enableMonitoring", "enableCMT", "enableMBM")


class _Reader:
    """One JSON object of the document at the place `where`; remembers what is looked at, so that the rest is unknown."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise Invalid(f"{where} must be an object")
        self.value, self.where = value, where
        self._seen: set[str] = set()

    def _get(self, name: str, kind: type | tuple[type, ...], words: str) -> Any:
        self._seen.add(name)
        value = self.value.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Invalid(f"{self.where}.{name} must be {words}")
        return value

    def text(self, name: str, needed: bool = False) -> str:
        value = self._get(name, str, "a string")
        if needed and not value:
            raise Invalid(f"{self.where}.{name} is missing")
        return _text(value or "", f"{self.where}.{name}")

    def path(self, name: str, needed: bool = False) -> str:
        """An absolute path without "." or ".."; "" where there is none."""
        value = self.text(name, needed)
        parts = value.split("/")
        if value and (not value.startswith("/") or "." in parts or ".." in parts):
            raise Invalid(f"{self.where}.{name} is not a plain absolute path: {value[:80]!r}")
        return value

    def number(self, name: str, low: int, high: int) -> int | None:
        value: int | None = self._get(name, int, "a whole number")
        if value is not None and not low <= value <= high:
            raise Invalid(
                f"{self.where}.{name} is out of range: {value}", why=f"The range is {low} to {high}."
            )
        return value

    def items(self, name: str) -> list[Any]:
        value: list[Any] = self._get(name, list, "a list") or []
        if len(value) > MAX_ITEMS:
            raise Invalid(f"{self.where}.{name} has more than {MAX_ITEMS} entries")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.items(name)
        for item in found:
            if not isinstance(item, str):
                raise Invalid(f"{self.where}.{name}[] must be a string")
        return tuple(_text(item, f"{self.where}.{name}[]") for item in found)

    def objects(self, name: str, read: Callable[[_Reader], T]) -> tuple[T, ...]:
        """Each entry of a list of objects, read whole."""
        found = []
        for index, item in enumerate(self.items(name)):
            reader = _Reader(item, f"{self.where}.{name}[{index}]")
            found.append(read(reader))
            reader.done()
        return tuple(found)

    def annotations(self) -> Mapping[str, str]:
        value = self._get("annotations", dict, "an object") or {}
        if len(value) > MAX_ITEMS or not all(
            isinstance(key, str) and key and isinstance(text, str) for key, text in value.items()
        ):
            raise Invalid(f"{self.where}.annotations must be an object of strings")
        return dict(value)

    def done(self) -> None:
        """Invalid when the object has a field nobody asked for."""
        unknown = sorted(set(self.value) - self._seen)
        if unknown:
            raise Invalid(
                f"{self.where} has a field that CDI {LATEST} does not: {unknown[0][:40]!r}",
                hint="Correct the spelling, or make the spec for an older version.",
            )


def _text(value: str, where: str) -> str:
    if len(value) > _MAX_TEXT or "\0" in value:
        raise Invalid(f"{where} is too long or holds a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{where} is not text") from None
    return value


def read(document: Any, origin: str = "") -> Spec:
    """The spec that a document describes; Invalid names the field that is wrong."""
    top = _Reader(document, "the spec")
    version = top.text("cdiVersion", needed=True).removeprefix("v")
    if version not in VERSIONS:
        raise Invalid(
            f"cdiVersion {version[:20]!r} is not known", why=f"lading knows {VERSIONS[0]} to {LATEST}."
        )
    kind = top.text("kind", needed=True)
    if not model.is_kind(kind):
        raise Invalid(
            f"kind {kind[:80]!r} is not VENDOR/CLASS", why="See the Container Device Interface, kind."
        )
    top.where = kind
    annotations = top.annotations()
    edits = _optional_edits(top)
    devices: dict[str, Device] = {}
    if len(top.items("devices")) > MAX_DEVICES:
        raise Invalid(f"{kind} has more than {MAX_DEVICES} devices")
    for device in top.objects("devices", _device):
        if device.name in devices:
            raise Invalid(f"{kind} has two devices named {device.name!r}")
        devices[device.name] = device
    if not devices:
        raise Invalid(f"{kind} has no devices")
    top.done()
    needed = _needed(document, kind)
    if VERSIONS.index(version) < VERSIONS.index(needed):
        raise Invalid(
            f"{kind} says CDI {version} and uses what came with {needed}", hint="Correct cdiVersion."
        )
    return Spec(version, kind, devices, edits, annotations, origin)


def _optional_edits(reader: _Reader) -> Edits:
    value = reader._get("containerEdits", dict, "an object")
    if value is None:
        return Edits()
    inner = _Reader(value, f"{reader.where}.containerEdits")
    found = _edits(inner)
    inner.done()
    return found


def _device(reader: _Reader) -> Device:
    name = reader.text("name", needed=True)
    if not model.is_device_name(name):
        raise Invalid(f"{reader.where}.name is not a device name: {name[:80]!r}")
    annotations = reader.annotations()
    edits = _optional_edits(reader)
    if edits.empty():
        raise Invalid(f"device {name!r} has no containerEdits: it does nothing")
    return Device(name, edits, annotations)


def _edits(reader: _Reader) -> Edits:
    refused = []
    if reader.objects("netDevices", _net_device):
        refused.append("netDevices")
    rdt = reader._get("intelRdt", dict, "an object")
    if rdt:  # an empty one asks for nothing
        inner = _Reader(rdt, f"{reader.where}.intelRdt")
        inner._seen.update(_RDT)
        inner.done()
        refused.append("intelRdt")
    gids = reader.items("additionalGids")
    for gid in gids:
        if not isinstance(gid, int) or isinstance(gid, bool) or not 0 <= gid <= _MAX_ID:
            raise Invalid(f"{reader.where}.additionalGids[] must be a group id")
    return Edits(
        env=_env(reader),
        nodes=reader.objects("deviceNodes", _node),
        mounts=reader.objects("mounts", _mount),
        hooks=reader.objects("hooks", _hook),
        gids=tuple(gid for gid in gids if gid),  # 0 stands for "none" in specs that Go programs write
        refused=tuple(refused),
    )


def _net_device(reader: _Reader) -> str:
    reader.text("name", needed=True)
    return reader.text("hostInterfaceName", needed=True)


def _env(reader: _Reader) -> tuple[str, ...]:
    found = reader.texts("env")
    for item in found:
        if item.find("=") < 1:
            raise Invalid(f"{reader.where}.env[] must be NAME=VALUE: {item[:80]!r}")
    return found


def _node(reader: _Reader) -> Node:
    path = reader.path("path", needed=True)
    kind, permissions = reader.text("type"), reader.text("permissions")
    if kind not in ("", "b", "c", "u", "p"):
        raise Invalid(f"{reader.where}.type must be b, c, u or p, not {kind[:10]!r}")
    if set(permissions) - set("rwm"):
        raise Invalid(f"{reader.where}.permissions must be letters of rwm, not {permissions[:10]!r}")
    return Node(
        path=_target(path, reader.where),
        host_path=reader.path("hostPath"),
        type=kind,
        major=reader.number("major", 0, (1 << 31) - 1),
        minor=reader.number("minor", 0, (1 << 31) - 1),
        permissions=permissions or "rwm",
        mode=reader.number("fileMode", 0, 0o7777777),
        uid=reader.number("uid", 0, _MAX_ID),
        gid=reader.number("gid", 0, _MAX_ID),
    )


def _mount(reader: _Reader) -> Mount:
    kind, options = reader.text("type"), reader.texts("options")
    host = reader.text("hostPath", needed=True)
    if kind not in ("", "bind", "none", "tmpfs"):
        raise Invalid(f"{reader.where}.type must be bind or tmpfs, not {kind[:20]!r}")
    if kind != "tmpfs":
        host = reader.path("hostPath")
    for option in options:
        if not option.isprintable() or "," in option:
            raise Invalid(f"{reader.where}.options[] is no mount option: {option[:40]!r}")
    return Mount(host, _target(reader.path("containerPath", needed=True), reader.where), kind, options)


def _target(path: str, where: str) -> str:
    """A place in the container that a device may take: not the root, and nothing in /proc, whose files guard the host."""
    clean = "/" + "/".join(filter(None, path.split("/")))
    if clean == "/" or clean == "/proc" or clean.startswith("/proc/") or clean in ("/dev", "/sys"):
        raise Invalid(f"{where} would cover {clean}", why="A device may not replace it.")
    return clean


def _hook(reader: _Reader) -> Hook:
    point = reader.text("hookName", needed=True)
    if point not in model.HOOKS:
        raise Invalid(
            f"{reader.where}.hookName is unknown: {point[:40]!r}", why=f"Known: {', '.join(model.HOOKS)}."
        )
    return Hook(
        point=point,
        path=reader.path("path", needed=True),
        args=reader.texts("args"),
        env=_env(reader),
        timeout=reader.number("timeout", 0, (1 << 31) - 1) or None,
    )


def _needed(document: Mapping[str, Any], kind: str) -> str:
    """The lowest version that has everything the document uses (SPEC.md, "Released versions")."""
    needed = "0.1.0"
    entries = document.get("devices") or ()
    edits = [document.get("containerEdits") or {}, *(entry.get("containerEdits") or {} for entry in entries)]
    if any(mount.get("type") for one in edits for mount in one.get("mounts") or ()):
        needed = "0.4.0"
    hosts = any(node.get("hostPath") for one in edits for node in one.get("deviceNodes") or ())
    if hosts or any(entry["name"][0].isdigit() for entry in entries):
        needed = "0.5.0"
    annotated = document.get("annotations") or any(entry.get("annotations") for entry in entries)
    if annotated or "." in kind.partition("/")[2]:
        needed = "0.6.0"
    if any(one.get("intelRdt") or one.get("additionalGids") for one in edits):
        needed = "0.7.0"
    newer = ("schemata", "enableMonitoring")
    if any(one.get("netDevices") or set(newer) & set(one.get("intelRdt") or ()) for one in edits):
        needed = "1.1.0"
    return needed
