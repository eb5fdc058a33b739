"""The intent database: SQLite in WAL mode with short transactions (the design's second truth).

Owns connections, locking and the creation of tables; knows no table's meaning. Writers of one process queue
on a lock, since SQLite's own waiting sleeps; writers of several processes (`--here` beside a daemon) wait for
one another in SQLite.

WAL with synchronous=NORMAL never corrupts, but a power cut may take back the last commits
(sqlite.org/pragma.html#pragma_synchronous); `transaction(durable=True)` is for the row that must be on disk
before the next step, such as before its blob is deleted.

On a full disk SQLite cannot even delete a row, since the change goes into the WAL first. So a small reserve lies
beside the database, and a transaction that frees space may use it up.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from lading.base import errors

Row = sqlite3.Row
Connection = sqlite3.Connection

_WAIT_S = 30.0
_SPARE = 8
_RESERVE = 1 << 20
_LOW = 256 << 10
"""Below this much free space the reserve is given up; above `_AMPLE` it is laid aside again."""
_AMPLE = 16 << 20


class Database:
    """Thread-safe; connections are pooled, because a thread per API connection would open one each time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pool: list[Connection] = []
        self._pool_lock = threading.Lock()
        self._writer = threading.RLock()
        self._held = threading.local()
        self._closed = False
        self._reserve = f"{path}-reserve"
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        self._make_room()
        with self._translated():
            connection = self._connect()
            try:
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS versions (name TEXT PRIMARY KEY, done INTEGER NOT NULL)"
                )
            finally:
                self._give(connection)
        os.chmod(path, 0o600)

    def _connect(self) -> Connection:
        connection = sqlite3.connect(
            self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _take(self) -> Connection:
        with self._pool_lock:
            if self._closed:
                raise errors.Unavailable("the database is closed")
            if self._pool:
                return self._pool.pop()
        return self._connect()

    def _give(self, connection: Connection) -> None:
        with self._pool_lock:
            if not self._closed and len(self._pool) < _SPARE:
                self._pool.append(connection)
                return
        connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a caller's own constraint: it knows what it means
        except sqlite3.OperationalError as error:
            raise errors.Unavailable(
                "the metadata database cannot be used",
                why=f"{self.path}: {error}",
                hint="Check disk space and permissions.",
            ) from error
        except sqlite3.DatabaseError as error:
            raise errors.Internal(
                "the metadata database is damaged",
                why=f"{self.path}: {error}",
                hint="Restore it from a backup.",
            ) from error

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False, frees: bool = False) -> Iterator[Connection]:
        """One write transaction: committed when the block ends, rolled back when it raises.

        `frees`: it must go through on a full disk too. Inside another transaction of the same thread it joins
        that one. Keep it short: everybody else waits.
        """
        outer: Connection | None = getattr(self._held, "connection", None)
        if outer is not None:
            yield outer
            return
        with self._writer, self._translated():
            connection = self._take()
            try:
                if frees and self._make_room():
                    # The WAL begins anew in the blocks that it has, where nobody still reads it.
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if durable:
                    connection.execute("PRAGMA synchronous=FULL")
                connection.execute("BEGIN IMMEDIATE")
                self._held.connection = connection
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                finally:
                    self._held.connection = None
                    if durable:
                        connection.execute("PRAGMA synchronous=NORMAL")
            finally:
                self._give(connection)

    def _make_room(self) -> bool:
        """Give up the reserve where the disk is as good as full, which it tells; lay it aside anew where there is
        room again."""
        found = os.statvfs(os.path.dirname(self.path) or ".")
        free = found.f_bavail * found.f_frsize
        if free < _LOW:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._reserve)
            return True
        if free > _AMPLE and not os.path.exists(self._reserve):
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _RESERVE)
            except OSError:
                os.unlink(self._reserve)
            finally:
                os.close(fd)
        return False

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside `transaction`."""
        return getattr(self._held, "connection", None) is not None

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Rows of one SELECT, as of one moment; inside a transaction of this thread it sees that
        transaction."""
        outer: Connection | None = getattr(self._held, "connection", None)
        if outer is not None:
            return outer.execute(sql, parameters).fetchall()
        with self._translated():
            connection = self._take()
            try:
                return connection.execute(sql, parameters).fetchall()
            finally:
                self._give(connection)

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a SELECT, or None."""
        rows = self.query(sql, parameters)
        return rows[0] if rows else None

    def ensure(self, name: str, ddl: str, *migrations: str) -> None:
        """Create a room's tables: `ddl` the first time, later each migration script once, in order
        (idempotent).

        The number of scripts that ran is kept per room, so that one room's change does not concern another's.
        """
        scripts = (ddl, *migrations)
        with self.transaction() as cx:
            row = cx.execute("SELECT done FROM versions WHERE name = ?", (name,)).fetchone()
            done = int(row["done"]) if row else 0
            if done > len(scripts):
                raise errors.Unsupported(
                    f"the store was written by a newer lading (table group {name!r} is at {done})",
                    hint="Use that version, or another data root (LADING_ROOT).",
                )
            for script in scripts[done:]:
                for statement in _statements(script):
                    cx.execute(statement)
            if done != len(scripts):
                cx.execute("INSERT OR REPLACE INTO versions VALUES (?, ?)", (name, len(scripts)))

    def close(self) -> None:
        """Close the idle connections; later calls raise Unavailable."""
        with self._pool_lock:
            self._closed = True
            pool, self._pool = self._pool, []
        for connection in pool:
            connection.close()


def _statements(script: str) -> Iterator[str]:
    """Split a script (executescript would commit the transaction it runs in)."""
    pending = ""
    for part in script.split(";"):
        pending += part + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \n\t;"):
                yield pending
            pending = ""
    if pending.strip(" \n\t;"):
        yield pending
