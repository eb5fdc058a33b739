"""The instructions of the Dockerfile language as values. Owns their fields; never parses and never executes.

Text that the reference says is subject to variable expansion is kept raw here, with its position; `state`
expands it when the values of the variables are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lading.build.dockerfile.errors import Position
from lading.build.dockerfile.lexer import Heredoc


@dataclass(frozen=True)
class Word:
    """One argument as written, quotes and escapes kept, and where it stands."""

    text: str
    position: Position
    literal: bool = False  # from a JSON array: quotes are part of the value, variables still expand


@dataclass(frozen=True)
class Pair:
    """`key=value`; `value` None where only the key was given (ARG)."""

    key: Word
    value: Word | None


@dataclass(frozen=True)
class Instruction:
    """What every instruction has: its keyword, its place, and its text on one line for progress and
    history.
    """

    keyword: str
    position: Position
    end: int
    text: str


@dataclass(frozen=True)
class From(Instruction):
    image: Word
    alias: str = ""
    platform: Word | None = None


@dataclass(frozen=True)
class Command(Instruction):
    """RUN, CMD, ENTRYPOINT, SHELL or the CMD of HEALTHCHECK: `argv` in exec form, else one shell line in
    `line`.
    """

    argv: tuple[str, ...] | None = None
    line: str = ""


@dataclass(frozen=True)
class RunMount:
    """`--mount` of RUN: type and options as written, values expanded later."""

    type: str
    options: tuple[tuple[str, str], ...]
    position: Position


@dataclass(frozen=True)
class Run(Command):
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Cmd(Command):
    pass


@dataclass(frozen=True)
class Entrypoint(Command):
    pass


@dataclass(frozen=True)
class Shell(Command):
    pass


@dataclass(frozen=True)
class Transfer(Instruction):
    """COPY and ADD. A source is a word, or the here-document whose name it is."""

    sources: tuple[Word, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    destination: Word = Word("", Position(1))
    chown: Word | None = None
    chmod: Word | None = None
    exclude: tuple[Word, ...] = ()
    link: bool = False
    parents: bool = False


@dataclass(frozen=True)
class Copy(Transfer):
    source_stage: Word | None = None


@dataclass(frozen=True)
class Add(Transfer):
    keep_git_dir: bool = False
    checksum: Word | None = None
    unpack: bool | None = None


@dataclass(frozen=True)
class Env(Instruction):
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Label(Instruction):
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Arg(Instruction):
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Single(Instruction):
    """USER, WORKDIR, STOPSIGNAL and MAINTAINER: the rest of the line is the argument."""

    value: Word = Word("", Position(1))


@dataclass(frozen=True)
class User(Single):
    pass


@dataclass(frozen=True)
class Workdir(Single):
    pass


@dataclass(frozen=True)
class Stopsignal(Single):
    pass


@dataclass(frozen=True)
class Maintainer(Single):
    pass


@dataclass(frozen=True)
class Expose(Instruction):
    ports: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Volume(Instruction):
    paths: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Healthcheck(Command):
    """`none` for HEALTHCHECK NONE; durations in nanoseconds, 0 is the default."""

    none: bool = False
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Onbuild(Instruction):
    """`trigger` is the instruction's text for the image's config, already checked to be one."""

    trigger: str = ""


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The alias, in lower case as the reference compares them, or the index."""
        return self.base.alias.lower() or str(self.index)


@dataclass(frozen=True)
class Dockerfile:
    """A whole file. `arguments` are the ARGs before the first FROM."""

    name: str
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    directives: dict[str, str] = field(default_factory=dict)
    escape: str = "\\"
    warnings: tuple[tuple[str, Position], ...] = ()
