"""The daemon's handle on the zygote: starts it from a sealed interpreter, sends it plans, starts it again if it died."""

from __future__ import annotations

import fcntl
import marshal
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from lading.base.errors import Internal, Unavailable
from lading.runtime import model

_MAIN = "import sys; sys.path.insert(0, sys.argv[2]); from lading.runtime.zygote import main; main(int(sys.argv[1]))"


class Starter:
    """One zygote at a time. `warm` starts it ahead of need; `request` is safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def warm(self) -> None:
        """Start the zygote if none is running; returns when it has loaded its modules. Raises Unavailable."""
        with self._lock:
            self._ready()

    def _ready(self) -> socket.socket:
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self._discard()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        interpreter = _sealed_interpreter()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _MAIN, str(theirs.fileno()), _source_root()],
                executable=f"/proc/self/fd/{interpreter}",
                pass_fds=(theirs.fileno(), interpreter),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
            )
            theirs.close()
            ours.settimeout(30)
            if ours.recv(16) != b"ready":
                raise Unavailable(
                    "the process that starts containers ended at once",
                    why=f"{sys.executable} could not run from a sealed copy",
                    hint="See the daemon's log; a Python with its library in an unusual place may need LD_LIBRARY_PATH.",
                )
            ours.settimeout(None)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(interpreter)
        self._channel = ours
        return ours

    def request(self, message: tuple[Any, ...], fds: Sequence[int]) -> None:
        """One request with descriptors to the zygote, started (again) if need be. Raises Unavailable."""
        data = marshal.dumps(message)
        with self._lock:
            channel = self._ready()
            try:
                socket.send_fds(channel, [data], fds)
            except (BrokenPipeError, ConnectionResetError):
                self._discard()
                socket.send_fds(self._ready(), [data], fds)

    def pid(self) -> int:
        """The zygote's pid, 0 when none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def _discard(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the zygote; monitors it forked go on."""
        with self._lock:
            self._discard()


def plan_file(plan: Mapping[str, Any]) -> int:
    """A memory file that holds the marshalled plan; a plan may be larger than a socket's record."""
    memory = os.memfd_create("lading-plan", os.MFD_CLOEXEC)
    view = memoryview(marshal.dumps(dict(plan)))
    while view:
        view = view[os.write(memory, view) :]
    return memory


def _sealed_interpreter() -> int:
    """A memory file with the interpreter's bytes that nobody, root included, can change (fcntl(2), F_ADD_SEALS)."""
    source = os.open(os.path.realpath(sys.executable), os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = os.memfd_create("lading-zygote", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size = os.fstat(source).st_size
        sent = 0
        while sent < size:
            count = os.sendfile(copy, source, sent, size - sent)
            if count == 0:
                raise Internal("the interpreter's file shrank while it was being copied")
            sent += count
        os.fchmod(copy, 0o555)
        fcntl.fcntl(
            copy,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
        )
        return copy
    finally:
        os.close(source)


def _source_root() -> str:
    """The directory that holds the package, for a `-I -S` interpreter without site-packages."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(model.__file__))))


def _environment() -> dict[str, str]:
    """Nothing of the daemon's environment but the way to the interpreter's own library, if it has one apart.

    A copy in memory has no directory, so an interpreter that finds libpython beside itself ($ORIGIN, ld.so(8)) needs it.
    """
    environment = {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if os.path.basename(path).startswith("libpython"):
                environment["LD_LIBRARY_PATH"] = os.path.dirname("/" + path)
                break
    return environment
