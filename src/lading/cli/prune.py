"""The prune verbs. Owns their warnings, the question before, and the report after."""

from __future__ import annotations

import os

from lading.cli.flags import Flags, Verb
from lading.cli.human import size
from lading.cli.table import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lading.cli.context import Context

_FORCE = ("force", "f", "bool", "Do not prompt for confirmation")
_FILTER = ("filter", "", "filter", 'Provide filter values (e.g. "until=<timestamp>" or "label=<label>")')
_ALL = ("all", "a", "bool", "Remove all unused images, not just dangling ones")


def confirmed(context: Context, warning: str) -> bool:
    """Ask on the terminal; anything but yes is no."""
    context.out.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    context.out.flush()
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < 100:
        byte = os.read(context.stdin, 1)
        if not byte:
            break
        answer += byte
    return answer.strip().lower() in (b"y", b"yes")


def _prune(
    warning: str, work: Callable[[Context, Flags], list[tuple[str, list[str], int]]]
) -> Callable[[Context, Flags], int]:
    """A verb that asks, prunes, and reports what went and how much space it took."""

    def act(context: Context, flags: Flags) -> int:
        text = warning
        if "{images}" in text:
            kind = (
                "images without at least one container associated to them"
                if flags.on("all")
                else "dangling images"
            )
            text = text.replace("{images}", kind)
        if not flags.on("force") and not confirmed(context, text):
            context.complain("nothing was removed")
            return 1
        total = 0
        for title, gone, reclaimed in work(context, flags):
            total += reclaimed
            if gone:
                context.out.write(f"{title}:\n" + "".join([f"{line}\n" for line in gone]) + "\n")
        context.out.line(f"Total reclaimed space: {size(total)}")
        return 0

    return act


def _chosen(flags: Flags) -> dict[str, dict[str, bool]]:
    return filters(flags.many("filter"))


def _containers(context: Context, flags: Flags) -> list[tuple[str, list[str], int]]:
    answer = context.client.call("POST", "/containers/prune", {"filters": _chosen(flags)})
    return [("Deleted Containers", answer.get("ContainersDeleted") or [], answer.get("SpaceReclaimed", 0))]


def _images(context: Context, flags: Flags) -> list[tuple[str, list[str], int]]:
    chosen = _chosen(flags)
    chosen["dangling"] = {"false" if flags.on("all") else "true": True}
    answer = context.client.call("POST", "/images/prune", {"filters": chosen})
    gone = [
        f"{'untagged' if 'Untagged' in entry else 'deleted'}: {entry.get('Untagged') or entry.get('Deleted')}"
        for entry in answer.get("ImagesDeleted") or ()
    ]
    return [("Deleted Images", gone, answer.get("SpaceReclaimed", 0))]


def _volumes(context: Context, flags: Flags) -> list[tuple[str, list[str], int]]:
    chosen = _chosen(flags)
    if flags.on("all"):
        chosen["all"] = {"true": True}
    answer = context.client.call("POST", "/volumes/prune", {"filters": chosen})
    return [("Deleted Volumes", answer.get("VolumesDeleted") or [], answer.get("SpaceReclaimed", 0))]


def _networks(context: Context, flags: Flags) -> list[tuple[str, list[str], int]]:
    answer = context.client.call("POST", "/networks/prune", {"filters": _chosen(flags)})
    return [("Deleted Networks", answer.get("NetworksDeleted") or [], 0)]


def _builder(context: Context, flags: Flags) -> list[tuple[str, list[str], int]]:
    query: dict[str, Any] = {"all": int(flags.on("all")), "filters": _chosen(flags)}
    query["keep-storage"] = flags.size("keep-storage")
    answer = context.client.call("POST", "/build/prune", query)
    return [
        ("Deleted build cache objects", answer.get("CachesDeleted") or [], answer.get("SpaceReclaimed", 0))
    ]


def _system(context: Context, flags: Flags) -> list[tuple[str, list[str], int]]:
    out = [*_containers(context, flags), *_networks(context, flags)]
    if flags.on("volumes"):
        answer = context.client.call("POST", "/volumes/prune", {"filters": _chosen(flags)})
        out.append(("Deleted Volumes", answer.get("VolumesDeleted") or [], answer.get("SpaceReclaimed", 0)))
    return [*out, *_images(context, flags), *_builder(context, flags)]


def _networks_act(context: Context, flags: Flags) -> int:
    """Networks take no space: docker reports none."""
    warning = "This will remove all custom networks not used by at least one container."
    if not flags.on("force") and not confirmed(context, warning):
        context.complain("nothing was removed")
        return 1
    gone = _networks(context, flags)[0][1]
    if gone:
        context.out.write("Deleted Networks:\n" + "".join([f"{line}\n" for line in gone]) + "\n")
    return 0


CONTAINERS = Verb(
    "prune [OPTIONS]", (_FILTER, _FORCE), _prune("This will remove all stopped containers.", _containers)
)
IMAGES = Verb("prune [OPTIONS]", (_ALL, _FILTER, _FORCE), _prune("This will remove all {images}.", _images))
VOLUMES = Verb(
    "prune [OPTIONS]",
    (("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"), _FILTER, _FORCE),
    _prune("This will remove local volumes not used by at least one container.", _volumes),
)
NETWORKS = Verb("prune [OPTIONS]", (_FILTER, _FORCE), _networks_act)
BUILDER = Verb(
    "prune [OPTIONS]",
    (
        ("all", "a", "bool", "Remove all unused build cache, not just dangling ones"),
        _FILTER,
        _FORCE,
        ("keep-storage", "", "bytes", "Amount of disk space to keep for cache"),
    ),
    _prune("This will remove all dangling build cache.", _builder),
)
SYSTEM = Verb(
    "prune [OPTIONS]",
    (_ALL, _FILTER, _FORCE, ("volumes", "", "bool", "Prune anonymous volumes")),
    _prune(
        "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
        "  - {images}\n  - unused build cache\n",
        _system,
    ),
)
