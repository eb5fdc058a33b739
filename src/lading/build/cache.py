"""The layer cache: what a step with this key once made. Owns the table `build_cache`, its holds, usage and
pruning.

A key names everything that may change a step's result, so a row is never wrong, only absent or swept away.
Snapshots and blobs that rows speak of are held against the sweep under the row's key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from lading.base import clock
from lading.image.descriptor import Descriptor
from lading.image.mutate import Layer
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.leases import Leases
from lading.store.snapshots import Snapshotter

_DDL = """
CREATE TABLE build_cache (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, snapshot TEXT NOT NULL, layer TEXT NOT NULL, media_type TEXT NOT NULL,
    diff_id TEXT NOT NULL, size INTEGER NOT NULL, created_ns INTEGER NOT NULL, used_ns INTEGER NOT NULL,
    uses INTEGER NOT NULL, description TEXT NOT NULL
);
"""
_VERSION = b"lading build 1"
_TOUCH_NS = 60_000_000_000


@dataclass(frozen=True)
class Record:
    """One step's result. `layer` None: it changed no file. `snapshot` is the chainID after it, "" for an
    empty tree.
    """

    key: str
    kind: str  # regular: a RUN, COPY, ADD or WORKDIR; image: the creation time of a config; alias: another key's result
    snapshot: str
    layer: Layer | None
    created_ns: int
    used_ns: int = 0
    uses: int = 0
    description: str = ""

    @property
    def size(self) -> int:
        return self.layer.descriptor.size if self.layer else 0

    @property
    def blob(self) -> str:
        """The digest of the layer, "" when there is none."""
        return self.layer.descriptor.digest if self.layer else ""


@dataclass(frozen=True)
class Usage:
    """A row as `system df` and `builder prune` show it; `shared`: an image needs its layer, too."""

    id: str
    kind: str
    description: str
    size: int
    created_ns: int
    used_ns: int
    uses: int
    in_use: bool
    shared: bool


def key(*parts: object) -> str:
    """A digest of the parts' canonical JSON (bytes as hexadecimal text)."""
    body = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=_plain)
    return hashlib.sha256(_VERSION + body.encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(type(value))


class Cache:
    """Thread-safe, shared by all builds of one store."""

    def __init__(self, db: Database, blobs: Blobs, snapshotter: Snapshotter, leases: Leases) -> None:
        self._db = db
        self._blobs = blobs
        self._snapshots = snapshotter
        self._leases = leases
        db.ensure("build_cache", _DDL)

    def find(self, key: str) -> Record | None:
        """The result for `key`, if all of it is still there."""
        row = self._db.one("SELECT * FROM build_cache WHERE key = ?", (key,))
        if row is None:
            return None
        layer = None
        if row["layer"]:
            layer = Layer(Descriptor(row["media_type"], row["layer"], row["size"]), row["diff_id"])
            if not self._blobs.has(row["layer"]):
                return None
        if row["snapshot"] and not self._snapshots.exists(row["snapshot"]):
            return None
        return Record(
            key,
            row["kind"],
            row["snapshot"],
            layer,
            row["created_ns"],
            row["used_ns"],
            row["uses"],
            row["description"],
        )

    def add(self, record: Record) -> None:
        """Remember a result, replacing an older one."""
        layer = record.layer
        now = clock.now_ns()
        with self._db.transaction() as cx:
            cx.execute(
                "INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
                (
                    record.key,
                    record.kind,
                    record.snapshot,
                    record.blob,
                    layer.descriptor.media_type if layer else "",
                    layer.diff_id if layer else "",
                    record.size,
                    record.created_ns,
                    now,
                    record.description[:1000],
                ),
            )
            self._leases.drop(_hold(record.key))
            held = [item for item in (record.snapshot, record.blob) if item]
            if held:
                self._leases.keep(_hold(record.key), *held)

    def used(self, records: Iterable[Record]) -> None:
        """Note that these were hit, at most once a minute each, so that a cached build seldom writes."""
        now = clock.now_ns()
        stale = [(now, record.key) for record in records if now - record.used_ns > _TOUCH_NS]
        if stale:
            with self._db.transaction() as cx:
                cx.executemany("UPDATE build_cache SET used_ns = ?, uses = uses + 1 WHERE key = ?", stale)

    def usage(self) -> list[Usage]:
        """Every step's row, the last used first."""
        images = {row["manifest_digest"] for row in self._db.query("SELECT manifest_digest FROM images")}
        shared = self._layers_of(images)
        rows = self._db.query("SELECT * FROM build_cache WHERE kind = 'regular' ORDER BY used_ns DESC, key")
        return [
            Usage(
                row["key"], row["kind"], row["description"], row["size"], row["created_ns"], row["used_ns"],
                row["uses"], False, bool(row["layer"]) and row["layer"] in shared,
            )
            for row in rows
        ]  # fmt: skip

    def _layers_of(self, manifests: Iterable[str]) -> set[str]:
        from lading.base.errors import LadingError
        from lading.image import manifest

        found: set[str] = set()
        for digest in manifests:
            try:
                document = manifest.parse(self._blobs.read(digest))
            except LadingError:
                continue  # a damaged image holds nothing that fsck would not report
            if isinstance(document, manifest.Manifest):
                found.update(layer.digest for layer in document.layers)
        return found

    def prune(self, *, everything: bool = False, unused_for_ns: int = 0, keep_bytes: int = 0) -> list[str]:
        """Forget rows: those whose layer no image needs, or all. Gives their keys; the caller sweeps after.

        `unused_for_ns` spares what was used since, `keep_bytes` the most recently used up to that size.
        """
        now = clock.now_ns()
        gone: list[str] = []
        kept = 0
        for row in self.usage():
            if row.shared and not everything:
                continue
            if now - row.used_ns < unused_for_ns:
                continue
            if kept + row.size <= keep_bytes:
                kept += row.size
                continue
            gone.append(row.id)
        self._forget(gone)
        return gone

    def _forget(self, keys: list[str]) -> None:
        """Rows and their holds; other rows that led to the same result (aliases of a stage) go, too."""
        with self._db.transaction(frees=True) as cx:
            for one in keys:
                row = cx.execute("SELECT * FROM build_cache WHERE key = ?", (one,)).fetchone()
                same = cx.execute(
                    "SELECT key FROM build_cache WHERE kind = 'alias' AND snapshot = ? AND layer = ?",
                    (row["snapshot"], row["layer"]),
                ).fetchall()
                for key in (one, *(other["key"] for other in same)):
                    cx.execute("DELETE FROM build_cache WHERE key = ?", (key,))
                    self._leases.drop(_hold(key))
            # Creation times of configs are tiny, and wanted only as long as the image may be built again.
            cx.execute(
                "DELETE FROM build_cache WHERE kind = 'image' AND NOT EXISTS"
                " (SELECT 1 FROM build_cache WHERE kind = 'regular')"
            )


def _hold(key: str) -> str:
    return f"build:{key}"
