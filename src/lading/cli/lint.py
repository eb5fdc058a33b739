"""`lading lint` and `lading build --check`: a Dockerfile judged by its text and its context. Needs no daemon.

Owns which files are read and the exit code; the rules and the forms of a report are the lint's own.
"""

from __future__ import annotations

import datetime
import os

from lading.base.errors import Invalid
from lading.cli.flags import Flags, UsageError, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.build.lint import Around, Report
    from lading.cli.context import Context

_LIMIT = 4 << 20
_FORMATS = ("text", "json", "sarif")
_LEVELS = ("info", "warning", "error", "never")


def _lint(context: Context, flags: Flags) -> int:
    if flags.on("list-rules"):
        return _list(context)
    path = flags.args[0] if flags.args else "."
    form, least = flags.text("format", "text"), flags.text("fail-on", "warning")
    _one_of("format", form, _FORMATS)
    _one_of("fail-on", least, _LEVELS)
    skip = [name.strip() for text in flags.many("ignore") for name in text.split(",")]
    name, around, data = _found(context, path, flags.text("file"))
    if flags.on("fix"):
        data = _fixed(context, name, data, around, skip)
        if name == "-":
            return 0
    from lading.build.lint import check

    return _show(context, check(data, "Dockerfile" if name == "-" else name, around, skip), form, least)


def check_before_build(context: Context, flags: Flags) -> int:
    """`build --check`: the Dockerfile that would be built, and nothing is."""
    from lading.build.lint import check

    name, around, data = _found(context, flags.args[0], flags.text("file"))
    return _show(context, check(data, "Dockerfile" if name == "-" else name, around), "text", "warning")


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f'invalid argument "{value}" for "--{flag}" flag', hint=f"It is one of {', '.join(known)}."
        )


def _list(context: Context) -> int:
    from lading.build.lint import RULES

    width = max(len(rule.name) for rule in RULES)
    for rule in sorted(RULES, key=lambda one: one.name):
        level = rule.level if rule.default else "off"
        context.out.line(f"{rule.name:{width}}  {level:7}  {rule.summary}")
    return 0


def _found(context: Context, path: str, file: str) -> tuple[str, Around, bytes]:
    """(the Dockerfile's name as findings show it, its surroundings, its bytes) of PATH and -f."""
    from lading.build.lint import Around

    today = datetime.date.today()
    if path == "-" or file == "-":
        around = Around(today=today) if path == "-" else _around(context.absolute(path), "Dockerfile", today)
        return "-", around, _whole(context.stdin, "standard input")
    absolute = context.absolute(path)
    if os.path.isdir(absolute):
        names = (context.absolute(file),) if file else (f"{absolute}/Dockerfile", f"{absolute}/dockerfile")
        dockerfile = next((one for one in names if os.path.exists(one)), names[0])
        directory = absolute
    else:
        dockerfile, directory = absolute, os.path.dirname(absolute)
    try:
        fd = os.open(dockerfile, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Invalid(
            f"the Dockerfile {dockerfile!r} cannot be read",
            why=f"{error.strerror}.",
            hint="Name a directory that has one, the file itself, or - for standard input.",
        ) from None
    try:
        data = _whole(fd, dockerfile)
    finally:
        os.close(fd)
    return os.path.relpath(dockerfile), _around(directory, os.path.basename(dockerfile), today), data


def _whole(fd: int, name: str) -> bytes:
    data = b""
    try:
        while piece := os.read(fd, 1 << 16):
            data += piece
            if len(data) > _LIMIT:
                raise Invalid(f"{name} is longer than {_LIMIT >> 20} MiB")
    except OSError as error:
        raise Invalid(f"{name} cannot be read", why=f"{error.strerror}.") from None
    return data


def _around(directory: str, dockerfile: str, today: datetime.date) -> Around:
    """The ignore file and the requirements beside it."""
    from lading.build import ignore
    from lading.build.lint import Around

    patterns, has = ignore.NOTHING, False
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        text = _small(f"{directory}/{name}")
        if text is not None:
            patterns, has = ignore.parse(text.encode(), name), True
            break
    requirements = {}
    for name in sorted(os.listdir(directory))[:10_000]:
        if name.startswith("requirements") and name.endswith(".txt"):
            text = _small(f"{directory}/{name}")
            if text is not None:
                requirements[name] = text
    return Around(patterns, has, requirements, today)


def _small(path: str) -> str | None:
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return None  # what cannot be read is not judged


def _fixed(context: Context, name: str, data: bytes, around: Around, skip: list[str]) -> bytes:
    """Apply the safe fixes: to the file, or from standard input to standard output."""
    from lading.build.dockerfile.lexer import decode
    from lading.build.lint import fixed

    text, count = fixed(decode(data), around, skip)
    changed = text.encode()
    if name == "-":
        context.out.write_bytes(changed)
    elif count:
        from lading.base.atomic import write_file

        path = os.path.realpath(name)
        write_file(path, changed, mode=os.stat(path).st_mode & 0o777)
        context.out.line(f"{name}: {count} fixed")
    return changed


def _show(context: Context, report: Report, form: str, least: str) -> int:
    from lading.build.lint import LEVELS, render

    if form == "text":
        context.out.write(render.text(report))
    else:
        import json

        from lading import __version__

        value = render.document([report]) if form == "json" else render.sarif([report], __version__)
        context.out.line(json.dumps(value, indent=2))
    worst = report.worst()
    if report.strict and worst in ("warning", "error"):
        return 1
    return 1 if worst and least != "never" and LEVELS.index(worst) >= LEVELS.index(least) else 0


LINT = Verb(
    "lint [OPTIONS] [PATH | -]",
    (
        (
            "fail-on",
            "",
            "string",
            "Exit with 1 from this level on: info, warning, error or never (default warning)",
        ),
        (
            "file",
            "f",
            "string",
            'Name of the Dockerfile (Default is "PATH/Dockerfile"; "-" is standard input)',
        ),
        ("fix", "", "bool", "Write the fixes that leave the image as it is into the file"),
        ("format", "", "string", "Output: text, json or sarif (default text)"),
        ("ignore", "", "list", "Leave out rules, by name"),
        ("list-rules", "", "bool", "Show every rule and its level"),
    ),
    _lint,
    most=1,
)
