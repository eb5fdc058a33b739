"""`lading ps`: containers as a table. Owns its columns."""

from __future__ import annotations

import time

from lading.cli import human
from lading.cli.flags import Flags, Verb
from lading.cli.table import Listing, filters, labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

    Item = dict[str, Any]

FORMAT = ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
FILTER = ("filter", "f", "filter", "Filter output based on conditions provided")
NO_TRUNC = ("no-trunc", "", "bool", "Don't truncate output")


def _ps(context: Context, flags: Flags) -> int:
    chosen = filters(flags.many("filter"))
    last = 1 if flags.on("latest") else flags.integer("last")
    everything = flags.on("all") or (last is not None and last > 0)
    form = flags.text("format")
    sizes = flags.on("size") or ".Size" in form
    query = {
        "all": int(everything),
        "limit": last if last is not None and last > 0 else None,
        "size": int(sizes),
        "filters": chosen,
    }
    found = context.client.call("GET", "/containers/json", query)
    listing = columns(trunc=not flags.on("no-trunc"), now=time.time())
    if flags.on("quiet") and form in ("", "table"):
        for item in found:
            context.out.line(listing.by_name["ID"][2](item))
        return 0
    shown = listing.default if not sizes else (*listing.default, "Size")
    listing.show(context, found, form, shown)
    return 0


def columns(trunc: bool, now: float) -> Listing:
    """What a container shows of itself."""

    def names(item: Item) -> str:
        out = [name.removeprefix("/") for name in item.get("Names") or ()]
        return ",".join([name for name in out if not trunc or "/" not in name])

    def image(item: Item) -> str:
        name = item.get("Image") or "<no image>"
        if trunc and name.startswith("sha256:"):
            return human.short_id(name)
        return str(name).partition("@")[0] if trunc else str(name)

    def command(item: Item) -> str:
        text = item.get("Command", "")
        return '"' + _escaped(human.ellipsis(text, 20) if trunc else text) + '"'

    def mounts(item: Item) -> str:
        found = [str(m.get("Name") or m.get("Source", "")) for m in item.get("Mounts") or ()]
        return ",".join([human.ellipsis(name, 15) if trunc else name for name in found])

    def local_volumes(item: Item) -> str:
        return str(sum(1 for m in item.get("Mounts") or () if m.get("Driver") == "local"))

    return Listing(
        (
            ("ID", "CONTAINER ID", lambda i: human.short_id(i["Id"]) if trunc else i["Id"]),
            ("Image", "IMAGE", image),
            ("Command", "COMMAND", command),
            ("CreatedAt", "CREATED AT", lambda i: human.created_at(i.get("Created", 0))),
            ("RunningFor", "CREATED", lambda i: human.ago(i.get("Created", 0), now)),
            ("Status", "STATUS", lambda i: i.get("Status", "")),
            ("State", "STATE", lambda i: i.get("State", "")),
            ("Ports", "PORTS", lambda i: ports(i.get("Ports") or [])),
            ("Names", "NAMES", names),
            ("Size", "SIZE", _size),
            ("Labels", "LABELS", labels),
            ("Mounts", "MOUNTS", mounts),
            ("Networks", "NETWORKS", _networks),
            ("LocalVolumes", "LOCAL VOLUMES", local_volumes),
            ("Platform", "PLATFORM", lambda i: i.get("Platform") or "linux"),
        ),
        ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
    )


def _escaped(text: str) -> str:
    """As Go's strconv.Quote shows it, without the quotes."""
    from lading.client.wire import dumps

    return dumps(text)[1:-1] if not text.isprintable() or '"' in text or "\\" in text else text


def _size(item: Item) -> str:
    shown = human.size3(item.get("SizeRw") or 0)
    if item.get("SizeRootFs"):
        shown += f" (virtual {human.size3(item['SizeRootFs'])})"
    return shown


def _networks(item: Item) -> str:
    settings = item.get("NetworkSettings") or {}
    return ",".join(sorted(settings.get("Networks") or {}))


def ports(found: list[Item]) -> str:
    """`0.0.0.0:5000->5000/tcp, 8000-8002/tcp`: published ones first, neighbours joined into ranges."""
    spans: dict[tuple[str, str, int], list[list[int]]] = {}
    for port in sorted(
        found, key=lambda p: (p.get("PrivatePort", 0), p.get("PublicPort", 0), p.get("IP", ""))
    ):
        inner, outer = int(port.get("PrivatePort", 0)), int(port.get("PublicPort") or 0)
        key = (
            port.get("IP", "") if outer else "",
            port.get("Type", "tcp"),
            outer - inner if outer else -1 << 20,
        )
        runs = spans.setdefault(key, [])
        if runs and runs[-1][1] + 1 == inner:
            runs[-1][1] = inner
        elif not runs or runs[-1][1] != inner:
            runs.append([inner, inner])
    shown = []
    for (address, protocol, shift), runs in spans.items():
        for first, last in runs:
            inside = f"{first}-{last}" if last > first else str(first)
            if shift == -1 << 20:
                shown.append((first, 1, protocol, address, f"{inside}/{protocol}"))
                continue
            outside = f"{first + shift}-{last + shift}" if last > first else str(first + shift)
            host = f"[{address}]" if ":" in address else address
            shown.append((first, 0, protocol, address, f"{host}:{outside}->{inside}/{protocol}"))
    return ", ".join([entry[-1] for entry in sorted(shown)])


PS = Verb(
    "ps [OPTIONS]",
    (
        ("all", "a", "bool", "Show all containers (default shows just running)"),
        FILTER,
        FORMAT,
        ("last", "n", "int", "Show n last created containers (includes all states)"),
        ("latest", "l", "bool", "Show the latest created container (includes all states)"),
        NO_TRUNC,
        ("quiet", "q", "bool", "Only display container IDs"),
        ("size", "s", "bool", "Display total file sizes"),
    ),
    _ps,
)
