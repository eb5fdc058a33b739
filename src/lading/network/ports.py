"""Reservations of host ports: a socket that is bound and never read, so that no other program takes the port.

Owns binding it and finding out who holds a port that is taken. The packets themselves never reach the
socket: they are translated before (see `nat`). Where they are not, an unconnected client is refused rather
than left hanging.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys

from lading.base.errors import Conflict, Denied, Invalid, Unavailable
from lading.network.values import check_port, check_protocol, pack_address

_INODE = re.compile(r"socket:\[(\d+)\]")


def reserve(protocol: str, host_ip: str, port: int) -> int:
    """A descriptor that keeps (protocol, address, port) while it is open anywhere.

    `host_ip` "" is every IPv4 address, port 0 lets the kernel choose. Conflict names the process that has the
    port, when /proc tells.
    """
    check_protocol(protocol)
    if port != 0:
        check_port(port)
    address = pack_address(host_ip) if host_ip else bytes(4)
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    text = socket.inet_ntop(family, address)
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as held:
        try:
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp" and port:
                _bind_tcp(held, text, port)
            else:
                held.bind((text, port))
        except OSError as error:
            raise _translated(error, protocol, text, port) from None
        return held.detach()


def _bind_tcp(held: socket.socket, text: str, port: int) -> None:
    """Bind exclusively, but over the remains (TIME_WAIT) of a server that has ended.

    Only SO_REUSEADDR binds over those, and it would also let a second such socket in, unless ours listens:
    listening takes the port for itself (net/ipv4/inet_connection_sock.c, inet_csk_update_fastreuse).
    shutdown(2) ends the listening but not the binding, and clearing the option keeps later sockets out. A
    port the kernel chose would be let go by shutdown (SOCK_BINDPORT_LOCK), and has no remains.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((text, port))
    held.listen(0)
    held.shutdown(socket.SHUT_RDWR)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def port_of(fd: int) -> int:
    """The port a reservation holds."""
    with socket.socket(fileno=os.dup(fd)) as held:
        return int(held.getsockname()[1])


def _translated(error: OSError, protocol: str, text: str, port: int) -> Exception:
    where = f"{f'[{text}]' if ':' in text else text}:{port}/{protocol}"
    if error.errno == errno.EADDRINUSE:
        owner = holder(protocol, text, port)
        return Conflict(
            f"port {where} is already in use",
            why=f"{owner} holds it." if owner else "",
            hint=f"Choose another host port, or find who has it with `ss -lnp 'sport = :{port}'`.",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Invalid(
            f"port {where} cannot be published",
            why=f"{text} is not an address of this host.",
            hint="Leave the address out to publish on all of them.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Denied(f"port {where} cannot be published", why="Ports below 1024 need CAP_NET_BIND_SERVICE.")
    return Unavailable(f"port {where} cannot be reserved", why=f"{error.strerror}.")


def holder(protocol: str, text: str, port: int) -> str:
    """ "name (pid 123)" of a process with a socket on this port, "" when /proc does not tell."""
    inodes = _inodes(protocol, text, port)
    if not inodes:
        return ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    match = _INODE.match(os.readlink(entry.path))
                    if match and match[1] in inodes:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                            return f"{file.read(64).strip()} (pid {pid})"
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
    return ""


def _inodes(protocol: str, text: str, port: int) -> set[str]:
    """Inodes of the listening (tcp) or unconnected (udp) sockets whose address covers this one;
    proc_net_tcp.rst.
    """
    state = "0A" if protocol == "tcp" else "07"
    found = set()
    for suffix in ("", "6"):
        try:
            with open(f"/proc/thread-self/net/{protocol}{suffix}", encoding="ascii") as file:
                rows = file.read(1 << 24).splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if len(fields) < 10 or fields[3] != state:
                continue
            local, _, number = fields[1].partition(":")
            if int(number, 16) == port and _covers(local, text):
                found.add(fields[9])
    return found


def _covers(local: str, text: str) -> bool:
    """Whether a socket bound to `local` (hexadecimal, as /proc writes it) keeps `text` from being bound."""
    wanted = pack_address(text)
    # /proc prints each 32-bit word in the machine's byte order.
    words = [int(local[start : start + 8], 16) for start in range(0, len(local), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return not any(packed) or not any(wanted) or packed[-len(wanted) :] == wanted
