"""A whole engine on scratch directories with a tiny busybox image: what the engine's kernel tests stand on."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lading.assemble import Assembled, build_engine
from lading.base.paths import Paths
from lading.engine.model import Config, CreateRequest, ExecRequest, HostConfig
from lading.engine.roster import Finished

BUSYBOX = shutil.which("busybox") or ""
TOOL_NAMES = """
sh cat ls mkdir touch rm id env pwd echo sleep true false stat chmod ln kill seq ip grep head wc dd nc httpd
hostname mount umount ps trap yes readlink
"""
TOOLS = TOOL_NAMES.split()
PASSWD = "root:x:0:0::/root:/bin/sh\nmodel:x:1000:1001::/home/model:/bin/sh\n"
GROUP = "root:x:0:\nmodel:x:1001:\nusers:x:100:model\n"
CHANGES = ('CMD ["sh"]', "ENV FROM_IMAGE=yes", "LABEL made=by-test")


def root_tar() -> io.BytesIO:
    """A root file system: busybox, two users, and a directory to copy volumes up from."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(
            name: str, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, **more: Any
        ) -> None:
            info = tarfile.TarInfo(name)
            info.mode, info.type, info.size = mode, kind, len(data)
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

        for folder in ("bin", "etc", "tmp", "root", "home/model", "data", "data/sub"):
            add(folder, mode=0o1777 if folder == "tmp" else 0o755, kind=tarfile.DIRTYPE)
        add("bin/busybox", Path(BUSYBOX).read_bytes(), 0o755)
        for tool in TOOLS:
            add(f"bin/{tool}", kind=tarfile.SYMTYPE, linkname="busybox")
        add("etc/passwd", PASSWD.encode())
        add("etc/group", GROUP.encode())
        add("data/file", b"from the image\n", 0o640, uid=1000, gid=1001)
        add("data/sub/deep", b"deep\n")
        add("data/link", kind=tarfile.SYMTYPE, linkname="/etc/passwd")
    out.seek(0)
    return out


def paths_below(directory: Path) -> Paths:
    return Paths(str(directory / "root"), str(directory / "run"))


@contextlib.contextmanager
def engine_at(paths: Paths, environ: dict[str, str] | None = None) -> Iterator[Assembled]:
    """An engine with the image `tiny`; every container is removed at the end."""
    with build_engine(paths, environ or {}) as engine:
        if not engine.images.list():
            engine.images.import_(root_tar(), "tiny", CHANGES)
        try:
            yield engine
        finally:
            for view in engine.containers.list(True):
                engine.containers.remove(view.id, True, True)


class World:
    """Short words for what the tests do over and over."""

    def __init__(self, engine: Assembled, paths: Paths) -> None:
        self.engine, self.paths = engine, paths

    def create(
        self, *cmd: str, net: str = "none", name: str = "", config: Config | None = None, **host: Any
    ) -> str:
        base = config or Config()
        asked = replace(base, image=base.image or "tiny", cmd=cmd or base.cmd)
        return self.engine.containers.create(
            CreateRequest(asked, HostConfig(network_mode=net, **host), name=name)
        )[0]

    def run(self, *cmd: str, **more: Any) -> tuple[str, Finished]:
        """Create, start, and wait for the end."""
        identifier = self.create(*cmd, **more)
        future = self.engine.containers.wait(identifier, "next-exit")
        self.engine.containers.start(identifier)
        return identifier, future.result(30)

    def output(self, identifier: str, **more: Any) -> str:
        records = self.engine.containers.logs(identifier, True, True, **more)
        return b"".join(record.text for record in records).decode()

    def said(self, *cmd: str, **more: Any) -> str:
        """What a command prints, in a container of its own that is removed again."""
        identifier, _ = self.run(*cmd, **more)
        try:
            return self.output(identifier)
        finally:
            self.engine.containers.remove(identifier, True, True)

    def up(self, *cmd: str, **more: Any) -> str:
        """Create and start."""
        identifier = self.create(*(cmd or ("sleep", "1000")), **more)
        self.engine.containers.start(identifier)
        return identifier

    def status(self, identifier: str) -> str:
        return self.engine.containers.inspect(identifier).state.status

    def exec(self, identifier: str, *cmd: str, **more: Any) -> tuple[int, str]:
        """Run a command beside the container's init: (exit code, output)."""
        import socket

        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                key = self.engine.execs.create(identifier, ExecRequest(cmd, **more))
                self.engine.execs.start(key, theirs.fileno(), False, False)
            data = b""
            while piece := ours.recv(65536):
                data += piece
        eventually(lambda: not self.engine.execs.inspect(key).running)
        code = self.engine.execs.inspect(key).exit_code
        assert code is not None
        return code, data.decode()


def eventually(true: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait until `true()` holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.02)


def leftovers(paths: Paths, identifier: str) -> list[str]:
    """What a container may leave behind and must not: files, mounts, control groups."""
    found = [f"run/{name}" for name in os.listdir(f"{paths.run}/c") if name == identifier]
    found += [f"containers/{name}" for name in os.listdir(paths.containers) if name == identifier]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found += [line.split()[4] for line in file if paths.root in line or paths.run in line]
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{folder}/{name}" for name in names if identifier in name]
    return found
