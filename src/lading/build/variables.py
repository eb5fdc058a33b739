"""Where variables get their values: build arguments, ARG scopes, ENV, the platform's names. Owns precedence
only.

Source: the Dockerfile reference, "ARG": scope, default values, "Using ARG variables", "Predefined ARGs".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lading.build.dockerfile.errors import DockerfileError
from lading.build.dockerfile.expand import ExpansionError, Lookup, at, expand, expand_words
from lading.build.dockerfile.instructions import Arg, Word
from lading.image.descriptor import Platform

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = frozenset((*PROXIES, *(name.lower() for name in PROXIES)))
"""Usable in RUN without ARG, and kept out of history and cache keys, since they hold credentials at times."""


def platform_names(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The automatic arguments of the global scope."""
    return {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }


@dataclass
class Globals:
    """What holds before and in FROM lines."""

    escape: str
    given: Mapping[str, str | None]  # --build-arg
    automatic: Mapping[str, str]
    declared: dict[str, str | None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def declare(self, instruction: Arg) -> None:
        for pair in instruction.pairs:
            name = expanded(pair.key, self.lookup, self.escape)
            default = expanded(pair.value, self.lookup, self.escape) if pair.value is not None else None
            self.used.add(name)
            given = self.given.get(name)
            self.declared[name] = (
                given if given is not None else default if pair.value else self.automatic.get(name)
            )

    def lookup(self, name: str) -> str | None:
        if name in self.declared:
            return self.declared[name]
        return self.automatic.get(name)


@dataclass
class Scope:
    """The variables of one stage: ENV wins over ARG of the same name. A stage based on another inherits its
    scope.
    """

    outer: Globals
    args: dict[str, str | None] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    def lookup(self, name: str) -> str | None:
        if name in self.env:
            return self.env[name]
        return self.args.get(name)

    def declare(self, instruction: Arg) -> list[tuple[str, str | None]]:
        """Bring names into scope; the (name, value) pairs as they hold from now on."""
        found: list[tuple[str, str | None]] = []
        outer = self.outer
        for pair in instruction.pairs:
            name = expanded(pair.key, self.lookup, outer.escape)
            value = expanded(pair.value, self.lookup, outer.escape) if pair.value is not None else None
            outer.used.add(name)
            given = outer.given.get(name)
            if given is not None:
                value = given
            elif pair.value is None:
                value = outer.declared.get(name, outer.automatic.get(name))
            found.append((name, value))
        self.args.update(found)
        return found

    def step_args(self) -> dict[str, str]:
        """Arguments that a RUN step sees in its environment and that count for its cache key."""
        return {
            name: value for name, value in self.args.items() if value is not None and name not in self.env
        }

    def proxies(self) -> dict[str, str]:
        """Predefined proxy arguments that were given but not declared: seen by the step, counted nowhere."""
        given = self.outer.given
        found = {name: value for name, value in given.items() if name in PREDEFINED and value is not None}
        self.outer.used.update(found)
        return {
            name: value for name, value in found.items() if name not in self.args and name not in self.env
        }

    def expand(self, word: Word) -> str:
        return expanded(word, self.lookup, self.outer.escape)

    def expand_words(self, word: Word) -> list[str]:
        try:
            return expand_words(word.text, self.lookup, self.outer.escape)
        except ExpansionError as error:
            raise at(error, word.text, word.position) from None


def expanded(word: Word, lookup: Lookup, escape: str) -> str:
    """The word's value; mistakes in it become errors at its position."""
    try:
        value = expand(word.text, lookup, escape, quotes=not word.literal)
    except ExpansionError as error:
        raise at(error, word.text, word.position) from None
    if "\0" in value:
        raise DockerfileError("the value holds a NUL character", word.position, text=word.text)
    return value


def unused(given: Mapping[str, str | None], used: Iterable[str]) -> list[str]:
    """Build arguments that nothing asked for, which is a typing mistake more often than not."""
    known = set(used) | PREDEFINED
    return sorted(name for name in given if name not in known and name not in ("SOURCE_DATE_EPOCH",))
