"""Bodies of the processes the zygote forks: a monitor that waits for a container, and one for an exec. Never return."""

from __future__ import annotations

import _socket
import marshal
import os
import signal

from lading.linux import process
from lading.runtime import wire
from lading.runtime.cgroup.remove import remove_directories
from lading.runtime.monitor import Monitor, Seat

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any


def seat(directories: list[str], fds: list[int]) -> None:
    """Body of a monitor made ahead of need: `fds` are its control socket and the `cgroup.procs` to sit in.

    Moving a process between v1 groups waits for an RCU grace period (5 to 15 ms, kernel/cgroup: cgroup_attach_lock), so
    it is done before anybody waits for it. Never returns.
    """
    control, *procs = fds
    report = _socket.socket(fileno=control)
    monitor = None
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.set_name(b"lading-spare")
        waiting = Seat()
        for fd in procs:
            os.write(fd, b"%d" % waiting.pid)
            os.close(fd)
        try:
            report.send(b"seated")
            data, passed = wire.receive_many(report)
        except OSError:  # the daemon was killed just now
            data, passed = b"", []
        if not data:  # the daemon has gone, or wants no spare any more
            held = _renamed(waiting.pid, directories)
            waiting.channel.close()
            os.waitpid(waiting.pid, 0)
            remove_directories(held)
            os._exit(0)
        monitor = Monitor(_read_plan(passed[0]), passed, report, waiting)
        monitor.run()
        os._exit(0)
    except OSError as error:
        _broken(error, report, monitor)
    finally:
        os._exit(71)


def _renamed(pid: int, directories: list[str]) -> list[str]:
    """Where the seat's groups are now: a daemon that died in a start may have given them the container's name."""
    fd = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 1 << 16).decode("utf-8", "surrogateescape").splitlines()
    finally:
        os.close(fd)
    parents = {os.path.dirname(directory) for directory in directories}
    names = {line.rpartition("/")[2] for line in lines if line.rpartition("/")[0].endswith("/lading")}
    return directories + [f"{parent}/{name}" for parent in parents for name in names]


def execution(fds: list[int]) -> None:
    """Body of an exec's monitor: `fds` are its plan and what the plan names. Never returns."""
    plan = _read_plan(fds[0])
    report = _socket.socket(fileno=fds[plan["report"]])
    monitor = None
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        monitor = Monitor(plan, fds, report, None)
        monitor.run()
        os._exit(0)
    except OSError as error:
        _broken(error, report, monitor)
    finally:
        os._exit(71)


def _read_plan(fd: int) -> dict[str, Any]:
    plan: dict[str, Any] = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    del plan["init"]
    return plan


def _broken(error: OSError, report: _socket.socket, monitor: Monitor | None) -> None:
    """A failure of the monitor itself is reported as a failed start, not as a traceback."""
    detail = f"{error.strerror or error} {error.filename or ''}".encode()
    report.send(marshal.dumps(("error", "monitor", error.errno or 0, detail)))
    if monitor is not None and not monitor.started:
        monitor.abandon()
