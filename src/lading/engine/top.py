"""`top`: a container's processes from the host's /proc, as ps(1) prints them. Owns the columns.

Nothing is run: neither the host's ps nor, above all, anything of the image.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lading.base.errors import Invalid

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """What /proc/<pid>/{stat,status,cmdline} say (proc(5))."""

    pid: int
    ppid: int
    uid: int
    gid: int
    comm: str
    command: str
    state: str
    tty: int
    ticks: int
    started: int  # ticks after boot
    rss: int  # KiB
    vsz: int  # KiB
    threads: int
    nice: int
    priority: int
    pgid: int
    sid: int


def read(pid: int) -> Process | None:
    """One process; None when it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read(4096)
        with open(f"/proc/{pid}/status", "rb") as file:
            status = file.read(8192)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read(4096)
    except OSError:
        return None
    begin, end = data.index(b"("), data.rindex(b")")
    comm = data[begin + 1 : end].decode("utf-8", "replace")
    field = data[end + 2 :].split()
    ids = {}
    for row in status.splitlines():
        if row.startswith((b"Uid:", b"Gid:")):
            ids[row[:3]] = int(row.split()[2])  # the effective one
    command = line.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace") or f"[{comm}]"
    return Process(
        pid=pid,
        ppid=int(field[1]),
        uid=ids.get(b"Uid", 0),
        gid=ids.get(b"Gid", 0),
        comm=comm,
        command=command,
        state=field[0].decode(),
        tty=int(field[4]),
        ticks=int(field[11]) + int(field[12]),
        started=int(field[19]),
        rss=int(field[21]) * _PAGE // 1024,
        vsz=int(field[20]) // 1024,
        threads=int(field[17]),
        nice=int(field[16]),
        priority=int(field[15]),
        pgid=int(field[2]),
        sid=int(field[3]),
    )


def _uptime() -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return float(file.read().split()[0])


def _age(process: Process) -> float:
    return max(0.0, _uptime() - process.started / _TICK)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _elapsed(seconds: float) -> str:
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{left:02d}"
    return f"{hours:02d}:{minutes:02d}:{left:02d}" if hours else f"{minutes:02d}:{left:02d}"


def _started(process: Process) -> str:
    age = _age(process)
    return time.strftime("%H:%M" if age < 86400 else "%b%d", time.localtime(time.time() - age))


def _percent_cpu(process: Process) -> str:
    age = _age(process)
    return f"{100 * process.ticks / _TICK / age:.1f}" if age else "0.0"


def _percent_memory(process: Process) -> str:
    total = os.sysconf("SC_PHYS_PAGES") * _PAGE // 1024
    return f"{100 * process.rss / total:.1f}"


def _user(uid: int) -> str:
    return "root" if uid == 0 else str(uid)


def _tty(process: Process) -> str:
    major, minor = process.tty >> 8 & 0xFFF, process.tty & 0xFF
    return f"pts/{minor}" if 136 <= major <= 143 else "?"


Show = Callable[[Process], str]

_COLUMNS: dict[str, tuple[str, Show]] = {
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.ppid)),
    "pgid": ("PGID", lambda p: str(p.pgid)),
    "sid": ("SID", lambda p: str(p.sid)),
    "user": ("USER", lambda p: _user(p.uid)),
    "uname": ("USER", lambda p: _user(p.uid)),
    "uid": ("UID", lambda p: str(p.uid)),
    "gid": ("GID", lambda p: str(p.gid)),
    "comm": ("COMMAND", lambda p: p.comm),
    "cmd": ("CMD", lambda p: p.command),
    "args": ("COMMAND", lambda p: p.command),
    "command": ("COMMAND", lambda p: p.command),
    "stat": ("STAT", lambda p: p.state),
    "state": ("S", lambda p: p.state),
    "s": ("S", lambda p: p.state),
    "tty": ("TT", _tty),
    "time": ("TIME", lambda p: _clock(p.ticks / _TICK)),
    "etime": ("ELAPSED", lambda p: _elapsed(_age(p))),
    "etimes": ("ELAPSED", lambda p: str(int(_age(p)))),
    "stime": ("STIME", _started),
    "start": ("STARTED", _started),
    "c": ("C", lambda p: _percent_cpu(p).partition(".")[0]),
    "pcpu": ("%CPU", _percent_cpu),
    "%cpu": ("%CPU", _percent_cpu),
    "pmem": ("%MEM", _percent_memory),
    "%mem": ("%MEM", _percent_memory),
    "rss": ("RSS", lambda p: str(p.rss)),
    "vsz": ("VSZ", lambda p: str(p.vsz)),
    "nlwp": ("NLWP", lambda p: str(p.threads)),
    "ni": ("NI", lambda p: str(p.nice)),
    "pri": ("PRI", lambda p: str(p.priority)),
}
_TITLES_EF = (("UID", "user"), ("PID", "pid"), ("PPID", "ppid"), ("C", "c"), ("STIME", "stime"))
_FULL = (*_TITLES_EF, ("TTY", "tty"), ("TIME", "time"), ("CMD", "cmd"))
_BSD = tuple(
    (title, key)
    for title, key in (
        ("USER", "user"), ("PID", "pid"), ("%CPU", "pcpu"), ("%MEM", "pmem"), ("VSZ", "vsz"), ("RSS", "rss"),
        ("TTY", "tty"), ("STAT", "stat"), ("START", "start"), ("TIME", "time"), ("COMMAND", "args"),
    )
)  # fmt: skip
_SHORT = (("PID", "pid"), ("TTY", "tty"), ("TIME", "time"), ("CMD", "comm"))


def columns(ps_args: str) -> tuple[tuple[str, str], ...]:
    """(title, column) for arguments of ps(1): -ef, aux, -o LIST and their like."""
    words = ps_args.split() or ["-ef"]
    asked: list[tuple[str, str]] = []
    while words:
        word = words.pop(0)
        letters = word.lstrip("-")
        position = letters.find("o")
        if position >= 0 and set(letters[:position]) <= set("aAxewL"):
            text = letters[position + 1 :] or (words.pop(0) if words else "")
            asked.extend(_asked(text))
    if asked:
        return tuple(asked)
    letters = ps_args.replace("-", "").replace(" ", "") or "ef"
    if set(letters) - set("efauxAwLlTd"):
        raise Invalid(f'unknown ps arguments "{ps_args[:80]}"', hint="Use -ef, aux or -o pid,ppid,args.")
    if "u" in letters:
        return _BSD
    return _FULL if "f" in letters else _SHORT


def _asked(text: str) -> Iterable[tuple[str, str]]:
    for item in text.split(","):
        name, equals, title = item.partition("=")
        found = _COLUMNS.get(name.lower())
        if found is None:
            raise Invalid(
                f'unknown ps column "{name[:40]}"', hint=f"Known are {', '.join(sorted(_COLUMNS))}."
            )
        yield (title if equals and title else found[0]), name.lower()


def table(pids: Iterable[int], ps_args: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(titles, rows)."""
    shown = columns(ps_args)
    rows = []
    for pid in sorted(pids):
        process = read(pid)
        if process is not None:
            rows.append(tuple(_COLUMNS[key][1](process) for _, key in shown))
    return tuple(title for title, _ in shown), rows
