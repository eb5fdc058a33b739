"""/etc/hosts, /etc/hostname and /etc/resolv.conf of one container. Owns writing them in the container's directory.

Their text is the network room's (`resolver`); they are bind-mounted, so a later change writes into the same inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from lading.engine.model import EndpointState
from lading.engine.spec import Bind

_SYSTEMD_RESOLVED = "/run/systemd/resolve/resolv.conf"  # the real servers behind its 127.0.0.53


def host_resolver() -> str:
    """The host's resolv.conf, with systemd's stub looked through, since a container cannot reach it."""
    from lading.network import resolver

    text = _read("/etc/resolv.conf")
    if resolver.loopback_only(text):
        text = _read(_SYSTEMD_RESOLVED) or text
    return text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""


def hosts(
    hostname: str,
    domainname: str,
    endpoints: Iterable[EndpointState],
    extra: Sequence[str],
    peers: Iterable[tuple[str, Sequence[str]]] = (),
    host_gateway: str = "",
) -> str:
    """hosts(5): localhost, the extra names, the container's own addresses, then its peers on named networks."""
    from lading.network import resolver

    names = [f"{hostname}.{domainname}", hostname] if domainname else [hostname]
    own: list[tuple[str, Sequence[str]]] = []
    for state in endpoints:
        own.extend((address, names) for address in (state.ipv4, state.ipv6) if address)
    return resolver.hosts_file([*own, *peers], extra, host_gateway=host_gateway)


def resolv_conf(
    dns: Sequence[str],
    search: Sequence[str],
    options: Sequence[str],
    *,
    host_network: bool,
    text: str | None = None,
) -> str:
    """resolv.conf(5) for one container."""
    from lading.network import resolver

    if host_network:
        return resolver.resolv_conf(
            text if text is not None else _read("/etc/resolv.conf"), dns, search, options, keep_loopback=True
        )
    return resolver.resolv_conf(text if text is not None else host_resolver(), dns, search, options)


def write(directory: str, files: Iterable[tuple[str, str]]) -> tuple[Bind, ...]:
    """Write each (name, text) in place and return how it is shown below /etc."""
    binds = []
    for name, text in files:
        path = f"{directory}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        binds.append(Bind(path, f"/etc/{name}"))
    return tuple(binds)
