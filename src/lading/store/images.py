"""Images: names and ids for manifests in the blob store, their unpacking, and the sweep of what nothing
needs.

Owns two tables, one of manifests and one of references. Blob first, row second; row gone first, blob swept
after. Never decides whether an image may be removed: the engine knows the containers.
"""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lading.base import clock, errors
from lading.image import chain, config, fields, manifest, reference
from lading.image.config import ImageConfig
from lading.image.manifest import Manifest
from lading.image.mutate import Draft
from lading.store.blobs import Blobs
from lading.store.database import Database, Row
from lading.store.leases import Leases
from lading.store.snapshots import Info, Snapshotter

_DDL = """
CREATE TABLE images (manifest_digest TEXT PRIMARY KEY, id TEXT NOT NULL, size INTEGER NOT NULL, created_ns
INTEGER NOT NULL,
  stored_ns INTEGER NOT NULL);
CREATE INDEX images_id ON images(id);
CREATE TABLE image_refs (ref TEXT PRIMARY KEY, manifest_digest TEXT NOT NULL REFERENCES
images(manifest_digest)); CREATE INDEX image_refs_manifest ON image_refs(manifest_digest);
"""


@dataclass(frozen=True)
class Image:
    """One stored image. `id` is the digest of its config; `references` are canonical and sorted."""

    id: str
    manifest_digest: str
    manifest: Manifest
    config: ImageConfig
    references: tuple[str, ...]
    size: int
    created_ns: int

    @property
    def familiar(self) -> tuple[str, ...]:
        """The references as people write them."""
        return tuple(reference.parse(ref).familiar for ref in self.references)

    @property
    def chain_id(self) -> str | None:
        """The key of the snapshot of all layers; None for an image without any."""
        chains = chain.ids(self.config.diff_ids)
        return chains[-1] if chains else None


def _untagged(name: str) -> str:
    """A reference without its tag; a colon before a slash is a port's."""
    before, colon, tag = name.rpartition(":")
    return before if colon and "/" not in tag else name


