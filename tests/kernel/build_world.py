"""A real store with a tiny busybox image, and an executor that is nothing but chroot(2): for the builder's tests.

The executor keeps the promises that `lading.build.ports` makes for the engine's one, as far as tests look at them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lading.base.errors import Cancelled
from lading.build.ports import Step
from lading.build.progress import Log, Notice, Progress, Vertex
from lading.build.request import BuildRequest
from lading.build.solve import Builder
from lading.image.config import ContainerConfig, History, ImageConfig
from lading.image.descriptor import host_platform
from lading.image.layer.compress import write_layer
from lading.image.layer.write import Writer, tree
from lading.image.mutate import Draft, append, configure
from lading.linux import overlayfs
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.images import Images
from lading.store.leases import Leases
from lading.store.snapshots import Snapshotter
from lading.store.snapshots.copy import Copy
from lading.store.snapshots.overlay import Overlay

BUSYBOX = shutil.which("busybox") or ""
TOOLS = (
    "sh",
    "cat",
    "ls",
    "mkdir",
    "touch",
    "rm",
    "id",
    "env",
    "pwd",
    "echo",
    "sleep",
    "true",
    "false",
    "stat",
    "chmod",
)
PASSWD = "root:x:0:0::/root:/bin/sh\nmodel:x:1000:1001::/home/model:/bin/sh\n"
GROUP = "root:x:0:\nmodel:x:1001:\nusers:x:100:model\n"


class Chroot:
    """Runs a step's command in its root file system, as root, with nothing else around it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.trust = ""
        self.stub_paths: tuple[str, ...] = ("/proc", "/etc", "/etc/resolv.conf")

    @property
    def stubs(self) -> tuple[str, ...]:
        return self.stub_paths

    def host_trust(self) -> str:
        return self.trust

    def run(self, step: Step) -> int:
        self.steps.append(step)
        with contextlib.ExitStack() as stack:
            root = self._root(step, stack)
            if step.rootfs.type == "bind":
                self._stub(step.rootfs.source)

            def enter() -> None:
                os.fchdir(root)
                os.chroot(".")
                os.chdir(step.working_dir)

            env = dict(item.split("=", 1) for item in step.env)
            process = subprocess.Popen(
                step.argv, preexec_fn=enter, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, executable=self._found(step, env), pass_fds=(root,),
            )  # fmt: skip
            stack.callback(process.wait)
            reader = threading.Thread(target=self._read, args=(process, step))
            reader.start()
            while process.poll() is None:
                if step.cancelled():
                    process.kill()
                    reader.join()
                    raise Cancelled("the build was cancelled")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
            reader.join()
            return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _root(self, step: Step, stack: contextlib.ExitStack) -> int:
        value = step.rootfs
        if value.type == "bind":
            fd = os.open(value.source, os.O_RDONLY | os.O_DIRECTORY)
        else:
            fd = overlayfs.mount_detached(value.base, value.lower, value.upper, value.work, value.options)
        stack.callback(os.close, fd)
        return fd

    def _stub(self, root: str) -> None:
        """What a runtime makes in a bind root for its own mounts."""
        for path in self.stub_paths:
            here = Path(root + path)
            if path.endswith(".conf"):
                here.touch()
            else:
                here.mkdir(exist_ok=True)

    @staticmethod
    def _found(step: Step, env: dict[str, str]) -> str:
        program = step.argv[0]
        return program if "/" in program else f"/bin/{program}"

    @staticmethod
    def _read(process: subprocess.Popen[bytes], step: Step) -> None:
        assert process.stdout is not None
        while data := process.stdout.read1(65536):  # type: ignore[attr-defined]
            step.output("stdout", data)


@dataclass
class World:
    """One data root with a builder, and the progress of its last build."""

    path: Path
    snapshots: Snapshotter
    db: Database
    blobs: Blobs
    images: Images
    leases: Leases
    executor: Chroot
    builder: Builder
    events: list[Progress] = field(default_factory=list)

    def build(self, dockerfile: str, files: dict[str, Any] | None = None, **options: Any) -> ImageConfig:
        """Build; `files` of the context: text, bytes, (text, mode), or a Path for a symlink's target."""
        if files is not None:
            context = self.path / "context"
            shutil.rmtree(context, ignore_errors=True)
            context.mkdir()
            write(context, files)
            options.setdefault("context_dir", str(context))
        self.events = []
        self.last = self.builder.build(
            BuildRequest(dockerfile_text=dockerfile.encode(), **options), self.events.append
        )
        return self.images.get(self.last).config

    def again(self, dockerfile: str, **options: Any) -> ImageConfig:
        """Build with the context as it lies there."""
        return self.build(dockerfile, None, context_dir=str(self.path / "context"), **options)

    def steps(self) -> list[Vertex]:
        """The last word on each step."""
        found: dict[str, Vertex] = {}
        for event in self.events:
            if isinstance(event, Vertex):
                found[event.id] = event
        return list(found.values())

    def cached(self) -> list[bool]:
        return [step.cached for step in self.steps()]

    def log(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, Log)).decode()

    def notices(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Notice))

    @contextlib.contextmanager
    def root(self, image: str = "") -> Iterator[Path]:
        """The image's files, below a path of this process only."""
        found = self.images.get(image or self.last)
        chain = self.images.unpack(found)
        with self.snapshots.mounted(chain, readonly=True) as fd:
            yield Path(f"/proc/self/fd/{fd}")

    def actives(self) -> list[str]:
        return [info.key for info in self.snapshots.infos() if info.kind != "committed"]


def write(directory: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o644
        if isinstance(content, tuple):
            content, mode = content
        if isinstance(content, Path):
            path.symlink_to(content)
            continue
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)


def open_world(path: Path, kind: str, make: Callable[..., Builder] = Builder) -> World:
    db = Database(str(path / "lading.db"))
    blobs = Blobs(str(path / "blobs"))
    snapshots = (Overlay if kind == "overlay" else Copy)(str(path / "snapshots"), db)
    images = Images(db, blobs, snapshots)
    leases = Leases(db)
    executor = Chroot()
    builder = make(images, blobs, snapshots, leases, db, executor, caches=str(path / "caches"))
    return World(path, snapshots, db, blobs, images, leases, executor, builder)


def base(world: World, name: str = "base:1", **config: Any) -> None:
    """Store a busybox image under `name`."""
    root = world.path / "base"
    if not root.exists():
        for directory in ("bin", "etc", "tmp", "root", "home/model"):
            (root / directory).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        for tool in TOOLS:
            (root / "bin" / tool).symlink_to("busybox")
        (root / "etc/passwd").write_text(PASSWD)
        (root / "etc/group").write_text(GROUP)
    assert stat.S_IXUSR & (root / "bin/busybox").stat().st_mode

    def produce(write: Callable[[bytes], object]) -> None:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            writer = Writer(write)
            tree(fd, writer)
            writer.close()
        finally:
            os.close(fd)

    platform = host_platform()
    draft = Draft(ImageConfig(platform.architecture, platform.os, platform.variant))
    layer = write_layer(world.blobs, produce, "tar")
    draft = append(draft, layer, History("2026-01-02T03:04:05Z", "bootstrap"))
    settings = ContainerConfig(env=("PATH=/bin",), cmd=("sh",))
    draft = configure(
        draft, lambda _: settings if not config else ContainerConfig(**{**_fields(settings), **config})
    )
    world.images.store(draft, name)


def _fields(config: ContainerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
