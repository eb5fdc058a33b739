"""/etc/hosts, /etc/hostname and /etc/resolv.conf of one container. Owns writing them in the container's directory.

Their text is the network room's (`resolver`); they are bind-mounted, so a later change writes into the same inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from lading.engine.model import EndpointState, HostConfig
from lading.engine.spec import Bind

_SYSTEMD_RESOLVED = "/run/systemd/resolve/resolv.conf"  # the real servers behind its 127.0.0.53


def host_resolver() -> str:
    """The host's resolv.conf, with systemd's stub looked through, since a container cannot reach it."""
    from lading.network import resolver

    text = _read("/etc/resolv.conf")
    if resolver.loopback_only(text):
        text = _read(_SYSTEMD_RESOLVED) or text
    return text


def host_has_only_loopback() -> bool:
    """Whether the host's name servers are out of every container's reach."""
    from lading.network import resolver

    return resolver.loopback_only(host_resolver())


def container_resolver(host: HostConfig, names: bool) -> str:
    """resolv.conf(5) of a container with these settings."""
    on_host = host.network_mode == "host"
    return resolv_conf(host.dns, host.dns_search, host.dns_options, host_network=on_host, names=names)


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
    host_gateway: str = "",
) -> str:
    """hosts(5): localhost, the extra names, then the container's own addresses."""
    from lading.network import resolver

    whole = f"{hostname}.{domainname}" if domainname else hostname
    names = list(dict.fromkeys([whole, hostname, hostname.partition(".")[0]]))
    own: list[tuple[str, Sequence[str]]] = []
    for state in endpoints:
        own.extend((address, names) for address in (state.ipv4, state.ipv6) if address)
    return resolver.hosts_file(own, extra, host_gateway=host_gateway)


def resolv_conf(
    dns: Sequence[str],
    search: Sequence[str],
    options: Sequence[str],
    *,
    host_network: bool,
    names: bool = False,
    text: str | None = None,
) -> str:
    """resolv.conf(5) for one container; with `names` it asks the embedded resolver, which asks `dns` or the host's.

    A name without dots is a container's name first: ndots:0 keeps it from being asked for in the host's domains.
    """
    from lading.network import resolver

    if names:
        from lading.network.dns.door import ADDRESS

        host_text = text if text is not None else _read("/etc/resolv.conf")
        resolver.resolv_conf("", dns)  # refuses what is no address
        words = list(options) or resolver.options_of(host_text)
        if not any(word.startswith("ndots:") for word in words):
            words.append("ndots:0")
        return resolver.resolv_conf(host_text, (ADDRESS,), search, words)
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
