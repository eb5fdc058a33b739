"""Where a registry is: scheme, host, port, and what URLs it may send us to. Pure; opens nothing."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from lading.base import errors

DOCKER_HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"  # where the images of docker.io are served
_PORTS = {"http": 80, "https": 443}
_URL_LIMIT = 16 << 10


@dataclass(frozen=True, slots=True)
class Origin:
    """A web origin (RFC 6454): credentials given to one are never shown to another."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@dataclass(frozen=True, slots=True)
class Url:
    """A checked URL: its origin, and what follows it."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"

    @property
    def shown(self) -> str:
        """Without the query, which may hold a signature."""
        return str(self).partition("?")[0][:200]


def of_domain(domain: str, scheme: str = "https") -> Origin:
    """The origin that serves a reference's domain."""
    return parse(f"{scheme}://{_HUB_HOST if domain == DOCKER_HUB else domain}").origin


def parse(text: str, base: Url | None = None) -> Url:
    """Read an http(s) URL, relative to `base` where given; Invalid for anything else, as a registry may send it."""
    # A line break, blank or non-ASCII byte could end a header early (CWE-113).
    if (
        len(text) > _URL_LIMIT
        or not text.isascii()
        or any(ord(char) <= 32 or ord(char) == 127 for char in text)
    ):
        raise errors.Invalid("a URL is malformed", why=f"{text[:80]!r} holds blanks or is too long.")
    try:
        parts = urlsplit(urljoin(str(base), text) if base else text)
        port = parts.port
    except ValueError as error:
        raise errors.Invalid(f"the URL {text[:120]!r} is malformed", why=str(error)) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise errors.Invalid(f"{text[:120]!r} is no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise errors.Invalid("a URL carries a user name or password", why="Registries may not send one.")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    return Url(Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme]), target)


def follow(here: Url, location: str, *, insecure: bool = False) -> Url:
    """Where a redirect or an upload's Location leads. Denied for a downgrade to plain HTTP and for this host's own
    addresses when the registry is elsewhere (a registry could read what only this host may reach).
    """
    there = parse(location, here)
    if (
        here.origin.secure
        and not there.origin.secure
        and not (insecure and there.origin.host == here.origin.host)
    ):
        raise errors.Denied(
            f"{here.origin} redirects from HTTPS to plain HTTP", why=f"It points to {there.shown}."
        )
    if (
        there.origin.host != here.origin.host
        and is_local(there.origin.host)
        and not is_loopback(here.origin.host)
    ):
        raise errors.Denied(
            f"{here.origin} redirects to an address of this host", why=f"It points to {there.shown}."
        )
    return there


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """localhost and 127.0.0.0/8, which docker too reaches by plain HTTP, and ::1."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def is_local(host: str) -> bool:
    """Loopback, link-local (where clouds serve an instance's secrets) and unspecified addresses."""
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_link_local or address.is_unspecified


def related(one: str, other: str) -> bool:
    """Whether two hosts are the same or share a parent domain of two labels (auth.docker.io, registry-1.docker.io)."""
    if one == other:
        return True
    if _address(one) is not None or _address(other) is not None:
        return False
    mine, theirs = one.split("."), other.split(".")
    # Three letters or fewer may be a public suffix of two labels (co.uk, com.au).
    return len(mine) > 1 and mine[-2:] == theirs[-2:] and len(mine[-2]) > 3
