"""The resolver's process: gives up every privilege, then serves. Exec'd by the daemon with a listening socket.

It reads what containers and the net send, so it is nobody: no capability, no new privileges, no child processes. It
outlives the daemon and ends by itself when no container and no daemon need it.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys

from lading.linux import identity, process
from lading.network.dns.server import Server
from lading.network.dns.upstream import Host

_NOBODY = 65534
_MEMORY = 512 << 20


def main(listener_fd: int) -> None:
    """Entry point."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    process.set_name(b"lading-names")
    become_nobody()
    os.set_inheritable(listener_fd, False)
    gc.freeze()
    Server(socket.socket(fileno=listener_fd), Host()).run()


def become_nobody() -> None:
    """Keep descriptors, lose everything else; as an ordinary user, only what one can lose."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    if os.geteuid() == 0 and identity.single():
        process.capset(0, 0, 0)  # there is nobody else to become
    elif os.geteuid() == 0:
        if identity.may_set_groups():
            os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
