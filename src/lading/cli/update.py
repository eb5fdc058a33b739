"""`lading update`: other limits for containers that exist."""

from __future__ import annotations

from lading.cli.createbody import PLAIN
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.runflags import CONTAINER
from lading.cli.units import parse_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

_NAMES = (
    "blkio-weight",
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpuset-cpus",
    "cpuset-mems",
    "memory",
    "memory-reservation",
    "memory-swap",
    "pids-limit",
)


def _update(context: Context, flags: Flags) -> int:
    if not flags.values:
        raise UsageError("you must provide one or more flags when using this command", verb="update", code=1)
    body: dict[str, Any] = {
        PLAIN[name][1]: getattr(flags, PLAIN[name][2])(name) for name in _NAMES if flags.given(name)
    }
    if flags.given("cpus"):
        body["NanoCpus"] = parse_cpus(flags.text("cpus"))
    if flags.given("restart"):
        from lading.cli.values import restart

        restart(context, flags, {}, body)

    def one(name: str) -> None:
        answer = context.client.call("POST", f"/containers/{path_name(name)}/update", None, body)
        for warning in (answer or {}).get("Warnings") or ():
            context.complain(f"warning: {warning}")

    return context.each(flags.args, one)


UPDATE = Verb(
    "update [OPTIONS] CONTAINER [CONTAINER...]",
    tuple(row for row in CONTAINER if row[0] in _NAMES or row[0] in ("cpus", "restart")),
    _update,
    least=1,
    most=-1,
)
