"""Which base images can be made, and of which packages. Owns the table of names; pure, touches no file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lading.base import errors
from lading.image import reference as references

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON = (
    "python3",
    "python3-pip",
    "python3-venv",
    "python-is-python3",
    "ca-certificates",
    "netbase",
    "tzdata",
)
_COMPILERS = ("build-essential", "python3-dev", "git", "curl", "pkg-config")


@dataclass(frozen=True)
class Recipe:
    """How one image is made. `suite` "" means busybox; `include` is what goes in beside the minimal base."""

    name: str
    suite: str = ""
    slim: bool = True
    include: tuple[str, ...] = ()
    python: str = ""
    env: tuple[str, ...] = (_PATH,)
    cmd: tuple[str, ...] = ("bash",)
    labels: Mapping[str, str] = field(default_factory=dict)


def _debian(name: str, suite: str, slim: bool) -> Recipe:
    return Recipe(name=name, suite=suite, slim=slim)


def _python(name: str, suite: str, python: str, slim: bool) -> Recipe:
    include = _PYTHON if slim else _PYTHON + _COMPILERS
    env = (_PATH, "LANG=C.UTF-8")
    return Recipe(name, suite, slim, include, python, env, ("python3",))


def _table() -> Iterator[tuple[str, Recipe]]:
    for suite, number, python in (("bookworm", "12", "3.11"), ("trixie", "13", "3.13")):
        for slim, tail in ((True, "-slim"), (False, "")):
            base = _debian(f"debian:{suite}{tail}", suite, slim)
            yield base.name, base
            yield f"debian:{number}{tail}", base
            full = _python(f"python:{python}{tail}", suite, python, slim)
            yield full.name, full
            yield f"python:{python}{tail}-{suite}", full
    # One answer for "any Python 3": the release most machine-learning wheels are still built for.
    yield "python:3-slim", _python("python:3.11-slim", "bookworm", "3.11", True)
    busybox = Recipe("busybox:latest", cmd=("sh",))
    for tag in ("latest", "stable", "1"):
        yield f"busybox:{tag}", busybox


_RECIPES = dict(_table())


def names() -> tuple[str, ...]:
    """Every `name:tag` that `bootstrap` knows, in the table's order."""
    return tuple(_RECIPES)


def familiar(reference: str) -> str:
    """`docker.io/library/debian:12` as people write it: `debian:12`; `:latest` where there is no tag."""
    parsed = references.parse(reference).with_default_tag()
    if parsed.digest:
        raise errors.Invalid(
            f"{reference[:300]!r} cannot be bootstrapped",
            why="The digest of a locally made image is known only afterwards.",
            hint="Give a NAME[:TAG] such as python:3.11-slim.",
        )
    return parsed.familiar


def recipe(reference: str) -> Recipe:
    """The recipe for `reference`; NotFound, with what can be made, for any other name."""
    name = familiar(reference)
    found = _RECIPES.get(name)
    if found is not None:
        return found
    guess = f"Did you mean {meant}? " if (meant := _closest(name)) else ""
    raise errors.NotFound(
        f"there is no recipe for {name!r}",
        why=f"{guess}lading can make {', '.join(_RECIPES)} from signed Debian packages.",
        hint="Pull or load any other image.",
    )


def _closest(name: str) -> str:
    """The known name most like `name`, "" when none is: a near repository first, then the nearest of its
    tags.
    """
    repository, _, tag = name.partition(":")
    near = difflib.get_close_matches(repository, {known.partition(":")[0] for known in _RECIPES}, n=1)
    tags = [known.partition(":")[2] for known in _RECIPES if near and known.startswith(f"{near[0]}:")]
    return f"{near[0]}:{(difflib.get_close_matches(tag, tags, n=1, cutoff=0.0) or tags)[0]}" if near else ""
