"""The verbs of images: list, inspect, history, tag, remove, save, load, import, prune. Owns their rules for users.

What an image is and where it lies is the store's; who uses it is the roster's; here both meet.
"""

from __future__ import annotations

import builtins
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from lading.base import clock
from lading.base.errors import Conflict
from lading.base.ids import short
from lading.engine import filters as filtering
from lading.engine.filters import Filters
from lading.image import mutate, reference
from lading.image.config import ContainerConfig, History, ImageConfig

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.store.images import Image

Change = Callable[[ContainerConfig, tuple[str, ...]], ContainerConfig]
"""Applies Dockerfile instructions ("CMD [...]", "ENV A=b") to a config; the build room knows them."""

_FILTERS = ("reference", "label", "dangling", "before", "since", "until")


class Images:
    """Image verbs."""

    def __init__(self, rooms: Rooms, change: Change) -> None:
        self._rooms, self._change = rooms, change

    def list(self, filters: Filters | None = None) -> builtins.list[Image]:
        """Images, newest first."""
        wanted = filters or {}
        filtering.known(wanted, _FILTERS)
        store = self._rooms.images
        dangling = filtering.truth(wanted, "dangling")
        since = max((store.get(ref).created_ns for ref in wanted.get("since", ())), default=-1)
        before = min((store.get(ref).created_ns for ref in wanted.get("before", ())), default=0)
        until = min((filtering.moment(text) for text in wanted.get("until", ())), default=0)
        patterns = wanted.get("reference", ())
        return [
            image
            for image in (_matching(one, patterns) for one in store.list())
            if (dangling is None or dangling != bool(image.references))
            and image.created_ns > since
            and (not before or image.created_ns < before)
            and (not until or image.created_ns < until)
            and filtering.labels(image.config.config.labels, wanted.get("label", ()))
            and (not patterns or image.references)
        ]

    def inspect(self, ref: str) -> Image:
        return self._rooms.images.get(ref)

    def history(self, ref: str) -> builtins.list[dict[str, Any]]:
        """Docker's history rows, newest first."""
        image = self._rooms.images.get(ref)
        rows: builtins.list[dict[str, Any]] = []
        layers = iter(image.manifest.layers)
        for item in image.config.history:
            layer = None if item.empty_layer else next(layers, None)
            rows.append(
                {
                    "Id": "<missing>",
                    "Created": _seconds(item.created),
                    "CreatedBy": item.created_by,
                    "Tags": None,
                    "Size": layer.size if layer is not None else 0,
                    "Comment": item.comment,
                }
            )
        rows.reverse()
        if rows:
            rows[0]["Id"] = image.id
            rows[0]["Tags"] = builtins.list(image.familiar) or None
        return rows

    def tag(self, ref: str, new: str) -> None:
        """Give an image one more name."""
        self._rooms.images.tag(ref, new)
        name = reference.parse(new).with_default_tag().familiar
        self._rooms.events.say("image", "tag", self._rooms.images.get(new).id, {"name": name})

    def remove(self, ref: str, force: bool = False, prune: bool = True) -> builtins.list[dict[str, str]]:
        """Take the name away; with the last one, or by id, delete the image. Rows of Untagged and Deleted."""
        rooms = self._rooms
        image = rooms.images.get(ref)
        by_id = reference.is_id(ref) and not self._names(image, ref)
        if by_id and len(image.references) > 1 and not force:
            raise Conflict(
                f"unable to delete {short(image.id)} (must be forced)",
                why="The image is referenced in multiple repositories.",
                hint=f"Its names are {', '.join(image.familiar[:5])}.",
            )
        self._check_unused(image, ref, force=force, last=by_id or len(image.references) <= 1)
        rows: builtins.list[dict[str, str]] = []
        if not by_id and len(image.references) > 1:
            name = rooms.images.untag(ref)
            rows.append({"Untagged": reference.parse(name).familiar})
            rooms.events.say("image", "untag", image.id, {"name": rows[0]["Untagged"]})
            return rows
        removed = rooms.images.remove(image.id)
        for name in removed.untagged:
            familiar = reference.parse(name).familiar
            rows.append({"Untagged": familiar})
            rooms.events.say("image", "untag", image.id, {"name": familiar})
        rows.append({"Deleted": image.id})
        rows.extend(
            {"Deleted": key} for key in removed.deleted if key.startswith("sha256:") and key != image.id
        )
        rooms.events.say("image", "delete", image.id, {"name": image.id})
        return rows

    @staticmethod
    def _names(image: Image, ref: str) -> bool:
        """Whether `ref`, which may look like an id, is one of the image's names."""
        return str(reference.parse(ref).with_default_tag()) in image.references if len(ref) < 64 else False

    def _check_unused(self, image: Image, ref: str, *, force: bool, last: bool) -> None:
        if not last:
            return
        for entry in self._rooms.roster.all():
            if entry.record.image_id != image.id:
                continue
            if entry.running:
                raise Conflict(
                    f"unable to delete {ref} (cannot be forced)",
                    why=f"The image is being used by running container {short(entry.id)}.",
                    hint="Stop and remove that container first.",
                )
            if not force:
                raise Conflict(
                    f'unable to remove repository reference "{ref}" (must force)',
                    why=f"Container {short(entry.id)} is using its referenced image {short(image.id)}.",
                    hint="Remove the container first, or force the removal.",
                )

    def prune(self, filters: Filters | None = None) -> tuple[builtins.list[dict[str, str]], int]:
        """Remove images without a name that no container uses; with dangling=false, all that none uses."""
        wanted = dict(filters or {})
        filtering.known(wanted, ("dangling", "label", "label!", "until"))
        only_dangling = filtering.truth(wanted, "dangling") is not False
        wanted.pop("dangling", None)
        excluded = wanted.pop("label!", ())
        used = {entry.record.image_id for entry in self._rooms.roster.all()}
        rows: builtins.list[dict[str, str]] = []
        freed = 0
        for image in self.list(wanted):
            if image.id in used or (only_dangling and image.references):
                continue
            if excluded and filtering.labels(image.config.config.labels, excluded):
                continue
            removed = self._rooms.images.remove(image.id)
            rows.extend({"Untagged": reference.parse(name).familiar} for name in removed.untagged)
            rows.append({"Deleted": image.id})
            freed += removed.reclaimed
        return rows, freed + self._rooms.images.sweep()

    def save(self, refs: Iterable[str], out: Callable[[bytes], object]) -> None:
        """Write images as one tar, in Docker's and OCI's layout at once."""
        from lading.store import archive

        archive.save(self._rooms.images, refs, out)

    def load(
        self, stream: BinaryIO, progress: Callable[[dict[str, Any]], None] | None = None
    ) -> builtins.list[str]:
        """Read such a tar; the names of what was loaded."""
        from lading.store import archive

        del progress  # the store reads in one pass and knows no names before the end
        names = archive.load(self._rooms.blobs, self._rooms.images, stream)
        for name in names:
            self._rooms.events.say("image", "load", self._rooms.images.get(name).id, {"name": name})
        return names

    def import_(self, stream: BinaryIO, ref: str = "", changes: Iterable[str] = (), message: str = "") -> str:
        """An image of one layer from a root file system's tar."""
        from lading.image.layer.compress import Decompressed, write_layer

        source = Decompressed(stream)

        def produce(write: Callable[[bytes], object]) -> None:
            while chunk := source.read(1 << 20):
                write(chunk)

        rooms = self._rooms
        with rooms.leases.hold():
            layer = write_layer(rooms.blobs, produce)
            now = clock.rfc3339(clock.now_ns())
            import platform as machine

            names = {"x86_64": "amd64", "aarch64": "arm64"}
            config = ImageConfig(
                architecture=names.get(machine.machine(), machine.machine()),
                created=now,
                config=self._change(ContainerConfig(), tuple(changes)),
            )
            history = History(created=now, comment=message or "Imported from -")
            image = rooms.images.store(mutate.append(mutate.Draft(config), layer, history), ref)
            try:
                rooms.images.unpack(
                    image
                )  # a tar that cannot be unpacked is refused now, not at the first run
            except BaseException:
                rooms.images.remove(image.id)
                raise
        rooms.events.say("image", "import", image.id, {"name": ref or image.id})
        return image.id


def _seconds(created: str) -> int:
    try:
        return clock.parse_rfc3339(created) // 1_000_000_000 if created else 0
    except ValueError:
        return 0


def _matching(image: Image, patterns: Sequence[str]) -> Image:
    """The image with the names that Docker's reference filter leaves: shell patterns, with or without a tag."""
    if not patterns:
        return image
    kept = []
    for text in image.references:
        ref = reference.parse(text)
        names = (ref.familiar, ref.familiar_name, str(ref), ref.name)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names):
            kept.append(text)
    return replace(image, references=tuple(kept))
