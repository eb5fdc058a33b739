"""`lading inspect` and its forms for one kind of thing. Owns where a name is looked for and in which order."""

from __future__ import annotations

from lading.base.errors import LadingError, NotFound
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lading.cli.context import Context

# docker's order; a name may be of several kinds at once
_PLACES = (
    ("container", "/containers/{}/json"),
    ("image", "/images/{}/json"),
    ("network", "/networks/{}"),
    ("volume", "/volumes/{}"),
)


def _any(context: Context, flags: Flags) -> int:
    kind = flags.text("type")
    if kind and kind not in dict(_PLACES):
        raise UsageError(
            f'"{kind}" is not a valid value for --type',
            hint="It is container, image, network or volume.",
            code=1,
        )
    return _inspect(context, flags, (kind,) if kind else tuple(place[0] for place in _PLACES))


def _one_kind(kind: str) -> Callable[[Context, Flags], int]:
    return lambda context, flags: _inspect(context, flags, (kind,))


def _inspect(context: Context, flags: Flags, kinds: tuple[str, ...]) -> int:
    found, failed = [], False
    for name in flags.args:
        try:
            found.append(_find(context, flags, name, kinds))
        except NotFound as error:
            failed = True
            _show(context, found, flags.text("format"))
            found = []
            context.complain(str(error))
    if found or not failed:
        _show(context, found, flags.text("format"))
    elif not flags.text("format"):
        context.out.line("[]")
    return 1 if failed else 0


def _find(context: Context, flags: Flags, name: str, kinds: tuple[str, ...]) -> Any:
    for kind, place in _PLACES:
        if kind not in kinds:
            continue
        query = {"size": 1} if kind == "container" and flags.on("size") else None
        try:
            return context.client.call("GET", place.format(path_name(name)), query)
        except LadingError as error:
            status = getattr(error, "status", 0)
            # A name that a kind cannot have ("a/b" as a volume) is simply not there.
            if status != 404 and not (status == 400 and len(kinds) > 1):
                raise
            if len(kinds) == 1:
                raise NotFound(str(error)) from None
    raise NotFound(
        f"no such object: {name}", hint="There is no container, image, network or volume of that name."
    )


def _show(context: Context, found: list[Any], form: str) -> None:
    if form in ("", "json"):
        if found or not form:
            context.out.line(dumps(found) if form else pretty(found))
        return
    from lading.cli.template import Template

    template = Template(form)
    for item in found:
        context.out.line(template.render(item))


def pretty(value: Any, indent: str = "") -> str:
    """JSON over several lines, four spaces a level, as docker shows it."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        body = ",\n".join([f"{inner}{_text(str(key))}: {pretty(item, inner)}" for key, item in value.items()])
        return "{\n" + body + f"\n{indent}}}"
    if isinstance(value, list) and value:
        body = ",\n".join([inner + pretty(item, inner) for item in value])
        return "[\n" + body + f"\n{indent}]"
    return _text(value) if isinstance(value, str) else dumps(value)


def _text(text: str) -> str:
    """A JSON string that keeps printable characters of every script readable."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"' if text.isprintable() else dumps(text)


_FORMAT = ("format", "f", "string", "Format output: 'json', or a Go TEMPLATE")
_SIZE = ("size", "s", "bool", "Display total file sizes if the type is container")

INSPECT = Verb(
    "inspect [OPTIONS] NAME|ID [NAME|ID...]",
    (_FORMAT, _SIZE, ("type", "", "string", "Only inspect objects of the given type")),
    _any,
    least=1,
    most=-1,
)
INSPECT_CONTAINER = Verb(
    "inspect [OPTIONS] CONTAINER [CONTAINER...]", (_FORMAT, _SIZE), _one_kind("container"), least=1, most=-1
)
INSPECT_IMAGE = Verb("inspect [OPTIONS] IMAGE [IMAGE...]", (_FORMAT,), _one_kind("image"), least=1, most=-1)
INSPECT_VOLUME = Verb(
    "inspect [OPTIONS] VOLUME [VOLUME...]", (_FORMAT,), _one_kind("volume"), least=1, most=-1
)
INSPECT_NETWORK = Verb(
    "inspect [OPTIONS] NETWORK [NETWORK...]",
    (_FORMAT, ("verbose", "v", "bool", "")),
    _one_kind("network"),
    least=1,
    most=-1,
)
