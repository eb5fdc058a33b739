"""Where attacks are fought: a daemon of its own, images made for the attack, and a canary that no container may reach.

A control is the same ground with one defence taken out: either by a flag that a user could give, or by code appended to a
copy of the source (`Without`), so that the attack itself stays the same word for word.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
BUSYBOX = shutil.which("busybox") or ""
PYTHON = os.path.realpath(sys.executable)
SECRET = "canary-8c1f"
GROUP = 4242
"""A supplementary group of every daemon here; no container may inherit it."""


@dataclass(frozen=True)
class Without:
    """One defence less: code appended to files of the package, by path."""

    files: Mapping[str, str] = field(hash=False)

    @property
    def key(self) -> str:
        return repr(sorted(self.files.items()))


@dataclass(frozen=True)
class Link:
    to: str


@dataclass(frozen=True)
class File:
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    capability: bytes = b""


Entry = Link | File | bytes | str | None
"""What an image holds at a path: a link, a file, its content, or a directory (None)."""

APPLETS = "sh cat ls mkdir touch rm id echo sleep true stat chmod ln seq head dd grep pwd env mkfifo yes wc"


def layer(entries: Mapping[str, Entry]) -> bytes:
    """A layer with busybox below /bin and the given entries over it."""
    out = io.BytesIO()
    everything: dict[str, Entry] = {
        "bin": None,
        "etc": None,
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nmodel:x:1000:1000::/:/bin/sh\n",
        "etc/group": "root:x:0:\nmodel:x:1000:\n",
        "tmp": File(mode=0o1777, kind=tarfile.DIRTYPE),
        "bin/busybox": File(Path(BUSYBOX).read_bytes(), 0o755),
        **{f"bin/{name}": Link("busybox") for name in APPLETS.split()},
    }
    if isinstance(entries.get("etc"), Link):
        del everything["etc/passwd"], everything["etc/group"]
    everything.update(entries)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, entry in everything.items():
            info = tarfile.TarInfo(name)
            data = b""
            if entry is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(entry, Link):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.to, 0o777
            else:
                if not isinstance(entry, File):
                    entry = File(entry.encode() if isinstance(entry, str) else entry)
                data, info.mode, info.type = entry.data, entry.mode, entry.kind
                info.size = len(data)
                if entry.capability:
                    value = entry.capability.decode("utf-8", "surrogateescape")
                    info.pax_headers["SCHILY.xattr.security.capability"] = value
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Ground:
    """One engine. `host` is a directory of the host's that no container is given; `canary` a file in it."""

    def __init__(self, directory: Path, without: Without | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.host = directory / "host"
        self.host.mkdir()
        self.canary = self.host / "canary"
        self.reset()
        source = SOURCE
        if without is not None:
            source = directory / "src"
            shutil.copytree(SOURCE / "lading", source / "lading", symlinks=True)
            for name, code in without.files.items():
                with (source / "lading" / name).open("a") as file:
                    file.write("\n\n" + code)
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(source),
            "LADING_ROOT": str(directory / "root"),
            "LADING_RUN": str(directory / "run"),
            "LADING_CANARY": str(self.canary),
            "LADING_ATTACK_HOST": str(self.host),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._daemon: subprocess.Popen[bytes] | None = None
        self._images: set[str] = set()
        self.start()

    def reset(self) -> None:
        """The canary as it was: root's alone, with the secret in it, and nothing beside it."""
        for path in self.host.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.canary.write_text(SECRET)
        self.canary.chmod(0o600)
        os.utime(self.canary, (1, 1))

    def touched(self) -> bool:
        """Whether somebody changed the canary or left something beside it."""
        if sorted(os.listdir(self.host)) != ["canary"]:
            return True
        info = self.canary.lstat()
        said = self.canary.read_text() if info.st_size < 4096 else ""
        return (said, info.st_mode & 0o7777, info.st_uid, info.st_mtime) != (SECRET, 0o600, 0, 1.0)

    # -- the engine --------------------------------------------------------------------------------------------

    def start(self) -> None:
        (self.directory / "run/lading.sock").unlink(missing_ok=True)  # what a killed one left
        log = (self.directory / "daemon.log").open("ab")
        self._daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "lading", "daemon", "--idle-exit", "900"],
            env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", extra_groups=[GROUP],
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 30
        while not (self.directory / "run/lading.sock").exists():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                self.kill_daemon()
                raise AssertionError("the daemon does not come up:\n" + self.log())
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")[-2000:]

    def kill_daemon(self) -> None:
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    def close(self) -> None:
        ids = self("ps", "-aq").stdout.split()
        if ids:
            self("rm", "-f", "-v", *ids, timeout=60)
        assert self._daemon is not None
        self._daemon.terminate()
        try:
            self._daemon.wait(20)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __call__(
        self, *words: str, timeout: float = 30, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """One `lading` command. A command that hangs is ended; its return code is then 124."""
        command = [sys.executable, "-P", "-m", "lading", *words]
        process = subprocess.Popen(
            command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
        )  # fmt: skip
        try:
            out, err = process.communicate(stdin, timeout)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            code = 124
        return subprocess.CompletedProcess(
            command, code, out.decode(errors="replace"), err.decode(errors="replace")
        )

    def image(self, name: str, entries: Mapping[str, Entry] | None = None, *changes: str) -> str:
        """Import an image once."""
        if name not in self._images:
            flags = [word for change in changes for word in ("--change", change)]
            done = self("import", *flags, "-", name, stdin=layer(entries or {}))
            assert done.returncode == 0, done.stderr + self.log()
            self._images.add(name)
        return name

    def run(
        self, *words: str, image: str = "", net: str = "none", timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """`run --rm` of flags, then "--" and the command."""
        at = words.index("--")
        name = image or self.image("plain")
        return self("run", "--rm", "--network", net, *words[:at], name, *words[at + 1 :], timeout=timeout)

    def up(self, *words: str, image: str = "", net: str = "none") -> str:
        """A container that stays: flags, then "--" and the command."""
        at = words.index("--")
        name = image or self.image("plain")
        done = self("run", "-d", "--network", net, *words[:at], name, *words[at + 1 :])
        assert done.returncode == 0, done.stderr + self.log()
        return done.stdout.strip()

    def down(self, *ids: str) -> None:
        self("rm", "-f", "-v", *ids, timeout=60)

    def python(
        self, code: str, *arguments: str, flags: Iterable[str] = (), net: str = "none", timeout: float = 30
    ) -> str:
        """What a Python program prints in a container: the host's interpreter, bound read-only into it."""
        done = self.run(*PYTHON_FLAGS, *flags, "--", PYTHON, "-c", code, *arguments, net=net, timeout=timeout)
        return done.stdout + done.stderr


def _python_flags() -> tuple[str, ...]:
    """Binds that let the host's Python run in a container: its prefix and the C library's directories."""
    found = ["-e", "PYTHONDONTWRITEBYTECODE=1", "-e", f"PYTHONHOME={sys.base_prefix}"]
    wanted = ["/usr", "/lib", "/lib64"]
    if not sys.base_prefix.startswith("/usr"):
        wanted.append(sys.base_prefix)
    for path in wanted:
        if os.path.isdir(path):
            found += ["-v", f"{os.path.realpath(path)}:{path}:ro"]
    return tuple(found)


PYTHON_FLAGS = _python_flags()

NAIVE = """
class _Naive:
    def __getattr__(self, name):
        return getattr(_held, name)

    def openat2(self, root, path, flags=0, *rest):
        import os
        text = os.fsencode(path).lstrip(b"/") or b"."
        return os.open(text, flags | os.O_CLOEXEC, dir_fd=root)


_held = files
files = _Naive()
"""
"""Paths inside an image opened below its root without asking that links stay there."""
