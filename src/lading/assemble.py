"""Where the rooms are joined into an engine, and where the daemon runs. The only file that knows them all.

The environment and the paths are read by whoever calls (the command line) and handed in as values.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, cast

from lading.base.errors import Conflict, Denied, Invalid, LadingError, NotFound, Unavailable
from lading.base.paths import Paths
from lading.engine import stubs
from lading.engine.engine import Engine
from lading.engine.events import Events
from lading.engine.executor import Executor
from lading.engine.joining import DEFAULT_BRIDGE
from lading.engine.naming import Naming
from lading.engine.networks import Networks
from lading.engine.publish import Publisher
from lading.engine.rooms import Rooms
from lading.engine.roster import Roster
from lading.engine.timers import Timers
from lading.engine.volumes import Volumes
from lading.image.config import ContainerConfig
from lading.runtime.runtime import Runtime
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.images import Images
from lading.store.leases import Leases
from lading.store.snapshots import Snapshotter

if TYPE_CHECKING:
    from lading import network
    from lading.build.solve import Builder
    from lading.rootless.enter import Entered

log = logging.getLogger(__name__)

USUAL_ROOT = "/var/lib/lading"
_WORKERS = 64  # threads are made when needed; a health check may hold one for its whole timeout
_LOCK_WAIT = 10.0
_LATER = 3.0


class Lock:
    """The data root's one owner (flock(2)); the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, root: str, wait: float = _LOCK_WAIT) -> None:
        os.makedirs(root, mode=0o711, exist_ok=True)
        self._fd = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(self._fd)
                    raise Conflict(
                        f"another lading owns the data root {root}",
                        hint="Use its daemon, stop it, or choose another root with LADING_ROOT.",
                    ) from None
                time.sleep(0.02)

    def close(self) -> None:
        os.close(self._fd)


class Assembled(Engine):
    """An engine that also owns the lock and the kernel's network side, which it lets go of when closed."""

    def __init__(self, rooms: Rooms, executor: Executor, undo: ExitStack, warnings: tuple[str, ...]) -> None:
        super().__init__(rooms, change=config_change, executor=executor, warnings=warnings)
        self._undo = undo

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._undo.close()

    def __enter__(self) -> Assembled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build_engine(paths: Paths, environ: Mapping[str, str], *, lock_wait: float = _LOCK_WAIT) -> Assembled:
    """Join the rooms over one data root, and find again what lives there. Close it when done.

    An ordinary user's process enters the user's namespaces for good, which it can with one thread only.
    """
    with ExitStack() as undo:
        try:
            entered = _entered(paths, environ, undo)
            lock = Lock(paths.root, lock_wait)
            undo.callback(lock.close)
            for path, mode in (
                (paths.run, 0o711),
                (paths.containers, 0o711),
                (paths.volumes, 0o711),
                (paths.tmp, 0o700),
            ):
                os.makedirs(path, mode=mode, exist_ok=True)
            rooms, warnings = _rooms(paths, environ, undo, entered)
        except PermissionError as e:
            raise Denied(
                f"lading cannot use {e.filename or paths.root}",
                why=e.strerror or "",
                hint="Run it as root, or point LADING_ROOT and LADING_RUN at directories of your own.",
            ) from e
        except OSError as e:
            raise Unavailable(f"lading cannot use {e.filename or paths.root}", why=e.strerror or "") from e
        engine = Assembled(
            rooms, Executor(rooms, overlay=rooms.snapshotter.name == "overlay"), undo, warnings
        )
        _add_builder(engine, rooms)
        engine.reconcile()
        engine._undo = undo.pop_all()
        return engine


def _entered(paths: Paths, environ: Mapping[str, str], undo: ExitStack) -> Entered | None:
    if os.geteuid() == 0:
        return None
    from lading.rootless.enter import enter

    entered = enter(paths, environ)
    undo.callback(entered.close)
    return entered


def _rooms(
    paths: Paths, environ: Mapping[str, str], undo: ExitStack, entered: Entered | None
) -> tuple[Rooms, tuple[str, ...]]:
    db = Database(paths.database)
    undo.callback(db.close)
    snapshotter, warnings = _snapshotter(paths, db)
    blobs = Blobs(paths.blobs)
    warnings += entered.warnings if entered is not None else ()
    runtime = Runtime(paths.run, entered.layout if entered is not None else None)
    kernel = _Once(lambda: _open_networks(paths.run, entered))
    undo.callback(kernel.close)
    events = Events()
    roster = Roster(db)

    def pid_of(container_id: str) -> int:
        live = runtime.live(container_id)
        return live.pid if live is not None else 0

    networks = Networks(
        db,
        roster,
        events,
        kernel.get,
        pid_of,
        Naming(roster, pid_of, paths),
        paths.network_trace,
        _bridge_name(paths),
    )
    # Closing goes backwards: no more ends are heard of, those heard of are handled, then the bridges go.
    undo.callback(networks.close)
    pool = ThreadPoolExecutor(_WORKERS, "engine")
    undo.callback(pool.shutdown)
    undo.callback(runtime.close)
    rooms = Rooms(
        paths=paths,
        environ=environ,
        db=db,
        blobs=blobs,
        leases=Leases(db),
        snapshotter=snapshotter,
        images=Images(db, blobs, snapshotter),
        runtime=runtime,
        kernel_networks=kernel.get,
        roster=roster,
        events=events,
        volumes=Volumes(db, paths.volumes, roster, events),
        networks=networks,
        publisher=Publisher(),
        pool=pool,
        timers=Timers(pool),
        stub_layer=stubs.ensure(f"{paths.snapshots}/stubs"),
        cpus=len(os.sched_getaffinity(0)),
        ordinary=entered is not None,
        no_way_out=entered.no_way_out if entered is not None else "",
    )
    return rooms, warnings


