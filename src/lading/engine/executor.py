"""RUN steps of a build, run without a row: snapshot, spec, process, gone. Implements build.ports.Executor.

Owns a small pool of network sandboxes, each used by one step at a time and kept for a few seconds, so that the next
step of the same build does not pay for it. Leaves nothing behind: no process, mount, group, interface or file.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lading.base.errors import Cancelled, Invalid, LadingError
from lading.base.ids import new_id
from lading.engine import compose, devices, etcfiles, resources, spec, stepsecrets, stubs
from lading.engine.joining import Joined
from lading.engine.model import Endpoint, HostConfig, Mount, Resources, Ulimit
from lading.runtime.model import Attachment, Exit, Launch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lading.engine.rooms import Rooms
    from lading.engine.timers import Timer
    from lading.store.snapshots import Rootfs

_KEEP_S = 5.0
_LOOK_MS = 50
_CHUNK = 65536


class Limits(Protocol):
    """The builder's limits of a step; 0 or "" is unset."""

    @property
    def memory(self) -> int: ...
    @property
    def memory_swap(self) -> int: ...
    @property
    def cpu_shares(self) -> int: ...
    @property
    def cpu_period(self) -> int: ...
    @property
    def cpu_quota(self) -> int: ...
    @property
    def cpuset_cpus(self) -> str: ...
    @property
    def cpuset_mems(self) -> str: ...
    @property
    def shm_size(self) -> int: ...
    @property
    def pids_limit(self) -> int: ...
    @property
    def ulimits(self) -> Sequence[tuple[str, int, int]]: ...


