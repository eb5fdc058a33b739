"""From logical lines to stages of typed instructions. Owns the shape of a whole file and of ONBUILD.

Never expands variables and never touches the disk. Source: the Dockerfile reference.
"""

from __future__ import annotations

from collections.abc import Callable

from lading.build.dockerfile import grammar
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.errors import DockerfileError, Position, closest
from lading.build.dockerfile.instructions import Dockerfile, Instruction, Stage
from lading.build.dockerfile.lexer import Lexed, Line, decode, lex, raw_words
from lading.build.dockerfile.words import Rest

MAX_STAGES = 1000
_NO_TRIGGER = ("ONBUILD", "FROM", "MAINTAINER")


def parse(data: bytes | str, name: str = "Dockerfile") -> Dockerfile:
    """The Dockerfile that `data` holds; raises DockerfileError for everything that is not one."""
    try:
        lexed = lex(decode(data))
        return _assemble(lexed, name)
    except DockerfileError as error:
        raise error.inside(name) from None


def parse_trigger(text: str, escape: str = "\\") -> Instruction:
    """One instruction out of an image's OnBuild list."""
    lexed = lex(decode(text))
    if len(lexed.lines) != 1:
        raise DockerfileError("an ONBUILD trigger is not one instruction", Position(1), text=text)
    return instruction(lexed.lines[0], escape)


def _assemble(lexed: Lexed, name: str) -> Dockerfile:
    arguments: list[ins.Arg] = []
    stages: list[Stage] = []
    base: ins.From | None = None
    body: list[Instruction] = []
    warnings = list(lexed.warnings)
    for line in lexed.lines:
        one = instruction(line, lexed.escape, warnings)
        if isinstance(one, ins.From):
            if base is not None:
                stages.append(Stage(len(stages), base, tuple(body)))
            if one.alias and any(stage.base.alias.lower() == one.alias.lower() for stage in stages):
                raise DockerfileError(
                    f'the stage name "{one.alias}" is used twice',
                    one.position,
                    text=one.text,
                    hint="Rename one.",
                )
            if len(stages) >= MAX_STAGES:
                raise DockerfileError(
                    f"the file has more than {MAX_STAGES} stages", one.position, text=one.text
                )
            base, body = one, []
        elif base is not None:
            body.append(one)
        elif isinstance(one, ins.Arg):
            arguments.append(one)
        else:
            raise DockerfileError(
                f"{one.keyword} stands before the first FROM",
                one.position,
                text=one.text,
                hint="Begin with FROM IMAGE; only ARG may come before it.",
            )
    if base is None:
        raise DockerfileError(
            "the file has no FROM instruction" if lexed.lines else "the file is empty",
            Position(1),
            hint="Begin with a base image, as in FROM python:3.11-slim.",
        )
    stages.append(Stage(len(stages), base, tuple(body)))
    return Dockerfile(name, tuple(arguments), tuple(stages), lexed.directives, lexed.escape, tuple(warnings))


def instruction(
    line: Line, escape: str, warnings: list[tuple[str, Position]] | None = None, skip: int = 0
) -> Instruction:
    """Parse one logical line; `skip` is where the keyword starts (after ONBUILD)."""
    words = raw_words(line.text[skip:], escape)
    offset, raw = words[0]
    keyword = raw.upper()
    handler = _HANDLERS.get(keyword)
    if handler is None:
        near = closest(keyword, tuple(_HANDLERS))
        raise DockerfileError(
            f"unknown instruction {raw[:40]}",
            line.at(skip + offset),
            text=line.text[skip:],
            hint=f"Did you mean {near}?"
            if near
            else "An instruction such as RUN, COPY or CMD is expected here.",
        )
    if "\0" in line.text:
        raise DockerfileError(
            "the line holds a NUL character", line.at(line.text.index("\0")), text=line.text
        )
    rest = Rest(line, skip + offset + len(raw), keyword, escape)
    one = handler(
        rest, (keyword, line.at(skip + offset), line.end, _one_line(keyword, line, skip + offset + len(raw)))
    )
    if (
        warnings is not None
        and isinstance(one, (ins.Run, ins.Cmd, ins.Entrypoint))
        and one.argv is None
        and one.line.startswith(("['", '["'))
        and one.line.endswith("]")
    ):
        warnings.append(
            (f"the argument of {keyword} looks like JSON but is not: the shell runs it", rest.position)
        )
    return one


def _one_line(keyword: str, line: Line, after: int) -> str:
    rest = line.text[after:].strip()
    return f"{keyword} {rest}" if rest else keyword


def _onbuild(rest: Rest, common: grammar.Common) -> ins.Onbuild:
    rest.allow()
    rest.required("ONBUILD INSTRUCTION")
    word = rest.words()[0]
    if word.text.upper() in _NO_TRIGGER:
        raise rest.error(
            f"{word.text.upper()} cannot be an ONBUILD trigger", position=word.position, text=rest.text
        )
    instruction(rest.line, rest.escape, skip=rest.start)
    trigger = rest.text
    for heredoc in rest.line.heredocs:
        trigger += f"\n{heredoc.content}{heredoc.name}"
    return ins.Onbuild(*common, trigger=trigger)


_HANDLERS: dict[str, Callable[[Rest, grammar.Common], Instruction]] = {**grammar.READERS, "ONBUILD": _onbuild}
