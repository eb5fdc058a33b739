"""Volumes: directories that outlive containers. Owns their rows, their directories and who uses them.

A volume's data lies in <root>/volumes/<name>/_data, as Docker lays it out. Mounting is the runtime's.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Conflict, Invalid, NotFound, Unavailable, Unsupported
from lading.base.ids import new_id
from lading.engine import binds, codec
from lading.engine import filters as filtering
from lading.engine.events import Events
from lading.engine.filters import Filters
from lading.linux import files, trees

if TYPE_CHECKING:
    from lading.engine.roster import Roster
    from lading.store.database import Database

Names = list[str]  # `list` is a verb below

DDL = "CREATE TABLE volumes (name TEXT PRIMARY KEY, record TEXT NOT NULL)"


@dataclass(frozen=True)
class Volume:
    """One volume. `anonymous` ones go with `rm -v` and the plain prune."""

    name: str
    created_ns: int
    mountpoint: str
    driver: str = "local"
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    scope: str = "local"


class Volumes:
    """Create, list, inspect, remove, prune, and fill from an image."""

    def __init__(self, db: Database, root: str, roster: Roster, events: Events) -> None:
        self._db, self._root, self._roster, self._events = db, root, roster, events
        self._lock = threading.RLock()
        db.ensure("volumes", DDL)
        self._volumes = {
            row["name"]: codec.load(Volume, row["record"]) for row in db.query("SELECT * FROM volumes")
        }

    def create(
        self,
        name: str = "",
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        anonymous: bool = False,
    ) -> Volume:
        """Make a volume, or return the one of that name."""
        if driver not in ("", "local"):
            raise Unsupported(f'no volume driver "{driver[:40]}"', hint="Only local is built in.")
        if options:
            raise Unsupported(
                "a volume's driver options are not supported",
                hint="Mount the file system on the host and bind it with -v.",
            )
        if not name:
            name, anonymous = new_id(), True
        if not binds.volume_name(name):
            raise Invalid(
                f'invalid volume name "{name[:64]}"', why="Only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed."
            )
        with self._lock:
            found = self._volumes.get(name)
            if found is not None:
                return found
            volume = Volume(
                name=name,
                created_ns=clock.now_ns(),
                mountpoint=f"{self._root}/{name}/_data",
                labels=dict(labels or {}),
                anonymous=anonymous,
            )
            try:
                os.makedirs(volume.mountpoint, mode=0o755, exist_ok=True)
            except OSError as e:
                raise Unavailable(f'the volume "{name}" cannot be made', why=e.strerror or "") from e
            with self._db.transaction() as cx:
                cx.execute("INSERT INTO volumes (name, record) VALUES (?, ?)", (name, codec.dump(volume)))
            self._volumes[name] = volume
        self._events.say("volume", "create", name, {"driver": "local"})
        return volume

    def inspect(self, name: str) -> Volume:
        with self._lock:
            found = self._volumes.get(name)
        if found is None:
            raise NotFound(f"get {name[:80]}: no such volume", hint="lading volume ls lists them.")
        return found

    def list(self, filters: Filters | None = None) -> list[Volume]:
        """Volumes by name; filters name, label, dangling, driver."""
        wanted = filters or {}
        filtering.known(wanted, ("name", "label", "dangling", "driver"))
        dangling = filtering.truth(wanted, "dangling")
        used = self.used() if dangling is not None else {}
        with self._lock:
            volumes = sorted(self._volumes.values(), key=lambda volume: volume.name)
        return [
            volume
            for volume in volumes
            if (not wanted.get("name") or any(text in volume.name for text in wanted["name"]))
            and filtering.labels(volume.labels, wanted.get("label", ()))
            and (not wanted.get("driver") or volume.driver in wanted["driver"])
            and (dangling is None or dangling != (volume.name in used))
        ]

    def used(self) -> dict[str, Names]:
        """Volume name to the ids of the containers, running or not, that mount it."""
        found: dict[str, Names] = {}
        for entry in self._roster.all():
            for mount in entry.record.mounts:
                if mount.type == "volume":
                    found.setdefault(mount.source, []).append(entry.id)
        return found

    def remove(self, name: str, force: bool = False) -> None:
        """Delete a volume and its data; Conflict while a container has it."""
        with self._lock:
            if name not in self._volumes:
                if force:
                    return
                self.inspect(name)
            holders = self.used().get(name)
            if holders:
                raise Conflict(
                    f"remove {name}: volume is in use",
                    why=f"It is mounted by {', '.join(holders[:5])}.",
                    hint="Remove those containers first.",
                )
            with self._db.transaction(frees=True) as cx:
                cx.execute("DELETE FROM volumes WHERE name = ?", (name,))
            del self._volumes[name]
            delete_tree(f"{self._root}/{name}")
        self._events.say("volume", "destroy", name, {"driver": "local"})

    def prune(self, filters: Filters | None = None) -> tuple[Names, int]:
        """Remove anonymous volumes nobody uses; with filter all=true named ones too."""
        wanted = filters or {}
        filtering.known(wanted, ("label", "label!", "all"))
        everything = filtering.truth(wanted, "all")
        used, names, freed = self.used(), [], 0
        for volume in self.list({"label": wanted.get("label", ())}):
            if volume.name in used or not (volume.anonymous or everything):
                continue
            if wanted.get("label!") and filtering.labels(volume.labels, wanted["label!"]):
                continue
            size = usage(volume.mountpoint)
            try:
                self.remove(volume.name)
            except Conflict:
                continue  # taken between the look and the removal
            names.append(volume.name)
            freed += size
        return names, freed

    def fill(self, name: str, root: int, target: str) -> None:
        """Copy the image's files at `target` below the directory `root` into a volume that is empty."""
        volume = self.inspect(name)
        with self._lock:
            destination = os.open(
                volume.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            try:
                if not _is_empty(destination):
                    return
                try:
                    source = files.openat2(root, target, os.O_RDONLY | os.O_DIRECTORY)
                except OSError:
                    return  # the image has no such directory: the volume starts empty
                try:
                    trees.copy(source, destination, chown=os.geteuid() == 0)
                except OSError as e:
                    raise Unavailable(
                        f'the volume "{name}" cannot be filled from the image', why=e.strerror or str(e)
                    ) from e
                finally:
                    os.close(source)
            finally:
                os.close(destination)

    def is_empty(self, name: str) -> bool:
        """Whether the volume holds no file."""
        return _is_empty(self.inspect(name).mountpoint)

    def sweep(self) -> None:
        """Delete directories without a row, left by a kill between row and directory."""
        with self._lock:
            try:
                names = os.listdir(self._root)
            except FileNotFoundError:
                return
            for name in names:
                if name not in self._volumes:
                    delete_tree(f"{self._root}/{name}")


def _is_empty(directory: int | str) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def usage(path: str) -> int:
    """Bytes of disk below `path`; links are not followed and hard links count once."""
    total, seen = 0, set()
    for folder, _, names, fd in os.fwalk(path, follow_symlinks=False):
        del folder
        for name in names:
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            if info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            total += info.st_size
    return total


def delete_tree(path: str) -> None:
    """Remove a directory tree of ours; what a process still holds open stays readable to it."""
    shutil.rmtree(path, ignore_errors=True)
