"""`lading run` and `lading create`. Owns the order of their requests and what is undone when one fails."""

from __future__ import annotations

import os

from lading.base.errors import LadingError
from lading.cli.createbody import create_body
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.runflags import CONTAINER
from lading.cli.runflags import RUN as RUN_ROWS
from lading.client.api import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context


def _run(context: Context, flags: Flags) -> int:
    detach = flags.on("detach")
    body = create_body(context, flags, detach)
    if detach:
        identifier = create(context, flags, body)
        _start(context, identifier)
        context.out.line(identifier)
        return 0
    if body["AttachStdin"] and body.get("Tty") and not os.isatty(context.stdin):
        raise UsageError(
            "the input device is not a TTY", hint="Leave -t out when input comes from a pipe.", code=1
        )
    from lading.cli.terminal import detach_keys

    keys = detach_keys(flags.text("detach-keys"))
    identifier = create(context, flags, body)
    return _foreground(context, identifier, body, keys, flags.on("sig-proxy", True))


def _foreground(context: Context, identifier: str, body: dict[str, Any], keys: bytes, proxy: bool) -> int:
    from lading.cli import follow

    tty = bool(body.get("Tty"))
    stdin = bool(body["AttachStdin"])
    started = False

    def start() -> None:
        nonlocal started
        _start(context, identifier)
        started = True

    try:
        stream = follow.attach(
            context, identifier, stdin=stdin, stdout=body["AttachStdout"], stderr=body["AttachStderr"]
        )
        waiting = follow.wait(context, identifier, removed=bool(body["HostConfig"].get("AutoRemove")))
        code = follow.follow(
            context, identifier, stream, waiting, tty=tty, stdin=stdin, keys=keys, proxy=proxy, start=start
        )
    except BaseException:
        if not started:
            _remove(context, identifier)
        raise
    return 0 if code is None else code


def _create(context: Context, flags: Flags) -> int:
    body = create_body(context, flags, False)
    context.out.line(create(context, flags, body))
    return 0


def create(context: Context, flags: Flags, body: dict[str, Any]) -> str:
    """POST /containers/create, fetching the image first where the policy says so; the new container's id."""
    policy = flags.text("pull", "missing")
    if policy not in ("always", "missing", "never"):
        raise UsageError(f"invalid pull option: {policy!r}: must be one of 'always', 'missing' or 'never'")
    cidfile = flags.text("cidfile")
    if cidfile and os.path.lexists(cidfile):
        raise UsageError(
            f"container ID file found: {cidfile}",
            hint="Make sure that the other container is not running, or delete the file.",
        )
    query = {"name": flags.text("name"), "platform": flags.text("platform")}
    if policy == "always":
        fetch(context, flags, body["Image"])
    try:
        answer = context.client.call("POST", "/containers/create", query, body)
    except APIError as error:
        if error.status != 404 or policy != "missing" or "image" not in str(error).lower():
            raise
        context.err.write(f"Unable to find image '{tagged(body['Image'])}' locally\n")
        context.err.flush()
        fetch(context, flags, body["Image"])
        answer = context.client.call("POST", "/containers/create", query, body)
    identifier = str(answer["Id"])
    for warning in answer.get("Warnings") or ():
        context.complain(f"warning: {warning}")
    if cidfile:
        _write_cidfile(context, cidfile, identifier)
    return identifier


def tagged(image: str) -> str:
    """The reference with the tag that an untagged one means."""
    name = image.rpartition("/")[2]
    return image if ":" in name or "@" in name else f"{image}:latest"


def fetch(context: Context, flags: Flags, image: str) -> None:
    """POST /images/create; its failure is the daemon's own advice."""
    from lading.cli.registries import pull

    pull(context, image, flags.text("platform"), quiet=flags.on("quiet"), out=context.err)


def _write_cidfile(context: Context, path: str, identifier: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        _remove(context, identifier)
        raise LadingError(
            f"the container ID file {path} could not be written", why=f"{error.strerror}."
        ) from None
    try:
        os.write(fd, identifier.encode())
    finally:
        os.close(fd)


def _start(context: Context, identifier: str) -> None:
    try:
        context.client.call("POST", f"/containers/{identifier}/start")
    except APIError as error:
        _remove(context, identifier)  # what never ran keeps no name
        raise not_started(error) from None


def not_started(error: APIError) -> LadingError:
    """The same error with the code of `run`: 126 (cannot be run), 127 (not found) or 125 (lading's own failure)."""
    failure = LadingError(str(error))
    code = error.body.get("exitCode")
    failure.exit_code = code if code in (126, 127) else 125
    return failure


def _remove(context: Context, identifier: str) -> None:
    try:
        context.client.call("DELETE", f"/containers/{identifier}", {"force": 1, "v": 1})
    except LadingError:
        pass  # it removed itself, or the daemon is gone and will


RUN = Verb(
    "run [OPTIONS] IMAGE [COMMAND] [ARG...]", RUN_ROWS, _run, least=1, most=-1, interspersed=False
)  # fmt: skip
CREATE = Verb(
    "create [OPTIONS] IMAGE [COMMAND] [ARG...]", CONTAINER, _create, least=1, most=-1, interspersed=False
)  # fmt: skip
