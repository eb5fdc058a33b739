"""Digests of files' contents, remembered by what stat(2) says, so that an unchanged file is not read twice.

Owns the table `build_files` and the rule when a remembered digest may be trusted; never decides what is
hashed.
"""

from __future__ import annotations

import hashlib
import os
import threading

from lading.base import clock
from lading.base.errors import Invalid, NotFound
from lading.build.tree import Entry, Tree, xattrs
from lading.store.database import Database

_DDL = """
CREATE TABLE build_files (
    dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    ctime INTEGER NOT NULL, digest BLOB NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (dev, ino)
) WITHOUT ROWID;
"""
_RACY_NS = 50_000_000
"""A file changed this shortly before it was read may change again without its times telling (the kernel's
clock for them ticks in up to 10 ms steps); the same trap that git calls racy."""
_KEPT = 500_000
_BATCH = 400

Stamp = tuple[int, int, int]


class Contents:
    """Thread-safe. `of` gives digests in the order of the entries."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[tuple[int, int], tuple[Stamp, bytes]] = {}
        self._lock = threading.Lock()
        db.ensure("build_files", _DDL)

    def of(self, tree: Tree, entries: list[Entry]) -> list[bytes]:
        """Digests of regular files of a tree that stays (a context on this host)."""
        if len(self._known) > _KEPT:
            with self._lock:
                self._known.clear()  # the table still has them
        self._load(entries)
        out: list[bytes] = []
        fresh: list[tuple[int, int, int, int, int, bytes, int]] = []
        now = clock.now_ns()
        for entry in entries:
            info = entry.info
            key, stamp = (info.st_dev, info.st_ino), _stamp(info)
            found = self._known.get(key)
            if found is not None and found[0] == stamp:
                out.append(found[1])
                continue
            value = hashed(tree, entry)
            out.append(value)
            if clock.now_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > _RACY_NS:
                with self._lock:
                    self._known[key] = (stamp, value)
                fresh.append((*key, *stamp, value, now))
        if fresh:
            with self._db.transaction() as cx:
                cx.executemany("INSERT OR REPLACE INTO build_files VALUES (?, ?, ?, ?, ?, ?, ?)", fresh)
        return out

    def fresh(self, tree: Tree, entries: list[Entry]) -> list[bytes]:
        """Digests of files that will not be seen again (an unpacked context, a stage)."""
        return [hashed(tree, entry) for entry in entries]

    def _load(self, entries: list[Entry]) -> None:
        """Fetch from the table what memory does not have, many rows at a time."""
        wanted: dict[int, list[int]] = {}
        for entry in entries:
            if (entry.info.st_dev, entry.info.st_ino) not in self._known:
                wanted.setdefault(entry.info.st_dev, []).append(entry.info.st_ino)
        for dev, inodes in wanted.items():
            for start in range(0, len(inodes), _BATCH):
                part = inodes[start : start + _BATCH]
                marks = ",".join("?" * len(part))
                rows = self._db.query(
                    f"SELECT ino, size, mtime, ctime, digest FROM build_files"
                    f" WHERE dev = ? AND ino IN ({marks})",
                    (dev, *part),
                )
                with self._lock:
                    for row in rows:
                        stamp = (row["size"], row["mtime"], row["ctime"])
                        self._known[(dev, row["ino"])] = (stamp, bytes(row["digest"]))

    def forget(self, keep: int = _KEPT) -> None:
        """Bound the table: the longest unseen rows go."""
        with self._db.transaction() as cx:
            cx.execute(
                "DELETE FROM build_files WHERE seen <"
                " (SELECT seen FROM build_files ORDER BY seen DESC LIMIT 1 OFFSET ?)",
                (keep,),
            )


def _stamp(info: os.stat_result) -> Stamp:
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns


def hashed(tree: Tree, entry: Entry) -> bytes:
    """The digest of a file's content and, where owners count, of its extended attributes."""
    try:
        fd = tree.open(entry)
    except FileNotFoundError:
        raise NotFound(f'"{entry.at}" went away while {tree.name} was read', hint="Build again.") from None
    except OSError as error:
        raise Invalid(f'"{entry.at}" in {tree.name} cannot be read', why=f"{error.strerror}.") from None
    with open(fd, "rb", buffering=0) as stream:
        whole = hashlib.file_digest(stream, "sha256")
        if tree.keeps_owner:
            for name, value in xattrs(fd).items():
                whole.update(b"%s=%d:%s" % (name.encode(), len(value), value))
    return whole.digest()
