"""A small engine in memory for the API's tests: containers that echo, copy and sleep, with real descriptors and threads.

It keeps the promises of lading.api.ports: attach before start waits for the start, frames are written by the
"monitor" (a thread here), a stopped container answers its waiters.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from lading.base import clock, ids
from lading.base.errors import Conflict, Invalid, NotFound, Unauthenticated, Unavailable
from lading.build.cache import Usage
from lading.build.progress import Finished, Log, Notice, Vertex
from lading.build.request import BuildRequest
from lading.engine.model import (
    Change,
    ContainerView,
    CreateRequest,
    Endpoint,
    EndpointState,
    Event,
    ExecRequest,
    LogRecord,
    Resources,
    Restart,
    State,
)
from lading.engine.segments import Pools
from lading.image.config import ContainerConfig, History, ImageConfig

BUSYBOX = "sha256:" + "b" * 64


@dataclass(frozen=True)
class End:
    code: int
    error: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Stored:
    id: str = BUSYBOX
    manifest_digest: str = "sha256:" + "c" * 64
    config: ImageConfig = field(
        default_factory=lambda: ImageConfig(
            created="2026-01-02T03:04:05Z",
            config=ContainerConfig(
                env=("PATH=/bin",), cmd=("sh",), exposed_ports=("80/tcp",), labels={"a": "b"}
            ),
            diff_ids=("sha256:" + "d" * 64,),
            history=(History(created="2026-01-02T03:04:05Z", created_by="made", comment="by hand"),),
        )
    )
    references: tuple[str, ...] = ("docker.io/library/busybox:latest",)
    size: int = 1234
    created_ns: int = 1767323045_000000000


@dataclass
class Box:
    """One container."""

    view: ContainerView
    lock: Any = field(default_factory=threading.Lock)
    pending: list[tuple[socket.socket, bool, bool]] = field(default_factory=list)
    log: list[LogRecord] = field(default_factory=list)
    exits: list[Future[End]] = field(default_factory=list)
    gone: list[Future[End]] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)
    code: int = 137


class Containers:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.boxes: dict[str, Box] = {}
        self.calls: list[tuple[Any, ...]] = []

    def find(self, ref: str) -> Box:
        for key, box in self.boxes.items():
            if ref in (key, box.view.name) or (len(ref) >= 4 and key.startswith(ref)):
                return box
        raise NotFound(f"No such container: {ref}")

    def create(self, request: CreateRequest) -> tuple[str, list[str]]:
        if request.config.image not in ("busybox", "busybox:latest"):
            raise NotFound(f"No such image: {request.config.image}")
        if request.name and any(box.view.name == request.name for box in self.boxes.values()):
            raise Conflict(f'the name "/{request.name}" is in use')
        identifier = ids.new_id()
        self.boxes[identifier] = Box(
            ContainerView(
                id=identifier,
                name=request.name or ids.random_name(),
                created_ns=clock.now_ns(),
                image_id=BUSYBOX,
                image_ref=request.config.image,
                command=(*(request.config.entrypoint or ()), *(request.config.cmd or ("sh",))),
                config=request.config,
                host=request.host,
                state=State("created"),
            )
        )
        return identifier, []

    def start(self, ref: str) -> bool:
        box = self.find(ref)
        if box.view.state.status == "running":
            return False
        if box.view.command[0] == "nosuch":
            error = Invalid('exec: "nosuch": executable file not found in $PATH')
            error.exit_code = 127
            raise error
        network = EndpointState(
            "bridge", "n" * 64, "e" * 64, "172.18.0.2", 16, "172.18.0.1", mac="02:00:00:00:00:01"
        )
        box.view = replace(
            box.view,
            state=State("running", pid=4242, started_ns=clock.now_ns()),
            networks=(network,),
            ports=tuple(replace(p, host_port=p.host_port or "32768") for p in box.view.host.port_bindings),
        )
        box.told.clear()
        attached, box.pending = box.pending, []
        threading.Thread(target=self._run, args=(box, attached), daemon=True).start()
        return True

    def _run(self, box: Box, attached: list[tuple[socket.socket, bool, bool]]) -> None:
        program, *words = box.view.command
        code = 0
        if program == "echo":
            self.say(box, attached, "stdout", " ".join(words).encode() + b"\n")
        elif program == "complain":
            self.say(box, attached, "stderr", b"bad\n")
            code = 3
        elif program == "cat":
            reader = next(sock for sock, stdin, _ in attached if stdin)
            while data := reader.recv(4096):
                self.say(box, attached, "stdout", data)
        else:
            box.told.wait(20)
            code = box.code
        for sock, _, _ in attached:
            sock.close()
        with box.lock:
            box.view = replace(
                box.view,
                state=State(
                    "exited", exit_code=code, started_ns=box.view.state.started_ns, finished_ns=clock.now_ns()
                ),
            )
            waiting, box.exits = box.exits, []
        for future in waiting:
            future.set_result(End(code))
        if box.view.host.auto_remove:
            self.remove(box.view.id, True, True)

    @staticmethod
    def say(box: Box, attached: Iterable[tuple[socket.socket, bool, bool]], stream: str, data: bytes) -> None:
        box.log.append(LogRecord(clock.now_ns(), stream, data))
        for sock, _, framed in attached:
            head = struct.pack(">BxxxL", 1 if stream == "stdout" else 2, len(data)) if framed else b""
            try:
                sock.sendall(head + data)
            except OSError:
                continue

    def stop(self, ref: str, timeout: int | None, signal: str = "") -> bool:
        self.calls.append(("stop", ref, timeout, signal))
        box = self.find(ref)
        if box.view.state.status != "running":
            return False
        done = self.wait(ref, "next-exit")
        box.told.set()
        done.result(5)
        return True

    def restart(self, ref: str, timeout: int | None, signal: str = "") -> None:
        self.stop(ref, timeout, signal)
        self.start(ref)

    def kill(self, ref: str, signal: str) -> None:
        self.calls.append(("kill", ref, signal))
        box = self.find(ref)
        if box.view.state.status != "running":
            raise Conflict(f"container {ref} is not running")
        box.told.set()

    def pause(self, ref: str) -> None:
        box = self.find(ref)
        box.view = replace(box.view, state=replace(box.view.state, status="paused"))

    def unpause(self, ref: str) -> None:
        box = self.find(ref)
        box.view = replace(box.view, state=replace(box.view.state, status="running"))

    def remove(self, ref: str, force: bool, volumes: bool) -> None:
        box = self.find(ref)
        if box.view.state.status == "running":
            if not force:
                raise Conflict(f'cannot remove container "/{box.view.name}": container is running')
            self.stop(ref, 0)
        del self.boxes[box.view.id]
        for sock, _, _ in box.pending:
            sock.close()
        for future in (*box.gone, *box.exits):
            future.set_result(End(box.view.state.exit_code))

    def rename(self, ref: str, new: str) -> None:
        box = self.find(ref)
        box.view = replace(box.view, name=new)

    def wait(self, ref: str, condition: str) -> Future[End]:
        box = self.find(ref)
        future: Future[End] = Future()
        with box.lock:
            if condition == "removed":
                box.gone.append(future)
            elif condition == "next-exit" or box.view.state.status == "running":
                box.exits.append(future)
            else:
                future.set_result(End(box.view.state.exit_code))
        return future

    def inspect(self, ref: str, size: bool = False) -> ContainerView:
        view = self.find(ref).view
        return replace(view, size_rw=10, size_root=1000) if size else view

    def list(
        self, all: bool, limit: int, filters: Mapping[str, tuple[str, ...]], size: bool
    ) -> list[ContainerView]:
        self.calls.append(("list", all, limit, filters, size))
        return [box.view for box in self.boxes.values() if all or box.view.state.status == "running"]

    def attach(
        self,
        ref: str,
        fd: int,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        logs: bool,
        framed: bool,
        keys: bytes,
    ) -> None:
        box = self.find(ref)
        self.calls.append(("attach", keys))
        if logs:
            for record in box.log:
                head = struct.pack(">BxxxL", 1, len(record.text)) if framed else b""
                os.write(fd, head + record.text)
        box.pending.append((socket.socket(fileno=os.dup(fd)), stdin, framed))

    def resize(self, ref: str, height: int, width: int) -> None:
        self.calls.append(("resize", ref, height, width))

    def logs(
        self,
        ref: str,
        stdout: bool,
        stderr: bool,
        follow: bool,
        since_ns: int,
        until_ns: int,
        tail: int | None,
        stop: threading.Event,
    ) -> Iterator[LogRecord]:
        self.calls.append(("logs", follow, since_ns, until_ns, tail))
        box = self.find(ref)
        wanted = {name for name, on in (("stdout", stdout), ("stderr", stderr)) if on}
        seen = 0
        while True:
            for record in box.log[seen:]:
                seen += 1
                if record.stream in wanted:
                    yield record
            if not follow or box.view.state.status != "running":
                return
            if stop.wait(0.01):
                self.calls.append(("logs stopped",))
                return

    def top(self, ref: str, ps_args: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        return ("PID", "CMD"), [("1", ps_args)]

    def stats(self, ref: str) -> dict[str, Any]:
        view = self.find(ref).view
        now = clock.rfc3339(clock.now_ns())
        return {
            "read": now,
            "name": f"/{view.name}",
            "id": view.id,
            "cpu_stats": {"at": now},
            "precpu_stats": {},
        }

    def changes(self, ref: str) -> list[Change]:
        self.find(ref)
        return [Change(0, "/etc"), Change(1, "/etc/new")]

    def archive_head(self, ref: str, path: str) -> dict[str, Any]:
        self.find(ref)
        if path == "/missing":
            raise NotFound(f"Could not find the file {path}")
        return {"name": path.strip("/"), "size": 3, "mode": 420, "mtime": clock.ZERO, "linkTarget": ""}

    def archive_get(self, ref: str, path: str, out: Callable[[bytes], object]) -> None:
        out(tar_of({path.strip("/"): b"abc"}))

    def archive_put(
        self, ref: str, path: str, stream: BinaryIO, *, no_overwrite: bool, copy_owner: bool
    ) -> None:
        self.calls.append(("put", path, names_of(stream), no_overwrite, copy_owner))

    def export(self, ref: str, out: Callable[[bytes], object]) -> None:
        self.find(ref)
        out(b"x" * 100_000)
        if ref == "breaks":
            raise Unavailable("the disk is full")
        out(b"y")

    def commit(
        self, ref: str, repo: str, tag: str, comment: str, author: str, changes: Iterable[str], pause: bool
    ) -> str:
        self.calls.append(("commit", ref, repo, tag, comment, author, tuple(changes), pause))
        return BUSYBOX

    def update(self, ref: str, limits: Resources, policy: Restart | None) -> list[str]:
        self.calls.append(("update", limits, policy))
        return []

    def prune(self, filters: Mapping[str, tuple[str, ...]]) -> tuple[list[str], int]:
        return [], 0


@dataclass
class Exec:
    id: str
    container_id: str
    request: ExecRequest
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


class Execs:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.known: dict[str, Exec] = {}

    def create(self, ref: str, request: ExecRequest) -> str:
        box = self.engine.containers.find(ref)
        if box.view.state.status != "running":
            raise Conflict(f"container {ref} is not running")
        made = Exec(ids.new_id(), box.view.id, request)
        self.known[made.id] = made
        return made.id

    def inspect(self, exec_id: str) -> Exec:
        try:
            return self.known[exec_id]
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}") from None

    def start(self, exec_id: str, fd: int | None, detach: bool, framed: bool, keys: bytes) -> None:
        found = self.inspect(exec_id)
        found.started = True
        if found.request.cmd[0] == "nosuch":
            found.exit_code = 127
            raise Invalid('exec: "nosuch": executable file not found in $PATH')
        found.exit_code = 0
        if fd is None:
            return
        sock = socket.socket(fileno=os.dup(fd))
        threading.Thread(target=self._run, args=(found, sock, framed), daemon=True).start()

    @staticmethod
    def _run(found: Exec, sock: socket.socket, framed: bool) -> None:
        with sock:
            data = " ".join(found.request.cmd[1:]).encode()
            if found.request.cmd[0] == "cat":
                data = b""
                while piece := sock.recv(4096):
                    data += piece
                    if found.request.tty:
                        sock.sendall(piece)
                found.exit_code = 5
                if found.request.tty:
                    return
            sock.sendall(struct.pack(">BxxxL", 1, len(data)) + data if framed else data)

    def resize(self, exec_id: str, height: int, width: int) -> None:
        self.inspect(exec_id)


class Images:
    def __init__(self) -> None:
        self.all = [Stored()]
        self.calls: list[tuple[Any, ...]] = []

    def list(self, filters: Mapping[str, tuple[str, ...]]) -> list[Stored]:
        self.calls.append(("list", filters))
        return self.all

    def inspect(self, ref: str) -> Stored:
        if ref not in ("busybox", "busybox:latest", "library/busybox", BUSYBOX):
            raise NotFound(f"No such image: {ref}")
        return self.all[0]

    def history(self, ref: str) -> list[dict[str, Any]]:
        image = self.inspect(ref)
        return [
            {
                "Id": image.id,
                "Created": 1,
                "CreatedBy": "made",
                "Tags": ["busybox:latest"],
                "Size": 1,
                "Comment": "",
            }
        ]

    def tag(self, ref: str, new: str) -> None:
        self.calls.append(("tag", ref, new))

    def remove(self, ref: str, force: bool, prune: bool) -> list[dict[str, str]]:
        self.inspect(ref)
        self.calls.append(("remove", ref, force, prune))
        return [{"Untagged": "busybox:latest"}, {"Deleted": BUSYBOX}]

    def prune(self, filters: Mapping[str, tuple[str, ...]]) -> tuple[list[dict[str, str]], int]:
        return [], 0

    def save(self, refs: list[str], out: Callable[[bytes], object]) -> None:
        for ref in refs:
            self.inspect(ref)
        out(tar_of({"manifest.json": ",".join(refs).encode()}))

    def load(self, stream: BinaryIO, progress: Callable[[dict[str, Any]], None]) -> list[str]:
        progress({"status": "Loading"})
        names_of(stream)
        return ["busybox:latest"]

    def import_(self, stream: BinaryIO, ref: str, changes: Iterable[str], message: str) -> str:
        self.calls.append(("import", ref, tuple(changes), message, len(stream.read())))
        return BUSYBOX


class Registry:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def pull(self, ref: str, platform: str, progress: Callable[[dict[str, Any]], None], access: Any) -> None:
        self.calls.append(("pull", ref, platform, dict(access.auths)))
        if ref.startswith("half"):
            progress({"status": "Pulling"})
        raise Unavailable(f"{ref} cannot be pulled", hint="Make it with lading bootstrap.")

    def push(self, ref: str, tag: str, progress: Callable[[dict[str, Any]], None], access: Any) -> None:
        self.calls.append(("push", ref, tag, dict(access.auths)))
        progress({"status": "Pushed"})

    def login(self, said: Mapping[str, str], access: Any) -> None:
        self.calls.append(("login", dict(said)))
        if said.get("password") != "right":
            raise Unauthenticated("wrong")

    def distribution(self, ref: str, access: Any) -> dict[str, Any]:
        self.calls.append(("distribution", ref, dict(access.auths)))
        return {"Descriptor": {"digest": BUSYBOX}}


@dataclass(frozen=True)
class Volume:
    name: str
    created_ns: int = 1767323045_000000000
    mountpoint: str = "/v/_data"
    driver: str = "local"
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    scope: str = "local"


class Volumes:
    def __init__(self) -> None:
        self.all: dict[str, Volume] = {}

    def create(self, name: str, driver: str, options: Mapping[str, str], labels: Mapping[str, str]) -> Volume:
        return self.all.setdefault(name, Volume(name or ids.new_id(), labels=labels, options=options))

    def list(self, filters: Mapping[str, tuple[str, ...]]) -> list[Volume]:
        return list(self.all.values())

    def inspect(self, name: str) -> Volume:
        try:
            return self.all[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def remove(self, name: str, force: bool) -> None:
        self.inspect(name)
        del self.all[name]

    def prune(self, filters: Mapping[str, tuple[str, ...]]) -> tuple[list[str], int]:
        return list(self.all), 7


@dataclass(frozen=True)
class Network:
    id: str
    name: str
    created_ns: int = 1767323045_000000000
    driver: str = "bridge"
    subnet: str = "172.18.0.0/16"
    gateway: str = "172.18.0.1"
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    ip_range6: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    scope: str = "local"


class Networks:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.all = [Network("n" * 64, "bridge")]
        self.calls: list[tuple[Any, ...]] = []

    def create(self, name: str, driver: str = "bridge", pools: Pools = Pools(), **given: Any) -> Network:  # noqa: B008
        self.calls.append(("create", name, driver, pools, given))
        made = Network(ids.new_id(), name)
        self.all.append(made)
        return made

    def list(self, filters: Mapping[str, tuple[str, ...]]) -> list[Network]:
        return self.all

    def inspect(self, ref: str) -> Network:
        for network in self.all:
            if ref in (network.id, network.name):
                return network
        raise NotFound(f"network {ref} not found")

    def containers(self, ref: str) -> dict[str, EndpointState]:
        return {
            view.id: view.networks[0]
            for view in self.engine.containers.list(True, 0, {}, False)
            if view.networks and view.networks[0].network_id == ref
        }

    def remove(self, ref: str) -> None:
        self.all.remove(self.inspect(ref))

    def connect(self, ref: str, container: str, endpoint: Endpoint) -> None:
        self.calls.append(("connect", ref, container, endpoint))

    def disconnect(self, ref: str, container: str, force: bool) -> None:
        self.calls.append(("disconnect", ref, container, force))

    def prune(self, filters: Mapping[str, tuple[str, ...]]) -> tuple[list[str], int]:
        return [], 0


class Builder:
    """Runs one imaginary step; a Dockerfile that says FAIL fails in it."""

    def __init__(self) -> None:
        self.requests: list[BuildRequest] = []
        self.seen: dict[str, bytes] = {}
        self.cancelled = threading.Event()

    def build(self, request: BuildRequest, progress: Callable[[Any], None]) -> str:
        self.requests.append(request)
        text = request.dockerfile_text
        if request.context_dir:
            for name in os.listdir(request.context_dir):
                with open(f"{request.context_dir}/{name}", "rb") as file:
                    self.seen[name] = file.read()
            text = text or self.seen.get(request.dockerfile or "Dockerfile")
        if not text:
            raise Invalid("the Dockerfile is empty")
        progress(Notice("host trust is on"))
        step = Vertex("1", "RUN echo hi", 1, 2, started_ns=1, container="f" * 64)
        progress(replace(step, container=""))
        progress(step)
        progress(Log("1", "stdout", "hé".encode()[:2], 1))
        progress(Log("1", "stdout", "hé".encode()[2:] + b"\n", 1))
        if b"WAIT" in text:
            for _ in range(500):
                if request.cancelled():
                    self.cancelled.set()
                    raise Unavailable("cancelled")
                threading.Event().wait(0.01)
        if b"FAIL" in text:
            progress(replace(step, completed_ns=2, error="exit code 1"))
            raise Invalid("The command '/bin/sh -c false' returned a non-zero code: 1")
        progress(replace(step, completed_ns=2, result="sha256:" + "1" * 64))
        cached = Vertex("2", "COPY a /a", 2, 2, started_ns=3)
        progress(cached)
        progress(replace(cached, completed_ns=4, cached=True, result="sha256:" + "2" * 64))
        progress(Finished(BUSYBOX, ("docker.io/library/q:1",)))
        return BUSYBOX

    def prune(
        self, filters: Mapping[str, tuple[str, ...]], *, everything: bool = False, keep_bytes: int = 0
    ) -> tuple[list[str], int]:
        self.pruned = (filters, everything, keep_bytes)
        return ["k1"], 5

    def usage(self) -> list[Usage]:
        return [
            Usage("k1", "regular", "RUN x", 7, 1767323045_000000000, 1767323046_000000000, 2, False, False)
        ]


class Events:
    def __init__(self) -> None:
        self.stopped = threading.Event()

    def subscribe(
        self, since: int, until: int, filters: Mapping[str, tuple[str, ...]], stop: threading.Event
    ) -> Iterator[Event]:
        yield Event("container", "start", "c1", {"image": "busybox", "name": "one"}, 1767323045_123456789)
        if not until:
            stop.wait(20)
            self.stopped.set()


class System:
    def info(self) -> dict[str, Any]:
        return {"ID": "x", "Containers": 0, "Socket": "/s"}

    def version(self) -> dict[str, Any]:
        return {
            "Version": "0",
            "Os": "linux",
            "Components": [{"Name": "Engine", "Version": "0", "Details": {}}],
        }

    def disk_usage(self) -> dict[str, Any]:
        images = [{"Size": 10, "Containers": 1}, {"Size": 5, "Containers": 0}]
        volumes = [{"Name": "v", "UsageData": {"Size": 3, "RefCount": 0}}]
        return {"LayersSize": 15, "Images": images, "Containers": [], "Volumes": volumes, "BuildCache": []}


class FakeEngine:
    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.containers = Containers(self)
        self.execs = Execs(self)
        self.images = Images()
        self.registry = Registry()
        self.volumes = Volumes()
        self.networks = Networks(self)
        self.builder = Builder()
        self.events = Events()
        self.system = System()
        self.is_idle = True

    def bootstrap(self, name: str, progress: Callable[[Any], None]) -> str:
        if name == "nosuch":
            raise NotFound("there is no recipe for nosuch")
        progress("unpacking")
        return BUSYBOX

    def idle(self) -> bool:
        return self.is_idle


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def names_of(stream: BinaryIO) -> list[str]:
    """The members of a tar; Invalid for anything else, as the real store says."""
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            return tar.getnames()
    except tarfile.TarError as error:
        raise Invalid(f"not a tar archive: {error}") from None
