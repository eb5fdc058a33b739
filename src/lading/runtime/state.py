"""The files and the control socket by which a monitor is found again: run/c/<id>/{state,exit,ctl}. Writes nothing.

A state file counts only if its process has the start time that was written down, in this boot (the third truth).
"""

from __future__ import annotations

import json
import marshal
import os
import socket
from typing import Any

from lading.base.errors import NotFound
from lading.linux import process
from lading.runtime import wire

_TIMEOUT = 60.0


class StateFiles:
    """Reads what monitors of this run directory wrote."""

    def __init__(self, run_root: str) -> None:
        self._containers = f"{run_root}/c"
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            self.boot_id = file.read().strip()

    def directory(self, identifier: str) -> str:
        """The live state directory of one container or exec."""
        return f"{self._containers}/{identifier}"

    def known(self) -> list[str]:
        """Every identifier that has a live state directory."""
        return [name for name in os.listdir(self._containers) if not name.startswith(".")]

    def read(self, identifier: str, name: str) -> dict[str, Any] | None:
        try:
            with open(f"{self.directory(identifier)}/{name}", "rb") as file:
                value = json.loads(file.read(4096))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def living(self, identifier: str) -> dict[str, Any] | None:
        """The state file, when its process is truly the one that was started, in this boot."""
        state = self.read(identifier, "state")
        if state is None or state.get("boot") != self.boot_id:
            return None
        try:
            return state if process.start_time(state["pid"]) == state["start"] else None
        except ProcessLookupError:
            return None


def control(run_dir: str, message: tuple[Any, ...], fd: int = -1) -> socket.socket:
    """Send one message to the monitor and wait for its "ok"; NotFound when there is no monitor."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # Through a descriptor, since a socket's path may hold 107 bytes only (unix(7)).
        folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            channel.connect(f"/proc/self/fd/{folder}/ctl")
        finally:
            os.close(folder)
        if fd >= 0:
            socket.send_fds(channel, [marshal.dumps(message)], [fd])
        else:
            channel.send(marshal.dumps(message))
        channel.settimeout(_TIMEOUT)
        answer, _ = wire.receive(channel)
        channel.settimeout(None)
        if answer is None:
            raise ConnectionResetError
    except OSError as error:
        channel.close()
        raise NotFound(
            f"nothing runs under {os.path.basename(run_dir)[:12]}",
            why="its monitor does not answer",
            hint="See `lading ps -a`.",
        ) from error
    return channel
