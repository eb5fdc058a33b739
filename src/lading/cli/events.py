"""`lading events`: what happens, as it happens. Owns the line's form."""

from __future__ import annotations

import time

from lading.cli import human
from lading.cli.flags import Flags, Verb
from lading.cli.logs import timestamp
from lading.cli.ps import FILTER
from lading.cli.table import filters
from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context


def _events(context: Context, flags: Flags) -> int:
    now = time.time()
    query = {
        "since": timestamp("since", flags.text("since"), now),
        "until": timestamp("until", flags.text("until"), now),
        "filters": filters(flags.many("filter")),
    }
    form = flags.text("format")
    template = None
    if form not in ("", "json"):
        from lading.cli.template import Template

        template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    for event in context.client.lines("GET", "/events", query):
        if template is not None:
            context.out.line(template.render(event))
        else:
            context.out.line(dumps(event) if form else line(event))
        context.out.flush()
    return 0


def line(event: dict[str, Any]) -> str:
    """`2026-11-21T19:23:00.123456789+01:00 container start <id> (image=..., name=...)`."""
    actor = event.get("Actor") or {}
    nanoseconds = int(event.get("timeNano") or int(event.get("time") or 0) * 10**9)
    seconds = nanoseconds // 10**9
    offset = human.zone_offset(seconds)[0]
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{nanoseconds % 10**9:09d}{zone}"
    text = f"{stamp} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join([f"{key}={value}" for key, value in sorted(attributes.items())]) + ")"
    return text


EVENTS = Verb(
    "events [OPTIONS]",
    (
        FILTER,
        ("format", "", "string", "Format output: 'json', or a Go TEMPLATE"),
        ("since", "", "string", "Show all events created since timestamp"),
        ("until", "", "string", "Stream events until this timestamp"),
    ),
    _events,
)
