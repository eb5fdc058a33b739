"""`lading exec`: a command beside a running container's own. Owns its requests and its exit code."""

from __future__ import annotations

import os
import time

from lading.cli.flags import Flags, UsageError, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context


def _exec(context: Context, flags: Flags) -> int:
    tty, stdin, detach = flags.on("tty"), flags.on("interactive"), flags.on("detach")
    if tty and stdin and not detach and not os.isatty(context.stdin):
        raise UsageError(
            "the input device is not a TTY", hint="Leave -t out when input comes from a pipe.", code=1
        )
    body = exec_body(context, flags)
    identifier = context.client.call("POST", f"/containers/{flags.args[0]}/exec", None, body)["Id"]
    if detach:
        context.client.call("POST", f"/exec/{identifier}/start", None, {"Detach": True, "Tty": tty})
        return 0
    return _foreground(context, identifier, tty=tty, stdin=stdin, keys=flags.text("detach-keys"))


def exec_body(context: Context, flags: Flags) -> dict[str, Any]:
    """The body of POST /containers/{id}/exec."""
    detach = flags.on("detach")
    body: dict[str, Any] = {
        "AttachStdin": flags.on("interactive") and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Cmd": flags.args[1:],
    }
    for flag, key in (("tty", "Tty"), ("privileged", "Privileged"), ("detach", "Detach")):
        if flags.on(flag):
            body[key] = True
    for flag, key in (("user", "User"), ("workdir", "WorkingDir"), ("detach-keys", "DetachKeys")):
        if flags.text(flag):
            body[key] = flags.text(flag)
    if flags.given("env") or flags.given("env-file"):
        from lading.cli.createbody import environment
        from lading.cli.values import environment as from_files

        body["Env"] = environment(context, flags.many("env"))
        if flags.given("env-file"):
            from_files(context, flags, body, {})
    return body


def _foreground(context: Context, identifier: str, *, tty: bool, stdin: bool, keys: str) -> int:
    from lading.cli import terminal
    from lading.cli.follow import tell
    from lading.cli.streams import Pump, Signals

    def resize(_number: int = 0) -> None:
        now = terminal.size(context.out.fd, context.stdin)
        if now:
            tell(context, f"/exec/{identifier}/resize", {"h": now[0], "w": now[1]})

    watched = {"detach": "client"}  # the keys are watched for here
    stream = context.client.hijack(
        "POST", f"/exec/{identifier}/start", watched, {"Detach": False, "Tty": tty}
    )
    with Signals((28,) if tty else ()) as signals, terminal.Raw(context.stdin if tty and stdin else -1):
        if tty:
            resize()
        pump = Pump(context, stream, tty=tty, stdin=stdin, keys=terminal.detach_keys(keys))
        pump.run(signals, resize)
    stream.close()
    if pump.detached:
        return 0
    return exit_code(context, identifier)


def exit_code(context: Context, identifier: str) -> int:
    """The command's status. Its stream may end before it does: it may have closed its output and gone on."""
    pause = 0.001
    while True:
        found = context.client.call("GET", f"/exec/{identifier}/json")
        code = found.get("ExitCode")
        if isinstance(code, int) and not found.get("Running"):
            return code & 0xFF
        if not found.get("Running"):
            return 125
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


EXEC = Verb(
    "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    (
        ("detach", "d", "bool", "Detached mode: run command in the background"),
        ("detach-keys", "", "string", "Override the key sequence for detaching a container"),
        ("env", "e", "list", "Set environment variables"),
        ("env-file", "", "list", "Read in a file of environment variables"),
        ("interactive", "i", "bool", "Keep STDIN open even if not attached"),
        ("privileged", "", "bool", "Give extended privileges to the command"),
        ("tty", "t", "bool", "Allocate a pseudo-TTY"),
        ("user", "u", "string", 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
        ("workdir", "w", "string", "Working directory inside the container"),
    ),
    _exec,
    least=2,
    most=-1,
    interspersed=False,
)
