"""The lint itself: all rules over one file, what the file's own comments leave out, and fixes applied.

Owns directives: `# check=skip=A,B;error=true;experimental=C` (BuildKit's) for the file, `# lading: ignore=A,B` in the
comments above an instruction for that instruction.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

from lading.build.dockerfile import DockerfileError
from lading.build.lint import bases, commands, copies, final, form, names, python, stages
from lading.build.lint.finding import Finding, Fix, Report, Rule
from lading.build.lint.source import Around, Source, read

RULES: tuple[Rule, ...] = (
    *stages.RULES, *form.RULES, *names.RULES, *copies.RULES, *commands.RULES, *bases.RULES, *python.RULES, *final.RULES,
)  # fmt: skip
SYNTAX = "SyntaxError"
"""The name under which a line that is no instruction is reported; nothing turns it off."""

_IGNORE = re.compile(r"lading:\s*ignore=([A-Za-z0-9_, ]+)\Z")
_PASSES = 8


def check(
    data: bytes | str, name: str = "Dockerfile", around: Around | None = None, skip: Iterable[str] = ()
) -> Report:
    """All findings of one Dockerfile; never raises for what the file holds."""
    try:
        source = read(data, around or Around())
    except DockerfileError as error:
        return Report(name, (_mistake(error),))
    settings = _settings(source.lexed.directives.get("check", ""))
    left_out = {one.lower() for one in (*skip, *settings.get("skip", ()))}
    asked = {one.lower() for one in settings.get("experimental", ())}
    found = [_mistake(error) for error in source.mistakes]
    for rule in RULES:
        low = rule.name.lower()
        if {low, "all"} & left_out or not (rule.default or {low, "all"} & asked):
            continue
        for spot in rule.find(source):
            finding = Finding(
                rule.name,
                rule.level,
                spot.position,
                spot.end or spot.position.line,
                spot.message,
                spot.advice,
                spot.fix,
            )
            if not _silenced(source, finding):
                found.append(finding)
    found.sort(key=lambda one: (one.position, one.rule))
    return Report(name, tuple(found), settings.get("error", [""])[0].lower() == "true")


def _mistake(error: DockerfileError) -> Finding:
    text = error.message + (f" (at `{error.text}`)" if error.text else "")
    return Finding(SYNTAX, "error", error.position, error.position.line, text + ".", error.hint)


def _settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in text.split(";"):
        key, mark, value = part.partition("=")
        if mark:
            found[key.strip().lower()] = [one.strip() for one in value.split(",") if one.strip()] or [""]
    return found


def _silenced(source: Source, finding: Finding) -> bool:
    """Whether a comment above the instruction that holds the finding names the rule."""
    line = finding.position.line
    index = bisect_right(source.items, line, key=lambda item: item.one.position.line) - 1
    if index >= 0 and line <= source.items[index].one.end:
        line = source.items[index].one.position.line
    for _, comment in source.comments_above(line):
        match = _IGNORE.match(comment)
        if match and finding.rule.lower() in (one.strip().lower() for one in match[1].split(",")):
            return True
    return False


def fixed(text: str, around: Around | None = None, skip: Iterable[str] = ()) -> tuple[str, int]:
    """The text with all safe fixes applied, and how many there were; line ends stay as they are."""
    skip, count = tuple(skip), 0
    for _ in range(_PASSES):
        fixes = [
            one.fix for one in check(text, around=around, skip=skip).findings if one.fix and one.fix.safe
        ]
        chosen = _apart(fixes)
        if not chosen:
            break
        lines = text.split("\n")
        for fix in sorted(chosen, key=lambda one: one.first, reverse=True):
            end = "\r" if lines[fix.first - 1].endswith("\r") else ""
            lines[fix.first - 1 : fix.last] = [line + end for line in fix.lines]
        text, count = "\n".join(lines), count + len(chosen)
    return text, count


def _apart(fixes: list[Fix]) -> list[Fix]:
    """Fixes of lines that no other one touches; the others come in the next pass."""
    taken: set[int] = set()
    chosen = []
    for fix in fixes:
        lines = set(range(fix.first, fix.last + 1))
        if not lines & taken:
            taken |= lines
            chosen.append(fix)
    return chosen
