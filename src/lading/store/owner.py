"""Who holds something: a process, told apart from a later one of the same number by boot id and start time.

Owns the token and the test whether its process still lives; never signals anything.
"""

from __future__ import annotations

import functools
import os


@functools.cache
def boot_id() -> str:
    """The kernel's name for this boot (proc(5), /proc/sys/kernel/random/boot_id)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def start_time(pid: int) -> int:
    """Clock ticks after boot at which `pid` started (proc_pid_stat(5), field 22); 0 when there is no such
    process, or a zombie, which holds nothing any more and may stay for long where nobody reaps it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            data = stream.read()
    except OSError:
        return 0
    # The command in parentheses may itself contain parentheses and spaces; the last ")" ends it.
    fields = data[data.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


@functools.lru_cache(maxsize=1)
def _token(pid: int) -> str:
    return f"{boot_id()}:{pid}:{start_time(pid)}"


def token() -> str:
    """This process as a holder."""
    return _token(os.getpid())


def alive(holder: str) -> bool:
    """Whether the process that made `holder` still runs."""
    try:
        boot, pid, start = holder.split(":")
        return boot == boot_id() and start_time(int(pid)) == int(start) != 0
    except ValueError:
        return False
