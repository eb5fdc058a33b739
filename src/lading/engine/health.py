"""Health checks: a command run in the container at intervals. Owns the schedule, the verdict and the last five results.

The state is kept in memory only: a new daemon starts checking afresh, as after a container's start.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import LadingError
from lading.base.ids import new_id
from lading.engine.model import ExecRequest, Health, HealthResult
from lading.runtime.model import Attachment

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry
    from lading.engine.timers import Timer

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3
_KEPT, _OUTPUT = 5, 4096
_KILL_WAIT = 5.0
_SHELL = ("/bin/sh", "-c")


def wants_probe(check: Health | None) -> bool:
    """Whether there is anything to run."""
    return check is not None and bool(check.test) and check.test[0] != "NONE"


def command(test: tuple[str, ...]) -> tuple[str, ...]:
    """The command of a test in Docker's forms."""
    if test[0] == "CMD-SHELL":
        return (*_SHELL, " ".join(test[1:]))
    return test[1:] if test[0] == "CMD" else test


class Probe:
    """The health of one run."""

    def __init__(self, rooms: Rooms, entry: Entry) -> None:
        check = entry.record.config.healthcheck
        self._check = check if check is not None else Health()
        self._rooms, self._entry = rooms, entry
        self._timer: Timer | None = None
        self._over = False
        self._started_ns = clock.now_ns()
        self.status = "starting"
        self.streak = 0
        self.results: tuple[HealthResult, ...] = ()

    def begin(self) -> None:
        """Plan the first check."""
        self._plan()

    def end(self) -> None:
        """The run is over: no more checks."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self) -> None:
        check = self._check
        interval = check.interval or _INTERVAL
        if self.status == "starting" and self._starting():
            interval = min(interval, check.start_interval or _START_INTERVAL)
        self._timer = self._rooms.timers.after(interval / _SECOND, self._run)

    def _starting(self) -> bool:
        return clock.now_ns() - self._started_ns < self._check.start_period

    def _run(self) -> None:
        if self._over:
            return
        started = clock.now_ns()
        try:
            code, output = run(self._rooms, self._entry, self._check)
        except LadingError as e:
            code, output = -1, str(e)
        except (OSError, TimeoutError) as e:
            code, output = -1, str(e)
        if self._over:
            return
        self._judge(HealthResult(started, clock.now_ns(), code, output))
        self._plan()

    def _judge(self, result: HealthResult) -> None:
        self.results = (*self.results, result)[-_KEPT:]
        before = self.status
        if result.exit_code == 0:
            self.streak, self.status = 0, "healthy"
        elif not (self.status == "starting" and self._starting()):
            self.streak += 1
            if self.streak >= (self._check.retries or _RETRIES):
                self.status = "unhealthy"
        if self.status != before:
            record = self._entry.record
            attributes = {**record.config.labels, "image": record.image_ref, "name": record.name}
            self._rooms.events.say("container", f"health_status: {self.status}", record.id, attributes)


def run(rooms: Rooms, entry: Entry, check: Health) -> tuple[int, str]:
    """Run the check once: (exit code, first 4 KiB of output); -1 when it took too long and was killed."""
    from lading.engine.execs import launch_of

    timeout = (check.timeout or _TIMEOUT) / _SECOND
    ours, theirs = socket.socketpair()
    ended: Future[int] = Future()
    exec_id = new_id()
    with ours:
        with theirs:
            attachment = Attachment(theirs.fileno(), framed=False)
            request = ExecRequest(command(check.test))
            rooms.runtime.exec(launch_of(rooms, entry, request, exec_id, (attachment,)))
        rooms.runtime.watch(exec_id, lambda how: ended.set_result(how.code))
        try:
            deadline = time.monotonic() + timeout
            output = _collect(ours, deadline)
            if output is not None:
                return ended.result(max(0.1, deadline - time.monotonic())), output
            rooms.runtime.kill(exec_id, 9)
            ended.result(_KILL_WAIT)
            return -1, f"Health check exceeded timeout ({timeout:g}s)"
        finally:
            rooms.runtime.delete(exec_id)


def _collect(stream: socket.socket, deadline: float) -> str | None:
    """Everything up to the end of the stream, the first 4 KiB kept; None at the deadline."""
    kept = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        stream.settimeout(left)
        try:
            data = stream.recv(65536)
        except TimeoutError:
            return None
        except OSError:
            data = b""
        if not data:
            return os.fsdecode(bytes(kept)).encode("utf-8", "replace").decode()
        kept += data[: _OUTPUT - len(kept)]
