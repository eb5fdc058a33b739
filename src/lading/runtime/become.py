"""What the new process does to itself once it is among the container's mounts, up to execve. System calls only.

No import, codec, NSS, locale or PATH lookup can happen here, since the image would choose the code (CVE-2019-14271).
Everything needed is loaded and encoded before.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, 3 ms
import _socket
import os
import resource
import stat

from lading.linux import calls, process, seccomp
from lading.runtime import hooks, wire
from lading.runtime.root import StepFailed

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any

_ALL_SIGNALS = frozenset(range(1, 65)) - {9, 19, 32, 33}  # not KILL and STOP, nor the two glibc keeps


def finish(whole: dict[str, Any], channel: _socket.socket) -> None:
    """Everything from here to the command; returns only by raising StepFailed. `channel` hears of a seccomp listener."""
    process.close_range(3 + whole.get("preserve_fds", 0), flags=process.CLOSE_RANGE_CLOEXEC)
    for fd in whole.get("gaps", ()):
        os.set_inheritable(fd, False)
    if whole.get("own_keyring", True):
        _own_keyring()
    labels = _open_labels(whole["process"])
    if whole.get("find_home") and b"HOME" not in whole["process"]["env"]:
        whole["process"]["env"][b"HOME"] = _home(b"%d" % whole["process"]["uid"])
    become(whole, channel, labels)
    if whole.get("hooks", {}).get("startContainer"):
        try:
            hooks.run(whole["hooks"]["startContainer"], whole["state"])
        except hooks.HookFailed as failure:
            raise StepFailed("startContainer", 0, failure.detail) from None
    execute(whole)


def _open_labels(plan: dict[str, Any]) -> list[tuple[int, bytes]]:
    """The files that set a label for the next execve, found below the host's /proc: the image's may be anything."""
    opened = []
    for kind, label in plan["labels"]:
        path = b"self/attr/apparmor/exec" if kind == b"apparmor" else b"self/attr/exec"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=plan["proc"])
        except OSError as error:
            raise StepFailed("label", error.errno or 0, label) from None
        opened.append((fd, b"exec " + label if kind == b"apparmor" else label))
    return opened


def become(whole: dict[str, Any], channel: _socket.socket, labels: list[tuple[int, bytes]]) -> None:
    """Identity, limits and privileges."""
    plan = whole["process"]
    name = "scheduler"
    try:
        _schedule(plan)
        name = "cwd"
        _change_dir(plan)
        name = "rlimits"
        for kind, soft, hard in plan["rlimits"]:
            resource.setrlimit(kind, (soft, hard))
        if plan["umask"] >= 0:
            os.umask(plan["umask"])
        name = "user"
        filter_, filter_flags = whole["seccomp"]
        capabilities = plan["capabilities"]
        if filter_ and not plan["no_new_privileges"]:
            name = "seccomp"
            _filter(filter_, filter_flags, channel)  # while CAP_SYS_ADMIN is still held (seccomp(2))
            name = "user"
        _change_user(plan, capabilities)
        name = "cwd"
        _check_dir(plan)
        name = "label"
        for fd, text in labels:
            os.write(fd, text)
        if plan["no_new_privileges"]:
            name = "no_new_privileges"
            process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
            if filter_:
                name = "seccomp"
                _filter(filter_, filter_flags, channel)
    except ValueError:
        raise StepFailed(name, 22) from None
    except OSError as error:
        raise StepFailed(name, error.errno or 0, plan["cwd"] if name == "cwd" else b"") from None


def _home(uid: bytes) -> bytes:
    """The user's directory in the image's /etc/passwd, by bytes alone: the file may be anything (a FIFO, a terabyte)."""
    try:
        fd = os.open(b"/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b"/"
    try:
        data = os.read(fd, 1 << 20) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b"/"
    finally:
        os.close(fd)
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == uid and fields[5].startswith(b"/") and b"\0" not in fields[5]:
            return fields[5]
    return b"/"


def _schedule(plan: dict[str, Any]) -> None:
    if plan["personality"] >= 0:
        process.personality(plan["personality"])
    if plan["io_priority"] >= 0:
        process.ioprio_set(plan["io_priority"])
    if plan["scheduler"]:
        process.sched_setattr(*plan["scheduler"])


def _filter(program: bytes, flags: int, channel: _socket.socket) -> None:
    """Load the filter; a listener's descriptor goes to whoever started this process, who passes it on."""
    listener = seccomp.load(program, flags)
    if flags & seccomp.FLAG_NEW_LISTENER:
        wire.send(channel, ("notify",), listener)
        os.close(listener)


