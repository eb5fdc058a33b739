"""RUN scripts cut into simple commands, as far as a lint needs it. Owns no shell: what it cannot read it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.errors import Position
from lading.build.dockerfile.lexer import raw_words, unquoted
from lading.build.lint.source import Item, StageItems

_BREAK = re.compile(r"&&|\|\||\|&?|;|\n|(?<![<>&])&(?![>&])|\(|\)|\{(?=\s)|\}")
_QUOTED = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_PREFIXES = ("sudo", "exec", "time", "then", "do", "else", "if", "while", "!", "env", "command", "nice")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Simple:
    """One simple command. `at` is where its program stands; `prefixed` tells what came before (sudo)."""

    words: tuple[str, ...]
    at: Position
    before: str  # the operator before it: "|", "&&", ...
    prefixes: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2]

    @property
    def flags(self) -> frozenset[str]:
        return frozenset(word for word in self.words[1:] if word.startswith("-"))

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(word for word in self.words[1:] if not word.startswith("-"))

    def is_install(self, *programs: str) -> bool:
        return self.program in programs and "install" in self.operands[:1]


def commands(item: Item) -> list[Simple]:
    """The simple commands of a RUN (or of a CMD or ENTRYPOINT), here-documents that a shell reads included."""
    found = item.memo.get("commands")
    if found is None:
        found = item.memo["commands"] = _commands(item)
    return list(found)


def _commands(item: Item) -> list[Simple]:
    one = item.one
    assert isinstance(one, ins.Command)
    if one.argv is not None:
        return list(_of(list(one.argv), one.position, ""))
    start = item.line.text.rfind(one.line) if one.line else 0
    found = list(_script(one.line, item, max(start, 0)))
    if isinstance(one, ins.Run):
        for heredoc in one.heredocs:
            if not heredoc.content.startswith("#!") or "sh" in heredoc.content.split("\n", 1)[0]:
                for number, text in enumerate(heredoc.content.split("\n"), 1):
                    if not text.lstrip().startswith("#"):
                        found += _script(text, item, -1, heredoc.position.line + number)
    return found


def _script(text: str, item: Item, start: int, line: int = 0) -> Iterator[Simple]:
    hidden = _QUOTED.sub(lambda match: "x" * len(match[0]), text)
    begin, operator = 0, ""
    breaks = [(match.start(), match.end(), match[0]) for match in _BREAK.finditer(hidden)]
    for stop, after, mark in [*breaks, (len(text), len(text), "")]:
        words = raw_words(text[begin:stop], "\\")
        if words:
            plain = [unquoted(word, "\\") for _, word in words]
            places = [
                Position(line, begin + offset + 1) if line else item.line.at(start + begin + offset)
                for offset, _ in words
            ]
            yield from _of(plain, places[0], operator, places)
        begin, operator = after, mark


def _of(
    words: list[str], at: Position, before: str, places: list[Position] | None = None
) -> Iterator[Simple]:
    prefixes: list[str] = []
    variables: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word in _PREFIXES:
            prefixes.append(word)
        elif _ASSIGNMENT.match(word):
            variables.append(word)
        elif not (word.startswith("-") and prefixes):
            break
        index += 1
    if index < len(words):
        place = places[index] if places is not None else at
        yield Simple(tuple(words[index:]), place, before, tuple(prefixes), tuple(variables))


def runs(stage: StageItems) -> Iterator[tuple[Item, ins.Run, list[Simple]]]:
    """Each RUN of a stage with its commands."""
    for item in stage.of(ins.Run):
        assert isinstance(item.one, ins.Run)
        yield item, item.one, commands(item)


def cached(run: ins.Run, *paths: str) -> bool:
    """Whether a cache or tmpfs mount lies over one of `paths` (or over what is above them)."""
    targets = [
        dict(mount.options).get("target", "").rstrip("/")
        for mount in run.mounts
        if mount.type in ("cache", "tmpfs")
    ]
    return any(target and (path + "/").startswith(target + "/") for target in targets for path in paths)
