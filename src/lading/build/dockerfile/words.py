"""The grammar below an instruction's keyword: flags, words, JSON arrays, name=value pairs, durations.

Owns how the rest of a line is cut, with positions; never knows which instruction it is for beyond its name
in errors.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from lading.build.dockerfile.errors import DockerfileError, Position, closest
from lading.build.dockerfile.instructions import Pair, Word
from lading.build.dockerfile.lexer import Line, raw_words, unquoted

BLANK = " \t\r\f\v"


@dataclass(frozen=True)
class Flag:
    """`--name=value`; `value` None where there was no equals sign. Quotes are removed, variables are not
    expanded.
    """

    name: str
    value: str | None
    position: Position

    @property
    def text(self) -> str:
        return f"--{self.name}" + ("" if self.value is None else f"={self.value}")


class Rest:
    """What follows the keyword on a logical line, flags already taken off."""

    def __init__(self, line: Line, start: int, keyword: str, escape: str) -> None:
        self.line = line
        self.keyword = keyword
        self.escape = escape
        self.flags: list[Flag] = []
        self.start = self._skip(start)
        for offset, raw in raw_words(line.text[self.start :], escape):
            if not raw.startswith("--") or raw == "--":
                break
            name, equals, value = unquoted(raw[2:], escape).partition("=")
            where = line.at(self.start + offset)
            self.flags.append(Flag(name, value if equals else None, where))
        if self.flags:
            words = raw_words(line.text[self.start :], escape)
            count = len(self.flags)
            self.start = self.start + words[count][0] if count < len(words) else len(line.text)

    def _skip(self, start: int) -> int:
        text = self.line.text
        while start < len(text) and text[start] in BLANK:
            start += 1
        return start

    @property
    def text(self) -> str:
        return self.line.text[self.start :]

    @property
    def position(self) -> Position:
        return self.line.at(self.start)

    def words(self) -> list[Word]:
        """The words, quotes and escapes kept."""
        return [
            Word(raw, self.line.at(self.start + offset)) for offset, raw in raw_words(self.text, self.escape)
        ]

    def json(self) -> list[str] | None:
        """The JSON array of strings that the rest is, or None when it is none and the shell form holds."""
        text = self.text
        if not text.startswith("["):
            return None
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, list):
            return None
        for item in value:
            if not isinstance(item, str):
                raise self.error(
                    f"the JSON array of {self.keyword} may hold strings only",
                    hint='Put double quotes around each item, as in ["program", "argument"].',
                )
        if any("\0" in item or not _is_text(item) for item in value):
            raise self.error(f"the JSON array of {self.keyword} holds a character that no argument can carry")
        return value

    def error(
        self, message: str, *, position: Position | None = None, text: str = "", hint: str = ""
    ) -> DockerfileError:
        """A mistake in the argument, or at a place inside it."""
        shown = text or (self.text if position is None else self.line.text)
        return DockerfileError(message, position or self.position, text=shown, hint=hint)

    def required(self, usage: str) -> str:
        """The rest, which must not be empty."""
        if not self.text:
            raise self.error(
                f"{self.keyword} needs an argument", position=self.line.position, hint=f"Write {usage}."
            )
        return self.text

    def allow(self, *names: str) -> None:
        """Refuse flags other than `names`, and repeated ones."""
        seen: set[str] = set()
        for flag in self.flags:
            if flag.name not in names:
                near = closest(flag.name, names)
                known = ", ".join(f"--{n}" for n in names)
                hint = f"Did you mean --{near}?" if near else ""
                if not hint:
                    hint = f"{self.keyword} knows {known}." if names else f"{self.keyword} takes no flags."
                raise self.error(
                    f"{self.keyword} has no flag --{flag.name}",
                    position=flag.position,
                    text=flag.text,
                    hint=hint,
                )
            if flag.name in seen and flag.name not in ("mount", "exclude", "device"):
                raise self.error(
                    f"the flag --{flag.name} is given twice", position=flag.position, text=flag.text
                )
            seen.add(flag.name)

    def flag(self, name: str) -> Word | None:
        """The value of a flag as a word to be expanded; None when it is not given."""
        for flag in self.flags:
            if flag.name == name:
                if not flag.value:
                    raise self.error(
                        f"the flag --{name} needs a value",
                        position=flag.position,
                        text=flag.text,
                        hint=f"Write --{name}=VALUE.",
                    )
                return Word(flag.value, flag.position, literal=True)
        return None

    def switch(self, name: str) -> bool | None:
        """A boolean flag: bare or =true is true, =false is false, None when it is not given."""
        for flag in self.flags:
            if flag.name == name:
                if flag.value is None or flag.value.lower() in ("true", "1", "t"):
                    return True
                if flag.value.lower() in ("false", "0", "f"):
                    return False
                raise self.error(
                    f'the flag --{name} is true or false, not "{flag.value}"',
                    position=flag.position,
                    text=flag.text,
                )
        return None

    def pairs(self) -> tuple[Pair, ...]:
        """`name=value ...`, or the old `name rest of the line` form of ENV and LABEL."""
        words = self.words()
        first = words[0]
        if "=" not in first.text:
            if len(words) == 1:
                raise self.error(
                    f"{self.keyword} {first.text} has no value",
                    position=first.position,
                    hint=f"Write {self.keyword} {first.text}=VALUE.",
                )
            after = self._skip(self.start + len(first.text))
            return (Pair(first, Word(self.line.text[after:], self.line.at(after))),)
        return tuple(self._pair(word) for word in words)

    def _pair(self, word: Word) -> Pair:
        key, equals, value = word.text.partition("=")
        if not equals:
            raise self.error(
                f'"{word.text}" is not of the form name=value',
                position=word.position,
                text=word.text,
                hint="Quote a value that has blanks in it.",
            )
        if not key:
            raise self.error(f"a name in {self.keyword} is empty", position=word.position, text=word.text)
        where = Position(word.position.line, word.position.column + len(key) + 1)
        return Pair(Word(key, word.position), Word(value, where))

    def arguments(self) -> tuple[Pair, ...]:
        """`name` or `name=value`, any number of them (ARG)."""
        found = []
        for word in self.words():
            found.append(self._pair(word) if "=" in word.text else Pair(word, None))
        return tuple(found)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _is_text(item: str) -> bool:
    try:
        item.encode()
    except UnicodeEncodeError:  # a lone surrogate from a \ud800 escape
        return False
    return True


_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION = re.compile(r"(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def duration(text: str) -> int:
    """Nanoseconds of a Go duration such as 1m30s or 500ms; ValueError for anything else."""
    if text == "0":
        return 0
    total, pos = 0, 0
    while pos < len(text):
        match = _DURATION.match(text, pos)
        if match is None:
            raise ValueError(text)
        unit = match[0].lstrip("0123456789.")
        whole, _, fraction = match[0][: -len(unit)].partition(".")
        total += int(whole or "0") * _UNITS[unit]
        if fraction:
            total += int(fraction) * _UNITS[unit] // 10 ** len(fraction)
        pos = match.end()
    if pos == 0 or total >= 1 << 63:
        raise ValueError(text)
    return total
