"""State directories: `<root>/<id>/{state.json,start}`. Owns their format; status is derived, never stored.

`start` is the socket on which init waits for the verb of that name; it goes when the command runs.
"""

from __future__ import annotations

import os
import time

from lading.base import jsontext
from lading.base.atomic import write_file
from lading.base.errors import Conflict, Invalid, NotFound
from lading.runtime.cgroup.layout import Layout, discover
from lading.runtime.oci import groups

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

    from lading.runtime.cgroup.group import Group

VERSION = "1.2.0"
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")


def check_id(identifier: str) -> str:
    """The identifier, when it may be a directory's name: letters, digits and _+-. alone."""
    if not identifier or set(identifier) - _LETTERS or identifier in (".", "..") or len(identifier) > 255:
        raise Invalid(
            f"container id {identifier!r} is not allowed",
            hint="Use letters, digits and _ + - . alone, 255 at most.",
        )
    return identifier


class Container:
    """One container by its state directory. `data` is what state.json holds."""

    def __init__(self, root: str, identifier: str) -> None:
        self.id = check_id(identifier)
        self.directory = f"{root}/{identifier}"
        self.data: dict[str, Any] = {}

    @classmethod
    def found(cls, root: str, identifier: str) -> Container:
        """An existing container; NotFound when there is none."""
        container = cls(root, identifier)
        try:
            with open(f"{container.directory}/state.json", "rb") as file:
                container.data = jsontext.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"container {identifier!r} does not exist") from None
        except ValueError as error:
            raise Invalid(f"the state of container {identifier!r} is damaged", why=str(error)) from None
        return container

    def reserve(self) -> None:
        """Make the directory, which only one creator can; Conflict when it is taken."""
        os.makedirs(os.path.dirname(self.directory), mode=0o700, exist_ok=True)
        try:
            os.mkdir(self.directory, 0o711)
        except FileExistsError:
            raise Conflict(
                f"container {self.id!r} exists already", hint="Delete it, or choose another id."
            ) from None

    def save(self) -> None:
        write_file(f"{self.directory}/state.json", jsontext.dumps(self.data).encode())

    def remove(self) -> None:
        """The directory and its few files."""
        try:
            for name in os.listdir(self.directory):
                os.unlink(f"{self.directory}/{name}")
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass

    @property
    def pid(self) -> int:
        return int(self.data.get("pid") or 0)

    def alive(self) -> bool:
        """Whether init is the very process that was made, and no zombie."""
        start = _start_time(self.pid)
        return start != 0 and start == self.data.get("start")

    def group(self, layout: Layout | None = None) -> Group:
        return groups.found(layout or discover(), self.data["cgroups"])

    def status(self, group: Group | None = None) -> str:
        """creating, created, running, paused or stopped."""
        if not self.data.get("pid"):
            return "creating"
        if not self.alive():
            return "stopped"
        if (group or self.group()).frozen():
            return "paused"
        return "created" if os.path.exists(f"{self.directory}/start") else "running"

    def oci(self, status: str, pid: int | None = None) -> dict[str, Any]:
        """The specification's state (runtime.md "State"), which hooks get too."""
        shown: dict[str, Any] = {"ociVersion": VERSION, "id": self.id, "status": status}
        number = self.pid if pid is None else pid
        if status != "stopped":
            shown["pid"] = number
        shown["bundle"] = self.data["bundle"]
        if self.data.get("annotations"):
            shown["annotations"] = self.data["annotations"]
        return shown

    def text(self, status: str) -> int:
        """A memory file with the state, as hooks get it on standard input."""
        fd = os.memfd_create("lading-state", os.MFD_CLOEXEC)
        os.write(fd, jsontext.dumps(self.oci(status)).encode())
        return fd


def all_of(root: str) -> list[Container]:
    """Every container below `root`, by name; those that vanish meanwhile are passed over."""
    found = []
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    for name in names:
        try:
            found.append(Container.found(root, name))
        except (NotFound, Invalid):
            continue
    return found


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, 0 for none and for zombies (proc(5)); as linux.process has it, without ctypes."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def started(pid: int) -> int:
    """The start time to write down beside a pid."""
    return _start_time(pid)


def now() -> str:
    """RFC 3339, with nanoseconds, as callers parse it."""
    nanoseconds = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds % 10**9:09d}Z"
