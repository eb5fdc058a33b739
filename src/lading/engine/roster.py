"""All containers this engine knows: rows in the database, and one entry each in memory with its lock and waiters.

Owns names (a unique column reserves them), lookup by id, name and id prefix, and writing rows. The daemon is the only
one that owns a data root (assemble.py holds the lock), so memory may answer every read.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lading.base.errors import Conflict, Invalid, NotFound
from lading.base.ids import short
from lading.engine import codec
from lading.engine.record import History, Record

if TYPE_CHECKING:
    from lading.engine.health import Probe
    from lading.engine.timers import Timer
    from lading.runtime.model import Attachment
    from lading.store.database import Database

DDL = """
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,
    record TEXT NOT NULL,
    history TEXT NOT NULL
)
"""


@dataclass(frozen=True)
class Finished:
    """What `wait` answers."""

    code: int
    error: str = ""
    hint: str = ""  # advice on an end that is no failure of ours


@dataclass
class Entry:
    """One container in memory. `lock` serialises its verbs; `changed` futures are answered under it."""

    record: Record
    history: History = field(default_factory=History)
    lock: threading.RLock = field(default_factory=threading.RLock)
    next_exit: list[Future[Finished]] = field(default_factory=list)
    gone: list[Future[Finished]] = field(default_factory=list)
    running: bool = False  # a run is in progress and its end has not been handled yet
    stopping: bool = False  # the user asked for the end: no restart
    restarting: Timer | None = None  # of the next restart
    pending: list[Attachment] = field(default_factory=list)  # attached before the start; descriptors are ours
    backoff: float = 0.0
    removing: bool = False
    ready: bool = True  # False while create is not complete: only its name is taken
    probe: Probe | None = None
    shm: int = -1  # of its /dev/shm while it runs (shm.py)
    execs: dict[str, None] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.record.id


class Roster:
    """Entries by id and name."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._by_id: dict[str, Entry] = {}
        self._by_name: dict[str, str] = {}
        db.ensure("containers", DDL)

    def load(self) -> list[Entry]:
        """Read every row, at start."""
        for row in self._db.query("SELECT record, history FROM containers"):
            entry = Entry(codec.load(Record, row["record"]), codec.load(History, row["history"]))
            self._by_id[entry.id] = entry
            self._by_name[entry.record.name] = entry.id
        return self.all()

    def all(self) -> list[Entry]:
        """Every container, newest first."""
        with self._lock:
            entries = [entry for entry in self._by_id.values() if entry.ready]
        return sorted(entries, key=lambda entry: -entry.record.created_ns)

    def find(self, ref: str) -> Entry:
        """By full id, name, or an id prefix that only one container has."""
        name = ref.removeprefix("/")
        with self._lock:
            entry = self._by_id.get(name) or self._by_id.get(self._by_name.get(name, ""))
            if entry is None and name:
                matches = [key for key in self._by_id if key.startswith(name)]
                if len(matches) > 1:
                    raise Invalid(
                        f'multiple containers begin with "{name}"',
                        why=f"They are {', '.join(sorted(map(short, matches))[:5])}.",
                        hint="Give more digits of the id.",
                    )
                entry = self._by_id.get(matches[0]) if matches else None
            if entry is not None and entry.ready:
                return entry
            near = get_close_matches(name, self._by_name, 1)
        raise NotFound(
            f"No such container: {ref[:128]}",
            hint=f'Did you mean "{near[0]}"?' if near else "lading ps -a lists all containers.",
        )

    def reserve(self, record: Record) -> Entry:
        """Claim id and name in memory, before the row; Conflict names the holder."""
        with self._lock:
            holder = self._by_name.get(record.name)
            if holder is not None:
                raise Conflict(
                    f'the container name "/{record.name}" is already in use by container "{holder}"',
                    hint="Remove or rename that container, or choose another name.",
                )
            entry = Entry(record, ready=False)
            self._by_id[record.id] = entry
            self._by_name[record.name] = record.id
            return entry

    def insert(self, entry: Entry) -> None:
        """Write the row of a complete container. A container without a row is swept by the next reconcile."""
        with self._db.transaction() as cx:
            cx.execute(
                "INSERT INTO containers (id, name, image_id, record, history) VALUES (?, ?, ?, ?, ?)",
                (
                    entry.id,
                    entry.record.name,
                    entry.record.image_id,
                    codec.dump(entry.record),
                    codec.dump(entry.history),
                ),
            )
        entry.ready = True

    def forget(self, entry: Entry) -> None:
        """Free id and name, row first."""
        with self._db.transaction(frees=True) as cx:
            cx.execute("DELETE FROM containers WHERE id = ?", (entry.id,))
        self.release(entry)

    def release(self, entry: Entry) -> None:
        """Free id and name in memory, where no row was written."""
        with self._lock:
            self._by_id.pop(entry.id, None)
            if self._by_name.get(entry.record.name) == entry.id:
                del self._by_name[entry.record.name]

    def note(self, entry: Entry, history: History) -> None:
        """Write what happened."""
        entry.history = history
        with self._db.transaction() as cx:
            cx.execute("UPDATE containers SET history = ? WHERE id = ?", (codec.dump(history), entry.id))

    def amend(self, entry: Entry, record: Record) -> None:
        """Write changed intent (update, networks)."""
        with self._db.transaction() as cx:
            cx.execute("UPDATE containers SET record = ? WHERE id = ?", (codec.dump(record), entry.id))
        entry.record = record

    def rename(self, entry: Entry, name: str) -> None:
        """Give the container another name; Conflict when it is taken."""
        record = replace(entry.record, name=name)
        with self._lock:
            holder = self._by_name.get(name)
            if holder is not None:
                raise Conflict(f'the container name "/{name}" is already in use by container "{holder}"')
            with self._db.transaction() as cx:
                cx.execute(
                    "UPDATE containers SET name = ?, record = ? WHERE id = ?",
                    (name, codec.dump(record), entry.id),
                )
            self._by_name.pop(entry.record.name, None)
            self._by_name[name] = entry.id
            entry.record = record

    def names(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._by_name)
