"""Containers and execs as the engine sees them: created, started, found again, signalled, deleted.

Owns run/c/<id>/ (with the monitor) and the groups; keeps nothing that cannot be found again from disk after a kill -9.
"""

from __future__ import annotations

import marshal
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lading.base.errors import Conflict, Internal, Invalid, LadingError, NotFound
from lading.linux import process
from lading.runtime import confined, parts, plan, population, turns, wire
from lading.runtime.cgroup import stats
from lading.runtime.cgroup.group import PARENT, Group
from lading.runtime.cgroup.layout import Layout, discover
from lading.runtime.cgroup.remove import remove_directories
from lading.runtime.failures import start_error
from lading.runtime.model import Attachment, ExecLaunch, Exit, Launch, Live
from lading.runtime.seats import Seats
from lading.runtime.seccomp.filters import Filters
from lading.runtime.starter import Starter, plan_file
from lading.runtime.state import StateFiles, control
from lading.runtime.watcher import Watcher

_JOINABLE = (
    process.CLONE_NEWNS
    | process.CLONE_NEWUTS
    | process.CLONE_NEWIPC
    | process.CLONE_NEWPID
    | process.CLONE_NEWNET
)
_START_TIMEOUT = 60.0


class Runtime:
    """The runtime room's front door. Thread-safe; one per daemon."""

    def __init__(self, run_root: str, layout: Layout | None = None) -> None:
        self._run_root = run_root
        self.layout = layout or discover()
        self._starter = Starter()
        self._seats = Seats(self._starter, self.layout)
        self._watcher = Watcher()
        self._reports: dict[str, socket.socket] = {}
        self._lock = threading.Lock()
        self._filters = Filters()
        self._confined = confined.here(self.layout.has("pids"))
        self._root_target = f"{run_root}/rootfs"
        self._state = StateFiles(run_root)
        # 0711: root of a user namespace, who is nobody here, passes through to its root file system.
        for path, mode in ((run_root, 0o711), (f"{run_root}/c", 0o700), (self._root_target, 0o700)):
            os.makedirs(path, mode=mode, exist_ok=True)

    def warm(self) -> None:
        """Start the zygote and the first seats ahead of the first container."""
        self._starter.warm()
        self._seats.warm()

    def run_dir(self, identifier: str) -> str:
        """The live state directory of one container or exec."""
        return self._state.directory(identifier)

    def group(self, identifier: str) -> Group:
        """The container's control groups, found again by name."""
        group = Group(self.layout, identifier, ("cpuset", "hugetlb"))
        for controller in ("cpuset", "hugetlb"):
            if controller in group.v1 and not os.path.isdir(group.v1[controller]):
                del group.v1[controller]
        if group.unified and not os.path.isdir(group.unified):
            group.unified = ""
        return group

    # -- making -------------------------------------------------------------------------------------------------

    def create(self, launch: Launch) -> Live:
        """Make the container up to the point before its command; nothing is left when this raises LadingError."""
        spec = self._confined.fit(launch.spec)
        create_flags, join = plan.namespaces(spec)
        if not create_flags & process.CLONE_NEWNS:
            raise Invalid("linux.namespaces: a mount namespace of its own is needed")
        resources = (spec.get("linux") or {}).get("resources") or {}
        group = Group(self.layout, launch.id, parts.extra_controllers(resources))
        with ExitStack() as undo, ExitStack() as opened:
            fds = parts.Descriptors()
            entries = [(flag, fds.add(parts.open_namespace(opened, path))) for flag, path in join]
            if launch.netns_fd >= 0:
                create_flags &= ~process.CLONE_NEWNET
                entries.append((process.CLONE_NEWNET, fds.add(launch.netns_fd)))
            userns = bool(create_flags & process.CLONE_NEWUSER)
            described = {
                **self._common(launch.id, launch.id, "container", spec, launch.attachments, fds),
                "userns": userns,
                "id_maps": plan.id_maps(spec),
                "open_stdin": launch.open_stdin,
                "stdin_once": launch.stdin_once,
                "log_path": os.fsencode(launch.log_path),
                "log_max_size": launch.log_max_size,
                "log_max_files": launch.log_max_files,
                "cgroup_dirs": [os.fsencode(path) for path in group.directories],
                "oom_files": parts.oom_files(group),
                "kill_path": b"" if create_flags & process.CLONE_NEWPID else parts.kill_path(group),
                "init": marshal.dumps(
                    {
                        "steps": plan.build(
                            spec, parts.root_step(launch), self._root_target, parts.visible_groups(group)
                        ),
                        "process": plan.process(spec) | self._confined.groups,
                        "seccomp": self._filters.compiled((spec.get("linux") or {}).get("seccomp")),
                        "clone_flags": create_flags & ~process.CLONE_NEWCGROUP,
                        "unshare_cgroup": bool(create_flags & process.CLONE_NEWCGROUP),
                        **parts.entered(entries),
                        "hostname": os.fsencode(str(spec.get("hostname") or "")),
                        "domainname": os.fsencode(str(spec.get("domainname") or "")),
                        "hooks": turns.for_init(spec),
                        "reaper": launch.reaper,
                    }
                ),
            }
            described["keep"] = [fds.add(fd) for fd in launch.keep_fds]
            seat = self._seats.take()
            undo.callback(seat.control.close)
            undo.callback(remove_directories, seat.groups.values())
            group.create(resources, seat.groups)
            undo.callback(group.remove)
            described |= parts.groups_to_join(group, fds, opened, besides=seat.groups)
            self._make_run_dir(launch.id, undo)
            turns.write_bundle(spec, self.run_dir(launch.id), self._root_target)
            plan_fd = plan_file(described)
            opened.callback(os.close, plan_fd)
            wire.send_many(seat.control, b"plan", [plan_fd, *fds.list])
            live = self._created(launch.id, seat.control)
            undo.pop_all()
            return live

    def start(self, identifier: str) -> Live:
        """Let a created container execute its command. Raises NotFound or Invalid with exit_code 127 or 126."""
        with self._lock:
            report = self._reports.pop(identifier, None)
        if report is None:
            raise Conflict(f"container {identifier[:12]} is not waiting to be started")
        try:
            report.send(marshal.dumps(("go",)))
            answer = self._await(report)
        except OSError as error:
            report.close()
            raise Internal("the container's monitor went away", why=str(error)) from error
        if answer[0] != "started":
            report.close()
            shutil.rmtree(self.run_dir(identifier), ignore_errors=True)
            raise start_error(*answer[1:4])
        self._watcher.add(identifier, report, self.run_dir(identifier))
        return Live(answer[1], answer[2])

    def exec(self, launch: ExecLaunch) -> Live:
        """Start a process in a running container; returns when its command runs, or raises as `start` does."""
        target = self._state.living(launch.container)
        if target is None:
            raise Conflict(f"container {launch.container[:12]} is not running", hint="Start it first.")
        group = self.group(launch.container)
        with ExitStack() as undo, ExitStack() as opened:
            fds = parts.Descriptors()
            pidfd = process.pidfd_open(target["pid"])
            opened.callback(os.close, pidfd)
            if process.start_time(target["pid"]) != target["start"]:
                raise Conflict(f"container {launch.container[:12]} has just ended")
            spec = {"process": self._confined.fit_process(launch.process)}
            flags, userns = parts.joined_namespaces(target["pid"])
            described = {
                **self._common(launch.id, launch.container, "exec", spec, launch.attachments, fds),
                "keep": [],
                "userns": userns,
                "open_stdin": launch.open_stdin,
                "stdin_once": True,
                "log_path": b"",
                "log_max_size": 0,
                "log_max_files": 1,
                "cgroup_dirs": [],
                "oom_files": [],
                "kill_path": b"",
                "init": marshal.dumps(
                    {
                        "process": plan.process(spec) | self._confined.groups,
                        "seccomp": self._filters.compiled(launch.seccomp),
                        "pidfd": fds.add(pidfd),
                        "join_flags": flags,
                        "reaper": False,
                    }
                ),
            }
            described |= parts.groups_to_join(group, fds, opened)
            self._make_run_dir(launch.id, undo)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            opened.callback(theirs.close)
            described["report"] = fds.add(theirs.fileno())
            plan_fd = plan_file(described)
            opened.callback(os.close, plan_fd)
            self._starter.request(("exec",), [plan_fd, *fds.list])
            theirs.close()
            self._created(launch.id, ours)
            undo.pop_all()
        return self.start(launch.id)

    def _common(
        self,
        identifier: str,
        container: str,
        kind: str,
        spec: Mapping[str, Any],
        attachments: Sequence[Attachment],
        fds: parts.Descriptors,
    ) -> dict[str, Any]:
        """What the monitor itself needs; init's part is marshalled apart, since a monitor has no use for it."""
        described = spec.get("process") or {}
        return {
            "kind": kind,
            "container": container.encode(),
            "run_dir": os.fsencode(self.run_dir(identifier)),
            "boot_id": self._state.boot_id.encode(),
            "turns": turns.for_monitor(spec, identifier, self.run_dir(identifier)),
            "tty": bool(described.get("terminal")),
            "size": tuple((described.get("consoleSize") or {}).get(key, 0) for key in ("height", "width")),
            "attach": [
                (fds.add(a.fd), a.stdin, a.stdout, a.stderr, a.framed, a.detach_keys) for a in attachments
            ],
        }

    def _make_run_dir(self, identifier: str, undo: ExitStack) -> None:
        run_dir = self.run_dir(identifier)
        shutil.rmtree(run_dir, ignore_errors=True)
        os.mkdir(run_dir, 0o700)
        undo.callback(shutil.rmtree, run_dir, ignore_errors=True)

    def _created(self, identifier: str, report: socket.socket) -> Live:
        """Wait for init to be ready; from here on the report is kept for `start`."""
        answer = self._await(report)
        if answer[0] != "created":
            raise start_error(*answer[1:4])
        with self._lock:
            self._reports[identifier] = report
        return Live(answer[1], created_paths=tuple(os.fsdecode(path) for path in answer[2]))

    @staticmethod
    def _await(report: socket.socket) -> tuple[Any, ...]:
        report.settimeout(_START_TIMEOUT)
        try:
            message, _ = wire.receive(report)
        except TimeoutError:
            raise Internal(
                "the container did not come up", why=f"its monitor was silent for {_START_TIMEOUT:.0f} s"
            ) from None
        except ConnectionResetError:
            message = None
        finally:
            report.settimeout(None)
        return message if message is not None else ("error", "monitor", 0, b"")

    def abandon(self, identifier: str) -> None:
        """Give up a created container that was not started; its monitor undoes it when this end closes."""
        with self._lock:
            report = self._reports.pop(identifier, None)
        if report is not None:
            report.shutdown(socket.SHUT_WR)
            try:
                self._await(report)  # the end of the stream: everything is undone
            except LadingError:
                pass
            report.close()
        self.delete(identifier)

    # -- looking ------------------------------------------------------------------------------------------------

    def live(self, identifier: str) -> Live | None:
        """The running process, or None. Derived from the state file, the pid's start time and the boot id."""
        state = self._state.living(identifier)
        if state is None:
            return None
        paused = Group(self.layout, identifier).frozen()
        return Live(state["pid"], state["started_ns"], paused)

    def exit(self, identifier: str) -> Exit | None:
        """How it ended, from the exit file; a state file without a living process or an exit file is a lost one."""
        ended = self._state.read(identifier, "exit")
        if ended is not None:
            return Exit(ended["code"], ended["signal"], ended["oom"], ended["finished_ns"])
        state = self._state.read(identifier, "state")
        if state is None or self._state.living(identifier) is not None:
            return None
        return self._watcher.lost(identifier, self.run_dir(identifier))

    def watch(self, identifier: str, callback: Callable[[Exit], None]) -> None:
        """Call `callback` once with the end, from the watcher's thread, or at once when it has ended already."""
        if self._watcher.subscribe(identifier, callback):
            return
        try:
            channel = control(self.run_dir(identifier), ("watch",))
        except NotFound:
            ended = self.exit(identifier)
            callback(ended or Exit(137, 9, lost=True))
            return
        self._watcher.add(identifier, channel, self.run_dir(identifier))
        self._watcher.subscribe(identifier, callback)

    def known(self) -> list[str]:
        """Identifiers of every container and exec that has a live state directory."""
        return self._state.known()

    def container_of(self, identifier: str) -> str:
        """The container that an exec runs in, itself for a container, "" where nothing was started."""
        state = self._state.read(identifier, "state")
        return str(state.get("container", "")) if state is not None else ""

    def pids(self, identifier: str) -> list[int]:
        """Host pids of the container's processes."""
        return population.pids(Group(self.layout, identifier), self._state.living(identifier))

    def stats(self, identifier: str) -> dict[str, Any]:
        """Raw counters of the control groups; see `cgroup.stats.read` for the shape."""
        return stats.read(self.group(identifier))

    # -- acting -------------------------------------------------------------------------------------------------

    def attach(self, identifier: str, attachment: Attachment) -> None:
        """Hand a client's connection to the monitor, which serves it from now on."""
        message = (
            "attach", attachment.stdin, attachment.stdout, attachment.stderr, attachment.framed, attachment.detach_keys,
        )  # fmt: skip
        control(self.run_dir(identifier), message, attachment.fd).close()

    def resize(self, identifier: str, height: int, width: int) -> None:
        """Set the terminal's size in characters."""
        control(self.run_dir(identifier), ("resize", height & 0xFFFF, width & 0xFFFF)).close()

    def kill(self, identifier: str, signum: int) -> None:
        """Send a signal to the first process, never to another that got its pid (pidfd_send_signal(2))."""
        state = self._state.living(identifier)
        if state is None:
            raise Conflict(f"container {identifier[:12]} is not running")
        try:
            pidfd = process.pidfd_open(state["pid"])
        except ProcessLookupError:
            raise Conflict(f"container {identifier[:12]} is not running") from None
        try:
            if process.start_time(state["pid"]) != state["start"]:
                raise ProcessLookupError
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            raise Conflict(f"container {identifier[:12]} is not running") from None
        finally:
            os.close(pidfd)
        if signum == signal.SIGKILL:
            group = Group(self.layout, identifier)
            if "freezer" in group.v1 and group.frozen():
                group.freeze(False)  # a frozen v1 group does not die before it thaws

    def kill_all(self, identifier: str) -> None:
        """SIGKILL to every process of the container."""
        population.kill(Group(self.layout, identifier), self._state.living(identifier))

    def pause(self, identifier: str) -> None:
        Group(self.layout, identifier).freeze(True)

    def resume(self, identifier: str) -> None:
        Group(self.layout, identifier).freeze(False)

    def update(self, identifier: str, resources: Mapping[str, Any]) -> None:
        """Change limits of a running container."""
        self.group(identifier).apply(resources)

    def delete(self, identifier: str) -> None:
        """Remove groups and live state of an ended container or exec. Idempotent."""
        self._forget(identifier)
        Group(self.layout, identifier, ("cpuset", "hugetlb")).remove()
        shutil.rmtree(self.run_dir(identifier), ignore_errors=True)

    def _forget(self, identifier: str) -> None:
        with self._lock:
            report = self._reports.pop(identifier, None)
        if report is not None:
            report.close()
        self._watcher.forget(identifier)

    def close(self) -> None:
        """Stop watching and end the zygote; containers go on."""
        self._watcher.close()
        self._seats.close()
        self._starter.close()
        for mount in {*self.layout.v1.values(), self.layout.unified} - {""}:
            try:
                os.rmdir(f"{mount}/{PARENT}")
            except OSError:
                pass  # still in use
