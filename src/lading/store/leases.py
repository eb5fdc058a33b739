"""Leases: what must survive a sweep although nothing refers to it yet, or a cache refers to it.

Owns two tables: leases of running work, which die with their process, and named holds, which last until
dropped. A lease also protects every blob and snapshot that came into being after it was taken, so work under
way need not list what it makes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator

from lading.base import clock, errors
from lading.store import owner
from lading.store.database import Database

_DDL = """
CREATE TABLE leases (id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER
NOT NULL); CREATE TABLE lease_items (lease TEXT NOT NULL REFERENCES leases(id) ON DELETE CASCADE, item TEXT
NOT NULL, PRIMARY KEY (lease, item)); CREATE TABLE holds (name TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY
(name, item));
"""

_DAY_S = 86_400.0

_SLACK_NS = 1_000_000_000
"""File times come from a clock that ticks only some hundred times a second (ktime_get_coarse_real_ts64 in the
kernel), so a file made just after a lease may seem older than it."""


class Lease:
    """A held lease; `add` protects more."""

    def __init__(self, leases: Leases, identifier: str) -> None:
        self._leases = leases
        self.id = identifier

    def add(self, *items: str) -> None:
        """Protect more blob digests or snapshot keys."""
        self._leases._add(self.id, items)


class Leases:
    """Leases and holds over blob digests and snapshot keys. A manifest's digest stands for all it refers
    to."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock_path = f"{db.path}-sweep"
        db.ensure("leases", _DDL)

    @contextlib.contextmanager
    def excluding(self, *, sweep: bool = False) -> Iterator[None]:
        """Held exclusively by a sweep, and shared by whoever must not meet one (flock(2)).

        Not inside a transaction: the sweep, which needs transactions itself, would wait for it for ever.
        """
        if self._db.in_transaction:
            raise errors.Internal("a lease or an image was asked for inside a transaction")
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if sweep else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def hold(self, *items: str, seconds: float = _DAY_S) -> Iterator[Lease]:
        """Protect `items`, and all that is made from now on, while the block runs; `seconds` bounds a
        forgotten one."""
        identifier, now = os.urandom(8).hex(), clock.now_ns()
        with self.excluding(), self._db.transaction() as cx:
            expires = now + int(seconds * 1e9)
            cx.execute("INSERT INTO leases VALUES (?, ?, ?, ?)", (identifier, owner.token(), now, expires))
            cx.executemany(
                "INSERT OR IGNORE INTO lease_items VALUES (?, ?)", [(identifier, item) for item in items]
            )
        try:
            yield Lease(self, identifier)
        finally:
            with self._db.transaction(frees=True) as cx:
                cx.execute("DELETE FROM leases WHERE id = ?", (identifier,))

    def _add(self, identifier: str, items: Iterable[str]) -> None:
        with self._db.transaction() as cx:
            cx.executemany(
                "INSERT OR IGNORE INTO lease_items VALUES (?, ?)", [(identifier, item) for item in items]
            )

    def keep(self, name: str, *items: str) -> None:
        """Hold `items` under `name` until `drop(name)`: for caches, whose entries outlive the process."""
        with self._db.transaction() as cx:
            cx.executemany("INSERT OR IGNORE INTO holds VALUES (?, ?)", [(name, item) for item in items])

    def drop(self, name: str) -> None:
        with self._db.transaction(frees=True) as cx:
            cx.execute("DELETE FROM holds WHERE name = ?", (name,))

    def items(self) -> set[str]:
        """Everything held; leases of dead processes and expired ones are removed on the way."""
        self._forget_dead()
        rows = self._db.query("SELECT item FROM lease_items UNION SELECT item FROM holds")
        return {str(row["item"]) for row in rows}

    def horizon_ns(self) -> int | None:
        """When the oldest live lease was taken: what is younger must be spared. None when there is none."""
        self._forget_dead()
        row = self._db.one("SELECT min(created_ns) AS oldest FROM leases")
        return None if row is None or row["oldest"] is None else int(row["oldest"]) - _SLACK_NS

    def _forget_dead(self) -> None:
        now = clock.now_ns()
        dead = [
            (row["id"],)
            for row in self._db.query("SELECT id, owner, expires_ns FROM leases")
            if row["expires_ns"] < now or not owner.alive(row["owner"])
        ]
        if dead:
            with self._db.transaction(frees=True) as cx:
                cx.executemany("DELETE FROM leases WHERE id = ?", dead)
