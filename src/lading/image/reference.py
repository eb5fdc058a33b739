"""Image references: what people call images (`python:3.11-slim`, `localhost:5000/a/b@sha256:...`).

Owns the grammar, the familiar and the canonical form; never looks anything up. Grammar: the reference package
of the distribution project, as restated in Docker's documentation of `docker image tag`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lading.base import errors
from lading.image import digest as digests

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_IPV6 = r"\[[a-fA-F0-9:]+\]"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|{_IPV6})(?::[0-9]+)?", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """One parsed reference; `tag` and `digest` may both be empty or both be set."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: `docker.io/library/python`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The shortest name that parses back to this one: `python`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, slash, rest = self.path.partition("/")
        if slash and _looks_like_domain(first):
            return self.name
        return rest if first == "library" and slash and "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        """As people write it: `python:3.11-slim`."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        """The canonical form, the key in the store: `docker.io/library/python:3.11-slim`."""
        return self.name + self._suffix

    def with_default_tag(self) -> Reference:
        """`:latest` where neither a tag nor a digest was given."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)


def _looks_like_domain(component: str) -> bool:
    return "." in component or ":" in component or component == "localhost" or component.lower() != component


def _bad(text: str, why: str, hint: str = "") -> errors.Invalid:
    return errors.Invalid(f"invalid reference format: {text[:300]!r}", why=why, hint=hint)


def parse(text: str) -> Reference:
    """Parse what a person wrote; `docker.io/` and `library/` are filled in. Invalid with the reason
    otherwise."""
    if not text:
        raise _bad(text, "It is empty.")
    rest, at, digest = text.partition("@")
    if at:
        try:
            digests.parse(digest)
        except errors.LadingError as error:
            raise _bad(text, f"The part after @ is no digest: {error}") from None
    slash, colon = rest.rfind("/"), rest.rfind(":")
    tag = ""
    if colon > slash:
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise _bad(
                text, f"{tag[:140]!r} is no tag: at most 128 of A-Z a-z 0-9 _ . -, not starting with . or -."
            )
    if len(rest) == 64 and digests.is_hex(rest):
        raise _bad(text, "64 hexadecimal digits are an image id, not a name.")
    first, has_slash, remainder = rest.partition("/")
    if has_slash and _looks_like_domain(first):
        domain, path = first, remainder
    else:
        domain, path = DEFAULT_DOMAIN, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    _check_name(text, domain, path)
    return Reference(domain, path, tag, digest)


def _check_name(text: str, domain: str, path: str) -> None:
    if not _DOMAIN.fullmatch(domain):
        raise _bad(text, f"{domain[:80]!r} is no registry name.")
    for component in path.split("/"):
        if _COMPONENT.fullmatch(component):
            continue
        if component.lower() != component:
            raise _bad(text, "A repository name must be lowercase.", f"Write {text.lower()[:300]!r}.")
        if not component:
            raise _bad(text, "A part of the name is empty.")
        raise _bad(
            text,
            f"{component[:80]!r} may only hold a-z 0-9, with single . or _ or __ or dashes between them.",
        )
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        raise _bad(text, f"The name is longer than {NAME_LIMIT} characters.")


def is_id(text: str) -> bool:
    """Whether `text` can be an image id or the beginning of one (`sha256:` may stand before it)."""
    bare = text.removeprefix("sha256:")
    return digests.is_hex(bare) and len(bare) <= 64