def _bridge_name(paths: Paths) -> str:
    """The default bridge's name: lading0 for the usual data root, one of its own for every other."""
    if paths.root == USUAL_ROOT:
        return DEFAULT_BRIDGE
    return f"lad{hashlib.sha256(paths.root.encode()).hexdigest()[:8]}"


def _snapshotter(paths: Paths, db: Database) -> tuple[Snapshotter, tuple[str, ...]]:
    """Overlay where the kernel and the file system have it, plain copies elsewhere, which `info` then says."""
    from lading.store.snapshots import overlay

    reason = overlay.unsupported(paths.snapshots)
    if not reason:
        return overlay.Overlay(paths.snapshots, db), ()
    from lading.store.snapshots.copy import Copy

    return Copy(paths.snapshots, db), (f"WARNING: images are copied for every container: {reason}",)


class _Once:
    """The network room, opened at its first use: containers without a network never pay for it."""

    def __init__(self, make: Callable[[], network.Networks]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: network.Networks | None = None

    def get(self) -> network.Networks:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None


def _open_networks(run_dir: str, entered: Entered | None) -> network.Networks:
    if entered is not None:
        from lading.rootless.network import Inside

        return cast("network.Networks", Inside(run_dir, entered))
    from lading.network import Networks as Kernel

    return Kernel(run_dir)


def _add_builder(engine: Assembled, rooms: Rooms) -> None:
    """The build room, given the engine's executor, loaded when it is needed."""

    def fetch(name: str, platform: str, access: object) -> object:
        from lading.engine.access import Access

        return engine.registry.pull(name, platform, access=access if isinstance(access, Access) else None)

    def make_builder() -> Builder:
        from lading.build.solve import Builder

        return Builder(
            rooms.images,
            rooms.blobs,
            rooms.snapshotter,
            rooms.leases,
            rooms.db,
            engine.executor,
            caches=f"{rooms.paths.root}/caches",
            fetch=fetch,
        )

    def make_base(name: str, progress: Callable[[str], None]) -> str:
        from lading.build.bootstrap import bootstrap

        return bootstrap(
            name,
            images=rooms.images,
            blobs=rooms.blobs,
            leases=rooms.leases,
            tmp_dir=engine.scratch,
            environ=rooms.environ,
            progress=progress,
        )

    engine.make_builder, engine.make_base = make_builder, make_base


def config_change(config: ContainerConfig, changes: tuple[str, ...]) -> ContainerConfig:
    """`commit --change` and `import --change`: Dockerfile instructions on a config, by the build room."""
    if not changes:
        return config
    from lading.build.change import changed

    return changed(config, changes)


def run_daemon(
    paths: Paths,
    environ: Mapping[str, str],
    *,
    hosts: Sequence[str] = (),
    group: str = "",
    idle_exit: float | None = None,
    ready: Callable[[], None] | None = None,
) -> int:
    """Serve the API on the unix socket and on `hosts` until SIGTERM, SIGINT or `idle_exit` seconds without need.

    `ready` is called once requests are answered. A second daemon on the same root gets Conflict. The exit code.
    """
    from lading.api.server import Server, listen_unix
    from lading.linux import memory

    memory.few_arenas(2)
    gid = _group(group)
    with build_engine(paths, environ) as engine, ExitStack() as opened:
        sockets = [listen_unix(paths.socket, group=gid)]
        opened.callback(_unlink, paths.socket)
        for host in hosts:
            sockets.append(_listen(host, gid, opened))
        server = Server(engine, sockets, idle_exit)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.shutdown())
        threading.Thread(target=_warm, args=(engine,), name="warm", daemon=True).start()
        if ready is not None:
            ready()
        server.serve()
    return 0


def _warm(engine: Assembled) -> None:
    """What the first container would wait for: the zygote, and the network room's modules."""
    import lading.network.networks  # noqa: F401

    try:
        engine.warm()
        time.sleep(_LATER)  # the first commands come before what only builds need
        _ = engine.builder
    except LadingError as e:
        log.warning("%s", e)


def _group(name: str) -> int:
    if not name:
        return -1
    import grp

    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise NotFound(
            f"no such group: {name[:64]}", hint="Make it with groupadd, or leave --group out."
        ) from None


def _listen(host: str, gid: int, opened: ExitStack) -> socket.socket:
    """One more listener: unix:///path, or tcp://address:port on a loopback address.

    Whoever reaches the API is root on this host, so a port without TLS stays on the loopback.
    """
    import ipaddress

    from lading.api.server import listen_unix

    kind, separator, rest = host.partition("://")
    if kind == "unix" and rest.startswith("/"):
        made = listen_unix(rest, group=gid)
        opened.callback(_unlink, rest)
        return made
    name, colon, port = rest.rpartition(":")
    if kind != "tcp" or not separator or not colon or not port.isdigit() or int(port) > 65535:
        raise Invalid(f'cannot listen on "{host[:120]}"', hint="Write unix:///path or tcp://127.0.0.1:PORT.")
    address = name.strip("[]") or "127.0.0.1"
    address = "127.0.0.1" if address == "localhost" else address
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise Invalid(f'cannot listen on "{host[:120]}"', why="Its address is no IP address.") from None
    if not loopback:
        raise Denied(
            f"lading does not listen on {address}",
            why="The API gives root on this host to whoever reaches it, and this port would have no TLS.",
            hint="Listen on 127.0.0.1, or forward the unix socket with ssh -L.",
        )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, int(port)), family=family)
    except OSError as e:
        raise Conflict(f"cannot listen on {host[:120]}", why=e.strerror or str(e)) from e


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
