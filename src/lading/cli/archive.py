"""save, load, export, import: whole images and file systems as one stream, in constant memory."""

from __future__ import annotations

import os

from lading.base.errors import Invalid, LadingError
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name, report, split_reference
from lading.client.http import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lading.cli.context import Context
    from lading.client.http import Response

TAR = {"Content-Type": "application/x-tar"}


def read_pieces(fd: int) -> Iterator[bytes]:
    """A descriptor's bytes to their end."""
    while data := os.read(fd, CHUNK * 4):
        yield data


def write_stream(context: Context, response: Response, path: str) -> None:
    """A response's body to stdout, or to `path`, which appears whole or not at all (a device or pipe: as it is)."""
    try:
        if not path:
            for piece in response.chunks():
                context.out.write_bytes(piece)
            context.out.flush()
            return
        plain = os.path.isfile(path) or not os.path.lexists(path)
        aside = f"{path}.{os.getpid()}.tmp" if plain else path
        try:
            with open(aside, "wb") as file:
                for piece in response.chunks():
                    file.write(piece)
            if plain:
                os.rename(aside, path)
        except BaseException as error:
            if plain and os.path.lexists(aside):
                os.unlink(aside)
            if isinstance(error, OSError):
                raise LadingError(f"{path!r} cannot be written", why=f"{error.strerror}.") from None
            raise
    finally:
        response.connection.close()


def _refuse_terminal(context: Context, path: str, verb: str) -> None:
    if not path and context.out.is_terminal():
        raise UsageError(
            f"cowardly refusing to {verb} to a terminal", hint="Use the -o flag or redirect.", code=1
        )


def _save(context: Context, flags: Flags) -> int:
    _refuse_terminal(context, flags.text("output"), "save")
    query = {"names": flags.args, "platform": flags.text("platform")}
    write_stream(context, context.client.open("GET", "/images/get", query), flags.text("output"))
    return 0


def _export(context: Context, flags: Flags) -> int:
    _refuse_terminal(context, flags.text("output"), "export")
    path = f"/containers/{path_name(flags.args[0])}/export"
    write_stream(context, context.client.open("GET", path), flags.text("output"))
    return 0


def _load(context: Context, flags: Flags) -> int:
    source = flags.text("input")
    fd = _open(context, source) if source else context.stdin
    if not source and os.isatty(fd):
        raise UsageError(
            "requested load from stdin, but stdin is empty", hint="Use the -i flag or redirect.", code=1
        )
    quiet = flags.on("quiet") or not context.out.is_terminal()
    query = {"quiet": int(quiet), "platform": flags.text("platform")}
    for event in context.client.lines("POST", "/images/load", query, read_pieces(fd), TAR):
        report(event, context.out, False)
    return 0


def _open(context: Context, path: str) -> int:
    try:
        return os.open(context.absolute(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{path!r} cannot be read", why=f"{error.strerror}.") from None


def _import(context: Context, flags: Flags) -> int:
    source = flags.args[0]
    repository, tag = split_reference(flags.args[1]) if len(flags.args) > 1 else ("", "")
    query = {
        "fromSrc": "-",
        "repo": repository,
        "tag": tag,
        "message": flags.text("message"),
        "changes": flags.many("change"),
        "platform": flags.text("platform"),
    }
    if source.startswith(("http://", "https://")):
        raise UsageError(
            "import from a URL is not supported",
            hint="Fetch the file first, or pipe it: curl URL | lading import -",
            code=1,
        )
    fd = context.stdin if source == "-" else _open(context, source)
    for event in context.client.lines("POST", "/images/create", query, read_pieces(fd), TAR):
        report(event, context.out, False)
    return 0


_PLATFORM = ("platform", "", "string", 'Only the given platform variant, "os[/arch[/variant]]"')
_OUTPUT = ("output", "o", "string", "Write to a file, instead of STDOUT")

SAVE = Verb("save [OPTIONS] IMAGE [IMAGE...]", (_OUTPUT, _PLATFORM), _save, least=1, most=-1)
EXPORT = Verb("export [OPTIONS] CONTAINER", (_OUTPUT,), _export, least=1, most=1)
LOAD = Verb(
    "load [OPTIONS]",
    (
        ("input", "i", "string", "Read from tar archive file, instead of STDIN"),
        _PLATFORM,
        ("quiet", "q", "bool", "Suppress the load output"),
    ),
    _load,
)
IMPORT = Verb(
    "import [OPTIONS] file|- [REPOSITORY[:TAG]]",
    (
        ("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        ("message", "m", "string", "Set commit message for imported image"),
        _PLATFORM,
    ),
    _import,
    least=1,
    most=2,
)
