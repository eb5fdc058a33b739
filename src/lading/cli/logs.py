"""`lading logs`: a container's output, past and (with -f) present. Owns the flags' times; the daemon reads the files."""

from __future__ import annotations

import time

from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.streams import Demultiplexer, Raw
from lading.cli.units import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context


def timestamp(flag: str, text: str, now: float) -> str:
    """`10m`, a Unix time or an RFC 3339 date and time as the API takes it: seconds, with a fraction."""
    if not text:
        return ""
    if text.replace(".", "", 1).isdigit():
        return text
    try:
        return f"{now - parse_duration(text) / 1e9:.9f}"
    except ValueError:
        pass
    from lading.base.clock import parse_rfc3339

    for zone in ("", "Z", ":00Z", ":00:00Z", "T00:00:00Z"):
        try:
            nanoseconds = parse_rfc3339(text.replace(" ", "T") + zone)
        except ValueError:
            continue
        if zone:  # no zone was written: the time is the user's own
            nanoseconds = int(time.mktime(time.gmtime(nanoseconds // 10**9))) * 10**9 + nanoseconds % 10**9
        return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
    raise UsageError(
        f'invalid argument "{text}" for "--{flag}" flag: it is no time',
        hint="Write 10m, 2026-01-31T12:00:00Z or seconds.",
    )


def _logs(context: Context, flags: Flags) -> int:
    name = path_name(flags.args[0])
    now = time.time()
    tail = flags.text("tail", "all")
    if tail != "all" and not tail.lstrip("-").isdigit():
        raise UsageError(f'invalid argument "{tail}" for "-n, --tail" flag: it is a number or "all"', code=1)
    found = context.client.call("GET", f"/containers/{name}/json")
    query = {
        "stdout": 1,
        "stderr": 1,
        "follow": int(flags.on("follow")),
        "timestamps": int(flags.on("timestamps")),
        "details": int(flags.on("details")),
        "tail": "all" if tail.startswith("-") else tail,
        "since": timestamp("since", flags.text("since"), now),
        "until": timestamp("until", flags.text("until"), now),
    }
    response = context.client.open("GET", f"/containers/{found['Id']}/logs", query)
    out, err = context.out.fd, context.err.fd
    sink = Raw(out) if (found.get("Config") or {}).get("Tty") else Demultiplexer(out, err)
    try:
        for piece in response.chunks():
            sink.feed(piece)
    finally:
        response.connection.close()
    return 0


LOGS = Verb(
    "logs [OPTIONS] CONTAINER",
    (
        ("details", "", "bool", "Show extra details provided to logs"),
        ("follow", "f", "bool", "Follow log output"),
        (
            "since",
            "",
            "string",
            'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")',
        ),
        ("tail", "n", "string", 'Number of lines to show from the end of the logs (default "all")'),
        ("timestamps", "t", "bool", "Show timestamps"),
        (
            "until",
            "",
            "string",
            'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")',
        ),
    ),
    _logs,
    least=1,
    most=1,
)
