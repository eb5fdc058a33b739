"""Where the daemon listens and how to dial it. Owns the endpoint's syntax; starts no daemon."""

from __future__ import annotations

import _socket
import sys

from lading.base.errors import Denied, Invalid, Unavailable, Unsupported
from lading.base.paths import from_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lading.client.http import Socket


class NotListening(Unavailable):
    """Nobody answers at the endpoint: there is no daemon."""


def default_host(environ: Mapping[str, str], uid: int) -> str:
    """LADING_HOST, or the unix socket in the run directory."""
    return environ.get("LADING_HOST") or f"unix://{from_environment(environ, uid).socket}"


def dialler(host: str, trusted: tuple[int, ...] = ()) -> Callable[[], Socket]:
    """A function that connects to `host` (`unix:///path`, `/path` or `tcp://name:port`) anew each time.

    On a unix socket whoever listens must be one of the users `trusted`, when any are given.
    """
    scheme, mark, rest = host.partition("://")
    if not mark:
        scheme, rest = "unix", host
    if scheme == "unix" and rest.startswith("/"):
        return lambda: _unix(rest, trusted)
    if scheme in ("tcp", "http"):
        name, _, port = rest.rstrip("/").rpartition(":")
        if name and port.isdigit():
            return lambda: _tcp(name.strip("[]"), int(port))
    if scheme in ("ssh", "npipe", "https"):
        raise Unsupported(f"the host {host!r} cannot be dialled", why=f"lading does not speak {scheme}://.")
    raise Invalid(
        f"{host!r} is not a daemon's address", hint="Write unix:///path/to/lading.sock or tcp://host:port."
    )


def _unix(path: str, trusted: tuple[int, ...]) -> Socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise _refused(error, f"unix://{path}") from None
    if trusted:
        # struct ucred: pid, uid, gid of who listens (unix(7), SO_PEERCRED)
        uid = int.from_bytes(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
        if uid not in trusted:
            sock.close()
            raise Denied(
                f"another user's daemon answers at unix://{path}",
                why=f"It belongs to user {uid}.",
                hint="If that is meant, name it: lading -H unix://PATH, or LADING_HOST.",
            )
    return sock


def _tcp(name: str, port: int) -> Socket:
    try:
        found = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(error, f"tcp://{name}:{port}") from None
    failure: OSError = OSError("no address")
    for family, _, _, _, address in found:
        sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            sock.connect(address)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise _refused(failure, f"tcp://{name}:{port}")


def _refused(error: OSError, host: str) -> Exception:
    if isinstance(error, PermissionError):
        return Denied(
            f"you may not use the daemon at {host}",
            why="The socket's owner and group decide who may.",
            hint="Run the command as root, join the socket's group, or start a daemon of your own with `lading daemon`.",
        )
    return NotListening(f"no daemon answers at {host}", why=f"{error.strerror or error}.")
