"""`lading bootstrap NAME[:TAG]`: a base image from the distribution's own packages. The daemon does the work."""

from __future__ import annotations

from lading.base.errors import Unavailable
from lading.cli.flags import Flags, Verb
from lading.cli.images import report, split_reference
from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context


def _bootstrap(context: Context, flags: Flags) -> int:
    for name in flags.args:
        repository, tag = split_reference(name)
        body = dumps({"name": repository, "tag": tag}).encode()
        image = ""
        headers = {"Content-Type": "application/json"}
        for event in context.client.lines("POST", "/bootstrap", None, body, headers):
            report(event, context.err, flags.on("quiet"))
            if isinstance(event, dict) and isinstance(event.get("aux"), dict):
                image = str(event["aux"].get("ID", ""))
        if not image:
            raise Unavailable(f"{name} was not made", why="The daemon ended before it named an image.")
        context.out.line(image if flags.on("quiet") else f"{name}: {image}")
        context.out.flush()
    return 0


BOOTSTRAP = Verb(
    "bootstrap [OPTIONS] NAME[:TAG] [NAME[:TAG]...]",
    (("quiet", "q", "bool", "Only print the image ID"),),
    _bootstrap,
    least=1,
    most=-1,
    notes="Names: debian:bookworm-slim, python:3.11-slim, busybox.",
)