@dataclass(frozen=True)
class Removed:
    """What a removal did: references taken away, blobs and snapshots deleted, bytes regained."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    reclaimed: int = 0


class Images:
    """The image store of one data root."""

    def __init__(self, db: Database, blobs: Blobs, snapshotter: Snapshotter) -> None:
        self._db = db
        self.blobs = blobs
        self.snapshots = snapshotter
        self.leases = Leases(db)
        self._cache: dict[str, tuple[Manifest, ImageConfig]] = {}
        self._settling = threading.Lock()
        db.ensure("images", _DDL)

    # --- storing ---

    def store(self, draft: Draft, ref: str = "") -> Image:
        """Write a draft's config and manifest, whose layers are stored already, and name it when `ref` is
        given."""
        self.blobs.put(draft.config.encode())
        digest = self.blobs.put(draft.manifest().encode())
        self.put(ref, digest)
        return self.by_manifest(digest)

    def put(self, ref: str, manifest_digest: str) -> None:
        """Record a manifest whose blobs are all stored; `ref` names it, "" leaves it unnamed. The name moves
        if taken."""
        name = str(reference.parse(ref).with_default_tag()) if ref else ""
        with self.leases.excluding():
            found, conf = self._load(manifest_digest)
            needed = (manifest_digest, found.config.digest, *(layer.digest for layer in found.layers))
            missing = [blob for blob in needed if not self.blobs.refresh(blob)]
            if missing:
                raise errors.Invalid(
                    f"image {manifest_digest[:19]} is incomplete", why=f"Blob {missing[0]} is not stored."
                )
            size = len(found.encode()) + found.config.size + sum(layer.size for layer in found.layers)
            with self._db.transaction() as cx:
                cx.execute(
                    "INSERT INTO images VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (manifest_digest) DO UPDATE SET stored_ns = excluded.stored_ns",
                    (manifest_digest, found.config.digest, size, conf.created_ns, clock.now_ns()),
                )
                if name:
                    cx.execute("INSERT OR REPLACE INTO image_refs VALUES (?, ?)", (name, manifest_digest))

    def _load(self, manifest_digest: str) -> tuple[Manifest, ImageConfig]:
        """The decoded documents; immutable, so remembered."""
        known = self._cache.get(manifest_digest)
        if known is None:
            found = manifest.parse(self.blobs.read(manifest_digest))
            if not isinstance(found, Manifest):
                raise errors.Invalid(f"{manifest_digest[:19]} is an index, not the manifest of one platform")
            conf = config.parse(self.blobs.read(found.config.digest))
            if len(conf.diff_ids) != len(found.layers):
                raise errors.Invalid(
                    "image is inconsistent",
                    why=f"Its manifest has {len(found.layers)} layers, its config names {len(conf.diff_ids)}.",
                )
            if len(self._cache) > 1000:
                self._cache.clear()
            known = self._cache[manifest_digest] = (found, conf)
        return known

    # --- looking up ---

    def by_manifest(self, manifest_digest: str) -> Image:
        row = self._db.one("SELECT * FROM images WHERE manifest_digest = ?", (manifest_digest,))
        if row is None:
            raise errors.NotFound(f"no image has the manifest {manifest_digest}")
        return self._image(row)

    def _image(self, row: Row) -> Image:
        found, conf = self._load(row["manifest_digest"])
        return Image(
            row["id"],
            row["manifest_digest"],
            found,
            conf,
            self._names(row["id"]),
            row["size"],
            row["created_ns"],
        )

    def _names(self, image_id: str) -> tuple[str, ...]:
        rows = self._db.query(
            "SELECT ref FROM image_refs JOIN images USING (manifest_digest) WHERE id = ? ORDER BY ref",
            (image_id,),
        )
        return tuple(row["ref"] for row in rows)

    def has_manifest(self, manifest_digest: str) -> bool:
        return self._db.one("SELECT 1 FROM images WHERE manifest_digest = ?", (manifest_digest,)) is not None

    def get(self, ref_or_id: str) -> Image:
        """By reference (familiar or canonical), image id, or the beginning of an id.

        NotFound proposes the nearest name; a beginning that several images share is Invalid.
        """
        row = self._by_reference(ref_or_id)
        if row is None and reference.is_id(ref_or_id):
            row = self._by_id(ref_or_id)
        if row is None:
            raise errors.NotFound(f"no such image: {ref_or_id[:300]}", hint=self._suggestion(ref_or_id))
        return self._image(row)

    def _by_reference(self, text: str) -> Row | None:
        if text.startswith("sha256:"):
            return None
        try:
            ref = reference.parse(text).with_default_tag()
        except errors.Invalid:
            if reference.is_id(text):
                return None
            raise
        row = self._db.one(
            "SELECT i.* FROM image_refs r JOIN images i USING (manifest_digest) WHERE r.ref = ?", (str(ref),)
        )
        if row is None and ref.digest:
            # name@digest, or name:tag@digest: the digest decides, the name must be one the image has.
            row = self._db.one(
                "SELECT * FROM images WHERE manifest_digest = ? OR id = ?", (ref.digest, ref.digest)
            )
            if row is not None and not any(
                r.startswith((f"{ref.name}:", f"{ref.name}@")) for r in self._image(row).references
            ):
                return None
        return row

    def _by_id(self, text: str) -> Row | None:
        prefix = "sha256:" + text.removeprefix("sha256:")
        rows = self._db.query("SELECT * FROM images WHERE id GLOB ? ORDER BY stored_ns DESC", (prefix + "*",))
        if len({row["id"] for row in rows}) > 1:
            raise errors.Invalid(f"image id {text[:80]!r} is ambiguous", hint="Give more digits.")
        return rows[0] if rows else None

    def _suggestion(self, text: str) -> str:
        known = {reference.parse(row["ref"]).familiar for row in self._db.query("SELECT ref FROM image_refs")}
        near = difflib.get_close_matches(text, known, 1, 0.6)
        if not near:  # the right name with a wrong tag
            near = sorted(name for name in known if _untagged(name) == _untagged(text))[:1]
        return f"Did you mean {near[0]!r}?" if near else ""

    def list(self) -> tuple[Image, ...]:
        """Every image once, the newest first. One whose blobs are damaged is left out: `get` and `remove`
        name it."""
        latest: dict[str, Row] = {}
        for row in self._db.query("SELECT * FROM images ORDER BY stored_ns"):
            latest[row["id"]] = row
        images = []
        for row in latest.values():
            with contextlib.suppress(errors.Internal, errors.NotFound):
                images.append(self._image(row))
        return tuple(sorted(images, key=lambda image: (-image.created_ns, image.id)))

    # --- naming ---

    def tag(self, source: str, target: str) -> None:
        """Give the image `source` one more name, taking it from whichever image had it."""
        ref = reference.parse(target)
        if ref.digest:
            raise errors.Invalid(
                f"{target!r} names a digest", why="A tag is a name one chooses; a digest is what content has."
            )
        image = self.get(source)
        with self._db.transaction() as cx:
            cx.execute(
                "INSERT OR REPLACE INTO image_refs VALUES (?, ?)",
                (str(ref.with_default_tag()), image.manifest_digest),
            )

    def untag(self, ref: str) -> str:
        """Take a name away; the image stays. Gives the canonical name; NotFound when no image has it."""
        name = str(reference.parse(ref).with_default_tag())
        with self._db.transaction(frees=True) as cx:
            if cx.execute("DELETE FROM image_refs WHERE ref = ?", (name,)).rowcount == 0:
                raise errors.NotFound(f"no such image: {ref[:300]}", hint=self._suggestion(ref))
        return name

    def remove(self, image_id: str) -> Removed:
        """Forget the image under all its names, then delete the blobs and snapshots only it needed.

        `image_id` is the whole id. A damaged image can be removed too; a later sweep finds what could not be
        read.
        """
        rows = self._db.query("SELECT manifest_digest FROM images WHERE id = ?", (image_id,))
        if not rows:
            raise errors.NotFound(f"no such image: {image_id[:300]}")
        names = self._names(image_id)
        mine = {image_id}
        for row in rows:
            mine.add(row["manifest_digest"])
            with contextlib.suppress(errors.Internal, errors.NotFound):
                found, conf = self._load(row["manifest_digest"])
                mine.update(chain.ids(conf.diff_ids), (layer.digest for layer in found.layers))
            self.forget(row["manifest_digest"])
        deleted, reclaimed = self._sweep(mine)
        return Removed(names, deleted, reclaimed)

    def forget(self, manifest_digest: str) -> None:
        """Take a manifest and its names out of the records; blobs and snapshots wait for a sweep."""
        with self._db.transaction(durable=True, frees=True) as cx:
            cx.execute("DELETE FROM image_refs WHERE manifest_digest = ?", (manifest_digest,))
            cx.execute("DELETE FROM images WHERE manifest_digest = ?", (manifest_digest,))

    # --- unpacking ---

    def unpack(self, image: Image) -> str:
        """Apply the layers whose snapshots are missing; gives the chainID of the top one.

        Every layer is checked against its diffID on the way. The marks of power-cut safety are cleared later,
        by `settle`.
        """
        chains = chain.ids(image.config.diff_ids)
        if not chains:
            raise errors.Invalid("the image has no layers, so there is nothing to run")
        if self.snapshots.exists(chains[-1]):
            return chains[-1]
        parent: str | None = None
        with self.leases.hold(image.manifest_digest):
            for layer, diff_id, key in zip(image.manifest.layers, image.config.diff_ids, chains, strict=True):
                if not self.snapshots.exists(key):
                    with self.blobs.open(layer.digest) as stream:
                        self.snapshots.apply(parent, key, stream, diff_id)
                parent = key
        self.settle()
        return chains[-1]

    def settle(self) -> None:
        """Make unpacked snapshots safe against a power cut, in a thread, since nobody needs to wait for
        it."""

        def run() -> None:
            with self._settling, contextlib.suppress(errors.LadingError, OSError):
                self.snapshots.sync()

        threading.Thread(target=run, name="settle", daemon=True).start()

    # --- sweeping ---

    def sweep(self) -> int:
        """Delete every blob and snapshot that no image, lease, hold or container needs; gives the bytes
        regained."""
        return self._sweep(None)[1]

    def discard(self, candidates: set[str]) -> None:
        """Delete those of `candidates` that nothing needs, such as what a refused archive left."""
        self._sweep(candidates)

    def _sweep(self, candidates: set[str] | None) -> tuple[tuple[str, ...], int]:
        """Mark from the roots, then delete what is unmarked, only among `candidates` when given."""
        with self.leases.excluding(sweep=True):
            horizon = self.leases.horizon_ns()
            marked = self._marks()
            deleted = []
            reclaimed = 0
            for info in _removable(self._loose_snapshots(marked), candidates, horizon):
                reclaimed += self.snapshots.usage(info.key).bytes
                self.snapshots.remove(info.key)
                deleted.append(info.key)
            for digest in self.blobs.list() if candidates is None else sorted(candidates):
                if digest in marked or (horizon is not None and self.blobs.modified_ns(digest) >= horizon):
                    continue
                size = self.blobs.delete(digest)
                if size:
                    reclaimed += size
                    deleted.append(digest)
        return tuple(deleted), reclaimed

    def _marks(self) -> set[str]:
        """Blobs and snapshot keys that images, leases and holds refer to."""
        marked = self.leases.items()
        manifests = [row["manifest_digest"] for row in self._db.query("SELECT manifest_digest FROM images")]
        for digest in [*manifests, *marked]:
            marked.add(digest)
            try:
                if self.blobs.size(digest) > fields.LIMIT:
                    continue  # a layer
                found, conf = self._load(digest)
            except errors.LadingError:
                continue  # a layer, a snapshot's key, or a damaged image
            marked.add(found.config.digest)
            marked.update(layer.digest for layer in found.layers)
            marked.update(chain.ids(conf.diff_ids))
        return marked

    def _loose_snapshots(self, marked: set[str]) -> Sequence[Info]:
        """Committed snapshots that are not marked and on which nothing marked or active stands; children
        first."""
        infos = {info.key: info for info in self.snapshots.infos()}
        needed: set[str] = set()
        for info in infos.values():
            if info.kind == "committed" and info.key not in marked:
                continue
            key: str | None = info.key
            while key is not None and key not in needed:
                needed.add(key)
                key = infos[key].parent if key in infos else None
        return [info for info in reversed(infos.values()) if info.key not in needed]


def _removable(loose: Sequence[Info], candidates: set[str] | None, horizon: int | None) -> Iterator[Info]:
    """Of loose snapshots, children first, those to remove: candidates with all that stands on them, but for what a
    lease spares for its youth and what that stands on."""
    wanted = None if candidates is None else set(candidates)
    if wanted is not None:
        for info in reversed(loose):
            if info.parent in wanted:
                wanted.add(info.key)
    spared: set[str | None] = set()
    for info in loose:
        if info.key in spared or (horizon is not None and info.created_ns >= horizon):
            spared.add(info.parent)
        elif wanted is None or info.key in wanted:
            yield info
