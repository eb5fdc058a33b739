"""The life of containers: create, start, stop, kill, pause, remove, rename. Owns their checks and order.

Every verb on one container holds that container's lock, but for waiting. The acts behind start are in start.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Conflict, Invalid, NotFound, Unavailable
from lading.base.ids import random_name
from lading.engine import ordinary, request, signals, view
from lading.engine.joining import wanted_networks
from lading.engine.model import CreateRequest, Mount
from lading.engine.record import Record
from lading.engine.roster import Entry, Finished
from lading.engine.start import Starter, log_limits
from lading.engine.volumes import delete_tree
from lading.runtime.model import Live

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms

STOP_TIMEOUT = 10
_KILL_WAIT = 30.0
_NAME_TRIES = 20


class Lifecycle:
    """The verbs that begin and end containers and their runs."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.starter = Starter(rooms, self._delete)

    # -- create ----------------------------------------------------------------------------------------------

    def create(self, asked: CreateRequest) -> tuple[str, list[str]]:
        """Make a container from an image: its row, its snapshot, its volumes. Returns (id, warnings)."""
        rooms = self._rooms
        asked, warnings = ordinary.fit(asked, rooms)
        name = request.check_name(asked.name) if asked.name else ""
        image = rooms.images.get(asked.config.image)
        if asked.platform:
            _check_platform(asked.platform, image.config.os, image.config.architecture, asked.config.image)
        if asked.host.device_requests:
            # All of its devices, or nothing is made.
            asked = replace(asked, host=rooms.accelerators.prepare(asked.host))
        parent = rooms.images.unpack(image) if image.config.diff_ids else ""
        rooms.networks.check(asked.host, asked.networks)
        record = request.resolve(
            asked,
            image.config.config,
            image_id=image.id,
            parent=parent,
            name=name,
            now_ns=clock.now_ns(),
            cpus=rooms.cpus,
            inherited=self._mounts_of,
            networks=asked.networks,
            nodename=os.uname().nodename,
        )
        log_limits(record)
        entry = self._reserve(record)
        with ExitStack() as undo:
            undo.callback(rooms.roster.release, entry)
            rooms.snapshotter.prepare(record.id, parent or None)
            undo.callback(rooms.snapshotter.remove, record.id)
            if any(mount.type == "volume" for mount in record.mounts):
                self._make_volumes(record, undo)
            rooms.roster.insert(entry)
            undo.pop_all()
        self.starter.say(entry, "create")
        return record.id, [*warnings, *_warnings(asked), *self._obstacles(asked)]

    def _obstacles(self, asked: CreateRequest) -> list[str]:
        """Why a container may not get through to other hosts."""
        if not wanted_networks(asked.host, asked.networks):
            return []
        return self._rooms.networks.warnings()

    def _reserve(self, record: Record) -> Entry:
        """Claim the name; a random one is drawn until one is free."""
        if record.name:
            return self._rooms.roster.reserve(record)
        for _ in range(_NAME_TRIES):
            try:
                return self._rooms.roster.reserve(replace(record, name=random_name()))
            except Conflict:
                continue
        return self._rooms.roster.reserve(replace(record, name=f"{random_name()}_{record.id[:6]}"))

    def _mounts_of(self, ref: str) -> Iterable[Mount]:
        return self._rooms.roster.find(ref).record.mounts

    def _make_volumes(self, record: Record, undo: ExitStack) -> None:
        """Make the volumes the container names, and fill new ones from the image."""
        rooms = self._rooms
        empty = []
        for mount in record.mounts:
            if mount.type != "volume":
                continue
            anonymous = mount.source in record.anonymous
            rooms.volumes.create(mount.source, labels=mount.labels, anonymous=anonymous)
            if anonymous:
                undo.callback(rooms.volumes.remove, mount.source, True)
            if not mount.no_copy and rooms.volumes.is_empty(mount.source):
                empty.append(mount)
        if empty and record.parent:
            with rooms.snapshotter.mounted(record.id) as root:
                for mount in empty:
                    rooms.volumes.fill(mount.source, root, mount.target)

    # -- start and stop --------------------------------------------------------------------------------------

    def start(self, ref: str) -> bool:
        """Run it; False when it runs already."""
        entry = self._rooms.roster.find(ref)
        with entry.lock:
            self._check_present(entry)
            if entry.running:
                live = self._rooms.runtime.live(entry.id)
                if live is not None and live.paused:
                    raise Conflict("cannot start a paused container, try unpause instead")
                if live is not None:
                    return False
                raise Conflict(f"container {entry.record.name} is just ending", hint="Try again.")
            self._cancel_restart(entry)
            entry.backoff = 0.0
            try:
                self.starter.start(entry)
            except BaseException:
                if entry.record.host.auto_remove:
                    self._delete(entry)
                raise
        return True

    def stop(self, ref: str, timeout: int | None, signal: str = "") -> bool:
        """Ask it to end, wait, then kill it; False when it does not run."""
        entry = self._rooms.roster.find(ref)
        number = signals.parse(signal or entry.record.config.stop_signal or "SIGTERM")
        if timeout is None:
            timeout = entry.record.config.stop_timeout
        seconds = STOP_TIMEOUT if timeout is None else timeout
        done = self._signal_to_end(entry, number)
        if done is None:
            return False
        try:
            done.result(None if seconds < 0 else seconds)
        except FutureTimeout:
            self._kill_and_wait(entry, done)
        self.starter.say(entry, "stop")
        return True

    def _signal_to_end(self, entry: Entry, number: int) -> Future[Finished] | None:
        """Mark that the user wants it down, and signal it; None when nothing runs."""
        with entry.lock:
            self._check_present(entry)
            was_restarting = entry.restarting is not None
            self._cancel_restart(entry)
            entry.stopping = True
            if entry.history.wanted:
                self._rooms.roster.note(entry, replace(entry.history, wanted=False))
            if not entry.running:
                if was_restarting:
                    self.starter.say(entry, "stop")
                return None
            done: Future[Finished] = Future()
            entry.next_exit.append(done)
            live = self._rooms.runtime.live(entry.id)
            if live is not None:
                if live.paused:
                    self._rooms.runtime.resume(entry.id)
                self._send(entry, number)
        return done

    def _send(self, entry: Entry, number: int) -> None:
        try:
            self._rooms.runtime.kill(entry.id, number)
        except (Conflict, NotFound):
            return  # it ended by itself meanwhile, which is what was wanted
        self.starter.say(entry, "kill", signal=str(number))

    def _kill_and_wait(self, entry: Entry, done: Future[Finished]) -> None:
        self._send(entry, 9)
        try:
            done.result(_KILL_WAIT)
        except FutureTimeout:
            raise Unavailable(
                f"container {entry.record.name} does not end",
                why="It did not react to SIGKILL: a process in it waits in the kernel.",
                hint="Look at the host's kernel log.",
            ) from None

    def restart(self, ref: str, timeout: int | None, signal: str = "") -> None:
        """Stop it if it runs, and start it."""
        entry = self._rooms.roster.find(ref)
        self.stop(ref, timeout, signal)
        self.start(entry.id)
        self.starter.say(entry, "restart")

    def kill(self, ref: str, signal: str) -> None:
        """Send a signal. SIGKILL and the stop signal also mean that no restart follows."""
        entry = self._rooms.roster.find(ref)
        number = signals.parse(signal or "SIGKILL")
        with entry.lock:
            if not entry.running or self._rooms.runtime.live(entry.id) is None:
                raise Conflict(f"cannot kill container: {ref}: container {entry.id} is not running")
            if number in (9, signals.parse(entry.record.config.stop_signal or "SIGTERM")):
                entry.stopping = True
            self._rooms.runtime.kill(entry.id, number)
        self.starter.say(entry, "kill", signal=str(number))

    def pause(self, ref: str) -> None:
        """Freeze every process."""
        entry = self._rooms.roster.find(ref)
        with entry.lock:
            if self._running(entry).paused:
                raise Conflict(f"container {ref} is already paused")
            self._rooms.runtime.pause(entry.id)
        self.starter.say(entry, "pause")

    def unpause(self, ref: str) -> None:
        """Thaw every process."""
        entry = self._rooms.roster.find(ref)
        with entry.lock:
            if not self._running(entry).paused:
                raise Conflict(f"container {ref} is not paused")
            self._rooms.runtime.resume(entry.id)
        self.starter.say(entry, "unpause")

    def _running(self, entry: Entry) -> Live:
        live = self._rooms.runtime.live(entry.id) if entry.running else None
        if live is None:
            raise Conflict(f"container {entry.record.name} is not running", hint="Start it first.")
        return live

    @staticmethod
    def _check_present(entry: Entry) -> None:
        if entry.removing:
            raise Conflict(f"container {entry.id} is marked for removal")

    @staticmethod
    def _cancel_restart(entry: Entry) -> None:
        if entry.restarting is not None:
            entry.restarting.cancel()
            entry.restarting = None

    # -- remove ----------------------------------------------------------------------------------------------

    def remove(self, ref: str, force: bool, volumes: bool) -> None:
        """Delete it: its row, snapshot, log and files; with `volumes` its anonymous volumes too."""
        entry = self._rooms.roster.find(ref)
        with entry.lock:
            if entry.removing:
                raise Conflict(f"removal of container {entry.id} is already in progress")
            if (entry.running or entry.restarting is not None) and not force:
                status = view.state(self._rooms, entry).status
                raise Conflict(
                    f'cannot remove container "/{entry.record.name}": container is {status}',
                    hint="Stop the container before removing it, or force the removal.",
                )
            entry.removing = entry.stopping = True
            self._cancel_restart(entry)
            done: Future[Finished] | None = None
            if entry.running:
                done = Future()
                entry.next_exit.append(done)
        try:
            if done is not None:
                self._kill_and_wait(entry, done)
            with entry.lock:
                self._delete(entry, volumes=volumes)
        except BaseException:
            entry.removing = False
            raise

    def _delete(self, entry: Entry, volumes: bool | None = None) -> None:
        """Row first, then what it named. The caller holds the lock, and nothing runs."""
        rooms, record = self._rooms, entry.record
        entry.removing = True
        rooms.roster.forget(entry)
        rooms.snapshotter.remove(record.id)
        delete_tree(rooms.paths.container_dir(record.id))
        if volumes if volumes is not None else record.host.auto_remove:
            for name in record.anonymous:
                try:
                    rooms.volumes.remove(name, True)
                except Conflict:
                    continue  # another container has it through --volumes-from
        for attachment in entry.pending:
            os.close(attachment.fd)
        entry.pending = []
        self.starter.say(entry, "destroy")
        # Why it never ran is the answer to its start; a waiter would tell it a second time.
        error = entry.history.error if entry.history.started_ns else ""
        answer = Finished(entry.history.exit_code, error, entry.history.hint)
        for future in (*entry.gone, *entry.next_exit):
            if not future.done():
                future.set_result(answer)
        entry.gone, entry.next_exit = [], []

    def rename(self, ref: str, new: str) -> None:
        """Another name, at once or not at all."""
        entry = self._rooms.roster.find(ref)
        name, old = request.check_name(new), entry.record.name
        with entry.lock:
            if name == old:
                raise Invalid("renaming a container with the same name as its current name")
            self._rooms.roster.rename(entry, name)
            if entry.running:
                self._rooms.networks.naming.update(entry)
        self.starter.say(entry, "rename", oldName=f"/{old}")


def _check_platform(asked: str, system: str, architecture: str, image: str) -> None:
    parts = asked.lower().split("/")
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    wanted = names.get(parts[1], parts[1]) if len(parts) > 1 else architecture
    if parts[0] != system or wanted != architecture:
        raise NotFound(
            f"image {image} was found but does not match the specified platform",
            why=f"Wanted {asked}, actual {system}/{architecture}.",
        )


def _warnings(asked: CreateRequest) -> list[str]:
    found = []
    if asked.host.network_mode == "host" and (asked.host.port_bindings or asked.host.publish_all_ports):
        found.append("Published ports are discarded when using host network mode")
    return found
