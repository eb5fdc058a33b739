"""Rules about how an instruction is written: case, forms, formats. Most are BuildKit's checks under the same names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

from lading.build.dockerfile import Position
from lading.build.dockerfile import instructions as ins
from lading.build.lint.finding import Fix, Rule, Spot
from lading.build.lint.source import Source

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=\- ]+\Z")
_BUILTINS = (
    "cd",
    "exec",
    "export",
    "set",
    "source",
    ".",
    "eval",
    "if",
    "for",
    "while",
    "test",
    "ulimit",
    "umask",
    "trap",
)
_PORT = re.compile(r"(?P<ports>\d+(?:-\d+)?)(?:/(?P<protocol>[A-Za-z]+))?\Z", re.ASCII)


def no_empty_continuation(source: Source) -> Iterator[Spot]:
    for text, position in source.lexed.warnings:
        if "empty line" in text:
            yield Spot(
                position,
                "An empty line inside a continued instruction: later syntaxes end the instruction there.",
                "Remove it.",
                Fix(position.line, position.line, (), safe=True),
            )


def consistent_casing(source: Source) -> Iterator[Spot]:
    found = [(item, item.words[0][1]) for item in source.items]
    lower = sum(1 for _, word in found if word.islower())
    upper = sum(1 for _, word in found if word.isupper())
    wanted = "lowercase" if lower > upper else "uppercase"
    for item, word in found:
        right = word.lower() if lower > upper else word.upper()
        if word != right:
            at = item.one.position
            yield Spot(
                at,
                f"{word} is written otherwise than most instructions here, which are {wanted}.",
                f"Write {right}.",
                source.swap(at, word, right, safe=True),
            )


def json_recommended(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        shell = any(isinstance(item.one, ins.Shell) for one in source.chain(stage) for item in one.items)
        for item in stage.of(ins.Cmd, ins.Entrypoint):
            one = item.one
            assert isinstance(one, ins.Command)
            if one.argv is not None or shell:
                continue
            fix = None
            words = one.line.split()
            if _PLAIN.match(one.line) and words[0] not in _BUILTINS and "=" not in words[0]:
                fix = source.whole(item, f"{item.words[0][1]} {json.dumps(shlex.split(one.line))}", safe=True)
            yield Spot(
                one.position,
                f"{one.keyword} in shell form runs below a shell, which hands on no signal: the program is not told"
                " to stop, and is killed when its time is up.",
                'Write it as a JSON array: ["program", "argument"].',
                fix,
            )


def maintainer(source: Source) -> Iterator[Spot]:
    for item in source.items:
        if isinstance(item.one, ins.Maintainer):
            text = item.one.value.text.strip().strip("\"'")
            label = f"LABEL org.opencontainers.image.authors={json.dumps(text, ensure_ascii=False)}"
            yield Spot(
                item.one.position,
                "MAINTAINER is deprecated.",
                "Use a label.",
                source.whole(item, label, safe=True),
            )


def workdir_relative(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        if source.stage_named(stage.base.image.text, stage.index) is not None:
            continue
        for item in stage.of(ins.Workdir):
            assert isinstance(item.one, ins.Single)
            text = item.one.value.text.strip("\"'")
            if text.startswith(("/", "$")) or re.match(r"[A-Za-z]:", text):
                break
            yield Spot(
                item.one.value.position,
                f"WORKDIR {text} is relative, and where it leads depends on the base image.",
                "Write an absolute path.",
                source.swap(item.one.value.position, text, f"/{text}"),
            )


def multiple_instructions(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        for kind in (ins.Cmd, ins.Entrypoint, ins.Healthcheck):
            for item in list(stage.of(kind))[:-1]:
                yield Spot(
                    item.one.position,
                    f"The stage has more than one {item.one.keyword}, and only the last one counts.",
                    "Remove this one.",
                    source.gone(item, safe=True),
                )


def legacy_pairs(source: Source) -> Iterator[Spot]:
    for item in source.items:
        one = item.one
        if not isinstance(one, (ins.Env, ins.Label)) or len(one.pairs) != 1:
            continue
        pair = one.pairs[0]
        after = item.line.text.find(pair.key.text, len(one.keyword)) + len(pair.key.text)
        if pair.value is None or item.line.text[after : after + 1] == "=":
            continue
        value = pair.value.text
        quoted = value if value[:1] in "\"'" and value[-1:] == value[:1] and len(value) > 1 else f'"{value}"'
        plain = "\\" not in value and not ({'"', "'"} & set(quoted[1:-1]))
        fix = source.whole(item, f"{item.words[0][1]} {pair.key.text}={quoted}", safe=plain)
        yield Spot(
            one.position,
            f"{one.keyword} name value is the old form, in which a second pair becomes part of the value.",
            f"Write {one.keyword} name=value.",
            fix if plain else None,
        )


def _ports(source: Source) -> Iterator[tuple[str, Position]]:
    for item in source.items:
        if isinstance(item.one, ins.Expose):
            for word in item.one.ports:
                text = word.text.strip("\"'")
                if "$" not in text:
                    yield text, word.position


def expose_proto_casing(source: Source) -> Iterator[Spot]:
    for text, at in _ports(source):
        port, mark, protocol = text.partition("/")
        if mark and protocol != protocol.lower():
            yield Spot(
                at,
                f"The protocol {protocol} has capital letters.",
                f"Write {port}/{protocol.lower()}.",
                source.swap(at, text, f"{port}/{protocol.lower()}", safe=True),
            )


def expose_format(source: Source) -> Iterator[Spot]:
    for text, at in _ports(source):
        if _PORT.match(text) is None:
            port = text.rpartition(":")[2]
            fix = source.swap(at, text, port) if _PORT.match(port) else None
            yield Spot(
                at,
                f'"{text}" is no port of a container: EXPOSE takes no address and no port of the host.',
                "Write PORT or PORT/PROTOCOL, and map it with -p when the container starts.",
                fix,
            )


RULES = (
    Rule("NoEmptyContinuation", "error", "No empty line inside an instruction", no_empty_continuation),
    Rule("ConsistentInstructionCasing", "warning", "All instructions are in the same case", consistent_casing),
    Rule("JSONArgsRecommended", "warning", "CMD and ENTRYPOINT are JSON arrays, which get signals", json_recommended),
    Rule("MaintainerDeprecated", "warning", "A label names the author", maintainer),
    Rule("WorkdirRelativePath", "warning", "The first WORKDIR is absolute", workdir_relative),
    Rule("MultipleInstructionsDisallowed", "warning", "One CMD, ENTRYPOINT and HEALTHCHECK a stage", multiple_instructions),
    Rule("LegacyKeyValueFormat", "warning", "ENV and LABEL are written name=value", legacy_pairs),
    Rule("ExposeProtoCasing", "warning", "Protocols of EXPOSE are lower case", expose_proto_casing),
    Rule("ExposeInvalidFormat", "warning", "EXPOSE takes ports of the container", expose_format),
)  # fmt: skip
