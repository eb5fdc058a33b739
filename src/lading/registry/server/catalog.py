"""What is where: which blobs, manifests and tags each repository has. Owns three tables and the references between rows.

Blob first, row second; row gone first, blob swept after. A blob is visible in a repository only by a row here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lading.base import clock
from lading.registry.server.documents import Document
from lading.registry.server.ports import Database

_DDL = """
CREATE TABLE links (repo TEXT NOT NULL, digest TEXT NOT NULL, touched_ns INTEGER NOT NULL,
  PRIMARY KEY (repo, digest)) WITHOUT ROWID;
CREATE INDEX links_digest ON links(digest);
CREATE TABLE manifests (repo TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
  subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations TEXT NOT NULL, pushed_ns INTEGER NOT NULL,
  PRIMARY KEY (repo, digest));
CREATE INDEX manifests_digest ON manifests(digest);
CREATE INDEX manifests_subject ON manifests(repo, subject) WHERE subject != '';
CREATE TABLE needs (repo TEXT NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
  PRIMARY KEY (repo, manifest, digest),
  FOREIGN KEY (repo, manifest) REFERENCES manifests(repo, digest) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX needs_digest ON needs(repo, digest);
CREATE TABLE tags (repo TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repo, tag),
  FOREIGN KEY (repo, digest) REFERENCES manifests(repo, digest) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX tags_digest ON tags(repo, digest);
"""

_TOUCH_NS = 600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One manifest of one repository."""

    digest: str
    media_type: str
    size: int
    artifact_type: str = ""
    annotations: str = "{}"


class Catalog:
    """The tables. Every method is one short transaction, or one SELECT."""

    def __init__(self, db: Database) -> None:
        self._db = db
        db.ensure("registry", _DDL)

    # Blobs

    def has_blob(self, repo: str, digest: str) -> bool:
        return self._db.one("SELECT 1 FROM links WHERE repo = ? AND digest = ?", (repo, digest)) is not None

    def link(self, repo: str, digest: str) -> None:
        """Make a stored blob visible in a repository, as from now."""
        with self._db.transaction() as cx:
            cx.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (repo, digest, clock.now_ns()))

    def touch(self, repo: str, digest: str) -> None:
        """Somebody relies on the blob's being there: a manifest may follow. Written at most once in a while."""
        now = clock.now_ns()
        row = self._db.one("SELECT touched_ns FROM links WHERE repo = ? AND digest = ?", (repo, digest))
        if row is not None and row["touched_ns"] < now - _TOUCH_NS:
            with self._db.transaction() as cx:
                cx.execute(
                    "UPDATE links SET touched_ns = ? WHERE repo = ? AND digest = ?", (now, repo, digest)
                )

    def unlink(self, repo: str, digest: str) -> str:
        """Take a blob out of a repository: "gone", "absent", or "needed" by one of its manifests, and then kept."""
        with self._db.transaction(durable=True, frees=True) as cx:
            needed = cx.execute(
                "SELECT 1 FROM needs WHERE repo = ? AND digest = ?", (repo, digest)
            ).fetchone()
            if needed is not None:
                return "needed"
            done = cx.execute("DELETE FROM links WHERE repo = ? AND digest = ?", (repo, digest))
            return "gone" if done.rowcount else "absent"

    # Manifests and tags

    def put(
        self, repo: str, digest: str, size: int, document: Document, tag: str, *, whole: bool = True
    ) -> list[str]:
        """Record a stored manifest, and name it; or, where it must be `whole`, give the digests it refers to that the
        repository lacks.

        Durable: once this returns, the push is acknowledged.
        """
        with self._db.transaction(durable=True) as cx:
            missing = [
                blob
                for blob in (document.blobs if whole else ())
                if not cx.execute(
                    "SELECT 1 FROM links WHERE repo = ? AND digest = ?", (repo, blob)
                ).fetchone()
            ]
            missing += [
                child
                for child in (document.manifests if whole else ())
                if not cx.execute(
                    "SELECT 1 FROM manifests WHERE repo = ? AND digest = ?", (repo, child)
                ).fetchone()
            ]
            if missing:
                return missing
            cx.execute(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (repo, digest) DO UPDATE"
                " SET pushed_ns = excluded.pushed_ns, media_type = excluded.media_type",
                (
                    repo,
                    digest,
                    document.media_type,
                    size,
                    document.subject,
                    document.artifact_type,
                    json.dumps(document.annotations),
                    clock.now_ns(),
                ),
            )
            cx.executemany(
                "INSERT OR IGNORE INTO needs VALUES (?, ?, ?)",
                [(repo, digest, needed) for needed in (*document.blobs, *document.manifests)],
            )
            if tag:
                cx.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (repo, tag, digest))
        return []

    def manifest(self, repo: str, reference: str) -> Entry | None:
        """By digest or by tag."""
        row = self._db.one(
            "SELECT m.* FROM manifests m WHERE m.repo = ?1 AND m.digest = ?2"
            if ":" in reference
            else "SELECT m.* FROM tags t JOIN manifests m ON m.repo = t.repo AND m.digest = t.digest"
            " WHERE t.repo = ?1 AND t.tag = ?2",
            (repo, reference),
        )
        return None if row is None else _entry(row)

    def drop(self, repo: str, reference: str) -> bool:
        """Remove a tag; or a manifest by digest, with the tags that name it. Whether it was there."""
        with self._db.transaction(durable=True, frees=True) as cx:
            if ":" in reference:
                done = cx.execute("DELETE FROM manifests WHERE repo = ? AND digest = ?", (repo, reference))
            else:
                done = cx.execute("DELETE FROM tags WHERE repo = ? AND tag = ?", (repo, reference))
            return bool(done.rowcount)

    # Lists

    def known(self, repo: str) -> bool:
        """Whether anything was ever pushed there and is not yet gone."""
        return (
            self._db.one(
                "SELECT 1 WHERE EXISTS (SELECT 1 FROM manifests WHERE repo = ?1)"
                " OR EXISTS (SELECT 1 FROM links WHERE repo = ?1)",
                (repo,),
            )
            is not None
        )

    def tags(self, repo: str, last: str, count: int) -> list[str]:
        """In the specification's order: without regard to case (distribution-spec "Listing Tags")."""
        return self._texts(
            "SELECT tag FROM tags WHERE repo = ? AND (lower(tag), tag) > (lower(?), ?)"
            " ORDER BY lower(tag), tag LIMIT ?",
            (repo, last, last, count),
        )

    def repositories(self, last: str, count: int) -> list[str]:
        return self._texts(
            "SELECT DISTINCT repo FROM manifests WHERE repo > ? ORDER BY repo LIMIT ?", (last, count)
        )

    def referrers(self, repo: str, subject: str, artifact_type: str, last: str, count: int) -> list[Entry]:
        rows = self._db.query(
            "SELECT * FROM manifests WHERE repo = ?1 AND subject = ?2 AND subject != '' AND digest > ?3"
            " AND (?4 = '' OR artifact_type = ?4) ORDER BY digest LIMIT ?5",
            (repo, subject, last, artifact_type, count),
        )
        return [_entry(row) for row in rows]

    def _texts(self, sql: str, parameters: Sequence[Any]) -> list[str]:
        return [str(row[0]) for row in self._db.query(sql, parameters)]

    def count(self) -> tuple[int, int, int, int]:
        """How many repositories, manifests, tags, and blobs (each counted once) there are."""
        row = self._db.one(
            "SELECT (SELECT count(DISTINCT repo) FROM manifests), (SELECT count(*) FROM manifests),"
            " (SELECT count(*) FROM tags), (SELECT count(DISTINCT digest) FROM links)"
        )
        return (0, 0, 0, 0) if row is None else (row[0], row[1], row[2], row[3])

    # For the sweep

    def forget_untagged(self, before_ns: int) -> int:
        """Remove manifests that no tag, index or present subject leads to; how many."""
        removed = 0
        while True:
            with self._db.transaction(durable=True, frees=True) as cx:
                done = cx.execute(
                    "DELETE FROM manifests WHERE pushed_ns < ?"
                    " AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repo = manifests.repo"
                    "  AND t.digest = manifests.digest)"
                    " AND NOT EXISTS (SELECT 1 FROM needs n WHERE n.repo = manifests.repo"
                    "  AND n.digest = manifests.digest)"
                    " AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repo = manifests.repo"
                    "  AND s.digest = manifests.subject)",
                    (before_ns,),
                )
            if not done.rowcount:
                return removed
            removed += done.rowcount  # an index's manifests become free with it: look again

    def forget_unneeded(self, before_ns: int) -> int:
        """Take blobs that no manifest needs out of their repositories; how many."""
        with self._db.transaction(durable=True, frees=True) as cx:
            done = cx.execute(
                "DELETE FROM links WHERE touched_ns < ? AND NOT EXISTS"
                " (SELECT 1 FROM needs n WHERE n.repo = links.repo AND n.digest = links.digest)",
                (before_ns,),
            )
            return done.rowcount

    def wanted(self, digests: Iterable[str]) -> set[str]:
        """Those of `digests` that some repository has."""
        found = set()
        for digest in digests:
            row = self._db.one(
                "SELECT 1 WHERE EXISTS (SELECT 1 FROM links WHERE digest = ?1)"
                " OR EXISTS (SELECT 1 FROM manifests WHERE digest = ?1)",
                (digest,),
            )
            if row is not None:
                found.add(digest)
        return found


def _entry(row: Any) -> Entry:
    return Entry(row["digest"], row["media_type"], row["size"], row["artifact_type"], row["annotations"])
