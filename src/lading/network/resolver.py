"""The text of a container's /etc/resolv.conf and /etc/hosts. Pure: the host's text is handed in, nothing is
read.

Nothing is invented: where the host knows no name server that a container could reach, the container gets
none, rather than a public one that its owner never chose.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from lading.base.errors import Invalid

_HOST_LIMIT = 64 * 1024
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,255}\Z")
_HOSTNAME = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}\Z"
)  # container names, too, which may end in a dash

_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def resolv_conf(
    host_text: str,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    *,
    keep_loopback: bool = False,
) -> str:
    """resolv.conf(5) for a container: what is given wins over the host's, kind by kind, as with docker.

    Name servers on the host's loopback are left out, since a container's loopback is another one, unless
    `keep_loopback` (for --network host). A search list of just "." means none.
    """
    for server in dns:
        _check_server(server)
    for word in (*search, *options):
        if not _WORD.match(word):
            raise Invalid(f"{word[:60]!r} cannot be a search domain or an option of resolv.conf")
    servers, domains, settings = _parse(host_text[:_HOST_LIMIT], keep_loopback)
    servers = list(dns) or servers
    domains = [word for word in search if word != "."] if search else domains
    settings = list(options) or settings
    lines = [f"nameserver {server}" for server in servers]
    if domains:
        lines.append("search " + " ".join(domains))
    if settings:
        lines.append("options " + " ".join(settings))
    return "".join(line + "\n" for line in lines)


def options_of(host_text: str) -> list[str]:
    """The options in a host's resolv.conf."""
    return _parse(host_text[:_HOST_LIMIT], True)[2]


def loopback_only(host_text: str) -> bool:
    """Whether every name server in the host's text is on its loopback, as systemd-resolved's stub is.

    The caller then does better with the text of /run/systemd/resolve/resolv.conf, which names the real ones.
    """
    every, reachable = _parse(host_text, True)[0], _parse(host_text, False)[0]
    return bool(every) and not reachable


def _parse(text: str, keep_loopback: bool) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    domains: list[str] = []
    settings: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _usable(words[1], keep_loopback):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):  # the last of them counts (resolv.conf(5))
            domains = [word for word in words[1:] if _WORD.match(word) and word != "."]
        elif words[0] == "options":
            settings += [word for word in words[1:] if _WORD.match(word)]
    return servers, domains, settings


def _usable(server: str, keep_loopback: bool) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    if keep_loopback:
        return True
    # A zone names an interface of the host ("fe80::1%eth0"), which the container does not have.
    return not address.is_loopback and "%" not in server


def _check_server(server: str) -> None:
    try:
        ipaddress.ip_address(server)
    except ValueError:
        raise Invalid(
            f"{server[:60]!r} cannot be a name server",
            why="--dns takes IP addresses.",
            hint="Give an address such as 192.0.2.53.",
        ) from None


def hosts_file(
    own: Iterable[tuple[str, Sequence[str]]] = (),
    extra: Sequence[str] = (),
    *,
    host_gateway: str = "",
) -> str:
    """hosts(5) for a container: localhost, then `extra` ("name:address"), then its `own` (address, names).

    The address "host-gateway" stands for `host_gateway`, the host as the container sees it.
    """
    lines = [f"{address}\t{names}\n" for address, names in _LOCAL]
    for entry in extra:
        name, address = parse_extra_host(entry, host_gateway)
        lines.append(f"{address}\t{name}\n")
    for address, names in own:
        kept = [name for name in names if name]
        for name in kept:
            _check_hostname(name)
        _check_address(address)
        if kept:
            lines.append(f"{address}\t{' '.join(kept)}\n")
    return "".join(lines)


def parse_extra_host(entry: str, host_gateway: str = "") -> tuple[str, str]:
    """(name, address) of "name:address" or "name=address"; an IPv6 address may be in brackets."""
    position = min((found for found in (entry.find(":"), entry.find("=")) if found > 0), default=-1)
    name, address = entry[:position], entry[position + 1 :]
    if position < 0 or not address:
        raise Invalid(
            f"extra host {entry[:80]!r} is malformed", hint="Write it as name:address, such as db:192.0.2.7."
        )
    _check_hostname(name)
    if address == "host-gateway":
        if not host_gateway:
            raise Invalid(
                f"extra host {name} has no host-gateway here",
                why="This network has no address of the host.",
            )
        address = host_gateway
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    _check_address(address)
    return name, address


def _check_hostname(name: str) -> None:
    if not _HOSTNAME.match(name):
        raise Invalid(
            f"{name[:60]!r} is not a host name", why="It takes letters, digits, dots, dashes and underscores."
        )


def _check_address(address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise Invalid(f"{address[:60]!r} is not an IP address") from None
