"""The metadata database and what lives in it: transactions, threads, migrations, leases."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lading.base import errors
from lading.store import owner
from lading.store.database import Database
from lading.store.leases import Leases


@pytest.fixture
def db(tmp_path: Path) -> Database:
    made = Database(f"{tmp_path}/db")
    made.ensure("t", "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE)")
    return made


def _count(db: Database) -> int:
    row = db.one("SELECT count(*) AS n FROM t")
    assert row is not None
    return int(row["n"])


def test_a_transaction_is_all_or_nothing(db: Database) -> None:
    with db.transaction() as cx:
        cx.execute("INSERT INTO t VALUES (1, 'x')")
    with pytest.raises(KeyError), db.transaction() as cx:
        cx.execute("INSERT INTO t VALUES (2, 'y')")
        raise KeyError
    assert _count(db) == 1


def test_an_inner_transaction_joins_the_outer_one(db: Database) -> None:
    with pytest.raises(KeyError), db.transaction():
        with db.transaction() as cx:
            cx.execute("INSERT INTO t VALUES (1, 'x')")
        assert _count(db) == 1, "this thread sees its own work"
        raise KeyError
    assert _count(db) == 0


def test_readers_do_not_see_unfinished_work(db: Database) -> None:
    seen: list[int] = []
    with db.transaction() as cx:
        cx.execute("INSERT INTO t VALUES (1, 'x')")
        thread = threading.Thread(target=lambda: seen.append(_count(db)))
        thread.start()
        thread.join()
    assert (seen, _count(db)) == ([0], 1)


def test_a_constraint_is_the_callers_to_translate(db: Database) -> None:
    with db.transaction() as cx:
        cx.execute("INSERT INTO t VALUES (1, 'x')")
    with pytest.raises(sqlite3.IntegrityError), db.transaction() as cx:
        cx.execute("INSERT INTO t VALUES (2, 'x')")
    assert _count(db) == 1


def test_many_threads_write(db: Database) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for turn in range(40):
                with db.transaction() as cx:
                    n = cx.execute("SELECT count(*) FROM t").fetchone()[0]
                    cx.execute("INSERT INTO t VALUES (NULL, ?)", (f"{number}-{turn}-{n}",))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert _count(db) == 320
    suffixes = {row["b"].rpartition("-")[2] for row in db.query("SELECT b FROM t")}
    assert len(suffixes) == 320, "no two transactions saw the same moment"


def test_ensure_runs_each_script_once(tmp_path: Path) -> None:
    first = "CREATE TABLE room (a TEXT); CREATE TRIGGER tr AFTER INSERT ON room BEGIN SELECT 1; SELECT 2; END"
    one = Database(f"{tmp_path}/db")
    one.ensure("room", first)
    one.ensure("room", first)
    with one.transaction() as cx:
        cx.execute("INSERT INTO room VALUES ('kept')")
    one.close()
    two = Database(f"{tmp_path}/db")
    two.ensure("room", first, "ALTER TABLE room ADD COLUMN b TEXT DEFAULT 'new'")
    two.ensure("room", first, "ALTER TABLE room ADD COLUMN b TEXT DEFAULT 'new'")
    assert [tuple(row) for row in two.query("SELECT * FROM room")] == [("kept", "new")]
    with pytest.raises(errors.Unsupported, match="newer lading"):
        two.ensure("room", first)


def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    db = Database(f"{tmp_path}/db")
    db.ensure("room", "CREATE TABLE room (a TEXT)")
    with pytest.raises(errors.LadingError):
        db.ensure("room", "CREATE TABLE room (a TEXT)", "ALTER TABLE room ADD COLUMN b TEXT; nonsense")
    assert [row["name"] for row in db.query("PRAGMA table_info(room)")] == ["a"]


def test_a_damaged_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"this is no database, " * 1000)
    with pytest.raises(errors.Internal, match="damaged"):
        Database(f"{tmp_path}/db")


def test_the_file_is_private(db: Database) -> None:
    assert os.stat(db.path).st_mode & 0o077 == 0


def test_a_closed_database_says_so(db: Database) -> None:
    db.close()
    with pytest.raises(errors.Unavailable):
        db.query("SELECT 1")


_WRITE = """
import sys, os, signal
from lading.store.database import Database
db = Database(sys.argv[1])
with db.transaction() as cx:
    cx.execute("INSERT INTO t VALUES (1, 'done')")
with db.transaction() as cx:
    cx.execute("INSERT INTO t VALUES (2, 'half')")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_only_its_open_transaction(db: Database) -> None:
    done = subprocess.run([sys.executable, "-c", _WRITE, db.path], check=False)
    assert done.returncode == -9
    assert [row["b"] for row in db.query("SELECT b FROM t")] == ["done"]
    with db.transaction() as cx:
        cx.execute("INSERT INTO t VALUES (3, 'on we go')")


def test_a_lease_lasts_as_long_as_its_block(db: Database) -> None:
    leases = Leases(db)
    assert leases.horizon_ns() is None
    with leases.hold("a", "b") as lease:
        lease.add("c")
        assert leases.items() == {"a", "b", "c"}
        assert leases.horizon_ns() is not None
    assert leases.items() == set()
    with pytest.raises(KeyError), leases.hold("a"):
        raise KeyError
    assert leases.items() == set()


def test_an_expired_lease_no_longer_counts(db: Database) -> None:
    leases = Leases(db)
    with leases.hold("a", seconds=-1):
        assert leases.items() == set()
        assert leases.horizon_ns() is None


def test_a_lease_dies_with_its_process(db: Database, tmp_path: Path) -> None:
    code = (
        "import sys,os\nfrom lading.store.database import Database\nfrom lading.store.leases import Leases\n"
        "held = Leases(Database(sys.argv[1])).hold('a'); held.__enter__()\nprint('held', flush=True)\nsys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, db.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin and child.stdout
    assert child.stdout.readline() == b"held\n"
    assert Leases(db).items() == {"a"}
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert Leases(db).items() == set()


def test_named_holds_last_until_dropped(db: Database) -> None:
    Leases(db).keep("cache:1", "a", "b")
    Leases(db).keep("cache:1", "c")
    Leases(db).keep("cache:2", "a")
    assert Leases(db).items() == {"a", "b", "c"}
    Leases(db).drop("cache:1")
    assert Leases(db).items() == {"a"}


def test_who_holds_is_told_apart_from_a_later_process() -> None:
    token = owner.token()
    boot, pid, start = token.split(":")
    assert owner.alive(token)
    assert not owner.alive(f"{boot}:{pid}:{int(start) + 1}")
    assert not owner.alive(f"other:{pid}:{start}")
    assert not owner.alive(f"{boot}:4194304:1")
    assert not owner.alive("nonsense")


def test_a_zombie_holds_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder = f"{owner.boot_id()}:{child.pid}:{owner.start_time(child.pid)}"
        assert owner.alive(holder)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
        assert not owner.alive(holder)
    finally:
        child.communicate()
