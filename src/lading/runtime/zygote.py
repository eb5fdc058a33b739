"""The zygote: a warm, single-threaded Python that forks a monitor per start. No secrets, no threads, few imports.

It runs from a sealed copy of the interpreter (memfd_create(2), F_ADD_SEALS), so that a container that reaches its own
starter through /proc/PID/exe finds nothing it could write (CVE-2019-5736). A request is one byte with the descriptor of a
memory file that holds the marshalled plan, and the descriptors that the plan names by index.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import signal

from lading.linux import process
from lading.runtime import monitor

MAX_FDS = 64


def serve(channel: _socket.socket) -> None:
    """Fork a monitor for every request until the daemon's end of the channel closes."""
    space = _socket.CMSG_SPACE(4 * MAX_FDS)
    while True:
        data, ancillary, _, _ = channel.recvmsg(16, space, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        fds: list[int] = []
        for _level, _kind, payload in ancillary:
            fds += [int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload) - 3, 4)]
        if os.fork() == 0:
            channel.close()
            size = os.fstat(fds[0]).st_size
            plan = marshal.loads(os.pread(fds[0], size, 0))
            monitor.main(plan, fds)
        for fd in fds:
            os.close(fd)


def main(channel_fd: int) -> None:
    """Entry point, exec'd by the daemon with one inherited socket."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setsid()
    process.set_name(b"lading-zygote")
    channel = _socket.socket(fileno=channel_fd)
    os.set_inheritable(channel_fd, False)
    gc.disable()
    gc.freeze()
    channel.send(b"ready")
    serve(channel)
