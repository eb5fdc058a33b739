"""The values of the Container Device Interface: names, specs, devices and what each does to a container.

Owns the grammar of names (CDI 1.1 SPEC.md, "Kind" and "Device name"). Reads no file and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lading.base.errors import Invalid

LIMIT = 253
"""Characters of a vendor, class or name: more than any real one has, and bounded."""

_WORD = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")  # vendor and class: a letter first
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")  # a device's: a digit may be first

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
"""The runtime specification's hook points (config.md, "POSIX-platform Hooks")."""


def is_kind(text: str) -> bool:
    """Whether `text` is VENDOR/CLASS."""
    vendor, slash, kind = text.partition("/")
    return bool(slash and _is_word(vendor) and _is_word(kind))


def _is_word(text: str) -> bool:
    return len(text) <= LIMIT and _WORD.fullmatch(text) is not None


def is_device_name(text: str) -> bool:
    """Whether `text` may name a device within its kind."""
    return len(text) <= LIMIT and _NAME.fullmatch(text) is not None


def split(text: str) -> tuple[str, str]:
    """(kind, device) of "vendor.com/class=name"; Invalid for anything else."""
    kind, mark, device = text.partition("=")
    if not (mark and is_kind(kind) and is_device_name(device)):
        raise Invalid(
            f'"{text[:120]}" is not the name of a CDI device',
            hint="Write VENDOR/CLASS=NAME, such as nvidia.com/gpu=0; `lading cdi list` shows what there is.",
        )
    return kind, device


@dataclass(frozen=True)
class Node:
    """A device node to make. What is None is taken from the host's node (`edits.node`)."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    permissions: str = "rwm"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True)
class Mount:
    """A host path shown in the container."""

    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hook:
    """A host program run at one of the container's turns."""

    point: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True)
class Edits:
    """What a device, or a whole spec, does to a container that gets it."""

    env: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    gids: tuple[int, ...] = ()
    refused: tuple[str, ...] = ()
    """Edits the spec asks for that lading cannot make, by their names in the spec."""

    def empty(self) -> bool:
        return self == Edits()


@dataclass(frozen=True)
class Device:
    """One device of a spec."""

    name: str
    edits: Edits
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """One spec file: devices of one kind and the edits they share."""

    version: str
    kind: str
    devices: Mapping[str, Device]
    edits: Edits = Edits()
    annotations: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""  # the file it was read from, or where else it comes from
