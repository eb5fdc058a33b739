"""`lading attach` and `lading start` (which attaches with -a or -i)."""

from __future__ import annotations

from lading.base.errors import Conflict
from lading.cli import follow
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.terminal import detach_keys
from lading.client.api import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context


def _attach(context: Context, flags: Flags) -> int:
    name = path_name(flags.args[0])
    found = context.client.call("GET", f"/containers/{name}/json")
    state = found["State"]
    if not state.get("Running"):
        raise Conflict("cannot attach to a stopped container", hint="Start it first: lading start -a NAME.")
    if state.get("Paused") or state.get("Restarting"):
        what = "paused" if state.get("Paused") else "restarting"
        raise Conflict(
            f"cannot attach to a {what} container", hint="Unpause it first." if what == "paused" else ""
        )
    keys = detach_keys(flags.text("detach-keys"))
    return _follow(
        context,
        found,
        stdin=bool(found["Config"].get("OpenStdin")) and not flags.on("no-stdin"),
        keys=keys,
        proxy=flags.on("sig-proxy", True),
        condition="not-running",
    )


def _follow(
    context: Context,
    found: dict[str, Any],
    *,
    stdin: bool,
    keys: bytes,
    proxy: bool,
    condition: str,
    start: Any = None,
) -> int:
    identifier = found["Id"]
    removed = bool((found.get("HostConfig") or {}).get("AutoRemove"))
    stream = follow.attach(context, identifier, stdin=stdin, stdout=True, stderr=True)
    waiting = follow.wait(context, identifier, removed, condition)
    code = follow.follow(
        context,
        identifier,
        stream,
        waiting,
        tty=bool(found["Config"].get("Tty")),
        stdin=stdin,
        keys=keys,
        proxy=proxy,
        start=start,
    )
    return 0 if code is None else code


def _start(context: Context, flags: Flags) -> int:
    if not flags.on("attach") and not flags.on("interactive"):

        def one(name: str) -> None:
            context.client.call("POST", f"/containers/{path_name(name)}/start")

        return context.each(flags.args, one)
    if len(flags.args) > 1:
        raise UsageError("you cannot start and attach multiple containers at once", code=1)
    keys = detach_keys(flags.text("detach-keys"))
    found = context.client.call("GET", f"/containers/{path_name(flags.args[0])}/json")

    def start() -> None:
        try:
            context.client.call("POST", f"/containers/{found['Id']}/start")
        except APIError as error:
            from lading.cli.run import not_started

            raise not_started(error) from None

    stdin = flags.on("interactive") and bool(found["Config"].get("OpenStdin"))
    return _follow(context, found, stdin=stdin, keys=keys, proxy=True, condition="next-exit", start=start)


ATTACH = Verb(
    "attach [OPTIONS] CONTAINER",
    (
        ("detach-keys", "", "string", "Override the key sequence for detaching a container"),
        ("no-stdin", "", "bool", "Do not attach STDIN"),
        ("sig-proxy", "", "bool", "Proxy all received signals to the process (default true)"),
    ),
    _attach,
    least=1,
    most=1,
)
START = Verb(
    "start [OPTIONS] CONTAINER [CONTAINER...]",
    (
        ("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
        ("detach-keys", "", "string", "Override the key sequence for detaching a container"),
        ("interactive", "i", "bool", "Attach container's STDIN"),
    ),
    _start,
    least=1,
    most=-1,
)
