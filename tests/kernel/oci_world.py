"""What the tests of lading-runtime share: a root file system, bundles, and the command as its callers start it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

SCRIPT = str(Path(__file__).parents[2] / "bin/lading-runtime")
ALL = ("pid", "network", "mount", "ipc", "uts", "cgroup")
APPLETS = (
    "sh true false echo cat ls id sleep env mount hostname touch kill pwd stat grep tty test ulimit readlink"
)


def make_rootfs(path: Path) -> Path:
    """A root file system of busybox alone."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs the busybox-static package")
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys"):
        (path / name).mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    shutil.copy(busybox, path / "bin/busybox")
    for applet in APPLETS.split():
        (path / "bin" / applet).symlink_to("busybox")
    return path


def config(*argv: str, namespaces: tuple[str, ...] = ALL, **changes: Any) -> dict[str, Any]:
    """A plain configuration; `changes` replace members of process, linux, or the top."""
    safe = ["nosuid", "noexec", "nodev"]
    caps = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_SYS_NICE"]
    spec: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "args": list(argv),
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {kind: list(caps) for kind in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [*safe, "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
    }
    for key, value in changes.items():
        for part in ("process", "linux"):
            if key in _PARTS[part]:
                spec[part][key] = value
                break
        else:
            spec[key] = [*spec["mounts"], *value] if key == "mounts" else value
    return spec


_PARTS = {
    "process": {
        "terminal", "user", "env", "cwd", "rlimits", "scheduler", "ioPriority", "oomScoreAdj", "capabilities",
        "noNewPrivileges", "apparmorProfile", "selinuxLabel", "consoleSize",
    },
    "linux": {
        "resources", "cgroupsPath", "sysctl", "seccomp", "devices", "maskedPaths", "readonlyPaths", "personality",
        "rootfsPropagation", "timeOffsets", "uidMappings", "gidMappings", "intelRdt", "mountLabel",
    },
}  # fmt: skip


class World:
    """One state directory and its bundles; `close` removes what a failed test left."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path / "state"
        self.rootfs = make_rootfs(path / "rootfs")
        self._count = 0

    def bundle(self, spec: Any, name: str = "") -> Path:
        self._count += 1
        made = self.path / (name or f"bundle{self._count}")
        made.mkdir(exist_ok=True)
        if not (made / "rootfs").exists():
            (made / "rootfs").symlink_to(self.rootfs)
        (made / "config.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
        return made

    def run(self, *words: str, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """The command; its output is text."""
        # -I -S as the script itself does it: the interpreter beside it is another one here.
        argv = [sys.executable, "-I", "-S", SCRIPT, "--root", str(self.root), *words]
        # Files, not pipes: a created container keeps its maker's standard streams, as it should.
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            with TemporaryFile("w+") as stdin:
                stdin.write(given)
                stdin.seek(0)
                code = subprocess.run(argv, stdin=stdin, stdout=out, stderr=err, timeout=30).returncode
            out.seek(0)
            err.seek(0)
            ran = subprocess.CompletedProcess(argv, code, out.read(), err.read())
        if check:
            assert ran.returncode == 0, ran.stderr
        return ran

    def said(self, *argv: str, **changes: Any) -> str:
        """What a container of that configuration says, run to its end."""
        return self.run("run", "--bundle", str(self.bundle(config(*argv, **changes))), self.name()).stdout

    def refused(self, spec: Any) -> str:
        """The error of `create`, which must leave nothing."""
        name = self.name()
        ran = self.run("create", "--bundle", str(self.bundle(spec)), name, check=False)
        assert ran.returncode == 1, ran.stdout
        assert not (self.root / name).exists()
        assert "Traceback" not in ran.stderr
        return ran.stderr

    def name(self) -> str:
        self._count += 1
        return f"t{os.getpid()}-{self._count}"

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("state", name).stdout)
        return found

    def close(self) -> None:
        for name in os.listdir(self.root) if self.root.exists() else ():
            self.run("delete", "--force", name, check=False)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)
