"""`lading update`: other limits for containers that exist."""

from __future__ import annotations

from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.runflags import CONTAINER
from lading.cli.units import parse_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

_KEYS = {
    "blkio-weight": ("BlkioWeight", "integer"),
    "cpu-period": ("CpuPeriod", "integer"),
    "cpu-quota": ("CpuQuota", "integer"),
    "cpu-shares": ("CpuShares", "integer"),
    "cpuset-cpus": ("CpusetCpus", "text"),
    "cpuset-mems": ("CpusetMems", "text"),
    "memory": ("Memory", "size"),
    "memory-reservation": ("MemoryReservation", "size"),
    "memory-swap": ("MemorySwap", "size"),
    "pids-limit": ("PidsLimit", "integer"),
}


def _update(context: Context, flags: Flags) -> int:
    if not flags.values:
        raise UsageError("you must provide one or more flags when using this command", verb="update", code=1)
    body: dict[str, Any] = {
        key: getattr(flags, how)(name) for name, (key, how) in _KEYS.items() if flags.given(name)
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
    tuple(row for row in CONTAINER if row[0] in _KEYS or row[0] in ("cpus", "restart")),
    _update,
    least=1,
    most=-1,
)
