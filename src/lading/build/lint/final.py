"""Rules about how the image runs: as whom, what answers for its health, and which server CMD starts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lading.build.dockerfile import instructions as ins
from lading.build.lint.finding import Rule, Spot
from lading.build.lint.shell import commands
from lading.build.lint.source import Item, Source

_ROOT = ("root", "0", "root:root", "0:0", "root:0", "0:root")


def _last(source: Source) -> list[Item]:
    """What the final image is made of: the last stage and those below it."""
    return [item for one in source.chain(source.stages[-1]) for item in one.items] if source.stages else []


def _of(items: list[Item], kind: type[ins.Instruction]) -> Item | None:
    return next((item for item in reversed(items) if isinstance(item.one, kind)), None)


def root_user(source: Source) -> Iterator[Spot]:
    items = _last(source)
    start = _of(items, ins.Cmd) or _of(items, ins.Entrypoint)
    user = _of(items, ins.User)
    if user is not None:
        assert isinstance(user.one, ins.Single)
        if user.one.value.text.strip("\"'") in _ROOT:
            yield Spot(
                user.one.position,
                "The image runs as root: who breaks out of the program owns the container's files and capabilities.",
                "End with a user of your own, as in USER 10001:10001.",
            )
    elif start is not None:
        yield Spot(
            start.one.position,
            "No USER is set, so the program runs as root, unless the base image says otherwise.",
            "Put USER 10001:10001 before; a number needs no entry in /etc/passwd.",
        )


def no_healthcheck(source: Source) -> Iterator[Spot]:
    items = _last(source)
    port = _of(items, ins.Expose)
    if (
        port is not None
        and _of(items, ins.Healthcheck) is None
        and source.root(source.stages[-1]).base.image.text
    ):
        assert isinstance(port.one, ins.Expose)
        number = port.one.ports[0].text.partition("/")[0]
        yield Spot(
            port.one.position,
            "A port is served and nothing tells whether the server answers: one that hangs counts as running.",
            'Add HEALTHCHECK CMD ["python", "-c", "import urllib.request as r;'
            f" r.urlopen('http://127.0.0.1:{number}/health', timeout=2)\"], or what the image has.",
        )


_LOOKED_AT = 4096
"""Characters of a command that patterns are tried on; a longer one starts no server that these would know."""

_SERVERS = (
    (re.compile(r"\bflask\b.*\brun\b"), "flask run", "gunicorn"),
    (re.compile(r"\bmanage\.py runserver\b"), "runserver", "gunicorn"),
    (
        re.compile(r"\b(?:uvicorn|hypercorn|gunicorn)\b.*--reload\b"),
        "--reload",
        "the server without --reload",
    ),
    (re.compile(r"\bfastapi dev\b"), "fastapi dev", "fastapi run"),
    (re.compile(r"\b(?:npm|yarn|pnpm) (?:run )?dev\b"), "the development script", "a production build"),
    (re.compile(r"\bpython[0-9.]* -m http\.server\b"), "http.server", "a real server"),
)


def development_server(source: Source) -> Iterator[Spot]:
    items = _last(source)
    for item in (_of(items, ins.Entrypoint), _of(items, ins.Cmd)):
        if item is None:
            continue
        text = " ".join(word for simple in commands(item) for word in simple.words)[:_LOOKED_AT]
        for pattern, name, better in _SERVERS:
            if pattern.search(text):
                yield Spot(
                    item.one.position,
                    f"{item.one.keyword} starts a development server ({name}): one request at a time, debugging open"
                    " to all, or files watched for nothing.",
                    f"Start {better}.",
                )
                break
    for item in items:
        if isinstance(item.one, ins.Env):
            for pair in item.one.pairs:
                value = pair.value.text.strip("\"'") if pair.value is not None else ""
                if (pair.key.text, value) in (
                    ("FLASK_DEBUG", "1"),
                    ("FLASK_ENV", "development"),
                    ("DJANGO_DEBUG", "1"),
                ):
                    yield Spot(
                        pair.key.position,
                        f"{pair.key.text}={value} opens the debugger to whoever reaches the port.",
                        "Leave it out.",
                    )


RULES = (
    Rule("RootUser", "warning", "The image runs as a user of its own", root_user),
    Rule("HealthcheckMissing", "info", "A served port has a health check", no_healthcheck),
    Rule("DevelopmentServer", "warning", "CMD starts a production server", development_server),
)
