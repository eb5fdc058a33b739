"""The second process: a sealed interpreter that becomes init. Owns how it is started, and what it runs.

The parent stays outside; only this process and its child enter a container. Its executable is a copy in memory that
nobody can change, so a container that reaches it through /proc/self/exe finds nothing to overwrite (CVE-2019-5736). It
loads its modules while the parent reads the bundle and makes control groups.
"""

from __future__ import annotations

import _socket
import _thread
import fcntl
import os
import sys

_MAIN = (
    "import sys;sys.path.insert(0,sys.argv[2]);from lading.runtime.oci.stage import main;main(sys.argv[1])"
)
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def main(words: str) -> None:
    """Body of the second process: `words` are what to become and the number of the channel. Never returns."""
    from lading.runtime import init, wire

    kind, number = words.split()
    channel = _socket.socket(fileno=int(number))
    os.set_inheritable(int(number), False)
    if kind == "container":
        init.seat_main(channel)
    data, fds = wire.receive_many(channel)
    if not data:
        os._exit(0)
    init.exec_main(channel, fds, (fds[-3], fds[-2], fds[-1]))


def spawn(kind: str, preserve: int) -> tuple[int, _socket.socket]:
    """Start the second process; (pid, channel). Descriptors 3 to 2 + `preserve` stay where they are in it."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    interpreter = _sealed()
    number = 3 + preserve
    try:
        pid = os.posix_spawn(
            f"/proc/self/fd/{interpreter}",
            [sys.executable, "-I", "-S", "-c", _MAIN, f"{kind} {number}", _source_root()],
            _environment(),
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), number)],
            setsigmask=[],
        )
    finally:
        theirs.close()
        os.close(interpreter)
    return pid, ours


def end(pid: int, channel: _socket.socket) -> None:
    """Give the second process up: it ends when it finds its channel closed."""
    channel.close()
    os.waitpid(pid, 0)


class Priming:
    """A thread that opens the door to v1 control groups while others work.

    The first move between groups waits for an RCU grace period (5 to 15 ms); those soon after do not (kernel/rcu/sync.c).
    So our own process is moved to where it is, which changes nothing.
    """

    def __init__(self) -> None:
        self._done = _thread.allocate_lock()
        self._done.acquire()
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            path = _own_group()
            if path:
                fd = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
        except OSError:
            pass  # only time was to be won
        finally:
            self._done.release()

    def wait(self) -> None:
        """Until it is over: nothing may fork beside a thread."""
        self._done.acquire()
        self._done.release()


def _own_group() -> str:
    """The directory of a v1 group of ours, where its hierarchy is mounted at the usual place; "" for none."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers in ("pids", "freezer", "cpu", "cpu,cpuacct"):
                return f"/sys/fs/cgroup/{controllers}{path}"
    return ""


def _sealed() -> int:
    """A memory file with the interpreter's bytes that nobody, root included, can change (fcntl(2), F_ADD_SEALS)."""
    source = os.open(os.path.realpath(sys.executable), os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = os.memfd_create("lading-runtime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size = os.fstat(source).st_size
        sent = 0
        while sent < size and (count := os.sendfile(copy, source, sent, size - sent)):
            sent += count
        os.fchmod(copy, 0o555)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        return copy
    finally:
        os.close(source)


def _source_root() -> str:
    """The directory that holds the package, for an interpreter without site-packages."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def _environment() -> dict[str, str]:
    """Nothing of the caller's but the way to the interpreter's own library, if it has one beside itself.

    A copy in memory has no directory, so a library named by $ORIGIN would not be found (ld.so(8)).
    """
    library = f"{os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))}/lib"
    return {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "LD_LIBRARY_PATH": library}
