"""Blobs are whole or absent: wrong digests, killed writers, full disks, concurrent writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lading.base import errors
from lading.image import digest
from lading.store.blobs import Blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(f"{tmp_path}/blobs")


def _files(blobs: Blobs) -> list[str]:
    return os.listdir(f"{blobs.root}/sha256")


def test_what_is_put_is_there(blobs: Blobs) -> None:
    name = blobs.put(b"hello")
    assert name == digest.of(b"hello")
    assert (blobs.read(name), blobs.size(name), blobs.has(name)) == (b"hello", 5, True)
    assert Path(blobs.path(name)).read_bytes() == b"hello"
    assert list(blobs.list()) == [name]
    with blobs.open(name) as stream:
        assert stream.read() == b"hello"


def test_nothing_appears_before_the_commit(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        writer.write(b"hel")
        writer.write(memoryview(b"lo"))
        assert list(blobs.list()) == []
        assert writer.commit(digest.of(b"hello")) == (digest.of(b"hello"), 5)
    assert list(blobs.list()) == [digest.of(b"hello")]


def test_a_wrong_digest_leaves_nothing(blobs: Blobs) -> None:
    with blobs.writer() as writer, pytest.raises(errors.Invalid, match="does not match its digest"):
        writer.write(b"other")
        writer.commit(digest.of(b"hello"))
    assert _files(blobs) == []


def test_an_error_in_the_block_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(KeyError), blobs.writer() as writer:
        writer.write(b"x")
        raise KeyError
    assert _files(blobs) == []


def test_the_same_content_is_stored_once_and_counts_as_new(blobs: Blobs) -> None:
    name = blobs.put(b"hello")
    os.utime(blobs.path(name), (5, 5))
    inode = os.stat(blobs.path(name)).st_ino
    assert blobs.put(b"hello") == name
    assert os.stat(blobs.path(name)).st_ino == inode
    assert blobs.modified_ns(name) > 10**18
    assert len(_files(blobs)) == 1


def test_deleting(blobs: Blobs) -> None:
    name = blobs.put(b"hello")
    assert blobs.delete(name) == 5
    assert blobs.delete(name) == 0
    assert not blobs.has(name)
    assert blobs.modified_ns(name) == 0
    for call in (blobs.open, blobs.read, blobs.size):
        with pytest.raises(errors.NotFound):
            call(name)


def test_damage_is_found_when_read(blobs: Blobs) -> None:
    name = blobs.put(b"hello")
    Path(blobs.path(name)).write_bytes(b"hellp")
    with pytest.raises(errors.Internal, match="damaged"):
        blobs.read(name)


def test_reading_is_bounded(blobs: Blobs) -> None:
    name = blobs.put(b"x" * 100)
    assert len(blobs.read(name, limit=100)) == 100
    with pytest.raises(errors.Invalid, match="larger than 99"):
        blobs.read(name, limit=99)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "sha256:../x", "", "sha256:", "sha512:" + "a" * 128, "sha256:" + "A" * 64]
)
def test_a_hostile_digest_opens_no_path(blobs: Blobs, name: str) -> None:
    for call in (blobs.open, blobs.has, blobs.delete, blobs.path):
        with pytest.raises((errors.Invalid, errors.Unsupported)):
            call(name)


def test_a_full_disk_is_said_in_words(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.Unavailable, match="No space left"):
        blobs.put(b"x")
    assert _files(blobs) == []


_KILLED = """
import sys, os, signal
from lading.store.blobs import Blobs
blobs = Blobs(sys.argv[1])
writer = blobs.writer()
writer.write(b"half of the content")
if sys.argv[2] == "fsync":
    os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
    writer.commit()
if sys.argv[2] == "rename":
    os.rename = lambda a, b: os.kill(os.getpid(), signal.SIGKILL)
    writer.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_killed_writer_leaves_no_blob(blobs: Blobs, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, blobs.root, moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(blobs.list()) == []
    assert len(_files(blobs)) == 1
    assert blobs.recover() == 1
    assert _files(blobs) == []


def test_recovery_leaves_living_writers_and_blobs_alone(blobs: Blobs) -> None:
    name = blobs.put(b"x")
    with blobs.writer() as writer:
        writer.write(b"y")
        assert blobs.recover() == 0
        writer.commit()
    assert blobs.has(name) and blobs.has(digest.of(b"y"))


def test_threads_that_store_the_same_content_agree(blobs: Blobs) -> None:
    names: list[str] = []
    data = os.urandom(200_000)
    threads = [threading.Thread(target=lambda: names.append(blobs.put(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(names) == {digest.of(data)}
    assert len(names) == 8
    assert blobs.read(names[0]) == data
    assert len(_files(blobs)) == 1
