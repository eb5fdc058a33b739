"""Verbs of images: images, rmi, tag, history, commit. Owns their tables."""

from __future__ import annotations

import time

from lading.base.errors import LadingError, Unavailable
from lading.cli import human
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.ps import FILTER, FORMAT, NO_TRUNC
from lading.cli.table import Listing, filters
from lading.client.wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context, Output

    Item = dict[str, Any]

KEEP = b"/:@"
"""What stays as it is in an image's name in a path: the API's routes take slashes there."""


def path_name(name: str) -> str:
    """An image reference or any other name as part of a path."""
    if not name:
        raise UsageError("invalid reference: it is empty", code=1)
    return quote(name, KEEP)


def _images(context: Context, flags: Flags) -> int:
    chosen = filters(flags.many("filter"))
    if flags.args:
        chosen.setdefault("reference", {})[flags.args[0]] = True
    query = {"all": int(flags.on("all")), "filters": chosen, "digests": int(flags.on("digests")) or None}
    found = context.client.call("GET", "/images/json", query)
    digests = flags.on("digests") or ".Digest" in flags.text("format")
    shown_rows = [row for image in found for row in rows(image, digests)]
    listing = columns(trunc=not flags.on("no-trunc"), now=time.time())
    if flags.on("quiet") and flags.text("format") in ("", "table"):
        for row in shown_rows:
            context.out.line(listing.by_name["ID"][2](row))
        return 0
    shown = ("Repository", "Tag", *(("Digest",) if digests else ()), "ID", "CreatedSince", "Size")
    listing.show(context, shown_rows, flags.text("format"), shown)
    return 0


def rows(image: Item, digests: bool) -> list[Item]:
    """One row for each tag; one of <none> for an image without any."""
    tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
    by_repository: dict[str, str] = {}
    for reference in image.get("RepoDigests") or ():
        repository, _, digest = reference.partition("@")
        by_repository[repository] = digest
    out = []
    for tag in tags:
        repository, _, name = tag.rpartition(":")
        digest = by_repository.get(repository, "") if digests else ""
        out.append({**image, "_repository": repository, "_tag": name, "_digest": digest})
    if not tags:
        for repository, digest in by_repository.items() or (("<none>", ""),):
            out.append({**image, "_repository": repository, "_tag": "<none>", "_digest": digest})
            if not digests:
                break
    return out


def columns(trunc: bool, now: float) -> Listing:
    """What an image's row shows of itself."""

    def count(item: Item) -> str:
        number = item.get("Containers", -1)
        return "N/A" if number is None or number < 0 else str(number)

    return Listing(
        (
            ("Repository", "REPOSITORY", lambda i: i["_repository"]),
            ("Tag", "TAG", lambda i: i["_tag"]),
            ("Digest", "DIGEST", lambda i: i["_digest"] or "<none>"),
            ("ID", "IMAGE ID", lambda i: human.short_id(i["Id"]) if trunc else i["Id"]),
            ("CreatedSince", "CREATED", lambda i: human.ago(i.get("Created", 0), now)),
            ("CreatedAt", "CREATED AT", lambda i: human.created_at(i.get("Created", 0))),
            ("Size", "SIZE", lambda i: human.size3(i.get("Size", 0))),
            ("VirtualSize", "SIZE", lambda i: human.size(i.get("Size", 0))),
            ("SharedSize", "SHARED SIZE", lambda i: _part(i.get("SharedSize", -1))),
            ("UniqueSize", "UNIQUE SIZE", lambda i: _unique(i)),
            ("Containers", "CONTAINERS", count),
        ),
        ("Repository", "Tag", "ID", "CreatedSince", "Size"),
    )


def _part(number: int | None) -> str:
    return "N/A" if number is None or number < 0 else human.size3(number)


def _unique(item: Item) -> str:
    shared = item.get("SharedSize", -1)
    return "N/A" if shared is None or shared < 0 else human.size3(item.get("Size", 0) - shared)


def _rmi(context: Context, flags: Flags) -> int:
    query = {"force": int(flags.on("force")), "noprune": int(flags.on("no-prune"))}
    failed = False
    for name in flags.args:
        try:
            gone = context.client.call("DELETE", f"/images/{path_name(name)}", query)
        except LadingError as error:
            if flags.on("force") and getattr(error, "status", 0) == 404:
                continue
            context.complain(str(error))
            failed = True
            continue
        for entry in gone or ():
            for what, which in entry.items():
                context.out.line(f"{what}: {which}")
        context.out.flush()
    return 1 if failed else 0


