"""The start path and its mirror: everything between "this container should run" and "its run is over".

Owns the order of acts, and undoing them in reverse when one fails: sandbox, addresses, ports, /etc files,
volumes, spec, process, rules, row. Verbs and their checks are in containers.py; restart.py decides on restarts.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Conflict, Invalid, LadingError, Unavailable
from lading.engine import binds, compose, etcfiles, restart, shm, spec, stubs
from lading.engine.health import Probe, wants_probe
from lading.engine.joining import Joined, wanted_networks
from lading.engine.model import Endpoint
from lading.engine.places import outward
from lading.engine.publish import Reserved, wanted
from lading.engine.record import History, Record
from lading.engine.roster import Entry, Finished
from lading.runtime.model import Attachment, Exit, Launch

if TYPE_CHECKING:
    from lading.device.edits import Granted
    from lading.engine.rooms import Rooms
    from lading.network.dns.door import Sockets

log = logging.getLogger(__name__)

_LOG_SIZE, _LOG_FILES = 10 << 20, 3
_LOG_OPTIONS = set(
    "max-size max-file compress mode max-buffer-size tag labels labels-regex env env-regex".split()
)
"""The first two take effect; the rest is what Docker's file drivers know and what changes nothing that is read back."""
FAILED_CODE = 128
"""What a start that failed leaves as the exit code, unless the command itself was at fault (Docker's number)."""
LOST_CODE = 255
"""The exit code of a run whose end nobody saw, because the host went down (Docker's choice too)."""


