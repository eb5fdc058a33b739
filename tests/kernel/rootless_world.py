"""An ordinary user with a home of their own, who runs the real command line: what the rootless tests stand on.

Every command runs in a mount namespace of its own, in which the interpreter and the checkout can be reached by anybody
(they may lie below root's home), /dev/net/tun is everybody's as udev makes it, and the password and subordinate id files
name the test's user. Nothing of the machine itself is changed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

UID = 64231
NAME = "lading-ordinary"
FIRST, COUNT = 720_000, 65_536
"""The subordinate ids of the mapped user."""
REPOSITORY = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[bytes]


def missing(*programs: str) -> str:
    """Why a test that needs these programs cannot run here; "" when it can."""
    lacking = [program for program in ("unshare", "setpriv", *programs) if not shutil.which(program)]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    try:
        if int(Path("/proc/sys/user/max_user_namespaces").read_text()) == 0:
            return "user namespaces are switched off"
    except OSError:
        return "this kernel has no user namespaces"
    return ""


def processes() -> dict[int, str]:
    """Living processes of the user and of the subordinate ids, by pid: their command lines."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            status = Path(f"/proc/{pid}/status").read_text()
            real = int(status.partition("\nUid:")[2].split()[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        ours = any(one == UID or FIRST <= one < FIRST + COUNT for one in (uid, real))
        if ours and "\nState:\tZ" not in status:
            found[int(pid)] = words
    return found


def settles(check: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `check` becomes true."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class User:
    """The user. `mapped` gives subordinate ids; `tun` lets pasta and slirp4netns make their device."""

    home: Path
    mapped: bool = False
    tun: bool = False
    environ: dict[str, str] = field(default_factory=dict)
    supplementary: str = ""
    groups: list[str] = field(default_factory=list)
    """Control group directories that every command is moved to."""
    mounts: list[str] = field(default_factory=list)
    """Shell lines that mount something more for every command."""

    def __post_init__(self) -> None:
        files = self.home.parent / "etc"
        files.mkdir(exist_ok=True)
        line = f"{NAME}:x:{UID}:{UID}::{self.home}:/bin/sh\n"
        (files / "passwd").write_text(Path("/etc/passwd").read_text() + line)
        sub = f"{NAME}:{FIRST}:{COUNT}\n" if self.mapped else ""
        for name in ("subuid", "subgid"):
            (files / name).write_text(sub)

    def script(self) -> str:
        """Run by root in a fresh mount namespace before the command."""
        etc = self.home.parent / "etc"
        lines = ["set -e", "mount --make-rprivate /"]
        lines += [
            f"[ ! -e /etc/{name} ] || mount --bind {etc}/{name} /etc/{name}"
            for name in ("passwd", "subuid", "subgid")
        ]
        lines += _reachable(self.home.parent / "shown")
        if self.tun:
            tun = self.home.parent / "tun"
            lines += [f"[ -e {tun} ] || mknod -m 666 {tun} c 10 200", f"mount --bind {tun} /dev/net/tun"]
        lines += self.mounts
        lines += [f"echo $$ > {group}/cgroup.procs" for group in self.groups]
        lines.append(f"cd {self.home}")
        return "\n".join(lines)

    def argv(self, *command: str) -> list[str]:
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "runtime"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LADING_IDLE_EXIT": "120",
            **self.environ,
        }
        drop = [
            "setpriv", f"--reuid={UID}", f"--regid={UID}",
            f"--groups={self.supplementary}" if self.supplementary else "--clear-groups", "env", "-i",
            *(f"{key}={value}" for key, value in variables.items()), *command,
        ]  # fmt: skip
        return ["unshare", "-m", "sh", "-c", f"{self.script()}\nexec {shlex.join(drop)}"]

    def run(self, *command: str, stdin: bytes = b"", code: int | None = 0) -> Done:
        """A program as this user."""
        done = subprocess.run(
            self.argv(*command), input=stdin, capture_output=True, timeout=90, check=False, env={"PATH": os.environ["PATH"]}
        )  # fmt: skip
        assert code is None or done.returncode == code, (
            command,
            done.returncode,
            done.stdout,
            done.stderr,
            self.log(),
        )
        return done

    def __call__(self, *words: str, stdin: bytes = b"", code: int | None = 0) -> Done:
        """A command of lading's as this user."""
        return self.run(sys.executable, "-P", "-m", "lading", *words, stdin=stdin, code=code)

    def log(self) -> str:
        """The end of the daemon's log."""
        path = self.run_dir / "daemon.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def said(self, *words: str) -> str:
        """What a command that succeeds prints."""
        return self(*words).stdout.decode().strip()

    @property
    def run_dir(self) -> Path:
        return self.home / "runtime" / "lading"

    def pids(self, word: str) -> list[int]:
        """The user's processes with `word` in their command line."""
        return [pid for pid, words in processes().items() if word in words]

    @property
    def daemon(self) -> int:
        return min(self.pids("lading daemon"))  # a child that has not exec'd yet looks like it

    @property
    def keeper(self) -> int:
        return min(self.pids("lading.rootless.keeper"))

    def end(self) -> None:
        """Stop the daemon; everything else ends by itself."""
        for pid in self.pids("lading daemon"):
            os.kill(pid, 15)


def _reachable(shown: Path) -> list[str]:
    """Shell lines that put the interpreter, its packages and the checkout in reach of everybody, at their own paths."""
    wanted = {Path(sys.base_prefix), Path(sys.prefix), REPOSITORY}
    closed: dict[Path, list[Path]] = {}
    for path in sorted(wanted):
        for ancestor in reversed(path.parents):
            if not ancestor.stat().st_mode & 0o001:
                closed.setdefault(ancestor, []).append(path)
                break
    lines = []
    for ancestor, paths in closed.items():
        for number, path in enumerate(paths):
            lines += [f"mkdir -p {shown}/{number}", f"mount --bind {path} {shown}/{number}"]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {ancestor}")
        for number, path in enumerate(paths):
            lines += [f"mkdir -p {path}", f"mount --move {shown}/{number} {path}"]
    return lines


@contextmanager
def user(*, mapped: bool = False, tun: bool = False, **environ: str) -> Iterator[User]:
    """A user with an empty home, gone with everything they left at the end; fails when a process stays behind."""
    with tempfile.TemporaryDirectory(
        prefix="lading-ordinary-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as made:
        base = Path(made)
        base.chmod(0o755)
        home = base / "home"
        (home / "runtime").mkdir(parents=True)
        (home / "runtime").chmod(0o700)
        for path in (home, home / "runtime"):
            os.chown(path, UID, UID)
        one = User(home, mapped, tun, dict(environ))
        try:
            yield one
            one("rm", "-f", *one.said("ps", "-aq").split()) if one.said("ps", "-aq") else None
            one.end()
            assert settles(lambda: not processes()), processes()
            assert not (one.run_dir / "keeper.sock").exists()
        finally:
            for pid in processes():
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
