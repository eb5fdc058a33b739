"""Which files of a context a build may see: .dockerignore, and the same patterns for --exclude.

Owns the pattern language and its bounds; never walks a directory. Source: Docker's build context
documentation, ".dockerignore files": Go's filepath.Match per component, `**` across components, `!` for
exceptions, last match wins.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lading.base.errors import Invalid

MAX_SIZE = 1 << 20
_MAX_PATTERNS = 10_000
_MAX_LENGTH = 4096
_MAX_SPANS = 8
"""`**` is the only part that makes matching backtrack over a whole path."""


@dataclass(frozen=True)
class Pattern:
    """One line. `prefix` are its leading components without wildcards, which say what it can reach."""

    text: str
    line: int
    negated: bool
    expression: re.Pattern[str]
    prefix: tuple[str, ...]

    def reaches(self, directory: str) -> bool:
        """Whether something below `directory` might match."""
        return all(a == b for a, b in zip(self.prefix, directory.split("/"), strict=False))


@dataclass(frozen=True)
class Ignore:
    """A list of patterns. Paths are relative, with slashes, without a leading or trailing one."""

    patterns: tuple[Pattern, ...] = ()

    def matches(self, path: str) -> bool:
        """Whether `path` is left out: the last pattern that matches it, or a directory above it, decides."""
        return self.verdict(path) is not None

    def verdict(self, path: str) -> Pattern | None:
        """The pattern that leaves `path` out, None when it stays in."""
        if not self.patterns:
            return None
        parts = path.split("/")
        chain = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        for pattern in reversed(self.patterns):
            match = pattern.expression.fullmatch
            if any(match(one) for one in chain):
                return None if pattern.negated else pattern
        return None

    def prunes(self, directory: str) -> bool:
        """Whether nothing below the ignored `directory` can come back through an exception."""
        return not any(pattern.negated and pattern.reaches(directory) for pattern in self.patterns)


NOTHING = Ignore()


def parse(data: bytes, name: str = ".dockerignore") -> Ignore:
    """The patterns of an ignore file; Invalid names the line of a malformed one."""
    if len(data) > MAX_SIZE:
        raise Invalid(f"{name} is longer than {MAX_SIZE >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(f"{name} is not UTF-8 text") from None
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            continue
        bare = line.strip()
        if bare:
            found.append((number, bare))
    if len(found) > _MAX_PATTERNS:
        raise Invalid(f"{name} has more than {_MAX_PATTERNS} patterns")
    return compile_patterns(found, name)


def compile_patterns(lines: Iterable[tuple[int, str]], name: str) -> Ignore:
    """Patterns from (line number, text) pairs."""
    patterns: list[Pattern] = []
    for number, text in lines:
        negated = text.startswith("!")
        bare = text[1:].strip() if negated else text
        if not bare:
            raise Invalid(
                f"{name} line {number}: an exception without a pattern",
                hint="Write the pattern right after the !.",
            )
        clean = posixpath.normpath(bare).lstrip("/")
        if clean in ("", "."):
            continue
        try:
            expression = translate(clean)
        except ValueError as error:
            raise Invalid(f'{name} line {number}: malformed pattern "{text[:80]}"', why=f"{error}.") from None
        literal: list[str] = []
        for part in clean.split("/"):
            if any(c in part for c in "*?[\\"):
                break
            literal.append(part)
        patterns.append(Pattern(text, number, negated, expression, tuple(literal)))
    return Ignore(tuple(patterns))


def translate(pattern: str) -> re.Pattern[str]:
    """The regular expression of one pattern; ValueError says what is malformed.

    Runs of `*` inside a component are atomic groups, so that they cost no backtracking (re, "Atomic
    grouping").
    """
    if len(pattern) > _MAX_LENGTH:
        raise ValueError(f"it is longer than {_MAX_LENGTH} characters")
    if pattern.count("**") > _MAX_SPANS:
        raise ValueError(f"it has more than {_MAX_SPANS} times **")
    items: list[str] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if char == "*":
            if pattern.startswith("**", i):
                i += 2
                while pattern.startswith("*", i):
                    i += 1
                if pattern.startswith("/", i):
                    i += 1
                    items.append("(?:.*/)?")
                else:
                    items.append(".*")
                continue
            items.append("*")
        elif char == "?":
            items.append("[^/]")
        elif char == "\\":
            i += 1
            if i == len(pattern):
                raise ValueError("it ends with a backslash")
            items.append(re.escape(pattern[i]))
        elif char == "[":
            text, i = _class(pattern, i)
            items.append(text)
            continue
        else:
            items.append(re.escape(char))
        i += 1
    try:
        return re.compile(_stars(items), re.DOTALL)
    except (re.error, RecursionError, OverflowError):
        raise ValueError("it is no pattern") from None


def _class(pattern: str, start: int) -> tuple[str, int]:
    """A character class `[a-z]` or `[^a-z]` and where it ends; it never matches a slash."""
    i = start + 1
    negated = pattern.startswith("^", i)
    i += negated
    ranges: list[str] = []
    while True:
        low, i = _member(pattern, i)
        high = low
        if pattern.startswith("-", i):
            high, i = _member(pattern, i + 1)
        if low > high:
            raise ValueError(f"the range {low}-{high} is backwards")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        if pattern.startswith("]", i):
            break
    body = "".join(ranges)
    return (f"[^/{body}]" if negated else f"(?!/)[{body}]"), i + 1


def _member(pattern: str, i: int) -> tuple[str, int]:
    if i < len(pattern) and pattern[i] == "\\":
        i += 1
    elif i < len(pattern) and pattern[i] in "-]":
        raise ValueError("a character class is malformed")
    if i >= len(pattern):
        raise ValueError("a character class is not closed")
    return pattern[i], i + 1


def _stars(items: Sequence[str]) -> str:
    """Join; a star followed by fixed items inside its component takes the first fit and never gives it back.

    That is right only when another star follows in the same component: then any later fit is a fit of that
    star, too.
    """
    out: list[str] = []
    i = 0
    while i < len(items):
        if items[i] != "*":
            out.append(items[i])
            i += 1
            continue
        j = i + 1
        while j < len(items) and items[j] not in ("*", "/", ".*", "(?:.*/)?"):
            j += 1
        fixed = "".join(items[i + 1 : j])
        if j < len(items) and items[j] == "*" and fixed:
            out.append(f"(?>[^/]*?{fixed})")
        else:
            out.append(f"[^/]*{fixed}")
        i = j
    return "".join(out)
