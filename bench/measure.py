"""Running commands and taking times and memory of processes. Owns clocks and /proc; knows no engine."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path


class Failed(Exception):
    """A measurement that could not be taken; the text is the reason that the table shows."""


def run(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, timeout: float = 600
) -> str:
    """Standard output of a command; Failed with its last words."""
    try:
        done = subprocess.run(
            argv,
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Failed(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{os.path.basename(argv[0])} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines() or ["no message"]
        raise Failed(f"{os.path.basename(argv[0])} failed: {said[-1][-160:]}")
    return done.stdout.decode(errors="replace")


def seconds(work: Callable[[], object], times: int, *, warm: int = 1) -> float:
    """Median duration of `work`, after `warm` runs that do not count."""
    for _ in range(warm):
        work()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def pids() -> set[int]:
    """Every process of this machine."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def descendants(roots: Iterable[int]) -> set[int]:
    """`roots` and all their children, as far as they run."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(pid)
    found, todo = set(), list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found and os.path.exists(f"/proc/{pid}"):
            found.add(pid)
            todo += children.get(pid, [])
    return found


def in_this_pid_namespace(pid: int) -> bool:
    """Whether a process is the engine's rather than a container's."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def memory(pid: int, field: str) -> int:
    """`Pss` or `Rss` of a process in bytes (smaps_rollup, proc(5)); 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
