"""Loading a seccomp filter (seccomp(2)). Knows nothing of what the filter says."""

from __future__ import annotations

import ctypes

from lading.linux import calls

SET_MODE_FILTER = 1
GET_ACTION_AVAIL = 2
FLAG_TSYNC = 1
FLAG_LOG = 2
FLAG_SPEC_ALLOW = 4
FLAG_NEW_LISTENER = 8
FLAG_TSYNC_ESRCH = 16
FLAG_WAIT_KILLABLE_RECV = 32


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def load(program: bytes, flags: int = 0) -> int:
    """Attach a classic BPF program (8 bytes an instruction) to this thread; needs no_new_privs or CAP_SYS_ADMIN.

    With FLAG_NEW_LISTENER the descriptor on which notifications are read is returned, else 0.
    """
    record = _Program(len(program) // 8, program)
    return calls.check(
        calls.syscall_held(calls.number("seccomp"), SET_MODE_FILTER, flags, ctypes.byref(record)), "seccomp"
    )
