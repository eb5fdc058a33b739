"""Where this host takes Debian packages from. Owns reading apt's own configuration; never invents a mirror.

Formats: sources.list(5), one-line and deb822 style. Only entries of Debian itself are reused: a third party's
repository for the same suite would put its packages, and its key, into a base image.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

_LIMIT = 1 << 20
_FAMILY = ("", "-updates", "-security")
_KEYRING = "usr/share/keyrings/debian-archive-keyring.gpg"
# What of apt's configuration decides how a mirror is reached (apt-transport-http(1), apt.conf(5)).
_OPTION = re.compile(
    r"^Acquire::(?:(?:http|https|ftp|socks)(?:::[A-Za-z0-9.:_-]+)?|Check-Date|Check-Valid-Until|Retries"
    r"|ForceIPv4|ForceIPv6)$"
)


@dataclass(frozen=True)
class Source:
    """One place packages come from: a URI, one suite, its components, the keyring ("" is apt's default)."""

    uri: str
    suite: str
    components: tuple[str, ...] = ("main",)
    signed_by: str = ""


def parse_one_line(text: str) -> Iterator[Source]:
    """`deb [signed-by=...] URI SUITE COMPONENT...` lines; deb-src and the rest are passed over."""
    for line in text.splitlines():
        match = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match is None:
            continue
        options = dict(word.partition("=")[::2] for word in (match[1] or "").split())
        yield Source(match[2], match[3], tuple(match[4].split()), options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Source]:
    """Stanzas with Types, URIs, Suites, Components, Signed-By; an embedded key counts as "no file"."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        key = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()), key)


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += "\n" + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        if name:
            fields[name] = value.strip()
    return fields


def configured(root: str = "/") -> tuple[Source, ...]:
    """Every binary source of the host's apt, in apt's order."""
    found: list[Source] = []
    for path in _files(os.path.join(root, "etc/apt")):
        try:
            with open(path, "rb") as file:
                text = file.read(_LIMIT).decode("utf-8", "replace")
        except OSError:
            continue  # apt warns about an unreadable file and goes on; so do we
        found.extend(parse_deb822(text) if path.endswith(".sources") else parse_one_line(text))
    return tuple(found)


def _files(apt: str) -> Iterator[str]:
    yield f"{apt}/sources.list"
    try:
        parts = sorted(os.listdir(f"{apt}/sources.list.d"))
    except OSError:
        return
    yield from (f"{apt}/sources.list.d/{part}" for part in parts if part.endswith((".list", ".sources")))


def for_suite(sources: Iterable[Source], suite: str, host_suite: str, root: str = "/") -> tuple[Source, ...]:
    """The host's Debian sources, turned to `suite`; empty when it has none (then the tool's default is used).

    A host of another Debian release reaches the same mirror: its own suite names are replaced.
    """
    keyring = os.path.join(root, _KEYRING)
    debian = [s for s in sources if _is_debian(s)]
    chosen: list[Source] = []
    for wanted in dict.fromkeys((suite, host_suite)):
        names = {wanted + tail: suite + tail for tail in _FAMILY} if wanted else {}
        for source in debian:
            if source.suite in names:
                key = source.signed_by or (keyring if os.path.exists(keyring) else "")
                chosen.append(replace(source, suite=names[source.suite], components=("main",), signed_by=key))
        if any(s.suite == suite for s in chosen):
            return tuple(dict.fromkeys(chosen))
        chosen.clear()
    return ()


def _is_debian(source: Source) -> bool:
    key = source.signed_by
    own_key = not key or os.path.basename(key).startswith("debian-archive")
    return own_key and "main" in source.components and "debian" in source.uri and "\n" not in key


def render(sources: Iterable[Source], *, public: bool = False) -> str:
    """deb822 text. `public` is for the image: no credentials, no mirror list that only this host has."""
    stanzas = []
    for source in sources:
        uri = public_uri(source) if public else source.uri
        lines = [
            f"Types: deb\nURIs: {uri}\nSuites: {source.suite}\nComponents: {' '.join(source.components)}\n"
        ]
        if source.signed_by:
            lines.append(f"Signed-By: {source.signed_by}\n")
        stanzas.append("".join(lines))
    return "\n".join(stanzas)


def public_uri(source: Source) -> str:
    """The source's URI without credentials; Debian's own address where the host's is of no use elsewhere."""
    parts = urlsplit(source.uri)
    if parts.scheme not in ("http", "https"):
        return default_mirror("debian-security" if source.suite.endswith("-security") else "debian")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def default_mirror(archive: str, tools: Iterable[str] = ("mmdebstrap", "debootstrap")) -> str:
    """Debian's public address of `archive` (debian, debian-security), as the installed tool itself knows it.

    The tools are scripts that carry their default mirror; a file URI that leads nowhere where neither is found.
    """
    for tool in tools:
        path = shutil.which(tool) or f"/usr/sbin/{tool}"
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(r"\bhttps?://[a-z0-9.-]+/(?=debian[\s\"'\\])", file.read(1 << 20))
        except OSError:
            continue
        if found:
            return found.group() + archive
    return f"file:/no-mirror-known/{archive}"


def official(suite: str, keyring: str) -> tuple[Source, ...]:
    """What an image says when the host had no Debian source: the addresses Debian's own images carry."""
    main, security = default_mirror("debian"), default_mirror("debian-security")
    return (
        Source(main, suite, signed_by=keyring),
        Source(main, f"{suite}-updates", signed_by=keyring),
        Source(security, f"{suite}-security", signed_by=keyring),
    )


def host_suite(root: str = "/") -> str:
    """VERSION_CODENAME of a Debian host (os-release(5)), "" elsewhere: others' names mean nothing here."""
    try:
        with open(os.path.join(root, "etc/os-release"), encoding="utf-8") as file:
            pairs = dict(line.rstrip("\n").partition("=")[::2] for line in file.read(65536).splitlines())
    except (OSError, UnicodeDecodeError):
        return ""
    return (
        pairs.get("VERSION_CODENAME", "").strip("\"'") if pairs.get("ID", "").strip("\"'") == "debian" else ""
    )


def mirror_options(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The host's apt options on how to reach a mirror (proxy, CA file, retries), as `Name "value";` lines."""
    try:
        dump = subprocess.run(
            ["apt-config", "dump", "--format", "%f\t%v%n"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_options(dump)


def parse_options(dump: str) -> tuple[str, ...]:
    """Pick the mirror options out of `apt-config dump --format '%f\\t%v%n'`."""
    lines = []
    for line in dump.splitlines():
        name, _, value = line.partition("\t")
        if _OPTION.match(name.rstrip(":")) and value and '"' not in value:
            lines.append(f'{name} "{value}";')
    return tuple(lines)
