"""The rows and directories every snapshotter keeps: which snapshots there are, on what they stand, whether
they are whole.

Owns one table per snapshotter and the directory `<root>/<number>/` of each row (`d` its files, `w` overlayfs'
work). Numbers, not keys, name directories, because mount options are short and keys are long. Never looks
into the files.

Durability: a committed row carries the boot id until a syncfs that began after it. After a power cut such a
row cannot be trusted, so `recover` calls it damaged: nobody may stand on it anew, and unpacking it again puts
fresh files under the same number, where the snapshots above find them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator

from lading.base import clock, errors
from lading.linux import files
from lading.store import owner
from lading.store.database import Connection, Database, Row
from lading.store.snapshots import Info, Kind

EMPTY = "0/d"
"""A directory that is always empty: overlayfs wants a lower directory even under the first layer."""


class Records:
    """Rows and directories of the snapshots of one kind below one root."""

    def __init__(self, root: str, db: Database, name: str) -> None:
        self.root = root
        self._db = db
        self._table = f"snapshots_{name}"
        db.ensure(
            self._table,
            f"CREATE TABLE {self._table} (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,"
            f" parent INTEGER REFERENCES {self._table}(id), kind TEXT NOT NULL, unsynced TEXT NOT NULL DEFAULT '',"
            " owner TEXT NOT NULL DEFAULT '', created_ns INTEGER NOT NULL);"
            f"CREATE INDEX {self._table}_parent ON {self._table}(parent);",
        )
        os.makedirs(f"{root}/{EMPTY}", mode=0o755, exist_ok=True)
        os.chmod(root, 0o700)  # files inside have the images' owners and modes: nobody else may walk in
        self._chains: dict[int, tuple[int, ...]] = {}
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._locks_guard = threading.Lock()

    # --- looking up ---

    def _find(self, key: str) -> Row | None:
        return self._db.one(f"SELECT * FROM {self._table} WHERE key = ?", (key,))

    def get(self, key: str) -> Row:
        """The row; NotFound when there is none or its files are in doubt."""
        row = self._find(key)
        if row is None or row["kind"] == "damaged":
            raise errors.NotFound(f"snapshot {key[:80]} does not exist")
        return row

    def exists(self, key: str) -> bool:
        row = self._find(key)
        return row is not None and row["kind"] != "damaged"

    def chain(self, row: Row) -> tuple[int, ...]:
        """The numbers of all snapshots below `row`, its parent first."""
        if row["parent"] is None:
            return ()
        return self._chain(int(row["parent"]))

    def _chain(self, number: int) -> tuple[int, ...]:
        """`number` and what is below it. A committed snapshot never changes its parent, so this is
        remembered."""
        known = self._chains.get(number)
        if known is None:
            row = self._db.one(f"SELECT parent FROM {self._table} WHERE id = ?", (number,))
            if row is None:
                raise errors.Internal(
                    f"snapshot {number} is missing below another", hint="Pull or build the image again."
                )
            known = (number, *(self._chain(int(row["parent"])) if row["parent"] is not None else ()))
            if len(self._chains) > 10_000:
                self._chains.clear()
            self._chains[number] = known
        return known

    def info(self, key: str) -> Info:
        self.get(key)
        return self._infos("AND s.key = ?", key)[0]

    def infos(self) -> list[Info]:
        return self._infos("ORDER BY s.id")

    def _infos(self, rest: str, *parameters: str) -> list[Info]:
        rows = self._db.query(
            f"SELECT s.key, p.key AS parent_key, s.kind, s.created_ns FROM {self._table} s"
            f" LEFT JOIN {self._table} p ON p.id = s.parent WHERE s.kind <> 'damaged' {rest}",
            parameters,
        )
        return [Info(row["key"], row["parent_key"], row["kind"], row["created_ns"]) for row in rows]

    # --- changing ---

    def create(self, key: str, parent: str | None, kind: Kind, *, owned: bool = False) -> Row:
        """A row with its empty directories. Conflict when the key is taken, NotFound when the parent is not
        there."""
        number = 0
        try:
            with self._db.transaction() as cx:
                parent_id = self._parent_id(cx, parent)
                holder = owner.token() if owned else ""
                cursor = cx.execute(
                    f"INSERT INTO {self._table} (key, parent, kind, owner, created_ns) VALUES (?, ?, ?, ?, ?)",
                    (key, parent_id, kind, holder, clock.now_ns()),
                )
                number = int(cursor.lastrowid or 0)
                self._make(number, parent_id)
                return self.get(key)
        except sqlite3.IntegrityError:
            raise errors.Conflict(f"snapshot {key[:80]} exists already") from None
        except OSError as error:
            self._unmake(number)
            raise errors.Unavailable("a snapshot cannot be made", why=error.strerror or str(error)) from error
        except BaseException:  # the commit itself may fail, on a full disk
            self._unmake(number)
            raise

    def _unmake(self, number: int) -> None:
        """Take back the directories of a row that did not come to be, unless its number has an owner again."""
        if not number:
            return
        with self._db.transaction() as cx:
            if cx.execute(f"SELECT 1 FROM {self._table} WHERE id = ?", (number,)).fetchone() is None:
                self._delete_files(number)

    def _parent_id(self, cx: Connection, parent: str | None) -> int | None:
        if parent is None:
            return None
        row = cx.execute(f"SELECT id, kind FROM {self._table} WHERE key = ?", (parent,)).fetchone()
        if row is None or row["kind"] == "damaged":
            raise errors.NotFound(f"parent snapshot {parent[:80]} does not exist")
        if row["kind"] != "committed":
            raise errors.Conflict(f"snapshot {parent[:80]} is not committed, so nothing can stand on it")
        return int(row["id"])

    def _make(self, number: int, parent_id: int | None) -> None:
        path = f"{self.root}/{number}"
        if os.path.lexists(path):
            self._delete_files(number)  # a rolled back row's: numbers come again, and the row is ours now
        os.mkdir(path, 0o700)
        os.mkdir(f"{path}/w", 0o700)
        os.mkdir(f"{path}/d", 0o755)
        if parent_id is None:
            os.chmod(f"{path}/d", 0o755)  # mkdir(2) obeys the umask
            return
        # The top directory of an overlay takes owner and mode from the upper one.
        st = os.stat(f"{self.root}/{parent_id}/d")
        os.chmod(f"{path}/d", st.st_mode & 0o7777)
        if (st.st_uid, st.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(f"{path}/d", st.st_uid, st.st_gid)

    def commit(self, key: str, committed: str) -> None:
        """Rename the row to its committed name; where that exists whole, drop `key` instead."""
        row = self.get(key)
        if row["kind"] != "active":
            raise errors.Conflict(f"snapshot {key[:80]} is not active")
        dropped: int | None = None
        with self._db.transaction() as cx:
            there = cx.execute(f"SELECT id, kind FROM {self._table} WHERE key = ?", (committed,)).fetchone()
            if there is None:
                cx.execute(
                    f"UPDATE {self._table} SET key = ?, kind = 'committed', unsynced = ?, owner = '' WHERE id = ?",
                    (committed, owner.boot_id(), row["id"]),
                )
            else:
                if there["kind"] == "damaged":
                    # Fresh files under the old number: what stands on it keeps its parent.
                    self._exchange(int(row["id"]), int(there["id"]))
                    cx.execute(
                        f"UPDATE {self._table} SET kind = 'committed', unsynced = ? WHERE id = ?",
                        (owner.boot_id(), there["id"]),
                    )
                elif there["kind"] != "committed":
                    raise errors.Conflict(f"snapshot {committed[:80]} exists and is not committed")
                cx.execute(f"DELETE FROM {self._table} WHERE id = ?", (row["id"],))
                dropped = int(row["id"])
        if dropped is not None:
            self._delete_files(dropped)

    def _exchange(self, one: int, other: int) -> None:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.makedirs(f"{self.root}/{other}", exist_ok=True)
            files.renameat2(fd, str(one), fd, str(other), files.RENAME_EXCHANGE)
        finally:
            os.close(fd)

    def remove(self, key: str) -> None:
        """Row first, files second: a crash in between leaves files without a row, which `recover` removes."""
        with self._db.transaction(frees=True) as cx:
            row = cx.execute(f"SELECT id FROM {self._table} WHERE key = ?", (key,)).fetchone()
            if row is None:
                return
            above = cx.execute(
                f"SELECT key FROM {self._table} WHERE parent = ? LIMIT 1", (row["id"],)
            ).fetchone()
            if above is not None:
                raise errors.Conflict(
                    f"snapshot {key[:80]} is in use", why=f"{above['key'][:80]} stands on it."
                )
            cx.execute(f"DELETE FROM {self._table} WHERE id = ?", (row["id"],))
        self._chains.pop(int(row["id"]), None)
        self._delete_files(int(row["id"]))

    def _delete_files(self, number: int) -> None:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            files.remove_tree(fd, str(number))
        except OSError as error:
            raise errors.Unavailable(
                f"the files of snapshot {number} cannot all be removed", why=error.strerror or str(error)
            ) from error
        finally:
            os.close(fd)

    # --- one unpacking at a time ---

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Threads with the same key take turns. (Processes race; the unique key makes one of them win.)"""
        with self._locks_guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._locks_guard:
                lock, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)

    # --- durability ---

    def sync(self) -> None:
        """syncfs, then clear the marks of the rows that were committed before it began.

        Their work directories, which nothing needs any more, go here and not in `commit`, where somebody
        waits.
        """
        rows = self._db.query(f"SELECT id FROM {self._table} WHERE unsynced = ?", (owner.boot_id(),))
        if not rows:
            return
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for row in rows:
                shutil.rmtree(f"{self.root}/{row['id']}/w", ignore_errors=True)
            files.syncfs(fd)
        finally:
            os.close(fd)
        with self._db.transaction() as cx:
            cx.executemany(
                f"UPDATE {self._table} SET unsynced = '' WHERE id = ?", [(row["id"],) for row in rows]
            )

    def recover(self) -> None:
        """Call rows of an earlier boot that were never synced damaged; drop dead unpackings and files without
        a row."""
        with self._db.transaction() as cx:
            cx.execute(
                f"UPDATE {self._table} SET kind = 'damaged', unsynced = ''"
                " WHERE kind = 'committed' AND unsynced NOT IN ('', ?)",
                (owner.boot_id(),),
            )
        for row in self._db.query(f"SELECT key, owner FROM {self._table} WHERE owner <> ''"):
            if not owner.alive(row["owner"]):
                self.remove(row["key"])
        with os.scandir(self.root) as entries:
            numbers = {int(entry.name) for entry in entries if entry.name.isdigit()}
        with self._db.transaction() as cx:  # nobody makes a new one meanwhile
            known = {int(row["id"]) for row in cx.execute(f"SELECT id FROM {self._table}")} | {0}
            for number in numbers - known:
                self._delete_files(number)
