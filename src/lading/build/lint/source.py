"""The file a lint looks at: its lines, its instructions in stages, and how a piece of it is replaced.

More forgiving than the builder's own parser: what is wrong in one line becomes a note, and the rest is looked at.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.build.dockerfile import DockerfileError, Instruction, Position
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.lexer import Lexed, Line, decode, lex, raw_words
from lading.build.dockerfile.parser import instruction
from lading.build.ignore import Ignore
from lading.build.lint.finding import Fix


@dataclass(frozen=True)
class Around:
    """What is known of the file's surroundings. `ignore` None: the context is not known."""

    ignore: Ignore | None = None
    has_ignore: bool = False
    requirements: Mapping[str, str] = field(default_factory=dict)  # path in the context: text
    today: datetime.date = datetime.date(2026, 1, 1)


@dataclass(frozen=True)
class Item:
    """An instruction with the logical line it came from."""

    one: Instruction
    line: Line
    memo: dict[str, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # what rules worked out of it

    @property
    def words(self) -> list[tuple[int, str]]:
        return raw_words(self.line.text, "\\")


@dataclass(frozen=True)
class StageItems:
    """FROM, and what follows it."""

    index: int
    base: ins.From
    head: Item
    items: tuple[Item, ...]
    last: bool = False

    def of(self, *kinds: type[Instruction]) -> Iterator[Item]:
        return (item for item in self.items if isinstance(item.one, kinds))


@dataclass(frozen=True)
class Source:
    """A whole file, as far as it can be read."""

    physical: tuple[str, ...]
    lexed: Lexed
    items: tuple[Item, ...]
    stages: tuple[StageItems, ...]
    arguments: tuple[Item, ...]  # ARG before the first FROM
    mistakes: tuple[DockerfileError, ...]
    around: Around
    names: Mapping[str, int]  # of stages, in lower case, to the first that has it

    def stage_named(self, name: str, before: int) -> StageItems | None:
        """The earlier stage that `name` means."""
        index = self.names.get(name.lower(), before)
        if index < before:
            return self.stages[index]
        if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < before:
            return self.stages[int(name)]
        return None

    def root(self, stage: StageItems) -> StageItems:
        """The stage whose FROM names the image that `stage` stands on."""
        while (below := self.stage_named(stage.base.image.text, stage.index)) is not None:
            stage = below
        return stage

    def chain(self, stage: StageItems) -> list[StageItems]:
        """`stage` and the stages it is based on, the lowest first."""
        found = [stage]
        while (below := self.stage_named(stage.base.image.text, stage.index)) is not None:
            stage = below
            found.insert(0, stage)
        return found

    def swap(self, position: Position, old: str, new: str, *, safe: bool = False) -> Fix | None:
        """`old` at `position` replaced by `new`; None where the file has something else there."""
        if not 1 <= position.line <= len(self.physical):
            return None
        text = self.physical[position.line - 1]
        start = position.column - 1
        if text[start : start + len(old)] != old:
            return None
        changed = text[:start] + new + text[start + len(old) :]
        return Fix(position.line, position.line, (changed.rstrip() if not new else changed,), safe)

    def whole(self, item: Item, text: str, *, safe: bool = False) -> Fix:
        """All lines of an instruction replaced by one."""
        indent = self.physical[item.one.position.line - 1][: item.one.position.column - 1]
        return Fix(item.one.position.line, item.one.end, (indent + text,), safe)

    def gone(self, item: Item, *, safe: bool = False) -> Fix:
        """An instruction taken out."""
        return Fix(item.one.position.line, item.one.end, (), safe)

    def comments_above(self, line: int) -> list[tuple[int, str]]:
        """The comment lines directly above a line: (number, text without the mark), the topmost first."""
        found: list[tuple[int, str]] = []
        number = line - 1
        while number >= 1 and (text := self.physical[number - 1].strip()).startswith("#"):
            found.insert(0, (number, text[1:].strip()))
            number -= 1
        return found


def read(data: bytes | str, around: Around) -> Source:
    """The file; DockerfileError where not even its lines can be told apart."""
    text = decode(data)
    lexed = lex(text)
    items: list[Item] = []
    mistakes: list[DockerfileError] = []
    for line in lexed.lines:
        try:
            items.append(Item(instruction(line, lexed.escape), line))
        except DockerfileError as error:
            mistakes.append(error)
    arguments, stages = _stages(items)
    physical = tuple(one.removesuffix("\r") for one in text.split("\n"))
    names = {stage.base.alias.lower(): stage.index for stage in reversed(stages) if stage.base.alias}
    return Source(physical, lexed, tuple(items), stages, arguments, tuple(mistakes), around, names)


def _stages(items: list[Item]) -> tuple[tuple[Item, ...], tuple[StageItems, ...]]:
    starts = [index for index, item in enumerate(items) if isinstance(item.one, ins.From)]
    first = starts[0] if starts else len(items)
    arguments = tuple(item for item in items[:first] if isinstance(item.one, ins.Arg))
    stages: list[StageItems] = []
    for count, start in enumerate(starts):
        end = starts[count + 1] if count + 1 < len(starts) else len(items)
        head = items[start]
        assert isinstance(head.one, ins.From)
        body = tuple(items[start + 1 : end])
        stages.append(StageItems(count, head.one, head, body, count + 1 == len(starts)))
    return arguments, tuple(stages)