class Starter:
    """Starts runs, and ends them when the runtime says they are over."""

    def __init__(self, rooms: Rooms, remove: Callable[[Entry], None]) -> None:
        self._rooms = rooms
        self._remove = remove  # for --rm: containers.py knows how

    # -- start -----------------------------------------------------------------------------------------------

    def start(self, entry: Entry, *, restarts: int = 0) -> None:
        """Make the container run. The caller holds `entry.lock` and has checked that it does not run yet."""
        rooms, record, before = self._rooms, entry.record, entry.history
        with ExitStack() as always, ExitStack() as undo:
            try:
                asked = wanted_networks(record.host, record.networks)
                reserved = always.enter_context(self._reserve(record, asked))
                # A user namespace must own its network namespace, so that one is made with the container.
                late = record.host.userns_mode == "private"
                netns = -1 if late else self._sandbox(record, always)
                joined = rooms.networks.claim(record.id, asked, (record.id[:12],))
                undo.callback(rooms.networks.leave, record.id, joined)
                named = rooms.networks.naming.wanted(record, joined.endpoints)
                attached: Future[Sockets | None] = Future()
                if not late and asked:
                    # The kernel makes the interfaces while the zygote makes the container.
                    attached = rooms.pool.submit(self._attach, netns, record, joined, named)
                else:
                    attached.set_result(None)
                undo.callback(_close_sockets, attached)
                granted = self._granted(record)
                launch = self._launch(record, joined, netns, reserved, granted)
                attachments = self._pending(entry, always)
                live = rooms.runtime.create(replace(launch, attachments=attachments))
                undo.callback(rooms.runtime.abandon, record.id)
                entry.shm = shm.hold(live.pid)
                sockets = attached.result()
                if late and record.host.network_mode != "host":
                    netns = compose.netns_of(live.pid)
                    always.callback(os.close, netns)
                    compose.loopback_up(netns)
                    sockets = self._attach(netns, record, joined, named)
                if sockets is not None:
                    always.callback(sockets.close)  # the resolver has its own by then
                    undo.callback(rooms.networks.naming.close, record.id)
                    rooms.networks.naming.open(record, joined.endpoints, sockets, live.pid)
                if reserved.bindings:
                    forwards = rooms.networks.forwards(reserved.bindings, joined.endpoints)
                    rooms.kernel_networks().publish(record.id, forwards)
                    undo.callback(rooms.kernel_networks().unpublish, record.id)
                now = clock.now_ns()
                history = History(
                    started_ns=now,
                    restarts=restarts,
                    wanted=True,
                    endpoints=joined.endpoints,
                    host_names=joined.host_names,
                    ports=reserved.bindings,
                    device_env=granted.env if granted is not None else (),
                    device_gids=granted.gids if granted is not None else (),
                )
                rooms.roster.note(entry, history)
                entry.running, entry.stopping = True, False
                rooms.runtime.start(record.id)
                undo.pop_all()
            except BaseException as e:
                error = _translated(e)
                self._failed(entry, before, error)
                raise error from (None if error is e else e)
        self.follow(entry)
        if wants_probe(record.config.healthcheck):
            entry.probe = Probe(rooms, entry)
            entry.probe.begin()
        self.say(entry, "start")

    def _attach(self, netns: int, record: Record, joined: Joined, named: bool) -> Sockets | None:
        """The interfaces, and the resolver's sockets where the container uses it."""
        networks = self._rooms.networks
        networks.attach(netns, joined, record.host.net_rate)
        return networks.naming.sockets(netns) if named else None

    def follow(self, entry: Entry) -> None:
        """Hear of the end of the run that `entry.history` describes."""
        run = entry.history.started_ns
        self._rooms.runtime.watch(
            entry.id, lambda ended: void(self._rooms.pool.submit(self._ended, entry, run, ended))
        )

    def _sandbox(self, record: Record, always: ExitStack) -> int:
        """A descriptor of the network namespace to join, its lo up; -1 for the host's own."""
        mode = record.host.network_mode
        if mode == "host":
            return -1
        if mode.startswith("container:"):
            netns = compose.netns_of(self.pid_of(mode[10:]))
        else:
            netns = self._rooms.kernel_networks().sandbox()
        always.callback(os.close, netns)
        return netns

    def pid_of(self, ref: str) -> int:
        """The init pid of a running container that another one joins."""
        entry = self._rooms.roster.find(ref)
        live = self._rooms.runtime.live(entry.id)
        if live is None:
            raise Conflict(f"cannot join container {ref}: it is not running", hint="Start it first.")
        return live.pid

    def _reserve(self, record: Record, networks: Mapping[str, Endpoint]) -> Reserved:
        if not networks:
            return Reserved()  # no network of its own: nothing to publish, as with Docker
        host = record.host
        asked = wanted(host.port_bindings, record.config.exposed_ports, host.publish_all_ports)
        if not asked:
            return Reserved()
        first = self._rooms.networks.inspect(next(iter(networks)))
        asked = [replace(one, host_ip=one.host_ip or first.host_binding) for one in asked]
        both = any(self._rooms.networks.inspect(name).subnet6 for name in networks)
        return self._rooms.publisher.reserve(asked, self._rooms.kernel_networks().reserve, both)

    def _granted(self, record: Record) -> Granted | None:
        """What its devices bring, looked up anew for each start."""
        requests = record.host.device_requests
        return self._rooms.accelerators.grant(requests) if requests else None

    def _launch(
        self, record: Record, joined: Joined, netns: int, reserved: Reserved, granted: Granted | None
    ) -> Launch:
        rooms = self._rooms
        directory = rooms.paths.container_dir(record.id)
        os.makedirs(directory, mode=0o711, exist_ok=True)
        # What goes with its run has not to be synced, by the container or at the unmount.
        lower = rooms.snapshotter.rootfs(record.id, volatile=record.host.auto_remove)
        rootfs = stubs.below(lower, rooms.stub_layer)
        plan = compose.plan(
            record,
            rootfs,
            etc=self._etc(record, joined, directory),
            volumes=rooms.volumes,
            pid_of=self.pid_of,
            trust=rooms.trust if record.host.host_trust else None,
        )
        if granted is not None:
            plan = rooms.accelerators.dress(plan, record.host, granted)
        logged = record.host.log_driver != "none"
        size, files = log_limits(record)
        return Launch(
            id=record.id,
            spec=spec.compose(plan),
            rootfs=rootfs,
            log_path=log_path(directory) if logged else "",
            log_max_size=size,
            log_max_files=files,
            open_stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            netns_fd=netns,
            keep_fds=reserved.descriptors,
            reaper=record.host.init,
        )

    def _etc(self, record: Record, joined: Joined, directory: str) -> tuple[spec.Bind, ...]:
        host = record.host
        if host.network_mode.startswith("container:"):
            other = self._rooms.roster.find(host.network_mode[10:]).id
            folder = self._rooms.paths.container_dir(other)
            names = ("hosts", "hostname", "resolv.conf")
            return tuple(spec.Bind(f"{folder}/{name}", f"/etc/{name}") for name in names)
        named = self._rooms.networks.naming.wanted(record, joined.endpoints)
        hostname = os.uname().nodename if host.uts_mode == "host" else record.config.hostname
        files = (
            ("hosts", self._hosts(record, joined)),
            ("hostname", hostname + "\n"),
            ("resolv.conf", etcfiles.container_resolver(host, named)),
        )
        return etcfiles.write(directory, files)

    def _hosts(self, record: Record, joined: Joined) -> str:
        way_out = outward(joined.endpoints)
        gateway = way_out.gateway if way_out is not None else ""
        return etcfiles.hosts(
            record.config.hostname,
            record.config.domainname,
            joined.endpoints,
            record.host.extra_hosts,
            host_gateway=gateway or ("127.0.0.1" if record.host.network_mode == "host" else ""),
        )

    @staticmethod
    def _pending(entry: Entry, always: ExitStack) -> tuple[Attachment, ...]:
        """Connections that were attached before the start."""
        attachments, entry.pending = tuple(entry.pending), []
        for attachment in attachments:
            always.callback(os.close, attachment.fd)
        return attachments

    def _failed(self, entry: Entry, before: History, error: BaseException) -> None:
        """A start that did not come to be is remembered with its reason; else the container is as it was before."""
        entry.running = False
        self._let_go(entry)
        own = isinstance(error, LadingError) and error.exit_code in (126, 127)
        noted = replace(
            before,
            exit_code=error.exit_code if own and isinstance(error, LadingError) else FAILED_CODE,
            error=str(error),
            finished_ns=clock.now_ns(),
            wanted=False,
        )
        try:
            self._rooms.roster.note(entry, noted)
        except LadingError as e:
            log.warning("noting the failed start of %s: %s", entry.id[:12], e)

    # -- the end of a run ------------------------------------------------------------------------------------

    def _ended(self, entry: Entry, run: int, ended: Exit) -> None:
        try:
            self.ended(entry, run, ended)
        except Exception:
            log.exception("handling the end of %s", entry.id[:12])

    def ended(self, entry: Entry, run: int, ended: Exit) -> None:
        """Free what the run held, note how it went, answer the waiters, restart or remove."""
        rooms = self._rooms
        with entry.lock:
            if not entry.running or entry.history.started_ns != run:
                return  # handled already, or a start that failed
            if entry.probe is not None:
                entry.probe.end()
            if ended.lost:
                rooms.runtime.kill_all(entry.id)  # its monitor is gone: nobody else would end what is left
            self.release(entry)
            history = entry.history
            policy = entry.record.host.restart
            code = LOST_CODE if ended.lost else ended.code
            again = not entry.stopping and restart.again(policy, code, history.restarts, history.wanted)
            finished = ended.finished_ns or clock.now_ns()
            entry.running = False
            gone = entry.record.host.auto_remove and not entry.removing
            hint = "" if ended.lost else shm.hint(code, entry.shm)
            self._let_go(entry)
            noted = replace(
                history,
                finished_ns=finished,
                exit_code=code,
                oom_killed=ended.oom,
                error="the host or the container's monitor went down" if ended.lost else "",
                hint=hint,
                endpoints=(),
                host_names=(),
                ports=(),
            )
            if gone:
                entry.history = noted  # its row goes in a moment
            if gone or self._note_end(entry, noted):
                rooms.runtime.delete(entry.id)
            if ended.oom:
                self.say(entry, "oom")
            self.say(entry, "die", exitCode=str(code))
            waiters, entry.next_exit = entry.next_exit, []
            answer = Finished(code, noted.error, hint)
            if again:
                entry.backoff = restart.delay(entry.backoff, finished - run)
                entry.restarting = rooms.timers.after(entry.backoff, lambda: self._restart(entry))
            if gone:
                self._remove(entry)
        for future in waiters:
            future.set_result(answer)

    @staticmethod
    def _let_go(entry: Entry) -> None:
        shm.release(entry.shm)
        entry.shm = -1

    def _note_end(self, entry: Entry, noted: History) -> bool:
        """Write how it ended. A disk that takes no row keeps nobody waiting: memory knows the end, and the exit file
        stays for the next daemon."""
        try:
            self._rooms.roster.note(entry, noted)
        except LadingError as e:
            log.error("noting the end of %s: %s", entry.id[:12], e)
            return False
        return True

    def release(self, entry: Entry) -> None:
        """Give back names, ports, interfaces and addresses of a run."""
        history = entry.history
        self._rooms.networks.naming.close(entry.id)
        if history.ports:
            self._rooms.kernel_networks().unpublish(entry.id)
        self._rooms.networks.leave(entry.id, Joined(history.endpoints, history.host_names))

    def _restart(self, entry: Entry) -> None:
        with entry.lock:
            if entry.restarting is None or entry.running or entry.removing:
                return  # stopped, started or removed meanwhile
            entry.restarting = None
            count = entry.history.restarts + 1
            try:
                self.start(entry, restarts=count)
            except LadingError as e:
                log.warning("restarting %s: %s", entry.id[:12], e)
                entry.backoff = restart.delay(entry.backoff, 0)
                if restart.again(entry.record.host.restart, 1, count, True) and not entry.stopping:
                    history = replace(entry.history, restarts=count, wanted=True)
                    self._rooms.roster.note(entry, history)
                    entry.restarting = self._rooms.timers.after(entry.backoff, lambda: self._restart(entry))

    def say(self, entry: Entry, action: str, **more: str) -> None:
        """Publish an event of this container, with its labels, name and image."""
        record = entry.record
        attributes = {**record.config.labels, "image": record.image_ref, "name": record.name, **more}
        self._rooms.events.say("container", action, entry.id, attributes)


