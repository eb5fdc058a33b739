"""A pull: manifest, config, layers; downloaded some at a time, unpacked in order while they come, all verified.

Owns that course and its progress in Docker's words. What is stored is the caller's to name, or to throw away: `made`
lists it as soon as it may exist.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from lading.base import errors
from lading.image import chain, config
from lading.image import digest as digests
from lading.image.config import ImageConfig
from lading.image.descriptor import Descriptor, Platform
from lading.image.manifest import Manifest
from lading.registry.client import documents
from lading.registry.client.documents import Document
from lading.registry.client.fetch import Fetch, Flights
from lading.registry.client.ports import Blobs, Report, Snapshots
from lading.registry.client.remote import Repository

T = TypeVar("T")

PARALLEL = 3
_PERIOD = 0.1  # seconds between two lines about one layer's bytes

Slots = Callable[[Repository], AbstractContextManager[object]]
"""Bounds how many blobs come from one host at once, over all pulls."""


@dataclass
class Pulled:
    """What a pull found. `top` is what the reference named, an index or the manifest itself."""

    top: Document
    manifest: Document
    config: ImageConfig
    fetched: bool = False
    made: set[str] = field(default_factory=set)


class Pull:
    """One pull of one image. `sources` are asked in this order: mirrors, then the registry itself."""

    def __init__(
        self,
        sources: Sequence[Repository],
        blobs: Blobs,
        snapshots: Snapshots,
        *,
        flights: Flights,
        slots: Slots,
        report: Report,
        keep: Callable[..., None],
    ) -> None:
        self._sources, self._blobs, self._snapshots = list(sources), blobs, snapshots
        self._flights, self._slots, self._keep = flights, slots, keep
        self._lock = threading.Lock()
        self._report_to = report
        self.made: set[str] = set()

    def _report(self, status: str, layer: Descriptor, **more: object) -> None:
        line = {"status": status, "progressDetail": {}, "id": digests.encoded(layer.digest)[:12], **more}
        with self._lock:
            self._report_to(line)

    # --- documents ---

    def find(self, reference: str) -> Document:
        """The document under a tag or digest, from the first source that has it. Later reads stay with that source
        first. The registry's own complaint is the one that is told, a mirror's is not.
        """
        for source in self._sources[:-1]:
            try:
                found = source.manifest(reference)
            except errors.Cancelled:
                raise
            except errors.LadingError:
                continue
            self._sources.remove(source)
            self._sources.insert(0, source)
            return found
        return self._sources[-1].manifest(reference)

    def resolve(
        self, top: Document, platform: Platform, explicit: bool
    ) -> tuple[Document, Manifest, ImageConfig]:
        """The image for the platform, and its config."""
        found, manifest = documents.resolve(top, platform, lambda wanted: self.find(wanted.digest))
        data = self._first(lambda source: source.blob(manifest.config))
        conf = config.parse(data)
        if len(conf.diff_ids) != len(manifest.layers):
            raise errors.Invalid(
                "the image is inconsistent",
                why=f"Its manifest has {len(manifest.layers)} layers, its config names {len(conf.diff_ids)}.",
            )
        if explicit and (conf.os, conf.architecture) != (platform.os, platform.architecture):
            raise errors.NotFound(
                f"no image for platform {platform}",
                why=f"The registry has only one for {conf.os}/{conf.architecture}.",
            )
        if digests.algorithm(manifest.config.digest) != "sha256":
            raise errors.Unsupported("the image's config is not named by sha256")
        self.made.add(manifest.config.digest)
        self._blobs.put(data)
        return found, manifest, conf

    def _first(self, read: Callable[[Repository], T]) -> T:
        for source in self._sources[:-1]:
            try:
                return read(source)
            except errors.Cancelled:
                raise
            except errors.LadingError:
                continue
        return read(self._sources[-1])

    # --- layers ---

    def layers(self, manifest: Manifest, conf: ImageConfig) -> bool:
        """Store and unpack every layer; whether any came over the network."""
        chains = chain.ids(conf.diff_ids)
        self._keep(*chains, *(layer.digest for layer in manifest.layers))
        fetches: dict[str, Fetch] = {}
        todo: list[Fetch] = []
        for layer, key in zip(manifest.layers, chains, strict=True):
            if layer.digest in fetches:
                continue
            fetches[layer.digest] = one = Fetch(layer)
            if self._snapshots.exists(key) and self._blobs.refresh(layer.digest):
                self._report("Already exists", layer)
                continue
            self._report("Pulling fs layer", layer)
            todo.append(one)
        stop = threading.Event()
        with ExitStack() as stack:
            for one in fetches.values():
                stack.callback(one.close)
            pool = ThreadPoolExecutor(PARALLEL, "pull")
            stack.callback(pool.shutdown, cancel_futures=True)
            for one in todo:
                pool.submit(self._fetch, one, todo, stop)
            try:
                for position, layer in enumerate(manifest.layers):
                    parent = chains[position - 1] if position else None
                    self._place(
                        fetches[layer.digest], parent, chains[position], conf.diff_ids[position], todo
                    )
                for one in todo:
                    one.wait()
            except BaseException as error:
                stop.set()
                for one in todo:
                    one.fail(error)
                raise
        return any(one.fetched for one in todo)

    def _fetch(self, one: Fetch, all_: Iterable[Fetch], stop: threading.Event) -> None:
        """In a thread of the pool: the layer into its blob."""
        layer, last = one.wanted, 0.0

        def check() -> None:
            if stop.is_set():
                raise errors.Cancelled("the pull was given up")
            self._sources[0].check()

        def progress(done: int) -> None:
            nonlocal last
            check()
            now = time.monotonic()
            if now - last >= _PERIOD:
                last = now
                detail = {"current": done, "total": layer.size}
                self._report("Downloading", layer, progressDetail=detail, progress=bar(done, layer.size))

        try:
            self.made.add(layer.digest)
            one.run(self._blobs, self._flights, lambda: self._bytes(layer), progress, check)
        except BaseException as error:
            for other in all_:
                other.fail(error)
            return
        if one.fetched:
            self._report("Download complete", layer)

    def _bytes(self, layer: Descriptor) -> Iterator[bytes]:
        """The blob from the first source that has it."""
        for source in self._sources[:-1]:
            begun = False
            try:
                with self._slots(source):
                    for chunk in source.chunks(layer):
                        begun = True
                        yield chunk
                return
            except (errors.NotFound, errors.Unavailable, errors.Unauthenticated, errors.Denied):
                if begun:
                    raise
        with self._slots(self._sources[-1]):
            yield from self._sources[-1].chunks(layer)

    def _place(self, one: Fetch, parent: str | None, key: str, diff_id: str, todo: Sequence[Fetch]) -> None:
        """Unpack, reading what has come so far; a layer that stands twice is read again from its blob."""
        layer = one.wanted
        if not self._snapshots.exists(key):
            self.made.add(key)
            stored = one not in todo or one.spent
            if stored:
                if one in todo:
                    one.wait()
                with self._blobs.open(layer.digest) as stream:
                    self._snapshots.apply(parent, key, stream, diff_id)
            else:
                one.spent = True
                self._snapshots.apply(parent, key, _Told(one, self._extracting(layer)), diff_id)
        if one in todo:
            one.wait()
            self._report("Pull complete", layer)

    def _extracting(self, layer: Descriptor) -> Callable[[int], None]:
        last = 0.0

        def tell(done: int) -> None:
            nonlocal last
            self._sources[0].check()
            now = time.monotonic()
            if now - last >= _PERIOD:
                last = now
                detail = {"current": done, "total": layer.size}
                self._report("Extracting", layer, progressDetail=detail, progress=bar(done, layer.size))

        return tell


class _Told:
    """A stream that tells how much was read from it."""

    def __init__(self, stream: Fetch, tell: Callable[[int], None]) -> None:
        self._stream, self._tell, self._done = stream, tell, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        self._tell(self._done)
        return data


def bar(done: int, total: int) -> str:
    """`[=====>     ]  1.5MB/3.2MB`, as clients that draw nothing themselves show it."""
    filled = min(50, 50 * done // total) if total else 50
    drawn = "=" * filled + (">" + " " * (49 - filled) if filled < 50 else "")
    return f"[{drawn}]  {size(done)}/{size(total)}"


def size(number: float) -> str:
    """Bytes in decimal units with four digits, as docker's progress shows them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.4g}{unit}"
        number /= 1000
    return ""
