"""From a step's work to a layer: prepare a snapshot, let the step write, make the layer, commit, remember.

Owns the order of these and what is undone when one fails; never knows what the step does. The next step
needs only the diffID, which is a hash; so a large layer is compressed behind its back, from the committed
snapshot, and waited for when the image is written.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from lading.base.errors import Internal, LadingError
from lading.build.cache import Cache, Record
from lading.image import chain, digest, mutate
from lading.image.config import History
from lading.image.descriptor import Descriptor
from lading.image.layer import compress
from lading.image.mutate import Draft, Layer
from lading.store.blobs import Blobs
from lading.store.snapshots import Snapshotter

_SMALL = 4 << 20
"""Bytes of tar up to which a layer is kept in memory and stored at once: it takes a few milliseconds."""
_NOTHING = bytes(1024)
"""A tar's end: the archive without entries."""
_UNSTORED = ""
"""The media type of a layer whose blob is still being made."""


class _Tar:
    """Takes a layer's tar: its digest, and the bytes as long as they are few."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self.parts: list[bytes] | None = []

    def write(self, data: bytes) -> None:
        self.hash.update(data)
        self.size += len(data)
        if self.parts is not None:
            self.parts.append(data)
            if self.size > _SMALL:
                self.parts = None

    @property
    def diff_id(self) -> str:
        return "sha256:" + self.hash.hexdigest()


@dataclass
class Layers:
    """Makes the layers of one build. `name` gives a fresh key for an active snapshot of this build."""

    blobs: Blobs
    snapshots: Snapshotter
    cache: Cache
    media: compress.Compression
    now: Callable[[], int]
    name: Callable[[], str]
    check: Callable[[], None]  # raises Cancelled when the build is to stop
    latest_ns: int | None = None
    _pool: ThreadPoolExecutor | None = None
    _pending: dict[str, Future[Record]] = field(default_factory=dict)  # by the record's key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Layers under way are finished also when a step fails, for the next build's sake; not when
        cancelled.
        """
        if self._pool is not None:
            self._pool.shutdown()

    def make(self, key: str, parent: str | None, description: str, work: Callable[[str], None]) -> Record:
        """Run `work` on a writable snapshot over `parent` and remember its result under `key`."""
        tar = _Tar()
        layer = None
        result = parent
        with self.scratch(parent) as snapshot:
            work(snapshot)
            self.snapshots.layer(snapshot, self._stopping(tar.write), latest_ns=self.latest_ns)
            if tar.diff_id != digest.EMPTY_TAR:
                layer = self._stored(tar)
                result = chain.extend(parent, tar.diff_id)
                self.snapshots.commit(snapshot, result)
        record = Record(key, "regular", result or "", layer, self.now(), description=description)
        if layer is not None and layer.descriptor.media_type == _UNSTORED:
            self._pool = self._pool or ThreadPoolExecutor(1, "build-layer")
            self._pending[key] = self._pool.submit(self._store, record)
        else:
            self.cache.add(record)
        return record

    def _stored(self, tar: _Tar) -> Layer:
        """The layer's blob; for a large one only its promise."""
        parts = tar.parts
        if parts is None:
            return Layer(Descriptor(_UNSTORED, tar.diff_id, tar.size), tar.diff_id)

        def produce(write: Callable[[bytes], object]) -> None:
            for part in parts:
                write(part)

        return compress.write_layer(self.blobs, produce, self.media)

    def _store(self, record: Record) -> Record:
        """Make the blob from the committed snapshot, which no longer changes, and remember the whole
        record.
        """

        def produce(write: Callable[[bytes], object]) -> None:
            self.snapshots.layer(record.snapshot, self._stopping(write), latest_ns=self.latest_ns)

        layer = compress.write_layer(self.blobs, produce, self.media)
        if record.layer is None or layer.diff_id != record.layer.diff_id:
            raise Internal("a committed snapshot has changed", hint="Check the disk, and build again.")
        whole = replace(record, layer=layer)
        self.cache.add(whole)
        return whole

    def _stopping(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """`write`, which stops when the build does: a layer may be gigabytes."""

        def checked(data: bytes) -> object:
            self.check()
            return write(data)

        return checked

    def settled(self, record: Record) -> Record:
        """The record with its blob stored."""
        pending = self._pending.get(record.key)
        return record if pending is None else pending.result()

    def wait(self, key: str) -> None:
        """Let a step that this very build made be found in the cache."""
        pending = self._pending.get(key)
        if pending is not None:
            pending.result()

    def finished(self, draft: Draft) -> Draft:
        """The draft with every promised layer in place, and with one layer at least, as manifests must have
        (image-manifest-schema.json, minItems).
        """
        if not draft.layers:
            empty = compress.write_layer(self.blobs, lambda write: write(_NOTHING), self.media)
            return mutate.append(draft, empty, History(comment="no files"))
        made = {}
        for pending in self._pending.values():
            layer = pending.result().layer
            if layer is not None:
                made[layer.diff_id] = layer.descriptor
        layers = tuple(made[one.digest] if one.media_type == _UNSTORED else one for one in draft.layers)
        return Draft(draft.config, layers)

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
