"""This process into the user's namespaces: found with their keeper, or made anew. Owns the connection to the keeper.

A process enters a user namespace with one thread only (setns(2)), so this comes before anything that starts one. The
network is not entered: the engine pulls and publishes from the host's, and `network` goes inside for the rest.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lading.base.errors import Denied, Internal, Unavailable
from lading.base.paths import Paths
from lading.linux import identity, mount, process
from lading.rootless import groups, keeper, places
from lading.runtime.cgroup.layout import Layout

_TRIES = 50


class Entered:
    """The namespaces, as long as this is open. `warnings` says what this engine cannot do, for `lading info`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        answer, fds = self._exchange(("hello",), ())
        self.network = fds[0]
        self.keeper = int(answer[1])
        self._facts: dict[str, str] = answer[2]
        self.layout = Layout({}, "", frozenset())
        self.warnings: tuple[str, ...] = ()

    def enter(self) -> None:
        """Become root of the namespace, in a mount namespace of one's own; the working directory stays."""
        target = process.pidfd_open(self.keeper)
        try:
            process.setns(target, process.CLONE_NEWUSER)
        finally:
            os.close(target)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        process.prctl(process.PR_SET_DUMPABLE, 1)  # else /proc/self is the host root's (proc(5))
        process.unshare(process.CLONE_NEWNS)
        mount.mount(None, b"/", None, mount.MS_SLAVE | mount.MS_REC)
        self.layout = groups.delegated()
        groups.step_aside(self.layout)
        self.warnings += self._lacking()

    @property
    def way_out(self) -> str:
        """The program that connects containers to the outside; "" when there is none."""
        return self._facts["way"]

    @property
    def no_way_out(self) -> str:
        """Why there is none."""
        return self._facts["no_way"]

    def _lacking(self) -> tuple[str, ...]:
        found = []
        if identity.single():
            found.append(
                "WARNING: rootless with a single identity: every file belongs to one user, and changing owners or "
                f"running as another user fails ({self._facts['identities']})"
            )
        if not self.way_out:
            found.append(
                f"WARNING: rootless without a network of its own, containers use the host's: {self.no_way_out}"
            )
        if self.layout.mode == "none":
            found.append(f"WARNING: {groups.NONE}")
        return tuple(found)

    def ask(self, message: tuple[Any, ...], fds: Sequence[int] = ()) -> tuple[Any, ...]:
        """One exchange with the keeper. Unavailable when it has gone, or says no."""
        answer, passed = self._exchange(message, fds)
        for fd in passed:
            os.close(fd)
        return answer

    def _exchange(self, message: tuple[Any, ...], fds: Sequence[int]) -> tuple[tuple[Any, ...], list[int]]:
        with self._lock:
            try:
                socket.send_fds(self._channel, [marshal.dumps(message)], list(fds))
                data, passed, _, _ = socket.recv_fds(self._channel, 1 << 16, 1)
            except OSError as error:
                raise Unavailable(
                    "the keeper of the user namespace does not answer", why=str(error)
                ) from error
        if not data:
            raise Unavailable(
                "the keeper of the user namespace has gone",
                hint="End what runs (its containers lost their network with it), and start the daemon again.",
            )
        answer: tuple[Any, ...] = marshal.loads(data)
        if answer[0] == "error":
            raise Unavailable("the keeper of the user namespace refused", why=str(answer[1]))
        return answer, passed

    def close(self) -> None:
        """Let go of the namespaces; the keeper ends when it has nothing left to hold."""
        groups.leave(self.layout)
        self._channel.close()
        os.close(self.network)


def enter(paths: Paths, environ: Mapping[str, str]) -> Entered:
    """Into the namespaces of this run directory. Root has no need of it."""
    places.make_run(paths.run)
    places.check_run(paths.run, os.getuid(), os.getgid())
    os.makedirs(paths.root, mode=0o711, exist_ok=True)
    unsafe = places.warning(paths.root)
    lock = os.open(f"{paths.run}/keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entered = Entered(_connected(paths.run, environ))
    finally:
        os.close(lock)
    entered.warnings = (*([unsafe] if unsafe else []),)
    try:
        entered.enter()
    except OSError as error:
        entered.close()
        raise Denied("the user namespace cannot be entered", why=error.strerror or str(error)) from error
    return entered


def _connected(run_dir: str, environ: Mapping[str, str]) -> socket.socket:
    path = f"{run_dir}/keeper.sock"
    for _ in range(_TRIES):
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel.connect(path)
        except OSError as error:
            channel.close()
            if not keeper.is_gone(error):
                raise Unavailable(
                    "the keeper of the user namespace cannot be reached", why=str(error)
                ) from error
            isolation = "-P" if environ.get("PYTHONPATH") else "-I"
            reason = keeper.start(run_dir, isolation, f"{run_dir}/keeper.log")
            if reason:
                raise _refused(reason) from None
            continue
        uid = int.from_bytes(
            channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder
        )
        if uid == os.getuid():
            return channel
        channel.close()
        raise Denied(f"another user's process answers at {path}", why=f"It belongs to user {uid}.")
    time.sleep(0.02)
    raise Internal(
        "the keeper of the user namespace ended again and again", hint=f"See {run_dir}/keeper.log."
    )


def _refused(reason: str) -> Denied:
    return Denied(
        "lading cannot make a user namespace",
        why=reason,
        hint="Run it as root, or have the administrator allow them: user.max_user_namespaces above 0, and where they "
        "exist kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0.",
    )
