"""What the command line and the process that becomes init say to each other, and what happens at their words.

Plans and descriptors over a SEQPACKET socket, the word to go on, the seccomp listener, and the hooks of the host.
"""

from __future__ import annotations

import _socket
import marshal
import os

from lading.base import jsontext
from lading.base.errors import Internal, Invalid, LadingError, Unavailable
from lading.runtime import hooks, wire
from lading.runtime.failures import start_error
from lading.runtime.oci import state, terminal

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Callable
    from typing import Any


def plan_file(plan: dict[str, Any]) -> int:
    """A memory file with init's part of a plan (`init.read_plan`); there is no monitor to have another."""
    memory = os.memfd_create("lading-plan", os.MFD_CLOEXEC)
    view = memoryview(marshal.dumps({"init": marshal.dumps(plan)}))
    while view:
        view = view[os.write(memory, view) :]
    return memory


def join(pid: int, directories: Any) -> None:
    """Move a process into v1 groups; Unavailable, naming the group, where it does not fit."""
    for directory in directories:
        try:
            write_once(f"{directory}/cgroup.procs", b"%d" % pid)
        except OSError as error:
            raise Unavailable(
                f"the control group {directory} takes no process", why=error.strerror or ""
            ) from None


def write_once(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def write_pid(path: str, pid: int) -> None:
    """Aside, then renamed: readers wait for the name."""
    aside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    os.write(fd, b"%d" % pid)
    os.close(fd)
    os.rename(aside, path)


def send_plan(channel: _socket.socket, fds: list[int]) -> None:
    """The plan's descriptors and the three standard ones."""
    wire.send_many(channel, b"plan", [*fds, 0, 1, 2])


def send_go(channel: _socket.socket, text: int = -1) -> None:
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, text.to_bytes(4, "little"))] if text >= 0 else []
    channel.sendmsg([b"go"], ancillary)


def receive(channel: _socket.socket) -> tuple[tuple[Any, ...], int]:
    """One message; Internal when the other side ended without a word."""
    try:
        message, fd = wire.receive(channel)
    except ConnectionResetError:
        message, fd = None, -1
    if message is None:
        raise Internal("the process that makes the container ended without a word")
    return message, fd


def run_hooks(point: str, entries: list[dict[str, Any]], text: int) -> None:
    """Hooks of the host; Invalid, naming point and hook, when one fails."""
    try:
        hooks.run(hooks.encode(entries, dict(os.environb)), text)
    except hooks.HookFailed as failure:
        raise Invalid(
            f"a {point} hook failed: {failure.detail.decode('utf-8', 'replace')}",
            hint="Run it by hand with the container's state on its standard input.",
        ) from None


def after_stop(container: state.Container, warn: Callable[[str], None]) -> None:
    """poststop hooks: each is run, whatever the others did; failures are warnings (runtime.md "Lifecycle", 13)."""
    text = container.text("stopped")
    try:
        for entry in container.data["hooks"].get("poststop") or ():
            try:
                run_hooks("poststop", [entry], text)
            except LadingError as error:
                warn(str(error))
    finally:
        os.close(text)


def go(container: state.Container, channel: _socket.socket) -> None:
    """Let the command run; returns when it does. Raises the error of a command that cannot be executed."""
    needs_text = container.data.get("started_hooks")
    text = container.text("created") if needs_text else -1
    try:
        send_go(channel, text)
        while True:
            message, fd = _next(channel)
            if message is None:
                break
            if message[0] == "notify":
                _notify(container, fd)
            else:
                raise start_error(*message[1:4])
    finally:
        if text >= 0:
            os.close(text)


def _next(channel: _socket.socket) -> tuple[tuple[Any, ...] | None, int]:
    """A message, or None when execve closed the other end."""
    try:
        return wire.receive(channel)
    except ConnectionResetError:
        return None, -1


def _notify(container: state.Container, listener: int) -> None:
    """Hand the seccomp listener to the agent with the container's state (config-linux.md "The Container Process State")."""
    profile = container.data["seccomp"]
    text = {
        "ociVersion": state.VERSION,
        "fds": ["seccompFd"],
        "pid": container.pid,
        "metadata": profile.get("listenerMetadata") or "",
        "state": container.oci("creating"),
    }
    try:
        terminal.send_descriptor(profile["listenerPath"], listener, jsontext.dumps(text).encode())
    finally:
        os.close(listener)


def started(container: state.Container, warn: Callable[[str], None]) -> None:
    """After the command runs: poststart hooks; when one fails the container is stopped (runtime.md "Lifecycle", 10)."""
    entries = container.data["hooks"].get("poststart")
    if entries:
        text = container.text("running")
        try:
            run_hooks("poststart", entries, text)
        except LadingError:
            container.group().kill()
            raise
        finally:
            os.close(text)
