"""The specification's hooks: run one after the other with the container's state on standard input. System calls only.

Used by the command line for hooks of the host (prestart, createRuntime, poststart, poststop) and by init for those in the
container's namespaces (createContainer, startContainer), so nothing is imported or looked up here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, 3 ms
import os
import select

if False:  # names for the type checker only; init must not import typing
    from typing import Any

POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_SAID = 2048


class HookFailed(Exception):
    """A hook that could not be run, ended with an error or ran out of time; `detail` says which, in bytes."""

    def __init__(self, detail: bytes) -> None:
        super().__init__(detail)
        self.detail = detail


def encode(
    entries: list[dict[str, Any]], inherited: dict[bytes, bytes] | None = None
) -> list[tuple[bytes, list[bytes], dict[bytes, bytes], int]]:
    """(path, arguments, environment, timeout in seconds or 0) of each hook, without any text left to encode."""
    found = []
    for entry in entries:
        path = os.fsencode(entry["path"])
        # The specification leaves open what a hook without `env` gets: of the host's, the caller's own, as with runc.
        environment = dict(inherited or {}) if entry.get("env") is None else {}
        for item in entry.get("env") or ():
            name, _, value = os.fsencode(item).partition(b"=")
            if name:
                environment[name] = value
        words = [os.fsencode(word) for word in entry.get("args") or ()]
        found.append((path, words or [path], environment, int(entry.get("timeout") or 0)))
    return found


def run(hooks: list[tuple[bytes, list[bytes], dict[bytes, bytes], int]], state: int) -> None:
    """All hooks in order; `state` is a file descriptor with the container's state. HookFailed stops at the first."""
    for path, words, environment, timeout in hooks:
        os.lseek(state, 0, os.SEEK_SET)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _become(path, words, environment, state, writer)
        os.close(writer)
        try:
            said, status = _await(child, reader, timeout)
        finally:
            os.close(reader)
        if status is None:
            raise HookFailed(b"%b: still running after %d seconds" % (path, timeout))
        if status:
            code = os.waitstatus_to_exitcode(status)
            raise HookFailed(b"%b: ended with %d: %b" % (path, code, said.strip()))


def _become(
    path: bytes, words: list[bytes], environment: dict[bytes, bytes], state: int, output: int
) -> None:
    try:
        os.dup2(state, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        os.execve(path, words, environment)
    except OSError as error:
        os.write(2, b"errno %d" % (error.errno or 0))
    finally:
        os._exit(127)


def _await(child: int, reader: int, timeout: int) -> tuple[bytes, int | None]:
    """(the beginning of what it said, wait status); None when its time ran out and it was killed."""
    waiter = select.poll()
    pidfd = os.pidfd_open(child)
    waiter.register(pidfd, select.POLLIN)
    waiter.register(reader, select.POLLIN)
    deadline = _now() + timeout * 1000 if timeout else 0
    said = b""
    try:
        while True:
            events = waiter.poll(max(0, deadline - _now()) if deadline else None)
            ready = [fd for fd, _ in events]
            if not ready:
                os.kill(child, _signal.SIGKILL)
                os.waitpid(child, 0)
                return said, None
            if reader in ready:
                data = os.read(reader, 65536)
                said = (said + data)[:_SAID]
                if not data:
                    waiter.unregister(reader)
            elif pidfd in ready:
                # What it left in the background may hold the pipe: its end is the hook's, not the pipe's.
                return said, os.waitpid(child, 0)[1]
    finally:
        os.close(pidfd)


def _now() -> int:
    return int(os.times().elapsed * 1000)
