"""Rules about stages and FROM, most of them BuildKit's published checks under the same names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lading.build.dockerfile import instructions as ins
from lading.build.lint.finding import Rule, Spot
from lading.build.lint.source import Item, Source


def _word(item: Item, index: int) -> tuple[int, str]:
    """A word of the line that is no flag; the keyword is 0."""
    plain = [one for one in item.words if not one[1].startswith("--")]
    return plain[index]


def stage_name_casing(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        alias = stage.base.alias
        if alias != alias.lower():
            at = stage.head.line.at(_word(stage.head, 3)[0])
            yield Spot(
                at,
                f"The stage name {alias} has capital letters, though names are compared without regard to case.",
                f"Write {alias.lower()}.",
                source.swap(at, alias, alias.lower(), safe=True),
            )


def from_as_casing(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        if not stage.base.alias:
            continue
        keyword = _word(stage.head, 0)[1]
        offset, word = _word(stage.head, 2)
        wanted = "as" if keyword.islower() else "AS"
        if word != wanted:
            at = stage.head.line.at(offset)
            yield Spot(
                at,
                f'The keywords "{word}" and "{keyword}" are written in different case.',
                f"Write {wanted}.",
                source.swap(at, word, wanted, safe=True),
            )


def duplicate_stage_name(source: Source) -> Iterator[Spot]:
    seen: set[str] = set()
    for stage in source.stages:
        alias = stage.base.alias.lower()
        if alias and alias in seen:
            at = stage.head.line.at(_word(stage.head, 3)[0])
            yield Spot(
                at,
                f'The stage name "{alias}" is used twice, so what --from={alias} means is not clear.',
                "Rename one.",
            )
        seen.add(alias)


def reserved_stage_name(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        if stage.base.alias.lower() in ("scratch", "context"):
            at = stage.head.line.at(_word(stage.head, 3)[0])
            yield Spot(
                at, f'"{stage.base.alias}" is a name with a meaning of its own.', "Choose another name."
            )


def redundant_target_platform(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        word = stage.base.platform
        if word is None or word.text not in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            continue
        yield Spot(
            word.position,
            "The target's platform is what FROM takes anyway.",
            "Leave --platform out.",
            source.swap(word.position, f"--platform={word.text} ", "", safe=True),
        )


def constant_platform(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        word = stage.base.platform
        if word is None or "$" in word.text:
            continue
        parts = {part for part in re.split(r"[/._-]", word.text.lower()) if part}
        if parts & set(re.split(r"[._-]", stage.base.alias.lower())):
            continue  # a stage that is named after its platform is meant to have that one
        yield Spot(
            word.position,
            f"FROM is tied to {word.text}, so --platform of the build has no effect on this stage.",
            "Use $BUILDPLATFORM or $TARGETPLATFORM, or leave the flag out.",
            source.swap(word.position, f"--platform={word.text} ", ""),
        )


def definition_description(source: Source) -> Iterator[Spot]:
    """Off by default, as in BuildKit."""
    wanted: list[tuple[Item, str, str]] = [
        (stage.head, stage.base.alias, "stage") for stage in source.stages if stage.base.alias
    ]
    for item in source.items:
        if isinstance(item.one, ins.Arg):
            wanted += [(item, pair.key.text, "argument") for pair in item.one.pairs[:1]]
    for item, name, what in sorted(wanted, key=lambda one: one[0].one.position):
        first = len(source.lexed.directives) + 1  # directives look like comments, and stand before everything
        above = [one for one in source.comments_above(item.one.position.line) if one[0] >= first]
        if not above:
            continue
        if above[-1][1].startswith("lading:") or above[0][1].split(" ", 1)[0] == name:
            continue
        yield Spot(
            item.one.position,
            f"The comment above is not read as the description of the {what} {name}.",
            f'Begin it with "{name} ", or put an empty line below it.',
        )


def unused_stage(source: Source) -> Iterator[Spot]:
    used: set[int] = set()
    for stage in source.stages:
        names = [stage.base.image.text]
        for item in stage.items:
            if isinstance(item.one, ins.Copy) and item.one.source_stage is not None:
                names.append(item.one.source_stage.text)
            if isinstance(item.one, ins.Run):
                names += [value for mount in item.one.mounts for key, value in mount.options if key == "from"]
        for name in names:
            if "$" in name:
                return  # which stage it means is known at build time only
            found = source.stage_named(name, stage.index)
            if found is not None:
                used.add(found.index)
    for stage in source.stages[:-1]:
        if stage.index not in used and not stage.base.alias:
            yield Spot(
                stage.base.position,
                "Nothing uses this stage and it has no name for --target, so it is never built.",
                "Name it with AS, or remove it.",
            )


RULES = (
    Rule("StageNameCasing", "warning", "Stage names are lower case", stage_name_casing),
    Rule("FromAsCasing", "warning", "FROM and AS are in the same case", from_as_casing),
    Rule("DuplicateStageName", "error", "Stage names are used once", duplicate_stage_name),
    Rule("ReservedStageName", "error", "scratch and context are no stage names", reserved_stage_name),
    Rule("RedundantTargetPlatform", "warning", "--platform=$TARGETPLATFORM says nothing", redundant_target_platform),
    Rule("FromPlatformFlagConstDisallowed", "warning", "FROM has no constant platform", constant_platform),
    Rule("InvalidDefinitionDescription", "warning", "Comments above FROM and ARG begin with the name they describe",
         definition_description, default=False),
    Rule("UnusedStage", "warning", "Every stage can be reached", unused_stage),
)  # fmt: skip
