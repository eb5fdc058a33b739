"""One container's control groups on every hierarchy it needs: made, limited, joined, frozen, killed, removed.

Owns directories named `<mount>/lading/<id>`; never touches a group it did not make.
"""

from __future__ import annotations

import errno
import os
import time

from lading.base.errors import Denied, Invalid, LadingError, Unavailable, Unsupported
from lading.runtime.cgroup import settings
from lading.runtime.cgroup.remove import remove_directories

if False:  # names for the type checker only; the OCI command line must not import typing
    from collections.abc import Iterable, Mapping
    from typing import Any

    from lading.runtime.cgroup.layout import Layout

PARENT = "lading"
_ALWAYS = ("cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids")
"""v1 hierarchies every container joins: limits may be set later, and stats and pause need them."""


class Group:
    """Paths of one container's groups. Cheap to make: it touches nothing until asked to."""

    def __init__(self, layout: Layout, name: str, extra: Iterable[str] = (), parent: str = PARENT) -> None:
        wanted = [c for c in (*_ALWAYS, *extra) if c in layout.v1]
        below = f"{parent}/{name}" if parent else name
        self.layout = layout
        self.v1 = {controller: f"{layout.v1[controller]}/{below}" for controller in wanted}
        # On a hybrid host the v2 hierarchy adds nothing when v1 can count and freeze, and being born into a v2 group
        # waits for the lock that a move between v1 groups holds for an RCU grace period (cgroup_css_set_fork).
        spare = {"freezer", "memory", "pids"} <= self.v1.keys() and layout.v2.isdisjoint(extra)
        self.unified = f"{layout.unified}/{below}" if layout.unified and not spare else ""

    @property
    def directories(self) -> tuple[str, ...]:
        """Every directory once (cpu and cpuacct are often one hierarchy)."""
        return tuple(dict.fromkeys([*self.v1.values(), *([self.unified] if self.unified else [])]))

    def create(self, resources: Mapping[str, Any], seat: Mapping[str, str] | None = None) -> None:
        """Make the groups and set the limits; on failure nothing is left. Raises Invalid or Unsupported.

        `seat` maps v1 controllers to groups made ahead, which take this container's name (v1 groups can be renamed).
        """
        try:
            for controller, directory in self.v1.items():
                if seat and controller in seat and os.path.isdir(seat[controller]):
                    os.rename(seat[controller], directory)
                else:
                    _make(directory)
            if self.unified:
                _make(self.unified)
            if self.unified and self.layout.v2:
                self._delegate()
            if "cpuset" in self.v1:
                _inherit_cpuset(self.layout.v1["cpuset"], self.v1["cpuset"])
            self.apply(resources)
            if self.unified and "devices" not in self.v1 and (rules := resources.get("devices")):
                self._attach_devices(rules)
        except OSError as error:
            self.remove()
            raise _cannot_make(error) from error
        except BaseException:
            self.remove()
            raise

    def _delegate(self) -> None:
        """Enable the controllers we use from the root down to our parent, so that the leaf has their files."""
        wanted = [
            c for c in ("cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma") if c in self.layout.v2
        ]
        names = self.unified[len(self.layout.unified) :].strip("/").split("/")
        for depth in range(len(names)):
            directory = "/".join([self.layout.unified, *names[:depth]])
            try:
                with open(f"{directory}/cgroup.subtree_control", encoding="ascii") as file:
                    missing = [c for c in wanted if c not in file.read().split()]
            except FileNotFoundError:
                continue
            for controller in missing:
                try:
                    _write(f"{directory}/cgroup.subtree_control", f"+{controller}")
                except OSError:
                    pass  # not ours to enable; a limit that needs it is refused when it is written

    def _attach_devices(self, rules: Any) -> None:
        from lading.runtime.cgroup import devices  # brings ctypes, which v1 does not need

        fd = os.open(self.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            devices.attach(fd, devices.compile_rules(rules))
        except OSError as error:
            raise Unsupported(
                "the device rules cannot be enforced",
                why=f"the kernel refused the cgroup device program ({error.strerror})",
                hint="Run as root on a kernel with CONFIG_CGROUP_BPF.",
            ) from error
        finally:
            os.close(fd)

    def apply(self, resources: Mapping[str, Any]) -> None:
        """Write limits, also of a running container. Only what the kernel lacks is refused, and it says so."""
        for write in settings.v1(resources):
            if write.controller in self.layout.v1:
                self._set(self.v1.get(write.controller), write)
            elif write.controller not in ("devices", "blkio", *self.layout.v2):
                self._lacking(write)
        for write in settings.v2(resources):
            if write.controller in self.layout.v2:
                self._set(self.unified or None, write)
            elif write.controller == "io" and "blkio" not in self.layout.v1:
                self._lacking(write)

    def _lacking(self, write: settings.Write) -> None:
        if not write.optional:
            raise Unsupported(
                f"this host cannot limit {write.controller}",
                why=f"its kernel or its cgroup mounts lack the {write.controller} controller",
                hint="Drop the option, or mount the controller.",
            )

    def _set(self, directory: str | None, write: settings.Write) -> None:
        if directory is None:
            raise Unsupported(
                f"{write.file} cannot be changed now",
                why=f"the container was started outside the {write.controller} hierarchy",
                hint="Set the option when the container is created.",
            )
        try:
            _write(f"{directory}/{write.file}", write.value)
        except OSError as error:
            if write.optional and error.errno in (errno.ENOENT, errno.EACCES, errno.EOPNOTSUPP):
                return
            if error.errno == errno.ENOENT:
                self._lacking(write)
                return
            raise Invalid(
                f"{write.file} does not take {write.value!r}",
                why=os.strerror(error.errno or 0),
                hint="Give a value the host can satisfy (see `lading info` for its CPUs and memory).",
            ) from error

    def open_procs(self, besides: Iterable[str] = ()) -> list[int]:
        """Descriptors of the v1 `cgroup.procs` files but for controllers `besides`; a process joins by its pid."""
        opened: list[int] = []
        try:
            for directory in dict.fromkeys(
                path for name, path in self.v1.items() if name not in set(besides)
            ):
                opened.append(os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def open_unified(self) -> int:
        """Descriptor of the v2 directory for CLONE_INTO_CGROUP, or -1."""
        return os.open(self.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if self.unified else -1

    def freeze(self, frozen: bool, timeout: float = 5.0) -> None:
        """Pause or resume every process; returns when the kernel says so. Raises Unsupported without a freezer."""
        if "freezer" in self.v1:
            path, word = f"{self.v1['freezer']}/freezer.state", "FROZEN" if frozen else "THAWED"
            _write(path, word)
            self._await(lambda: _read(path).strip() == word, timeout)
        elif self.unified:
            _write(f"{self.unified}/cgroup.freeze", "1" if frozen else "0")
            self._await(lambda: f"frozen {int(frozen)}" in _read(f"{self.unified}/cgroup.events"), timeout)
        else:
            raise Unsupported(
                "this host cannot pause containers",
                why="it has no freezer control group for us",
                hint="An ordinary user needs delegated control groups; `lading info` tells how to get them.",
            )

    @staticmethod
    def _await(ready: Any, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.002)

    def frozen(self) -> bool:
        """Whether the group is paused now; False when it is gone."""
        try:
            if "freezer" in self.v1:
                return _read(f"{self.v1['freezer']}/freezer.state").strip() != "THAWED"
            return bool(self.unified) and "frozen 1" in _read(f"{self.unified}/cgroup.events")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # removed, or being removed while it is read
                return False
            raise

    def pids(self) -> list[int]:
        """Every process in the group and below, as host pids."""
        top = self.unified or next(iter(self.v1.values()), "")
        found: list[int] = []
        for directory, _, _ in os.walk(top) if top else ():
            try:
                found += [int(pid) for pid in _read(f"{directory}/cgroup.procs").split()]
            except OSError:
                continue
        return found

    def kill(self) -> None:
        """SIGKILL to every process, also a frozen or forking one (cgroup.kill, Linux 5.14; else one by one)."""
        if self.unified:
            try:
                _write(f"{self.unified}/cgroup.kill", "1")
                return
            except OSError:
                pass
        for _ in range(20):  # a forking process may be a step ahead of the list
            pids = self.pids()
            for pid in pids:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            if not pids or self.frozen():
                break
            time.sleep(0.005)

    def remove(self) -> None:
        """Remove the groups, nested ones first; a group still busy is tried for a moment, then left to the next sweep."""
        remove_directories(self.directories)


def _cannot_make(error: OSError) -> LadingError:
    """A directory the kernel refuses: no privilege, a tree mounted read-only, too many groups (cgroups(7))."""
    refused = error.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
    return (Denied if refused else Unavailable)(
        "cannot make a control group",
        why=f"{error.filename}: {error.strerror}.",
        hint="Containers need root and a cgroup file system that can be written." if refused else "",
    )


def _make(directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileNotFoundError:
        _make(os.path.dirname(directory))
        _make(directory)
    except FileExistsError:
        pass


def _inherit_cpuset(top: str, directory: str) -> None:
    """A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes (cpusets.rst)."""
    parent = top
    for name in directory[len(top) :].strip("/").split("/"):
        child = f"{parent}/{name}"
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not _read(f"{child}/{file}").strip():
                _write(f"{child}/{file}", _read(f"{parent}/{file}").strip())
        parent = child


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
