"""The first process of a container, and of an exec: from clone to the command. Owns the order of things alone.

`root` makes and enters the file system, `become` does the rest; the monitor is asked and told over a socket.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, 3 ms
import _socket
import marshal
import os
import stat

from lading.linux import files, process
from lading.runtime import become, userns, wire
from lading.runtime.root import Root, StepFailed, open_peer

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any

_PATH = os.O_PATH | os.O_CLOEXEC


def take_terminal(peer: int) -> None:
    """Make `peer` the controlling terminal and the three standard descriptors."""
    process.ioctl(peer, process.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(peer, fd)


def reset_signals() -> None:
    """Default dispositions and an empty mask: execve(2) keeps ignored signals, and Python ignores SIGPIPE."""
    for number in range(1, 65):
        if number not in (9, 19, 32, 33):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def container_main(
    plan: dict[str, Any], channel: _socket.socket, fds: list[int], stdio: tuple[int, int, int]
) -> None:
    """Body of init in a new container. Never returns."""
    try:
        reset_signals()
        process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)
        os.setsid()
        process.set_name(b"lading-init")
        if plan["process"]["labels"]:
            plan["process"]["proc"] = os.open(b"/proc", _PATH | os.O_DIRECTORY)
        if plan["userns"]:
            wire.go(channel)  # the monitor has written the id maps
        if plan["userns"] or plan.get("userns_joined"):
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)
            process.prctl(
                process.PR_SET_DUMPABLE, 1
            )  # else /proc/self belongs to a root that this one is not
        _oom_score(plan["process"]["oom_score_adj"])
        process.prctl(
            process.PR_SET_DUMPABLE, 0
        )  # no neighbour may look into this process before it is the command
        _use_stdio(stdio, plan["process"]["tty"])
        _join(plan["join"], fds)
        if plan["unshare_cgroup"]:
            process.unshare(process.CLONE_NEWCGROUP)  # in its control groups already: they become the root
        if plan["hostname"]:
            process.sethostname(plan["hostname"])
        if plan["domainname"]:
            process.setdomainname(plan["domainname"])
        root = Root(plan, channel)
        root.perform()
        if plan["process"]["tty"]:
            take_terminal(plan["peer"])
        if plan.get("early_command"):
            become.find_command(plan["process"])
        listener = _socket.socket(fileno=fds[plan["listener"]]) if "listener" in plan else None
        if not plan.get("dies_with_parent", True):
            process.prctl(process.PR_SET_PDEATHSIG, 0)
        wire.send(channel, ("ready", root.created))
        if listener is not None:
            channel.close()
            channel = _accept(listener)
        plan["state"] = wire.go(channel)
        become.finish(plan, channel)
    except StepFailed as failure:
        _fail(channel, failure.step, failure.code, failure.detail)
    except OSError as error:
        _fail(channel, "setup", error.errno or 0, b"")
    finally:
        os._exit(70)


def read_plan(fd: int) -> dict[str, Any]:
    """The whole plan: the monitor's part and, over it, init's own."""
    plan: dict[str, Any] = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    plan.update(marshal.loads(plan["init"]))
    return plan


def seat_main(channel: _socket.socket) -> None:
    """Body of the process that waits in the container's control groups; init, its sibling, is born into them.

    The record holds the plan's descriptors and, last, the three of standard input, output and error. Never returns.
    """
    plan: dict[str, Any] = {"userns": False}
    try:
        data, fds = wire.receive_many(channel)
        if not data:
            os._exit(0)
        stdio = (fds[-3], fds[-2], fds[-1])
        plan = read_plan(fds[0])
        cgroup = fds[plan["cgroup_fd"]] if plan["cgroup_fd"] >= 0 else -1
        _join(plan.get("birth", []), fds)
        if plan.get("time_offsets") is not None:
            _time_namespace(plan["time_offsets"])
        if (plan["userns"] or plan.get("prepare")) and not plan.get("unprivileged"):
            userns.prepare(plan)
        if plan.get("userns_joined"):
            process.setns(fds[plan["userns_joined"]], process.CLONE_NEWUSER)
        pid = process.clone3(plan["clone_flags"] | process.CLONE_PARENT, cgroup_fd=cgroup)
        if pid == 0:
            container_main(plan, channel, fds, stdio)
        wire.send(channel, ("pid", pid))
        os._exit(0)
    except OSError as error:
        _fail(channel, "userns" if plan["userns"] else "setup", error.errno or 0, b"clone")
    finally:
        os._exit(70)


def exec_main(channel: _socket.socket, fds: list[int], stdio: tuple[int, int, int]) -> None:
    """Body of a process that joins a running container. Never returns.

    A process enters a pid namespace only at birth, so this one joins and makes a sibling of itself (CLONE_PARENT,
    clone(2)), whose parent is the monitor; then it leaves.
    """
    try:
        reset_signals()
        process.set_name(b"lading-exec")
        plan = read_plan(fds[0])
        wire.go(channel)  # in the container's control groups
        process.prctl(process.PR_SET_DUMPABLE, 0)
        _oom_score(plan["process"]["oom_score_adj"])
        if plan["process"]["labels"]:
            plan["process"]["proc"] = os.open(b"/proc", _PATH | os.O_DIRECTORY)
        process.setns(fds[plan["pidfd"]], plan["join_flags"])
        if plan["userns"]:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        pid = process.clone3(process.CLONE_PARENT)
        if pid:
            wire.send(channel, ("pid", pid))
            os._exit(0)
        process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)
        os.setsid()
        if plan["process"]["tty"]:
            _use_stdio(stdio, True)
            take_terminal(_container_terminal(channel))
        else:
            _use_stdio(stdio, False)
        if not plan.get("dies_with_parent", True):
            process.prctl(process.PR_SET_PDEATHSIG, 0)
        if plan["process"]["affinity"]:
            os.sched_setaffinity(0, plan["process"]["affinity"])
        wire.send(channel, ("ready", []))
        wire.go(channel)
        become.finish(plan, channel)
    except StepFailed as failure:
        _fail(channel, failure.step, failure.code, failure.detail)
    except OSError as error:
        _fail(channel, "setup", error.errno or 0, b"")
    finally:
        os._exit(70)


def _container_terminal(channel: _socket.socket) -> int:
    """A new terminal of the container's devpts; what the image may have put at that path instead is refused."""
    root = os.open(b"/", _PATH | os.O_DIRECTORY)
    master = files.openat2(root, b"dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, 0, files.RESOLVE_NO_SYMLINKS)
    os.close(root)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(5, 2):
        raise StepFailed("console", 19, b"/dev/pts/ptmx")
    peer = open_peer(master)
    wire.send(channel, ("console",), master)
    os.close(master)
    return peer


def _accept(listener: _socket.socket) -> _socket.socket:
    """The connection of whoever says when to go on (`start`); accepted by the raw call, close-on-exec."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    return _socket.socket(fileno=fd)


def _time_namespace(offsets: bytes) -> None:
    """Children are born into a new time namespace; its clocks are set before the first one (time_namespaces(7))."""
    process.unshare(process.CLONE_NEWTIME)
    if offsets:
        fd = os.open(b"/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, offsets)
        finally:
            os.close(fd)


def _use_stdio(stdio: tuple[int, int, int], tty: bool) -> None:
    """With a terminal to come the caller's own stay out: it may wait for their end while this process waits for it."""
    if not tty:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
    for fd in {*stdio} - {0, 1, 2}:
        os.close(fd)


def _oom_score(value: int | None) -> None:
    """Raise or lower oom_score_adj; lowering needs CAP_SYS_RESOURCE and is passed over without it, as engines do."""
    if value is None:
        return
    fd = os.open(b"/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    except PermissionError:
        pass
    finally:
        os.close(fd)


def _join(entries: list[tuple[int, int]], fds: list[int]) -> None:
    for flag, index in entries:
        process.setns(fds[index], flag)


def _fail(channel: _socket.socket, step: str, code: int, detail: bytes) -> None:
    try:
        wire.send(channel, ("error", step, code, detail))
    except OSError:
        pass
