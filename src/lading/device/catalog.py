"""The specs a machine has: which directories, which file wins, what is wrong with which. Owns reading the files.

Directories are given in rising priority: a device in a later one hides the same name in an earlier one, and two specs
of one directory that name the same device make that name unusable (CDI SPEC.md, "CDI JSON Specification").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from lading.base.errors import Invalid, LadingError, NotFound
from lading.device import document, model
from lading.device.model import Device, Spec
from lading.linux import identity

SYSTEM_DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
"""The specification's own, in rising priority; an engine's run directory comes after them."""

_MAX_FILE = 1 << 20
_MAX_FILES = 1000
_MAX_DEPTH = 32
_OVERFLOW = 65534  # an owner that has no id here (user_namespaces(7))


class Catalog:
    """What was found in one look at the directories. Errors are kept, since a file nobody asked for harms nobody."""

    def __init__(self, directories: Sequence[str]) -> None:
        self.directories = tuple(directories)
        self.errors: dict[str, str] = {}  # file or directory -> what is wrong with it
        self.conflicts: dict[str, tuple[str, ...]] = {}  # qualified name -> files that claim it
        self._devices: dict[str, tuple[Spec, Device]] = {}
        for directory in self.directories:
            self._add_directory(directory)

    def _add_directory(self, directory: str) -> None:
        specs = []
        for path in self._files(directory):
            try:
                specs.append(read_file(path))
            except LadingError as e:
                self.errors[path] = str(e)
        self._add(specs)

    def _files(self, directory: str) -> list[str]:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        except OSError as e:
            self.errors[directory] = e.strerror or str(e)
            return []
        found = [f"{directory}/{name}" for name in names if name.endswith((".json", ".yaml", ".yml"))]
        if len(found) > _MAX_FILES:
            self.errors[directory] = f"it holds more than {_MAX_FILES} specs; the rest is not read"
        return found[:_MAX_FILES]

    def _add(self, specs: Iterable[Spec]) -> None:
        """The specs of one priority: they replace what lower ones said, and must not contradict each other."""
        claims: dict[str, list[tuple[Spec, Device]]] = {}
        for spec in specs:
            for device in spec.devices.values():
                claims.setdefault(f"{spec.kind}={device.name}", []).append((spec, device))
        for name, claimed in claims.items():
            self.conflicts.pop(name, None)
            self._devices.pop(name, None)
            if len(claimed) == 1:
                self._devices[name] = claimed[0]
            else:
                self.conflicts[name] = tuple(spec.origin for spec, _ in claimed)

    def add(self, spec: Spec) -> None:
        """Put a spec made from the machine itself below everything that was found in files."""
        for device in spec.devices.values():
            name = f"{spec.kind}={device.name}"
            if name not in self.conflicts:
                self._devices.setdefault(name, (spec, device))

    def names(self, kind: str = "") -> list[str]:
        """Every usable qualified name, of one kind where it is given; numbers in their order."""
        found = [name for name in self._devices if not kind or name.startswith(f"{kind}=")]
        return sorted(found, key=_order)

    def kinds(self) -> list[str]:
        return sorted({spec.kind for spec, _ in self._devices.values()})

    def find(self, name: str) -> tuple[Spec, Device]:
        """The spec and device of one qualified name."""
        return self.find_all([name])[0]

    def find_all(self, names: Sequence[str], note: str = "") -> list[tuple[Spec, Device]]:
        """Every one of `names`, or an error that tells of each that is not there, of what is, and `note`."""
        for name in names:
            model.split(name)
        missing = [name for name in names if name not in self._devices]
        if not missing:
            return [self._devices[name] for name in names]
        why = []
        for name in missing:
            if name in self.conflicts:
                why.append(
                    f"{name} is claimed by {' and by '.join(self.conflicts[name])}, so neither counts."
                )
        known = self.names()
        shown = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
        why.append(
            f"This machine has {shown}."
            if known
            else f"No spec in {', '.join(self.directories)} names a device."
        )
        if note:
            why.append(note)
        why += [f"{path} is not usable: {text}" for path, text in list(self.errors.items())[:5]]
        raise NotFound(
            f"unresolvable CDI devices {', '.join(missing)}",
            why=" ".join(why),
            hint="`lading cdi generate` makes a spec from the machine's devices.",
        )


def _order(name: str) -> tuple[str, int, str]:
    kind, _, device = name.partition("=")
    return kind, int(device) if device.isdecimal() and len(device) < 10 else 1 << 32, device


_cache: dict[str, tuple[tuple[int, ...], Spec]] = {}


def read_file(path: str) -> Spec:
    """The spec in one file; what a file said is remembered until the file changes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as e:
        raise Invalid("it cannot be read", why=e.strerror or str(e)) from e
    try:
        info = os.fstat(fd)
        _check_trust(info)
        key = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        known = _cache.get(path)
        if known is not None and known[0] == key:
            return known[1]
        with open(fd, "rb", closefd=False) as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as e:
        raise Invalid("it cannot be read", why=e.strerror or str(e)) from e
    finally:
        os.close(fd)
    if len(data) > _MAX_FILE:
        raise Invalid(f"it is larger than {_MAX_FILE >> 20} MiB")
    spec = document.read(parse(data, path), path)
    if len(_cache) >= _MAX_FILES:
        _cache.clear()
    _cache[path] = (key, spec)
    return spec


def _check_trust(info: os.stat_result) -> None:
    """A spec can name programs that run as root, so nobody else may be able to write it."""
    if not stat.S_ISREG(info.st_mode):
        raise Invalid("it is not a regular file")
    # In a user namespace the host's root is nobody; hooks have no more than the caller's own rights there.
    owners = {0, os.geteuid()} | (set() if identity.host_root() else {_OVERFLOW})
    if info.st_uid not in owners:
        raise Invalid(
            f"it belongs to user {info.st_uid}", why="Its hooks would run with the engine's rights."
        )
    groups = {0, os.getegid()}
    if info.st_mode & stat.S_IWOTH or (info.st_mode & stat.S_IWGRP and info.st_gid not in groups):
        raise Invalid(
            "others may write it", why="Its hooks would run with the engine's rights.", hint="chmod go-w it."
        )


def parse(data: bytes, path: str) -> Any:
    """JSON, or YAML by the file's name. Nesting is bounded, and YAML's aliases (which multiply) are refused."""
    if path.endswith(".json"):
        import json

        try:
            return json.loads(data)
        except (ValueError, RecursionError) as e:
            raise Invalid("it is not JSON", why=f"{e}.") from e
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise Invalid("it uses a YAML alias", why="A spec has no use for one.")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _MAX_DEPTH:
                raise Invalid("it is nested too deeply")
        return yaml.load(data, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise Invalid("it is not YAML", why=f"{' '.join(str(e).split())[:200]}.") from e
