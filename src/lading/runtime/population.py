"""The processes of a container, also of one that has no control group: then those of its first process's pid namespace.

Owns the fallback by /proc alone; where there are groups, they are asked.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from lading.runtime.cgroup.group import Group

State = Mapping[str, Any] | None
"""What the monitor wrote of the living first process; None when it has ended."""


def pids(group: Group, state: State) -> list[int]:
    """Host pids of all processes."""
    if group.directories or state is None:
        return group.pids()
    init = int(state["pid"])
    own, wanted = _namespace("self"), _namespace(str(init))
    if wanted in (0, own):  # gone, or --pid host: only itself is known to be the container's
        return [init] if wanted else []
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _namespace(name) == wanted]


def kill(group: Group, state: State) -> None:
    """SIGKILL to all. Without groups the kernel ends the pid namespace with its first process (pid_namespaces(7))."""
    if group.directories or state is None:
        group.kill()
        return
    try:
        os.kill(state["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return


def _namespace(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0
