"""What this host says about registries: registries.toml, certs.d, proxies, CA bundle. Read once, kept as a value.

registries.toml lies in /etc/lading and in the user's configuration directory, whose lists are added:

    insecure = ["registry.lan:5000", "10.1.0.0/16"]   # plain HTTP, or TLS that is not verified

    [mirrors]                                         # asked first, in this order, anonymously unless logged in there
    "docker.io" = ["https://mirror.lan"]

    [realms]                                          # further hosts that may be sent a registry's password
    "registry.lan" = ["login.example.org"]
"""

from __future__ import annotations

import glob
import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.base import errors
from lading.registry.client.origin import Origin, is_loopback

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Everything the host says."""

    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    realms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    certs: tuple[str, ...] = ()  # certs.d directories
    ca_file: str = ""
    proxies: Mapping[str, str] = field(default_factory=dict)  # scheme -> URL
    no_proxy: tuple[str, ...] = ()

    def is_insecure(self, domain: str) -> bool:
        """Whether plain HTTP, or a certificate that nobody vouches for, is accepted."""
        host = _host(domain)
        if is_loopback(host) or domain in self.insecure or host in self.insecure:
            return True
        return any(_within(host, entry) for entry in self.insecure if "/" in entry)

    def certificates(self, domain: str) -> list[str]:
        """The certs.d directories of one registry that exist."""
        return [path for base in self.certs if os.path.isdir(path := f"{base}/{domain}")]

    def proxy(self, origin: Origin) -> str:
        """The proxy's URL for `origin`; "" for none. Never one for the loopback, as in Go and curl."""
        if is_loopback(origin.host) or any(_matches(origin, entry) for entry in self.no_proxy):
            return ""
        return self.proxies.get(origin.scheme, "")


def context(settings: Settings, domain: str, *, verify: bool = True) -> ssl.SSLContext:
    """TLS for one registry: the host's CAs, those of its certs.d directory (*.crt), and client certificates
    (*.cert with *.key), as the docker daemon lays them out.
    """
    try:
        made = ssl.create_default_context(cafile=settings.ca_file or None)
        for directory in settings.certificates(domain):
            for path in sorted(glob.glob(f"{glob.escape(directory)}/*.crt")):
                made.load_verify_locations(path)
            for path in sorted(glob.glob(f"{glob.escape(directory)}/*.cert")):
                key = path.removesuffix(".cert") + ".key"
                if not os.path.exists(key):
                    raise errors.Invalid(f"{path} has no key", hint=f"Put it beside, as {key}.")
                made.load_cert_chain(path, key)
    except (OSError, ssl.SSLError) as error:
        where = settings.ca_file or f"certs.d/{domain}"
        raise errors.Invalid(f"the certificates in {where} cannot be used", why=str(error)[:200]) from None
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def load(environ: Mapping[str, str], uid: int) -> Settings:
    """Read the files and variables; Invalid names the file that is wrong."""
    home = environ.get("HOME", "")
    own = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    directories = ["/etc/lading", *([f"{own}/lading"] if own else [])]
    insecure: list[str] = []
    mirrors: dict[str, tuple[str, ...]] = {}
    realms: dict[str, tuple[str, ...]] = {}
    for path in [f"{directory}/registries.toml" for directory in directories]:
        said = _read(path)
        insecure += _texts(said, "insecure", path)
        for name, table in (("mirrors", mirrors), ("realms", realms)):
            entries = said.get(name, {})
            if not isinstance(entries, dict):
                raise errors.Invalid(f"{path}: {name} must be a table")
            for key in entries:
                table[key] = (*table.get(key, ()), *_texts(entries, key, path))
    certs = [f"{directory}/certs.d" for directory in directories]
    certs += ["/etc/docker/certs.d", "/etc/containers/certs.d"]
    certs += [f"{own}/{name}/certs.d" for name in ("docker", "containers") if own and uid != 0]
    proxies = {scheme: _variable(environ, f"{scheme}_proxy") for scheme in ("http", "https")}
    fallback = _variable(environ, "all_proxy")
    return Settings(
        insecure=tuple(insecure),
        mirrors=mirrors,
        realms=realms,
        certs=tuple(certs),
        ca_file=next((environ[name] for name in _BUNDLES if environ.get(name)), ""),
        proxies={scheme: url or fallback for scheme, url in proxies.items()},
        no_proxy=tuple(entry.strip() for entry in _variable(environ, "no_proxy").split(",") if entry.strip()),
    )


def _variable(environ: Mapping[str, str], name: str) -> str:
    """The lower-case name wins, as in curl."""
    return environ.get(name) or environ.get(name.upper()) or ""


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.loads(file.read(_LIMIT).decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise errors.Unavailable(f"{path} cannot be read", why=error.strerror or "") from None
    except ValueError as error:
        raise errors.Invalid(f"{path} is not valid TOML", why=str(error)[:200]) from None


def _texts(table: Mapping[str, Any], key: str, path: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise errors.Invalid(f"{path}: {key} must be a list of strings")
    return value


def _host(domain: str) -> str:
    if domain.startswith("["):
        return domain[1:].partition("]")[0]
    return domain.partition(":")[0]


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _matches(origin: Origin, entry: str) -> bool:
    """One entry of NO_PROXY: *, a host with all below it, .domain, an address, a network; a port may follow."""
    if entry == "*" or _within(origin.host, entry):
        return True
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and ":" not in name.strip("[]").replace("::", ""):
        if int(port) != origin.port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").lower()
    return origin.host == entry.lstrip(".") or origin.host.endswith("." + entry.lstrip("."))
