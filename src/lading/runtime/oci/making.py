"""The verbs create, run and start. Owns the foreground: signals passed on, the terminal relayed, the end told."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, 3 ms
import _socket
import os

from lading.base.errors import Cancelled, Conflict, Internal, Invalid, Unsupported
from lading.runtime.oci import stage

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

    from lading.runtime.oci import state
    from lading.runtime.oci.entry import Context

# Not those that cannot be caught, our own faults, what the terminal means for us alone, and the two glibc keeps.
_KEPT = {
    _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE,
    _signal.SIGILL, _signal.SIGURG, _signal.SIGTTIN, _signal.SIGTTOU, 32, 33,
}  # fmt: skip


class Foreground:
    """Signals while a container is made (they cancel) and while it runs (they are its)."""

    def __init__(self) -> None:
        self.pid = 0
        for number in range(1, 65):
            if number not in _KEPT:
                _signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: Any) -> None:
        if self.pid:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass
        elif number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT):
            raise Cancelled(f"ended by signal {number} before the container ran")

    def wait(self, pid: int, master: int) -> int:
        """The exit code of `pid`, which is our child; 128 + n for signal n."""
        self.pid = pid
        if master >= 0:
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            _signal.signal(_signal.SIGWINCH, lambda number, frame: None)
            from lading.runtime.oci import terminal

            terminal.relay(master, os.pidfd_open(pid), reader)
        _, status = os.waitpid(pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def settings(options: dict[str, Any]) -> dict[str, Any]:
    """Flags that create, run and exec share, checked."""
    inherited = int(os.environ.get("LISTEN_FDS") or 0) if os.environ.get("LISTEN_FDS", "0").isdecimal() else 0
    preserve = int(options.get("preserve-fds") or 0) + inherited
    if not 0 <= preserve <= 1000:
        raise Invalid(f"--preserve-fds: {preserve} descriptors cannot be kept")
    gaps = []
    for fd in range(3, 3 + preserve):
        try:
            os.set_inheritable(fd, True)
        except OSError:
            # Held until the command starts, so that nothing of ours takes the number and is handed over.
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, fd)
            if null != fd:
                os.close(null)
            os.set_inheritable(fd, True)
            gaps.append(fd)
    return {
        "preserve": preserve,
        "gaps": gaps,
        "listen_fds": inherited,
        "console_socket": options.get("console-socket"),
        "pid_file": options.get("pid-file"),
    }


def create(context: Context, options: dict[str, Any], identifier: str, *, run: bool) -> int:
    """`create`, and `run` in the foreground or detached."""
    if options.get("no-pivot"):
        raise Unsupported("--no-pivot: is not supported", why="a process could leave the root it is moved to")
    foreground = Foreground()
    attached = run and not options.get("detach")
    shared = settings(options) | {
        "bundle": options.get("bundle") or ".",
        "no_new_keyring": options.get("no-new-keyring"),
        "foreground": attached and not options.get("console-socket"),
    }
    second = stage.spawn("container", shared["preserve"])
    priming = stage.Priming()
    try:
        from lading.runtime.oci import exchange, launch  # while the second process loads what it needs

        made = launch.Launch(context.root, identifier, shared, context.warn, second, priming)
    except BaseException:
        priming.wait()
        stage.end(*second)
        raise
    made.make(waits=not run)
    if not run:
        return 0
    foreground.pid = made.pid
    try:
        exchange.go(made.container, made.channel)
        exchange.started(made.container, context.warn)
    except BaseException:
        made.undo()
        raise
    if not attached:
        return 0
    try:
        return foreground.wait(made.pid, made.master)
    finally:
        if not options.get("keep"):
            finish(context, made.container)


def finish(context: Context, container: state.Container) -> None:
    """What delete does to a container that has ended."""
    from lading.runtime.oci import exchange, groups

    group = container.group()
    if not container.data["pidns"]:
        group.kill()
    groups.remove(group)
    container.remove()
    exchange.after_stop(container, context.warn)


def start(context: Context, identifier: str) -> int:
    """Let the command of a created container run."""
    from lading.runtime.oci import exchange, state

    container = state.Container.found(context.root, identifier)
    status = container.status()
    if status != "created":
        raise Conflict(
            f"cannot start a container that is {status}", hint="Only a created one can be started."
        )
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    folder = os.open(container.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        channel.connect(f"/proc/self/fd/{folder}/start")
    except OSError as error:
        raise Internal(f"container {identifier!r} does not listen", why=error.strerror or "") from None
    finally:
        os.close(folder)
    os.unlink(f"{container.directory}/start")  # a second start finds the container running
    try:
        exchange.go(container, channel)
    finally:
        channel.close()
    exchange.started(container, context.warn)
    return 0
