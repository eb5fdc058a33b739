"""Rules about variables: undefined ones, and names that look like secrets. Values are never looked at beyond defaults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from lading.base.errors import LadingError
from lading.build.dockerfile import DockerfileError
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.expand import ExpansionError, expand
from lading.build.dockerfile.instructions import Word
from lading.build.lint.finding import Rule, Spot
from lading.build.lint.source import Item, Source, StageItems
from lading.build.variables import PREDEFINED
from lading.image import reference

_VARIABLE = re.compile(
    r"\\.|'[^']*'|\$(?:\{(?P<braced>[A-Za-z_]\w*)(?P<operator>[^}]*)\}|(?P<bare>[A-Za-z_]\w*))"
)
_AUTOMATIC = frozenset(
    f"{side}{what}" for side in ("TARGET", "BUILD") for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
) | {"TARGETSTAGE"}
_INHERITED = frozenset(
    "PATH HOME HOSTNAME USER TERM LANG LC_ALL LD_LIBRARY_PATH LIBRARY_PATH PYTHONPATH PYTHON_VERSION VIRTUAL_ENV"
    " CONDA_DIR NODE_VERSION GOPATH GOLANG_VERSION JAVA_HOME CUDA_VERSION CUDA_HOME NVIDIA_VISIBLE_DEVICES"
    " NV_CUDA_LIB_VERSION NB_USER NB_UID NB_GID SHELL PWD DEBIAN_FRONTEND".split()
)
"""What base images and runtimes commonly set: a file that extends them is right, and the lint does not see the image."""

_SECRET = re.compile(
    r"(?:\A|_)(?:api_?key|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|\Z)", re.IGNORECASE
)
_NO_SECRET = re.compile(
    r"(?:\A|_)public(?:_|\Z)|_(?:file|path|dir|url|name|length|size|len|id)\Z", re.IGNORECASE
)


def used(text: str) -> Iterator[tuple[str, int]]:
    """The variables that must be there for `text` to be whole, each with its offset."""
    for match in _VARIABLE.finditer(text):
        name = match["braced"] or match["bare"]
        if name and not (match["operator"] or "").lstrip(":").startswith(("-", "+", "?")):
            yield name, match.start()


def _near(name: str, known: set[str]) -> str:
    found = difflib.get_close_matches(name, sorted(known), 1, 0.75)
    return (
        f"Did you mean ${found[0]}?"
        if found
        else "Declare it with ARG or ENV, or give it a default: ${NAME:-VALUE}."
    )


def _globals(source: Source) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for item in source.arguments:
        assert isinstance(item.one, ins.Arg)
        for pair in item.one.pairs:
            found[pair.key.text] = pair.value.text if pair.value is not None else None
    return found


def undefined_in_from(source: Source) -> Iterator[Spot]:
    known = set(_globals(source)) | _AUTOMATIC
    for stage in source.stages:
        for word in (stage.base.image, stage.base.platform):
            for name, _ in used(word.text) if word is not None else ():
                if name not in known and word is not None:
                    yield Spot(
                        word.position,
                        f"FROM uses ${name}, which no ARG before the first FROM declares: it is empty.",
                        _near(name, known),
                    )


def invalid_default_in_from(source: Source) -> Iterator[Spot]:
    values = _globals(source)
    for stage in source.stages:
        text = stage.base.image.text
        names = [name for name, _ in used(text)]
        if not names or any(name not in values and name not in _AUTOMATIC for name in names):
            continue
        try:
            name = expand(
                text, lambda one: values.get(one) or ("x" if one in _AUTOMATIC else ""), source.lexed.escape
            )
            if name:
                reference.parse(name)
                continue
        except (ExpansionError, DockerfileError):
            continue
        except LadingError:
            pass
        yield Spot(
            stage.base.image.position,
            f"With the defaults of its arguments {text} names no image, so a build without --build-arg fails.",
            f"Give ARG {names[0]} a default that makes a whole name.",
        )


def _words(one: object) -> Iterator[Word]:
    """The words of an instruction in which variables are expanded."""
    match one:
        case ins.Env() | ins.Label():
            for pair in one.pairs:
                yield pair.key
                if pair.value is not None:
                    yield pair.value
        case ins.Arg():
            yield from (pair.value for pair in one.pairs if pair.value is not None)
        case ins.Copy() | ins.Add():
            yield from one.sources
            yield one.destination
            yield from (word for word in (one.chown, one.chmod) if word is not None)
        case ins.Workdir() | ins.User() | ins.Stopsignal():
            yield one.value
        case ins.Expose():
            yield from one.ports
        case ins.Volume():
            yield from one.paths


def _declares(one: object) -> Iterator[str]:
    if isinstance(one, (ins.Env, ins.Arg)):
        yield from (pair.key.text for pair in one.pairs)


def undefined(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        known = set(_INHERITED | _AUTOMATIC | PREDEFINED)
        for below in source.chain(stage)[:-1]:
            known |= {name for item in below.items for name in _declares(item.one)}
        yield from _undefined(source, stage, known)


def _undefined(source: Source, stage: StageItems, known: set[str]) -> Iterator[Spot]:
    outside = set(_globals(source))
    for item in stage.items:
        for word in _words(item.one):
            for name, offset in used(word.text):
                if name in known:
                    continue
                why = f"${name} is not declared in this stage, so it is empty."
                advice = _near(name, known)
                if name in outside:
                    why = f"${name} is declared before FROM only, and is empty inside of the stage."
                    advice = f"Repeat ARG {name} in the stage."
                place = type(word.position)(word.position.line, word.position.column + offset)
                yield Spot(place, why, advice)
        known |= set(_declares(item.one))


def _named(item: Item) -> Iterator[tuple[Word, Word | None]]:
    if isinstance(item.one, (ins.Env, ins.Arg)):
        yield from ((pair.key, pair.value) for pair in item.one.pairs)


def secrets(source: Source) -> Iterator[Spot]:
    for item in source.items:
        for key, _ in _named(item):
            if _SECRET.search(key.text) and not _NO_SECRET.search(key.text):
                yield Spot(
                    key.position,
                    f"{item.one.keyword} {key.text} looks like a secret, and whoever has the image can read it in its"
                    " configuration or history.",
                    f"Use RUN --mount=type=secret,id={key.text.lower()} and --secret, or set it when the container starts.",
                )


RULES = (
    Rule("UndefinedArgInFrom", "warning", "FROM uses declared arguments", undefined_in_from),
    Rule(
        "InvalidDefaultArgInFrom",
        "warning",
        "FROM is a name with the defaults alone",
        invalid_default_in_from,
    ),
    Rule("UndefinedVar", "warning", "Variables are declared before they are used", undefined),
    Rule("SecretsUsedInArgOrEnv", "warning", "No secrets in ARG and ENV", secrets),
)
