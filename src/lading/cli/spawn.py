"""Start the daemon because a command found none. Owns the lock, the child's isolation and the words when it fails.

Ten commands at once start one daemon: the first to lock <run>/spawn.lock starts it, the others wait for the lock and
then find it there. The child is ours until it listens, so its end is seen at once and its last words are the reason given.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time

from lading.base.errors import Denied, Unavailable
from lading.base.paths import from_environment
from lading.client.endpoint import NotListening, default_host, dialler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context

PATIENCE = 60
"""Seconds to wait for a daemon that neither listens nor ends: a first start may have to repair a store."""

IDLE = "600"
"""Seconds without a connection, a running container or a build after which a daemon started on demand ends."""


def start_daemon(context: Context) -> None:
    """Return when a daemon listens at the default socket; Unavailable with its last words when it does not come up."""
    run = from_environment(context.environ, context.uid).run
    try:
        os.makedirs(os.path.dirname(run), mode=0o700, exist_ok=True)
        os.makedirs(run, mode=0o711, exist_ok=True)
        lock = os.open(f"{run}/spawn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _check_owner(run, context.uid)
    except PermissionError as error:
        raise Denied(
            "no daemon is running and you may not start one",
            why=f"{run}: {error.strerror}.",
            hint="Run the command as root, or set LADING_RUN and LADING_ROOT to directories of your own.",
        ) from None
    except OSError as error:
        raise Unavailable(
            "no daemon is running and none can be started", why=f"{run}: {error.strerror}."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            dialler(default_host(context.environ, context.uid))().close()
        except NotListening:
            _launch(context, run)
    finally:
        os.close(lock)


def _check_owner(run: str, uid: int) -> None:
    """A run directory that another user made (in /tmp, say) would put their socket in our daemon's place."""
    info = os.lstat(run)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (uid, 0) or info.st_mode & 0o022:
        raise Denied(
            f"the run directory {run} cannot be trusted",
            why="It is not yours alone to write to.",
            hint="Set LADING_RUN to a directory that only you can write to.",
        )


def _launch(context: Context, run: str) -> None:
    log = f"{run}/daemon.log"
    before = _size(log)
    pid = _spawn(context, log)
    dial = dialler(default_host(context.environ, context.uid))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            dial().close()
            return
        except NotListening:
            pass
        if os.waitpid(pid, os.WNOHANG)[0]:
            why = _last_words(log, before) or "It ended without a word."
            break
        time.sleep(0.004)
    else:
        why = f"It neither listens nor ended within {PATIENCE} seconds."
    raise Unavailable(
        "the daemon did not start",
        why=why,
        hint=f"Its log is {log}; `lading daemon` runs it in the foreground.",
    )


def _spawn(context: Context, log: str) -> int:
    """Start the child in a session of its own, with nothing of ours but the log; its process id."""
    # -I: neither the user's site-packages nor the working directory may choose the daemon's code. Where lading itself
    # was found through PYTHONPATH, the child must find it too: then only the working directory is kept out (-P).
    isolation = "-P" if context.environ.get("PYTHONPATH") else "-I"
    idle = context.environ.get("LADING_IDLE_EXIT") or IDLE
    return os.posix_spawn(
        sys.executable,
        [sys.executable, isolation, "-m", "lading", "daemon", "--idle-exit", idle],
        dict(context.environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=(1, 2, 3, 13, 15),  # HUP, INT, QUIT, PIPE, TERM: a shell may have had them ignored
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _last_words(log: str, since: int) -> str:
    """The last few lines the daemon wrote after `since`."""
    try:
        with open(log, "rb") as file:
            file.seek(max(since, _size(log) - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-5:])
