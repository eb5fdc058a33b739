"""From bytes to logical lines: parser directives, comments, line continuations, heredocs.

Owns the shape of lines and where each character came from; knows nothing of what an instruction means, but
for the three that may carry heredocs.
Source: the Dockerfile reference, "Format", "Parser directives" and "Here-documents".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from lading.build.dockerfile.errors import DockerfileError, Position

MAX_SIZE = 4 << 20
"""Bytes of a Dockerfile; far over any real one, small enough to hold a few times."""
MAX_LINES = 100_000

_DIRECTIVE = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.*?)[ \t]*\Z")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)\Z")
_CARRIERS = ("RUN", "COPY", "ADD")
_BLANK = " \t\r\f\v"


@dataclass(frozen=True)
class Heredoc:
    """A here-document as the line announced it: `<<-"EOF"` has name EOF, chomp and no expansion."""

    name: str
    content: str
    expand: bool
    chomp: bool
    descriptor: str
    position: Position


@dataclass(frozen=True)
class Line:
    """A logical line: comments and continuations gone. `origin` maps offsets in `text` back to the file."""

    text: str
    origin: tuple[tuple[int, Position], ...]
    end: int  # last line of the file it covers, heredocs included
    heredocs: tuple[Heredoc, ...] = ()

    def at(self, offset: int) -> Position:
        """The place in the file of the character at `offset`."""
        starts = [start for start, _ in self.origin]
        index = max(bisect_right(starts, offset) - 1, 0)
        start, position = self.origin[index]
        return Position(position.line, position.column + max(offset - start, 0))

    @property
    def position(self) -> Position:
        return self.at(0)


@dataclass(frozen=True)
class Lexed:
    lines: tuple[Line, ...]
    directives: dict[str, str]
    escape: str
    warnings: tuple[tuple[str, Position], ...]


def decode(data: bytes | str) -> str:
    """The text of a Dockerfile: UTF-8, a byte order mark dropped, bounded."""
    if len(data) > MAX_SIZE:
        raise DockerfileError(f"the file is longer than {MAX_SIZE >> 20} MiB", Position(1))
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        raise DockerfileError(
            "the file is not UTF-8 text", Position(line, column), hint="Save it with UTF-8 encoding."
        ) from None


def lex(text: str) -> Lexed:
    """Split a Dockerfile into logical lines; raises DockerfileError only."""
    physical = text.split("\n")
    if len(physical) > MAX_LINES:
        raise DockerfileError(f"the file has more than {MAX_LINES} lines", Position(MAX_LINES + 1))
    physical = [line[:-1] if line.endswith("\r") else line for line in physical]
    directives, first = _directives(physical)
    return _Lexer(physical, directives).run(first)


def _directives(physical: list[str]) -> tuple[dict[str, str], int]:
    """Directives stand before everything else; the first line that is none ends them (reference: Parser
    directives).
    """
    found: dict[str, str] = {}
    for number, line in enumerate(physical):
        match = _DIRECTIVE.match(line.strip(_BLANK))
        if match is None or (name := match[1].lower()) not in _DIRECTIVES:
            return found, number
        at = Position(number + 1, line.find("#") + 1)
        if name in found:
            raise DockerfileError(f"the parser directive {name} is given twice", at, text=line.strip())
        if name == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(
                f'the escape directive must be a backslash or a backtick, not "{match[2]}"',
                at,
                text=line.strip(),
            )
        found[name] = match[2]
    return found, len(physical)


class _Lexer:
    """Walks the physical lines once; `number` is the next one to read."""

    def __init__(self, physical: list[str], directives: dict[str, str]) -> None:
        self.physical = physical
        self.directives = directives
        self.escape = directives.get("escape", "\\")
        self.lines: list[Line] = []
        self.warnings: list[tuple[str, Position]] = []
        self.number = 0

    def run(self, first: int) -> Lexed:
        self.number = first
        while self.number < len(self.physical):
            text = self.physical[self.number]
            bare = text.lstrip(_BLANK)
            if not bare or bare.startswith("#"):
                self.number += 1
                continue
            line = self._logical()
            if line.text:  # a continuation mark alone makes a line of nothing
                self.lines.append(line)
        return Lexed(tuple(self.lines), self.directives, self.escape, tuple(self.warnings))

    def _logical(self) -> Line:
        parts: list[str] = []
        origin: list[tuple[int, Position]] = []
        length, end = 0, self.number
        while self.number < len(self.physical):
            text, number = self.physical[self.number], self.number
            self.number += 1
            bare = text.lstrip(_BLANK)
            column = 1
            if parts or origin:
                if bare.startswith("#"):
                    continue
                if not bare:
                    self.warnings.append(
                        ("an empty line inside a continued instruction", Position(number + 1))
                    )
                    continue
            else:
                column += len(text) - len(bare)
                text = bare
            end = number
            cut = self._continues(text)
            piece = text if cut < 0 else text[:cut]
            origin.append((length, Position(number + 1, column)))
            parts.append(piece)
            length += len(piece)
            if cut < 0:
                break
        joined = "".join(parts).rstrip(_BLANK)
        line = Line(joined, tuple(origin), end + 1)
        wanted = _announced(line, self.escape)
        if not wanted:
            return line
        heredocs = tuple(self._heredoc(*one) for one in wanted)
        return Line(joined, line.origin, self.number, heredocs)

    def _continues(self, text: str) -> int:
        """Where the continuation mark of `text` stands, -1 when it has none; a doubled one is a literal."""
        bare = text.rstrip(" \t")
        if not bare.endswith(self.escape):
            return -1
        at = len(bare) - 1
        return -1 if at > 0 and bare[at - 1] == self.escape else at

    def _heredoc(self, descriptor: str, chomp: bool, name: str, expand: bool, at: Position) -> Heredoc:
        content: list[str] = []
        while self.number < len(self.physical):
            text = self.physical[self.number]
            self.number += 1
            probe = text.lstrip("\t") if chomp else text
            if probe == name:
                return Heredoc(name, "".join(content), expand, chomp, descriptor, at)
            content.append(probe + "\n")
        raise DockerfileError(
            f"the here-document {name} does not end",
            at,
            text=f"<<{name}",
            hint=f"A line with only {name} must close it.",
        )


def _announced(line: Line, escape: str) -> list[tuple[str, bool, str, bool, Position]]:
    """The here-documents that a line opens: only RUN, COPY and ADD, also below ONBUILD, can carry them."""
    if "<<" not in line.text:
        return []
    words = raw_words(line.text, escape)
    skip = 1
    if words and words[0][1].upper() == "ONBUILD":
        skip = 2
    if len(words) < skip or words[skip - 1][1].upper() not in _CARRIERS:
        return []
    found = []
    for offset, word in words[skip:]:
        match = _HEREDOC.match(word)
        if match is None:
            continue
        raw = match[3]
        name = unquoted(raw, escape)
        if not name or any(c in name for c in "\n<>|&;()"):
            continue
        found.append((match[1], bool(match[2]), name, name == raw, line.at(offset)))
    return found


def raw_words(text: str, escape: str) -> list[tuple[int, str]]:
    """Words separated by blanks outside quotes, quotes kept, each with its offset. Never fails."""
    words: list[tuple[int, str]] = []
    start, quote, i = -1, "", 0
    while i < len(text):
        char = text[i]
        if quote:
            if char == escape and quote == '"':
                i += 1
            elif char == quote:
                quote = ""
        elif char in " \t\r\f\v":
            if start >= 0:
                words.append((start, text[start:i]))
                start = -1
        else:
            if start < 0:
                start = i
            if char in "\"'":
                quote = char
            elif char == escape:
                i += 1
        i += 1
    if start >= 0:
        words.append((start, text[start:]))
    return words


def unquoted(word: str, escape: str) -> str:
    """A word without its quotes and escapes; nothing is expanded."""
    out: list[str] = []
    quote, i = "", 0
    while i < len(word):
        char = word[i]
        if quote:
            if char == quote:
                quote = ""
            elif char == escape and quote == '"' and i + 1 < len(word):
                i += 1
                out.append(word[i])
            else:
                out.append(char)
        elif char in "\"'":
            quote = char
        elif char == escape and i + 1 < len(word):
            i += 1
            out.append(word[i])
        else:
            out.append(char)
        i += 1
    return "".join(out)
