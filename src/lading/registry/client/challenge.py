"""WWW-Authenticate: what a registry asks for (RFC 9110, 11.6.1; RFC 6750). Pure; hostile input gives no challenge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|$|(?=,))")
_LIMIT = 8 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(values: Iterable[str]) -> list[Challenge]:
    """Every challenge of the header's values; what cannot be read ends the value it stands in."""
    found: list[Challenge] = []
    for value in values:
        text, at = value[:_LIMIT], 0
        while at < len(text):
            scheme = _SCHEME.match(text, at)
            if scheme is None:
                break
            one = Challenge(scheme[1].lower())
            found.append(one)
            at = scheme.end()
            while parameter := _PARAMETER.match(text, at):
                quoted, bare = parameter[2], parameter[3]
                one.parameters.setdefault(
                    parameter[1].lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
                )
                at = parameter.end()
                if text[at : at + 1] != ",":
                    break
                at += 1
    return found
