"""Capability sets of a container: the default fourteen, and what --cap-add and --cap-drop make of them.

Owns names and arithmetic; never asks the kernel: what it may grant is told.
"""

from __future__ import annotations

from collections.abc import Iterable

from lading.base.errors import Denied, Invalid

# linux/capability.h, in bit order.
_BIT_ORDER = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_GRANTED = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""

ALL = tuple("CAP_" + name for name in _BIT_ORDER.split())
DEFAULT = tuple(name for name in ALL if name[4:] in _GRANTED.split())
"""What every mainstream engine grants at most; issue 3 holds us to no more."""

_KNOWN = frozenset(ALL)


def held(mask: int) -> frozenset[str]:
    """The names of a mask, as /proc/self/status shows it in CapEff."""
    return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)


def resolve(
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    privileged: bool = False,
    available: frozenset[str] = _KNOWN,
) -> tuple[str, ...]:
    """The granted set, in bit order. ALL in `add` starts from everything, ALL in `drop` from nothing.

    Nobody can grant what is not `available` to himself: one asked for by name is Denied, others are left out.
    """
    if privileged:
        return tuple(name for name in ALL if name in available)
    added, dropped = _names(add, "--cap-add"), _names(drop, "--cap-drop")
    if not added and not dropped:
        return DEFAULT
    if "ALL" in added:
        granted = set(ALL) - dropped
    elif "ALL" in dropped:
        granted = set(added)
    else:
        granted = (set(DEFAULT) | added) - dropped
    lacking = sorted((added & granted) - available - {"ALL"})
    if lacking:
        raise Denied(
            f"cannot grant {', '.join(lacking)}",
            why="The daemon itself does not hold it on this host.",
            hint="Run the daemon with it, or leave it out of --cap-add.",
        )
    return tuple(name for name in ALL if name in granted and name in available)


def _names(given: Iterable[str], flag: str) -> set[str]:
    """Canonical names: upper case, with CAP_; "ALL" stays."""
    names = set()
    for text in given:
        name = text.strip().upper()
        if name in ("ALL", "CAP_ALL"):
            names.add("ALL")
            continue
        if not name.startswith("CAP_"):
            name = "CAP_" + name
        if name not in _KNOWN:
            raise Invalid(
                f'invalid {flag}: unknown capability "{text}"',
                hint="capabilities(7) lists the names; write them with or without CAP_.",
            )
        names.add(name)
    return names
