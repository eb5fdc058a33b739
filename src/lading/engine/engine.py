"""The engine: every noun with its verbs, as the API sees it. Owns reconciling with what lives, and closing.

Built by assemble.py only. Closing leaves containers running: the daemon is disposable.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lading.base import clock
from lading.base.errors import LadingError, Unsupported
from lading.engine import shm, stepsecrets
from lading.engine.containers import Containers
from lading.engine.execs import Execs
from lading.engine.executor import Executor
from lading.engine.health import Probe, wants_probe
from lading.engine.images import Change, Images
from lading.engine.start import LOST_CODE, void
from lading.engine.system import System
from lading.engine.volumes import delete_tree
from lading.runtime.model import Exit

if TYPE_CHECKING:
    from lading.engine.registry import Registry
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry

log = logging.getLogger(__name__)

Bootstrap = Callable[[str, Callable[[str], None]], str]


class Engine:
    """One engine over one data root."""

    def __init__(
        self, rooms: Rooms, *, change: Change, executor: Executor, warnings: tuple[str, ...] = ()
    ) -> None:
        self._rooms = rooms
        self.executor = executor
        self.containers = Containers(rooms, change)
        self.execs = Execs(rooms, self.containers)
        self.images = Images(rooms, change)
        self.volumes = rooms.volumes
        self.networks = rooms.networks
        self.events = rooms.events
        self.system = System(rooms, warnings=warnings)
        self.make_builder: Callable[[], Any] | None = None  # assemble.py sets both: they know the build room
        self.make_base: Bootstrap | None = None
        self._building = threading.Lock()
        self._builder: Any = None

    @property
    def builder(self) -> Any:
        """The build room's Builder, made at its first use: a daemon that only runs containers never loads it."""
        if self.make_builder is None:
            raise Unsupported("this engine cannot build images")
        with self._building:
            if self._builder is None:
                self._builder = self.make_builder()
                self._builder.reconcile()  # what a killed build left
            return self._builder

    @functools.cached_property
    def registry(self) -> Registry:
        """The verbs that talk to registries, loaded when the first is used."""
        from lading.engine.registry import Registry

        return Registry(self._rooms)

    @property
    def scratch(self) -> str:
        """A directory for files that live as long as one request."""
        os.makedirs(self._rooms.paths.tmp, mode=0o700, exist_ok=True)
        return self._rooms.paths.tmp

    def bootstrap(self, name: str, progress: Callable[[dict[str, Any]], None]) -> str:
        """Make a base image from the distribution's packages; returns its id."""
        if self.make_base is None:
            raise Unsupported("this engine cannot make base images")
        image_id = self.make_base(name, lambda text: progress({"stream": f"{text}\n"}))
        self.events.say("image", "import", image_id, {"name": name})
        return image_id

    # -- what was there before -------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Find everything again: running containers, ends nobody noted, and what a kill left half done."""
        rooms = self._rooms
        entries = {entry.id: entry for entry in rooms.roster.load()}
        steps = _names(f"{rooms.paths.run}/build")
        for path in (rooms.paths.tmp, f"{rooms.paths.run}/build"):
            shutil.rmtree(path, ignore_errors=True)
        stepsecrets.forget(rooms.paths.run)
        rooms.snapshotter.recover()
        rooms.blobs.recover()
        known = set(rooms.runtime.known())
        live = [entry for entry in entries.values() if entry.id in known and self._adopt(entry)]
        self._take_over(entries, known, steps)
        self._sweep(entries)
        rooms.networks.recover(live)
        for entry in entries.values():
            if not entry.running:
                self._settle(entry, entry.id in known)
        for entry in live:
            self.containers.starter.follow(entry)
            if wants_probe(entry.record.config.healthcheck):
                entry.probe = Probe(rooms, entry)
                entry.probe.begin()

    def _adopt(self, entry: Entry) -> bool:
        """Whether its run goes on; then it is ours again."""
        live = self._rooms.runtime.live(entry.id)
        if live is None:
            return False
        entry.running = True
        entry.shm = shm.hold(live.pid)
        return True

    def _settle(self, entry: Entry, known: bool) -> None:
        """A container that does not run: note an end that was missed, start it again where its policy says so."""
        rooms, history = self._rooms, entry.history
        ended = rooms.runtime.exit(entry.id) if known else None
        missed = history.started_ns and history.finished_ns < history.started_ns
        if missed or ended is not None:
            entry.running = True  # so that the end is handled as any other
            how = ended or Exit(LOST_CODE, finished_ns=clock.now_ns(), lost=True)
            self.containers.starter.ended(entry, history.started_ns, how)
            return
        policy = entry.record.host.restart.name
        if history.wanted and policy in ("always", "unless-stopped"):
            rooms.pool.submit(self._start_again, entry)
        elif history.wanted:
            rooms.roster.note(entry, replace(history, wanted=False))

    def _start_again(self, entry: Entry) -> None:
        try:
            self.containers.start(entry.id)
        except LadingError as e:
            log.warning("starting %s again: %s", entry.id[:12], e)

    def _take_over(self, entries: Mapping[str, Entry], known: set[str], steps: set[str]) -> None:
        """What ran without a row of its own: execs go on, the steps of a killed build end."""
        runtime = self._rooms.runtime
        for name in known.difference(entries):
            entry = entries.get(runtime.container_of(name))
            if entry is not None:
                self.execs.adopt(name, entry)
            elif name in steps and runtime.live(name) is not None:
                self._end_step(name)
            else:
                runtime.delete(name)

    def _end_step(self, name: str) -> None:
        runtime = self._rooms.runtime
        runtime.kill_all(name)
        runtime.watch(name, lambda _: void(self._rooms.pool.submit(runtime.delete, name)))

    def _sweep(self, entries: Mapping[str, Entry]) -> None:
        """What belongs to no container: snapshots of half-created ones, files of removed ones."""
        rooms = self._rooms
        for info in rooms.snapshotter.infos():
            if _is_id(info.key) and info.key not in entries and info.kind != "committed":
                rooms.snapshotter.remove(info.key)
        for name in _names(rooms.paths.containers).difference(entries):
            delete_tree(rooms.paths.container_dir(name))
        rooms.volumes.sweep()

    # -- the end ---------------------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Whether nothing here needs a daemon: no restart policy or health check of a running container."""
        return not any(self._needs_us(entry) for entry in self._rooms.roster.all())

    @staticmethod
    def _needs_us(entry: Entry) -> bool:
        with entry.lock:  # a restart under way shows neither as running nor as planned
            host = entry.record.host
            watched = host.restart.name not in ("", "no") or host.auto_remove or entry.probe is not None
            return entry.restarting is not None or (entry.running and watched)

    def warm(self) -> None:
        """Start what the first container would wait for."""
        self._rooms.runtime.warm()

    def close(self) -> None:
        """Plan nothing more and let go of the steps' sandboxes; assemble.py closes the rooms. Containers go on."""
        rooms = self._rooms
        for entry in rooms.roster.all():
            if entry.restarting is not None:
                entry.restarting.cancel()
            if entry.probe is not None:
                entry.probe.end()
        rooms.timers.close()
        self.executor.close()
        rooms.events.close()


def _names(directory: str) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()


def _is_id(key: str) -> bool:
    return len(key) == 64 and all(char in "0123456789abcdef" for char in key)