class StepMount(Protocol):
    """A mount of a step: bind, tmpfs or secret."""

    @property
    def type(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def owner(self) -> tuple[int, int]: ...
    @property
    def mode(self) -> int: ...


class Step(Protocol):
    """The builder's step, as far as it matters here. Rooms of one floor do not import each other; assemble.py
    shows the type checker that the builder's own value fits.
    """

    @property
    def id(self) -> str: ...
    @property
    def rootfs(self) -> Rootfs: ...
    @property
    def argv(self) -> tuple[str, ...]: ...
    @property
    def env(self) -> tuple[str, ...]: ...
    @property
    def working_dir(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def network_mode(self) -> str: ...
    @property
    def host_trust(self) -> bool: ...
    @property
    def extra_hosts(self) -> tuple[str, ...]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def output(self) -> Callable[[str, bytes], None]: ...
    @property
    def cancelled(self) -> Callable[[], bool]: ...
    @property
    def mounts(self) -> Sequence[StepMount]: ...
    @property
    def hostname(self) -> str: ...


@dataclass
class _Sandbox:
    """A network namespace on one network, with the addresses it got."""

    id: str
    fd: int
    joined: Joined
    network: str
    named: bool  # it asks the embedded resolver


class Executor:
    """Runs one step at a time per call; calls may overlap."""

    def __init__(self, rooms: Rooms, *, overlay: bool) -> None:
        self._rooms = rooms
        self._overlay = overlay
        self._lock = threading.Lock()
        self._idle: list[_Sandbox] = []
        self._timer: Timer | None = None

    @property
    def stubs(self) -> tuple[str, ...]:
        """Where empty mount points may stay behind in a bind root; an overlay has them in the stub layer."""
        return () if self._overlay else stubs.PATHS

    def host_trust(self) -> str:
        """In a few words, what a trusting step sees; "" when the host has nothing of its own."""
        trust = self._rooms.trust
        return trust.summary() if trust.unusual else ""

    def _network_mode(self, step: Step) -> str:
        """The host's network, where one of its own would lead nowhere."""
        lost = self._rooms.no_way_out and step.network_mode == "default"
        return "host" if lost else step.network_mode

    def run(self, step: Step) -> int:
        """Run the step to its end; its exit code."""
        if step.cancelled():
            raise Cancelled("the build was cancelled")
        with ExitStack() as undo:
            sandbox = undo.enter_context(self._network(self._network_mode(step)))
            directory = f"{self._rooms.paths.run}/build/{step.id}"
            os.makedirs(directory, mode=0o711)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            with ExitStack() as secrets:
                mounts = self._mounts(step, secrets)
                launch = self._launch(step, sandbox, directory, mounts)
                return self._supervise(launch, step, undo, secrets)

    def _mounts(self, step: Step, secrets: ExitStack) -> tuple[Mount | spec.Bind, ...]:
        if not any(item.type == "secret" for item in step.mounts):
            return tuple(_mount(item) for item in step.mounts)
        files = secrets.enter_context(stepsecrets.opened(self._rooms.paths.run))
        return tuple(
            spec.Bind(files.add(item.content, item.owner, item.mode), item.target, True)
            if item.type == "secret"
            else _mount(item)
            for item in step.mounts
        )

    def _supervise(self, launch: Launch, step: Step, undo: ExitStack, secrets: ExitStack) -> int:
        runtime = self._rooms.runtime
        ours, theirs = socket.socketpair()
        undo.enter_context(ours)
        with theirs:
            runtime.create(replace(launch, attachments=(Attachment(theirs.fileno()),)))
        secrets.close()  # the step's mounts hold them from here on, and nothing else does
        undo.callback(runtime.delete, step.id)
        ended: Future[Exit] = Future()
        try:
            runtime.start(step.id)
        except LadingError as e:
            if e.exit_code in (126, 127):
                step.output("stderr", f"{e}\n".encode())
                return e.exit_code
            raise
        undo.callback(self._end, step.id, ended)
        runtime.watch(step.id, ended.set_result)
        self._pump(ours, step)
        return ended.result().code

    def _pump(self, stream: socket.socket, step: Step) -> None:
        """Hand on what the step writes until it ends; Cancelled as soon as the builder says so."""
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        frames = bytearray()
        while True:
            ready = poll.poll(_LOOK_MS)
            if step.cancelled():
                raise Cancelled("the build was cancelled")
            if not ready:
                continue
            data = stream.recv(_CHUNK)
            if not data:
                return
            frames += data
            for name, text in _unframed(frames):
                step.output(name, text)

    def _end(self, step_id: str, ended: Future[Exit]) -> None:
        """Kill what is still there, and wait for its end before the group and the run directory go."""
        if not ended.done():
            self._rooms.runtime.kill_all(step_id)
            ended.result(30)

    def _launch(
        self, step: Step, sandbox: _Sandbox | None, directory: str, mounts: tuple[Mount | spec.Bind, ...]
    ) -> Launch:
        rooms = self._rooms
        trust = rooms.trust if step.host_trust else None
        hostname = step.hostname or "build"
        endpoints = sandbox.joined.endpoints if sandbox is not None else ()
        on_host = self._network_mode(step) == "host"
        gateway = endpoints[0].gateway if endpoints else ("127.0.0.1" if on_host else "")
        hosts = etcfiles.hosts(hostname, "", endpoints, step.extra_hosts, host_gateway=gateway)
        named = sandbox is not None and sandbox.named
        resolver = etcfiles.resolv_conf((), (), (), host_network=on_host, names=named)
        etc = etcfiles.write(
            directory, (("hosts", hosts), ("hostname", hostname + "\n"), ("resolv.conf", resolver))
        )
        limits, granted = step.limits, compose.granted(HostConfig())
        namespaces = {"mount": "", "pid": "", "ipc": "", "uts": "", "cgroup": ""}
        if not on_host:
            namespaces["network"] = ""
        plan = spec.Plan(
            id=step.id,
            args=step.argv,
            env=step.env,
            user=compose.user(step.rootfs, step.user),
            cwd=step.working_dir or "/",
            hostname=hostname,
            caps=granted,
            seccomp=compose.seccomp("", granted),
            ulimits=tuple(Ulimit(*item) for item in limits.ulimits),
            nofile=compose.nofile(),
            shm_size=limits.shm_size,
            mounts=mounts,
            etc=(*etc, *(spec.Bind(host, guest, True) for host, guest in (trust.files if trust else ()))),
            trust_env=trust.environment if trust is not None else (),
            namespaces=namespaces,
            resources=resources.compose(_resources(limits), list(devices.DEFAULT_RULES)),
        )
        return Launch(
            id=step.id,
            spec=spec.compose(plan),
            rootfs=stubs.below(step.rootfs, rooms.stub_layer),
            netns_fd=sandbox.fd if sandbox is not None else -1,
        )

    # -- networks --------------------------------------------------------------------------------------------

    @contextmanager
    def _network(self, mode: str) -> Iterator[_Sandbox | None]:
        """A sandbox for one step; None for host, an empty one for none."""
        if mode == "host":
            yield None
            return
        if mode.startswith("container:"):
            raise Invalid(f'a build step cannot join "{mode}"', hint="Use default, none or host.")
        sandbox = self._take("bridge" if mode in ("", "default") else mode)
        try:
            yield sandbox
        except BaseException:
            self._drop(sandbox)
            raise
        with self._lock:
            self._idle.append(sandbox)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._rooms.timers.after(_KEEP_S, self.close)

    def _take(self, network: str) -> _Sandbox:
        with self._lock:
            for sandbox in self._idle:
                if sandbox.network == network:
                    self._idle.remove(sandbox)
                    return sandbox
        identifier = new_id()
        fd = self._rooms.kernel_networks().sandbox()
        try:
            asked = {} if network == "none" else {network: Endpoint()}
            networks = self._rooms.networks
            joined = networks.join(identifier, fd, asked)
            try:
                named = networks.naming.lend(identifier, fd, joined.endpoints)
            except BaseException:
                networks.leave(identifier, joined)
                raise
            return _Sandbox(identifier, fd, joined, network, named)
        except BaseException:
            os.close(fd)
            raise

    def _drop(self, sandbox: _Sandbox) -> None:
        os.close(sandbox.fd)
        self._rooms.networks.naming.close(sandbox.id)
        self._rooms.networks.leave(sandbox.id, sandbox.joined)

    def close(self) -> None:
        """Let go of the sandboxes nobody uses now."""
        with self._lock:
            idle, self._idle = self._idle, []
        for sandbox in idle:
            self._drop(sandbox)


def _unframed(frames: bytearray) -> Iterator[tuple[str, bytes]]:
    """Take whole frames of Docker's multiplexed stream (8 bytes: stream, zeros, length) off the front."""
    while len(frames) >= 8:
        end = 8 + int.from_bytes(frames[4:8], "big")
        if len(frames) < end:
            return
        yield ("stderr" if frames[0] == 2 else "stdout"), bytes(frames[8:end])
        del frames[:end]


def _mount(item: StepMount) -> Mount | spec.Bind:
    if item.type == "bind":
        return spec.Bind(item.source, item.target, item.read_only)
    return Mount(type="tmpfs", target=item.target, tmpfs_size=item.size, tmpfs_options="exec")


def _resources(limits: Limits) -> Resources:
    return Resources(
        memory=limits.memory,
        memory_swap=limits.memory_swap,
        cpu_shares=limits.cpu_shares,
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        pids_limit=limits.pids_limit or None,
    )