def split_reference(text: str) -> tuple[str, str]:
    """(repository, tag) of NAME[:TAG]; the tag may be ""."""
    repository, mark, tag = text.rpartition(":")
    if not mark or "/" in tag:
        return text, ""
    return repository, tag


def _tag(context: Context, flags: Flags) -> int:
    source, target = flags.args
    repository, tag = split_reference(target)
    context.client.call("POST", f"/images/{path_name(source)}/tag", {"repo": repository, "tag": tag})
    return 0


def _history(context: Context, flags: Flags) -> int:
    found = context.client.call("GET", f"/images/{path_name(flags.args[0])}/history", {"platform": None})
    trunc = not flags.on("no-trunc")
    readable = flags.on("human", True)
    now = time.time()

    def identifier(item: Item) -> str:
        text = item.get("Id") or "<missing>"
        return human.short_id(text) if trunc else str(text)

    def created_by(item: Item) -> str:
        text = (item.get("CreatedBy") or "").replace("\t", " ")
        return human.ellipsis(text, 45) if trunc else text

    def iso(item: Item) -> str:
        text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(item.get("Created", 0)))
        return text[:-5] + ("Z" if text[-5:] == "+0000" else text[-5:-2] + ":" + text[-2:])

    listing = Listing(
        (
            ("ID", "IMAGE", identifier),
            ("CreatedSince", "CREATED" if readable else "CREATED AT",
             lambda i: human.ago(i.get("Created", 0), now) if readable else iso(i)),
            ("CreatedAt", "CREATED AT", iso),
            ("CreatedBy", "CREATED BY", created_by),
            ("Size", "SIZE", lambda i: human.size3(i.get("Size", 0)) if readable else str(i.get("Size", 0))),
            ("Comment", "COMMENT", lambda i: i.get("Comment") or ""),
        ),
        ("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
    )  # fmt: skip
    if flags.on("quiet"):
        for item in found:
            context.out.line(identifier(item))
        return 0
    listing.show(context, found, flags.text("format"))
    return 0


def report(event: Any, out: Output, quiet: bool) -> None:
    """One line of a progress stream: its error raised, its status shown."""
    if not isinstance(event, dict):
        return
    if event.get("error"):
        raise Unavailable(str(event["error"]))
    if quiet or event.get("progressDetail"):
        return
    if "stream" in event:
        out.write(str(event["stream"]))
    elif "status" in event:
        identifier = event.get("id")
        out.line(f"{identifier}: {event['status']}" if identifier else str(event["status"]))
    out.flush()


def _commit(context: Context, flags: Flags) -> int:
    target = flags.args[1] if len(flags.args) > 1 else ""
    repository, tag = split_reference(target)
    query = {
        "container": flags.args[0],
        "repo": repository,
        "tag": tag,
        "comment": flags.text("message"),
        "author": flags.text("author"),
        "changes": flags.many("change"),
        "pause": int(flags.on("pause", True) and not flags.on("no-pause")),
    }
    context.out.line(context.client.call("POST", "/commit", query, {})["Id"])
    return 0


IMAGES = Verb(
    "images [OPTIONS] [REPOSITORY[:TAG]]",
    (
        ("all", "a", "bool", "Show all images (default hides intermediate images)"),
        ("digests", "", "bool", "Show digests"),
        FILTER,
        FORMAT,
        NO_TRUNC,
        ("quiet", "q", "bool", "Only show image IDs"),
    ),
    _images,
    most=1,
)
RMI = Verb(
    "rmi [OPTIONS] IMAGE [IMAGE...]",
    (
        ("force", "f", "bool", "Force removal of the image"),
        ("no-prune", "", "bool", "Do not delete untagged parents"),
    ),
    _rmi,
    least=1,
    most=-1,
)
TAG = Verb("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (), _tag, least=2, most=2)
HISTORY = Verb(
    "history [OPTIONS] IMAGE",
    (
        FORMAT,
        ("human", "H", "bool", "Print sizes and dates in human readable format (default true)"),
        NO_TRUNC,
        ("quiet", "q", "bool", "Only show image IDs"),
    ),
    _history,
    least=1,
    most=1,
)
COMMIT = Verb(
    "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    (
        ("author", "a", "string", 'Author (e.g., "Ada Byron <ada@example.org>")'),
        ("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        ("message", "m", "string", "Commit message"),
        ("no-pause", "", "bool", "Do not pause the container during commit"),
        ("pause", "p", "bool", "Pause container during commit (default true)"),
    ),
    _commit,
    least=1,
    most=2,
)