def _change_dir(plan: dict[str, Any]) -> None:
    try:
        os.chdir(plan["cwd"])
    except PermissionError:
        if plan["uid"] == 0:
            raise
    # A root that may not pass (root squash) is tried again as the user, in _check_dir.


def _check_dir(plan: dict[str, Any]) -> None:
    """It must lie inside the root: a leaked descriptor could have put it outside (CVE-2024-21626)."""
    os.chdir(plan["cwd"])
    if not os.getcwdb().startswith(b"/"):
        raise OSError(2, "the working directory is outside the container")


def _change_user(plan: dict[str, Any], capabilities: dict[str, int]) -> None:
    uid, gid = plan["uid"], plan["gid"]
    for fd in (0, 1, 2):
        _give(fd, uid)
    for number in range(64):
        if not capabilities["bounding"] >> number & 1:
            try:
                process.prctl(process.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno == 22:  # past the kernel's last capability
                    break
                raise
    if not plan.get("keep_groups"):
        os.setgroups(plan["groups"])
    process.prctl(process.PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    process.prctl(process.PR_SET_KEEPCAPS, 0)
    process.ambient_clear()
    permitted = capabilities["permitted"]
    process.capset(capabilities["effective"], permitted, capabilities["inheritable"])
    for number in range(64):
        if capabilities["ambient"] >> number & 1:
            process.ambient_raise(number)
    if plan.get("dies_with_parent", True):
        process.prctl(
            process.PR_SET_PDEATHSIG, process.SIGKILL
        )  # a change of credentials cleared it (prctl(2))


def execute(whole: dict[str, Any]) -> None:
    """execve of the first candidate that is there; StepFailed("exec") with the most telling errno of those tried."""
    plan = whole["process"]
    if whole["reaper"]:
        _reap()
    code = 2
    for path in plan["candidates"]:
        try:
            os.execve(path, plan["argv"], plan["env"])
        except OSError as error:
            if error.errno == 13:
                code = 13
            elif error.errno not in (2, 20):
                raise StepFailed("exec", error.errno or 0, plan["argv"][0]) from None
    raise StepFailed("exec", code, plan["argv"][0])


def find_command(plan: dict[str, Any]) -> None:
    """StepFailed("exec") when no candidate can be a command: `create` tells so, rather than `start`."""
    code = 2
    for path in plan["candidates"]:
        try:
            mode = os.stat(path if path.startswith(b"/") else plan["cwd"] + b"/" + path).st_mode
        except OSError as error:
            if error.errno not in (2, 20):
                return  # the user may see what root may not (root squash): execve will tell
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return
        code = 13
    raise StepFailed("exec", code, plan["argv"][0])


def _reap() -> None:
    """Stay as process 1: fork the command, pass signals on, reap orphans, end as the command ended (`--init`)."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL_SIGNALS)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            os.tcsetpgrp(0, os.getpid())
        except OSError:
            pass  # no terminal
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        return
    process.close_range(3)
    while True:
        number = _signal.sigwait(_ALL_SIGNALS)
        if number != _signal.SIGCHLD:
            if number != _signal.SIGTTOU:
                try:
                    os.kill(child, number)
                except OSError:
                    pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _give(fd: int, uid: int) -> None:
    """Let the user reopen its own stdio through /proc/self/fd: pipes and terminals belong to whoever made them."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)):
            os.fchown(fd, uid, -1)
    except OSError:
        pass


def _own_keyring() -> None:
    """Leave the daemon's session keyring for an empty one (keyctl(2)); kernels without keyrings need nothing."""
    calls.syscall_held(calls.number("keyctl"), 1, None)
