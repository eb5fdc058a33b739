"""Short verbs of containers: stop, restart, kill, pause, unpause, rm, wait, rename, port, top, diff."""

from __future__ import annotations

from lading.base.errors import LadingError, NotFound
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.table import aligned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lading.cli.context import Context

_STOP_ROWS = (
    ("signal", "s", "string", "Signal to send to the container"),
    ("time", "", "int", ""),
    ("timeout", "t", "int", "Seconds to wait before killing the container"),
)


def _post(action: str) -> Callable[[Context, Flags], int]:
    """A verb that posts `action` to each container and prints its name."""

    def act(context: Context, flags: Flags) -> int:
        timeout = flags.integer("timeout") if flags.given("timeout") else flags.integer("time")
        query = {"signal": flags.text("signal"), "t": timeout}
        if action == "kill":
            query = {"signal": flags.text("signal", "SIGKILL")}

        def one(name: str) -> None:
            context.client.call("POST", f"/containers/{path_name(name)}/{action}", query)

        return context.each(flags.args, one)

    return act


def _rm(context: Context, flags: Flags) -> int:
    if flags.on("link"):
        raise UsageError("--link is not supported", hint="lading makes no links; networks resolve names.")
    query = {"force": int(flags.on("force")), "v": int(flags.on("volumes"))}

    failed = False
    for name in flags.args:
        try:
            context.client.call("DELETE", f"/containers/{path_name(name)}", query)
        except LadingError as error:
            context.complain(str(error))
            # docker: with --force a container that is not there is what was wanted; it is told, and no failure
            failed = failed or not (flags.on("force") and getattr(error, "status", 0) == 404)
            continue
        context.out.line(name)
        context.out.flush()
    return 1 if failed else 0


def _wait(context: Context, flags: Flags) -> int:
    def one(name: str) -> object:
        return context.client.call("POST", f"/containers/{path_name(name)}/wait")["StatusCode"]

    return context.each(flags.args, one)


def _rename(context: Context, flags: Flags) -> int:
    old, new = (name.strip() for name in flags.args)
    if not old or not new:
        raise UsageError("neither old nor new names may be empty", code=1)
    context.client.call("POST", f"/containers/{path_name(old)}/rename", {"name": new})
    return 0


def _port(context: Context, flags: Flags) -> int:
    found: dict[str, Any] = context.client.call("GET", f"/containers/{path_name(flags.args[0])}/json")
    bound = (found.get("NetworkSettings") or {}).get("Ports") or {}
    if len(flags.args) > 1:
        wanted = flags.args[1] if "/" in flags.args[1] else f"{flags.args[1]}/tcp"
        bindings = bound.get(wanted)
        if not bindings:
            raise NotFound(f"no public port '{flags.args[1]}' published for {flags.args[0]}")
        for binding in bindings:
            context.out.line(_address(binding))
        return 0
    for port in sorted(bound, key=lambda p: (int(p.partition("/")[0] or 0), p)):
        for binding in bound[port] or ():
            context.out.line(f"{port} -> {_address(binding)}")
    return 0


def _address(binding: dict[str, str]) -> str:
    address = binding.get("HostIp") or "0.0.0.0"
    return f"{f'[{address}]' if ':' in address else address}:{binding.get('HostPort', '')}"


def _top(context: Context, flags: Flags) -> int:
    query = {"ps_args": " ".join(flags.args[1:])}
    found = context.client.call("GET", f"/containers/{path_name(flags.args[0])}/top", query)
    rows = [found["Titles"], *(found.get("Processes") or ())]
    context.out.write(aligned(rows, least=20, gap=3))
    return 0


def _diff(context: Context, flags: Flags) -> int:
    changes = context.client.call("GET", f"/containers/{path_name(flags.args[0])}/changes")
    for change in changes or ():
        context.out.line(f"{'CAD'[change['Kind']]} {change['Path']}")
    return 0


STOP = Verb("stop [OPTIONS] CONTAINER [CONTAINER...]", _STOP_ROWS, _post("stop"), least=1, most=-1)
RESTART = Verb("restart [OPTIONS] CONTAINER [CONTAINER...]", _STOP_ROWS, _post("restart"), least=1, most=-1)
KILL = Verb(
    "kill [OPTIONS] CONTAINER [CONTAINER...]",
    (("signal", "s", "string", "Signal to send to the container"),),
    _post("kill"),
    least=1,
    most=-1,
)
PAUSE = Verb("pause CONTAINER [CONTAINER...]", (), _post("pause"), least=1, most=-1)
UNPAUSE = Verb("unpause CONTAINER [CONTAINER...]", (), _post("unpause"), least=1, most=-1)
RM = Verb(
    "rm [OPTIONS] CONTAINER [CONTAINER...]",
    (
        ("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
        ("link", "l", "bool", ""),
        ("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
    ),
    _rm,
    least=1,
    most=-1,
)
WAIT = Verb("wait CONTAINER [CONTAINER...]", (), _wait, least=1, most=-1)
RENAME = Verb("rename CONTAINER NEW_NAME", (), _rename, least=2, most=2)
PORT = Verb("port CONTAINER [PRIVATE_PORT[/PROTO]]", (), _port, least=1, most=2)
TOP = Verb("top CONTAINER [ps OPTIONS]", (), _top, least=1, most=-1, interspersed=False)
DIFF = Verb("diff CONTAINER", (), _diff, least=1, most=1)
