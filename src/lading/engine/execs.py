"""Execs: commands beside a running container's init. Owns their intent in memory and the process object of each.

An exec does not outlive its container's run. A new daemon takes over those of an earlier one as far as it can find them:
whether they run and how they ended, not what was asked for.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lading.base.errors import Conflict, Invalid, LadingError, NotFound
from lading.base.ids import new_id
from lading.engine import compose, request, security, spec, users
from lading.engine.model import ExecRequest
from lading.runtime.model import Attachment, ExecLaunch, Exit

if TYPE_CHECKING:
    from lading.engine.containers import Containers
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry

_KEPT = 1000  # ended execs that inspect still knows


@dataclass
class Exec:
    """One exec, as `inspect` shows it."""

    id: str
    container_id: str
    request: ExecRequest
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0


class Execs:
    """Create, start, inspect, resize."""

    def __init__(self, rooms: Rooms, containers: Containers) -> None:
        self._rooms, self._containers = rooms, containers
        self._lock = threading.Lock()
        self._execs: dict[str, Exec] = {}

    def create(self, ref: str, asked: ExecRequest) -> str:
        """Remember a command for a running container."""
        entry = self._rooms.roster.find(ref)
        live = self._rooms.runtime.live(entry.id) if entry.running else None
        if live is None:
            raise Conflict(f"container {entry.id} is not running", hint="Start it first.")
        if live.paused:
            raise Conflict(f"container {entry.record.name} is paused, unpause the container before exec")
        if not asked.cmd or not asked.cmd[0]:
            raise Invalid("no exec command specified")
        request.merge_env((), asked.env)
        made = Exec(new_id(), entry.id, asked)
        with self._lock:
            self._execs[made.id] = made
            self._trim()
        entry.execs[made.id] = None
        self._containers.starter.say(entry, f"exec_create: {' '.join(asked.cmd)}", execID=made.id)
        return made.id

    def _trim(self) -> None:
        ended = [key for key, item in self._execs.items() if not item.running]
        for key in ended[: max(0, len(self._execs) - _KEPT)]:
            del self._execs[key]

    def inspect(self, exec_id: str) -> Exec:
        with self._lock:
            found = self._execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id[:80]}")
        if found.running:
            # A client asks when its stream ends: the exit file is there already, the watcher's word may not be.
            ended = self._rooms.runtime.exit(exec_id)
            if ended is not None and not ended.lost:
                found.exit_code, found.running = ended.code, False
        return found

    def adopt(self, exec_id: str, entry: Entry) -> None:
        """Take over an exec that an earlier daemon started."""
        item = Exec(exec_id, entry.id, ExecRequest(()), running=True, started=True)
        with self._lock:
            self._execs[exec_id] = item
        entry.execs[exec_id] = None
        self._rooms.runtime.watch(exec_id, lambda ended: self._submit(entry, item, ended))

    def start(self, exec_id: str, fd: int | None, detach: bool, framed: bool, keys: bytes = b"") -> None:
        """Run it; its streams go to the connection `fd` unless detached, or until `keys` are typed there."""
        item = self.inspect(exec_id)
        entry = self._rooms.roster.find(item.container_id)
        with self._lock:
            if item.started:
                raise Conflict(f"exec {exec_id} has already been run")
            item.started = item.running = True
        asked = item.request
        attachments: tuple[Attachment, ...] = ()
        if fd is not None and not detach:
            attachments = (
                Attachment(fd, asked.attach_stdin, asked.attach_stdout, asked.attach_stderr, framed, keys),
            )
        self._containers.starter.say(entry, f"exec_start: {' '.join(asked.cmd)}", execID=exec_id)
        try:
            live = self._rooms.runtime.exec(launch_of(self._rooms, entry, asked, exec_id, attachments))
        except BaseException as e:
            item.running = False
            item.exit_code = e.exit_code if isinstance(e, LadingError) else 125
            entry.execs.pop(exec_id, None)
            raise
        item.pid = live.pid
        self._rooms.runtime.watch(exec_id, lambda ended: self._submit(entry, item, ended))

    def _submit(self, entry: Entry, item: Exec, ended: Exit) -> None:
        item.exit_code, item.running = ended.code, False
        self._rooms.pool.submit(self._ended, entry, item)

    def _ended(self, entry: Entry, item: Exec) -> None:
        entry.execs.pop(item.id, None)
        self._containers.starter.say(entry, "exec_die", execID=item.id, exitCode=str(item.exit_code))
        self._rooms.runtime.delete(item.id)

    def resize(self, exec_id: str, height: int, width: int) -> None:
        """The terminal's size."""
        item = self.inspect(exec_id)
        if not item.running:
            raise Conflict(f"exec {exec_id} is not running")
        self._rooms.runtime.resize(exec_id, height, width)


def launch_of(
    rooms: Rooms, entry: Entry, asked: ExecRequest, exec_id: str, attachments: tuple[Attachment, ...]
) -> ExecLaunch:
    """The runtime's form of an exec: the container's own limits and filter, its user looked up where it runs."""
    live = rooms.runtime.live(entry.id)
    if live is None:
        raise Conflict(f"container {entry.id} is not running", hint="Start it first.")
    config, host = entry.record.config, entry.record.host
    opted = security.parse(host.security_opt, host.privileged)
    granted = compose.granted(host, privileged=asked.privileged)
    plan = spec.Plan(
        id=entry.id,
        args=asked.cmd,
        env=request.merge_env(config.env, asked.env),
        user=user_in(live.pid, asked.user or config.user, host.group_add),
        cwd=asked.working_dir or config.working_dir or "/",
        tty=asked.tty,
        hostname=config.hostname,
        caps=granted,
        no_new_privileges=opted.no_new_privileges and not asked.privileged,
        ulimits=host.ulimits,
        nofile=compose.nofile(),
        trust_env=rooms.trust.environment if host.host_trust else (),
    )
    if host.device_requests:
        plan = rooms.accelerators.dress_exec(plan, host, entry.history)
    return ExecLaunch(
        id=exec_id,
        container=entry.id,
        process=spec.process(plan),
        seccomp=compose.seccomp("unconfined" if asked.privileged else opted.seccomp, granted),
        open_stdin=asked.attach_stdin,
        attachments=attachments,
    )


def user_in(pid: int, name: str, group_add: tuple[str, ...]) -> users.User:
    """Who `name` is in the running container's own tree."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise Conflict("the container has just ended", why=e.strerror or "") from e
    try:
        passwd, group = (users.read_database(root, path) for path in ("etc/passwd", "etc/group"))
    finally:
        os.close(root)
    return users.resolve(name, group_add, passwd, group)
