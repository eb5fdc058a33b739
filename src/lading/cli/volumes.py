"""`lading volume create|ls|rm`. Owns their table."""

from __future__ import annotations

from lading.base.errors import LadingError
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.ps import FILTER, FORMAT
from lading.cli.table import Listing, filters, labels
from lading.cli.values import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context

COLUMNS = Listing(
    (
        ("Driver", "DRIVER", lambda v: v.get("Driver", "")),
        ("Name", "VOLUME NAME", lambda v: v["Name"]),
        ("Scope", "SCOPE", lambda v: v.get("Scope", "")),
        ("Mountpoint", "MOUNTPOINT", lambda v: v.get("Mountpoint", "")),
        ("Labels", "LABELS", labels),
        ("Links", "LINKS", lambda v: _usage(v, "RefCount")),
        ("Size", "SIZE", lambda v: _usage(v, "Size")),
    ),
    ("Driver", "Name"),
)


def _usage(volume: dict[str, object], key: str) -> str:
    usage = volume.get("UsageData")
    number = usage.get(key, -1) if isinstance(usage, dict) else -1
    if not isinstance(number, int) or number < 0:
        return "N/A"
    if key == "RefCount":
        return str(number)
    from lading.cli.human import size

    return size(number)


def _create(context: Context, flags: Flags) -> int:
    name = flags.text("name") or (flags.args[0] if flags.args else "")
    if flags.given("name") and flags.args:
        raise UsageError("conflicting options: --name and a positional name", code=1)
    body = {
        "Name": name,
        "Driver": flags.text("driver", "local"),
        "DriverOpts": pairs("opt", flags.many("opt")),
        "Labels": pairs("label", flags.many("label")),
    }
    context.out.line(context.client.call("POST", "/volumes/create", None, body)["Name"])
    return 0


def _ls(context: Context, flags: Flags) -> int:
    found = (
        context.client.call("GET", "/volumes", {"filters": filters(flags.many("filter"))}).get("Volumes")
        or []
    )
    found.sort(key=lambda volume: volume["Name"])
    if flags.on("quiet") and flags.text("format") in ("", "table"):
        for volume in found:
            context.out.line(volume["Name"])
        return 0
    COLUMNS.show(context, found, flags.text("format"))
    return 0


def _rm(context: Context, flags: Flags) -> int:
    force = flags.on("force")

    def one(name: str) -> None:
        try:
            context.client.call("DELETE", f"/volumes/{path_name(name)}", {"force": int(force)})
        except LadingError as error:
            if not (force and getattr(error, "status", 0) == 404):
                raise

    return context.each(flags.args, one)


CREATE = Verb(
    "create [OPTIONS] [VOLUME]",
    (
        ("driver", "d", "string", 'Specify volume driver name (default "local")'),
        ("label", "", "list", "Set metadata for a volume"),
        ("name", "", "string", ""),
        ("opt", "o", "map", "Set driver specific options"),
    ),
    _create,
    most=1,
)
LS = Verb("ls [OPTIONS]", (FILTER, FORMAT, ("quiet", "q", "bool", "Only display volume names")), _ls)
RM = Verb(
    "rm [OPTIONS] VOLUME [VOLUME...]",
    (("force", "f", "bool", "Force the removal of one or more volumes"),),
    _rm,
    least=1,
    most=-1,
)
