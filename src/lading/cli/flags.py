"""Command-line flags from declarative tables, by the rules of pflag that `docker` users have in their fingers.

Owns the splitting of argv; what a flag means belongs to its verb. A flag is a row (long, short, kind, help) of plain
tuples, so that a table costs nothing to import.

pflag's rules: `--name value`, `--name=value`, a bool takes a value only with `=`; short flags cluster (`-it`) and the last
may take its value attached (`-p80:80`, `-p=80:80`) or as the next word; `--` ends flags; where `interspersed` is
false the first positional ends them.
"""

from __future__ import annotations

from lading.base.errors import LadingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lading.cli.context import Context

    Row = tuple[str, str, str, str]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_INTEGERS = ("int", "uint16", "uint")


class UsageError(LadingError):
    """The command line is wrong; `verb` names whose help would tell. `code` is the exit status."""

    def __init__(self, what: str, *, why: str = "", hint: str = "", verb: str = "", code: int = 125) -> None:
        super().__init__(what, why=why, hint=hint)
        self.verb = verb
        self.code = code


class HelpWanted(Exception):
    """`--help` was among the flags."""


class Flags:
    """What was parsed: `args` are the positionals. Accessors give a kind's zero value for a flag that was not given."""

    __slots__ = ("args", "values")

    def __init__(self) -> None:
        self.values: dict[str, str | bool | list[str]] = {}
        self.args: list[str] = []

    def given(self, name: str) -> bool:
        return name in self.values

    def on(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return value if isinstance(value, bool) else default

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name)
        return value if isinstance(value, str) else default

    def many(self, name: str) -> list[str]:
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def integer(self, name: str) -> int | None:
        value = self.values.get(name)
        return int(value, 0) if isinstance(value, str) else None

    def size(self, name: str) -> int | None:
        """Bytes; -1 passes (no limit)."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return None
        from lading.cli.units import parse_size

        return parse_size(value)

    def duration(self, name: str) -> int | None:
        """Nanoseconds."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return None
        from lading.cli.units import parse_duration

        return parse_duration(value)


class Verb:
    """One command: how it is used, its flags, how many positionals it takes (`most` -1 is any number), what it does."""

    __slots__ = ("act", "interspersed", "least", "most", "notes", "rows", "usage")

    def __init__(
        self,
        usage: str,
        rows: Sequence[Row],
        act: Callable[[Context, Flags], int],
        *,
        least: int = 0,
        most: int = 0,
        interspersed: bool = True,
        notes: str = "",
    ) -> None:
        self.usage = usage
        self.rows = rows
        self.act = act
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.notes = notes


def parse(name: str, verb: Verb, argv: Sequence[str]) -> Flags:
    """Split `argv` (without the verb's own words) by the verb's table; UsageError or HelpWanted."""
    flags = split(name, verb.rows, argv, verb.interspersed)
    count = len(flags.args)
    if count < verb.least or 0 <= verb.most < count:
        raise UsageError(_count_message(name, verb, flags.args), verb=name, code=1)
    return flags


def split(name: str, rows: Sequence[Row], argv: Sequence[str], interspersed: bool = True) -> Flags:
    """The loop over argv, without a check of how many positionals there are."""
    longs = {row[0]: row for row in rows}
    shorts = {row[1]: row for row in rows if row[1]}
    flags, queue = Flags(), list(argv)
    queue.reverse()
    while queue:
        word = queue.pop()
        if word == "--":
            flags.args += reversed(queue)
            break
        if len(word) < 2 or word[0] != "-":
            flags.args.append(word)
            if not interspersed:
                flags.args += reversed(queue)
                break
        elif word[1] == "-":
            _long(name, word, longs, flags, queue)
        else:
            _cluster(name, word, shorts, flags, queue)
    return flags


def _long(name: str, word: str, longs: dict[str, Row], flags: Flags, queue: list[str]) -> None:
    key, mark, value = word[2:].partition("=")
    row = longs.get(key)
    if row is None:
        if key == "help":
            raise HelpWanted
        from lading.cli.suggest import closest

        guess = closest(key, longs)
        raise UsageError(
            f"unknown flag: --{key}", hint=f"Did you mean --{guess}?" if guess else "", verb=name
        )
    if not mark:
        if row[2] == "bool":
            flags.values[row[0]] = True
            return
        if not queue:
            raise UsageError(f"flag needs an argument: --{key}", verb=name)
        value = queue.pop()
    _store(name, row, value, flags)


def _cluster(name: str, word: str, shorts: dict[str, Row], flags: Flags, queue: list[str]) -> None:
    at = 1
    while at < len(word):
        letter = word[at]
        at += 1
        row = shorts.get(letter)
        if row is None:
            if letter == "h":
                raise HelpWanted
            hint = f"Did you mean -{word}?" if len(word) > 3 else ""
            raise UsageError(f"unknown shorthand flag: {letter!r} in {word}", hint=hint, verb=name)
        rest = word[at:]
        if row[2] == "bool" and not rest.startswith("="):
            flags.values[row[0]] = True
            continue
        if rest:
            value = rest[1:] if rest[0] == "=" else rest
        elif queue:
            value = queue.pop()
        else:
            raise UsageError(f"flag needs an argument: {letter!r} in {word}", verb=name)
        _store(name, row, value, flags)
        return


def _store(name: str, row: Row, value: str, flags: Flags) -> None:
    long, _, kind, _ = row
    if kind == "bool":
        if value not in _TRUE and value not in _FALSE:
            raise invalid(name, row, value, "it is true or false")
        flags.values[long] = value in _TRUE
    elif kind in ("list", "filter", "map"):
        if kind == "filter" and value and "=" not in value:
            raise invalid(name, row, value, "a filter is KEY=VALUE")
        flags.values[long] = [*flags.many(long), value]
    else:
        if kind != "string":
            _check(name, row, value)
        flags.values[long] = value


def _check(name: str, row: Row, value: str) -> None:
    """Refuse a value that its kind cannot be, at once and by the flag's name."""
    try:
        if row[2] in _INTEGERS:
            if int(value, 0) < 0 and row[2] != "int":
                raise ValueError("it may not be negative")
        elif row[2] == "bytes":
            from lading.cli.units import parse_size

            parse_size(value)
        elif row[2] == "duration":
            from lading.cli.units import parse_duration

            parse_duration(value)
        elif row[2] == "decimal":
            from lading.cli.units import parse_cpus

            parse_cpus(value)
    except ValueError as error:
        why = f"it is not a whole number: {value!r}" if row[2] in _INTEGERS else str(error)
        raise invalid(name, row, value, why) from None


def invalid(name: str, row: Row, value: str, why: str) -> UsageError:
    """The error for a flag's bad value, in docker's words."""
    shown = f"-{row[1]}, --{row[0]}" if row[1] else f"--{row[0]}"
    return UsageError(f'invalid argument "{value}" for "{shown}" flag: {why}', verb=name)


def _count_message(name: str, verb: Verb, args: list[str]) -> str:
    least, most, count = verb.least, verb.most, len(args)
    if most == 0:
        return f'"lading {name}" accepts no arguments, and got {args[0]!r}'
    if most == least:
        wanted = f"requires {least} argument{'s' if least != 1 else ''}"
    elif count < least:
        wanted = f"requires at least {least} argument{'s' if least != 1 else ''}"
    else:
        wanted = f"requires at most {most} argument{'s' if most != 1 else ''}"
    return f'"lading {name}" {wanted}, and got {count}'
