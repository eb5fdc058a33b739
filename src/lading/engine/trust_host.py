"""Host trust: what of the host's network path a build step or `run --host-trust` may see.

Owns finding the CA bundle, proxy variables, pip's network settings and the resolver in an environment that was read
once at the door, and the step-only environment and read-only mounts made of them. Nothing of it is ever recorded: the
mount points lie in the stub layer (stubs.py) and the variables only in the process's environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GUEST_BUNDLE = "/run/lading/trust/ca.pem"

# Programs name the variable that replaces their bundle differently; each is a file in PEM form.
_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "HTTPLIB2_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
    "DENO_CERT",
)
_DEFAULT_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
# pip's own network settings: which index, how long to wait, whom to trust. Paths among them mean nothing in a step.
_PIP_KEYS = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "timeout",
    "default-timeout",
    "retries",
    "proxy",
    "find-links",
    "no-index",
    "disable-pip-version-check",
)
_LOCAL_LISTS = frozenset(("index-url", "extra-index-url", "find-links"))


@dataclass(frozen=True)
class HostTrust:
    """What was found. `environment` is for the step alone; `files` are (host path, guest path), mounted read-only."""

    bundle: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    proxies: tuple[str, ...] = ()
    index: bool = False
    unusual: bool = False  # the host itself needs it: a bundle of its own or a proxy

    def summary(self) -> str:
        """What was found, in a few words; "" when nothing was."""
        parts = [f"the CA bundle {self.bundle}"] if self.bundle else []
        parts += [f"the proxies of {', '.join(self.proxies)}"] if self.proxies else []
        parts += ["pip's index settings"] if self.index else []
        return " and ".join(parts)

    def describe(self) -> str:
        """One line for people."""
        found = self.summary()
        if not found:
            return "host trust: this host has no CA bundle, proxy or package index of its own"
        return f"host trust: processes see {found} of the host; nothing of it is kept in the image"


def find(environ: Mapping[str, str]) -> HostTrust:
    """Read the host's settings out of `environ` and the files it names."""
    bundle, named = _bundle(environ)
    variables: dict[str, str] = {}
    files: list[tuple[str, str]] = []
    if bundle:
        files.append((bundle, GUEST_BUNDLE))
        variables.update(dict.fromkeys(_BUNDLE_VARIABLES, GUEST_BUNDLE))
    proxies = []
    for name in _PROXY_VARIABLES:
        value = environ.get(name) or environ.get(name.lower())
        if value:
            proxies.append(name)
            variables[name] = variables[name.lower()] = value
    index = _pip(environ)
    variables.update(index)
    return HostTrust(
        bundle=bundle,
        environment=tuple(variables.items()),
        files=tuple(files),
        proxies=tuple(proxies),
        index=any("INDEX" in name or "FIND_LINKS" in name for name in index),
        unusual=named or any(name != "NO_PROXY" for name in proxies),
    )


def _bundle(environ: Mapping[str, str]) -> tuple[str, bool]:
    """The bundle's real path, and whether a variable of the user named it."""
    for name in _BUNDLE_VARIABLES:
        path = environ.get(name, "")
        if path.startswith("/") and os.path.isfile(path):
            return os.path.realpath(path), True
    folder = environ.get("SSL_CERT_DIR", "").partition(":")[0]
    if folder.startswith("/") and os.path.isfile(f"{folder}/ca-certificates.crt"):
        return os.path.realpath(f"{folder}/ca-certificates.crt"), True
    for path in _DEFAULT_BUNDLES:
        if os.path.isfile(path):
            return os.path.realpath(path), False
    return "", False


def _pip(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's network settings as PIP_ variables: its configuration files first, the environment over them."""
    import configparser  # 5 ms that only host trust pays

    settings: dict[str, str] = {}
    parser = configparser.RawConfigParser()
    for path in _pip_files(environ):
        try:
            with open(path, encoding="utf-8") as file:
                parser.read_string(file.read(1 << 20), path)
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
    for section in ("global", "install"):
        if parser.has_section(section):
            settings.update((key.lower().replace("_", "-"), value) for key, value in parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_"):
            settings[name[4:].lower().replace("_", "-")] = value
    found = {}
    for key in _PIP_KEYS:
        value = settings.get(key, "")
        if key in _LOCAL_LISTS:
            value = " ".join(item for item in value.split() if item.startswith(("http://", "https://")))
        if value:
            found["PIP_" + key.upper().replace("-", "_")] = " ".join(value.split())
    if not any(name in found for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")):
        found.pop("PIP_NO_INDEX", None)  # it only made sense with the local files that stay outside
    return found


def _pip_files(environ: Mapping[str, str]) -> Iterable[str]:
    """pip's configuration files, weakest first (pip documentation, "Configuration Files")."""
    home = environ.get("HOME", "")
    yield "/etc/pip.conf"
    if home.startswith("/"):
        yield f"{home}/.pip/pip.conf"
        yield f"{environ.get('XDG_CONFIG_HOME') or home + '/.config'}/pip/pip.conf"
    named = environ.get("PIP_CONFIG_FILE", "")
    if named.startswith("/") and named != os.devnull:
        yield named
