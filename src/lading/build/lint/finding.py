"""What a lint finds: a rule's name, a place, why it matters, and the lines as they should be. Owns values only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lading.build.dockerfile.errors import Position

if TYPE_CHECKING:
    from lading.build.lint.source import Source

LEVELS = ("info", "warning", "error")
"""Severities, the lightest first."""


@dataclass(frozen=True)
class Fix:
    """Lines `first` to `last` of the file, counted from 1, replaced by `lines`. `safe`: the image stays what it was."""

    first: int
    last: int
    lines: tuple[str, ...]
    safe: bool = False


@dataclass(frozen=True)
class Finding:
    """One finding. `message` says what is there and why it matters, `advice` what to do."""

    rule: str
    level: str
    position: Position
    end: int
    message: str
    advice: str = ""
    fix: Fix | None = None


@dataclass(frozen=True)
class Spot:
    """What a rule yields; the lint adds the rule's name and level."""

    position: Position
    message: str
    advice: str = ""
    fix: Fix | None = None
    end: int = 0


@dataclass(frozen=True)
class Rule:
    """One rule. `default` is false for those that a file asks for (check=experimental=NAME)."""

    name: str
    level: str
    summary: str
    find: Callable[[Source], Iterator[Spot]] = field(repr=False)
    default: bool = True


@dataclass(frozen=True)
class Report:
    """All findings of one file, in the order of the file. `strict`: the file asks that a warning fails the build."""

    name: str
    findings: tuple[Finding, ...]
    strict: bool = False

    def worst(self) -> str:
        """The gravest level found, "" when nothing was."""
        found = {finding.level for finding in self.findings}
        return next((level for level in reversed(LEVELS) if level in found), "")