def _close_sockets(attached: Future[Sockets | None]) -> None:
    """The start has failed: wait for the interfaces, which `leave` can then take away."""
    if attached.exception() is None and (sockets := attached.result()) is not None:
        sockets.close()


def _translated(error: BaseException) -> BaseException:
    """A disk that takes no file (/etc/hosts of a container, say) is no defect of ours."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return Unavailable(
            "the container's files cannot be written",
            why=f"{error.filename}: {error.strerror}.",
            hint="Make room, with `lading system prune` for one.",
        )
    return error


def log_path(directory: str) -> str:
    """Where a container's log lies."""
    return f"{directory}/log"


def log_limits(record: Record) -> tuple[int, int]:
    """(bytes of one file, files) of --log-opt max-size and max-file; rotation is on by default."""
    options = record.host.log_options
    unknown = sorted(set(options) - _LOG_OPTIONS)
    if unknown:
        raise Invalid(f'unknown log opt "{unknown[0][:40]}"', hint="Known are max-size and max-file.")
    size_text, count_text = options.get("max-size", ""), options.get("max-file", "")
    size = _LOG_SIZE if not size_text else (0 if size_text == "-1" else binds.size(size_text))
    if count_text and not (count_text.isdigit() and 1 <= int(count_text) <= 1000):
        raise Invalid(f'invalid log option max-file "{count_text[:20]}"', why="The range is 1 to 1000.")
    return size, int(count_text) if count_text else _LOG_FILES


def void(_: object) -> None:
    """Drop a value where a callback must return nothing."""
