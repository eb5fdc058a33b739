"""The zygote: a warm, single-threaded Python that forks a monitor per start. No secrets, no threads, few imports.

It runs from a sealed copy of the interpreter (memfd_create(2), F_ADD_SEALS), so that a container that reaches its own
starter through /proc/PID/exe finds nothing it could write (CVE-2019-5736). Two requests, each with descriptors:
("seat", directories) makes a monitor that waits for a container, its control socket first; ("exec",) one for an exec,
with the memory file of its marshalled plan first and then the descriptors that the plan names by index.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import signal

from lading.linux import process
from lading.runtime import offspring, wire


def serve(channel: _socket.socket) -> None:
    """Fork a monitor for every request until the daemon's end of the channel closes."""
    while True:
        data, fds = wire.receive_many(channel)
        if not data:
            return
        if os.fork() == 0:
            channel.close()
            request = marshal.loads(data)
            if request[0] == "seat":
                offspring.seat(request[1], fds)
            else:
                offspring.execution(fds)
        for fd in fds:
            os.close(fd)


def main(channel_fd: int) -> None:
    """Entry point, exec'd by the daemon with one inherited socket."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setsid()
    process.set_name(b"lading-zygote")
    # `--init` keeps this in the container, where a path of the host says too much.
    process.set_command_line(b"lading")
    channel = _socket.socket(fileno=channel_fd)
    os.set_inheritable(channel_fd, False)
    gc.disable()
    gc.freeze()
    channel.send(b"ready")
    serve(channel)
