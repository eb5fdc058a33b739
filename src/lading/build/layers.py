"""From a step's work to a layer: prepare a snapshot, let the step write, make the layer, commit, remember.

Owns the order of these and what is undone when one fails; never knows what the step does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lading.base.errors import LadingError
from lading.build.cache import Cache, Record
from lading.image import chain
from lading.image.layer import compress
from lading.image.mutate import Layer
from lading.store.blobs import Blobs
from lading.store.snapshots import Snapshotter

_EMPTY = bytes(1024)
"""A tar with no member: only its end marker."""


class _Unchanged(Exception):
    """The step changed no file."""


@dataclass
class Layers:
    """Makes the layers of one build. `name` gives a fresh key for an active snapshot of this build."""

    blobs: Blobs
    snapshots: Snapshotter
    cache: Cache
    media: compress.Compression
    now: Callable[[], int]
    name: Callable[[], str]
    latest_ns: int | None = None

    def make(self, key: str, parent: str | None, description: str, work: Callable[[str], None]) -> Record:
        """Run `work` on a writable snapshot over `parent` and remember its result under `key`."""
        with self.scratch(parent) as snapshot:
            work(snapshot)
            layer = self._layer(snapshot)
            result = parent
            if layer is not None:
                result = chain.extend(parent, layer.diff_id)
                self.snapshots.commit(snapshot, result)
        record = Record(key, "regular", result or "", layer, self.now(), description=description)
        self.cache.add(record)
        return record

    @contextlib.contextmanager
    def scratch(self, parent: str | None) -> Iterator[str]:
        """An active snapshot that is gone at the end, unless it was committed."""
        snapshot = self.name()
        self.snapshots.prepare(snapshot, parent)
        try:
            yield snapshot
        except BaseException:
            with contextlib.suppress(
                LadingError
            ):  # the first error is the one to tell; reconcile takes the rest
                self.snapshots.remove(snapshot)
            raise
        self.snapshots.remove(snapshot)

    def _layer(self, snapshot: str) -> Layer | None:
        """The layer blob of what changed, None when nothing did."""

        def produce(write: Callable[[bytes], object]) -> None:
            first = True

            def out(data: bytes) -> None:
                nonlocal first
                if first and data == _EMPTY:
                    raise _Unchanged
                first = False
                write(data)

            self.snapshots.layer(snapshot, out, latest_ns=self.latest_ns)

        try:
            return compress.write_layer(self.blobs, produce, self.media)
        except _Unchanged:
            return None
