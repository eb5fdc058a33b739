"""Reading CRI-format logs: order across files, tails from the end, damaged records, rotation under the reader."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.base import clock
from lading.engine import logs


def record(number: int, stream: str = "stdout", tag: str = "F", text: str | None = None) -> bytes:
    body = f"line {number}" if text is None else text
    return f"{clock.rfc3339(1_000_000_000 + number)} {stream} {tag} {body}\n".encode()


def written(path: Path, first: int, last: int) -> None:
    path.write_bytes(b"".join(record(number) for number in range(first, last)))


@pytest.mark.parametrize("tail", [0, 1, 2, 4999, 5000, 5001, 9999, 10_000, 20_000])
def test_tail_over_rotated_files(tmp_path: Path, tail: int) -> None:
    written(tmp_path / "log.2", 0, 2000)
    written(tmp_path / "log.1", 2000, 5000)
    written(tmp_path / "log", 5000, 10_000)
    found = [item.text for item in logs.read(str(tmp_path / "log"), tail=tail)]
    assert found == [f"line {n}\n".encode() for n in range(max(0, 10_000 - tail), 10_000)]


def test_a_line_in_parts_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        record(0) + record(1, tag="P", text="a") + record(2, tag="P", text="b") + record(3, text="c")
    )
    assert b"".join(item.text for item in logs.read(str(path), tail=1)) == b"abc\n"
    assert b"".join(item.text for item in logs.read(str(path), tail=2)) == b"line 0\nabc\n"


def test_streams_are_told_apart_in_a_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(0, "stderr") + record(1) + record(2) + record(3))
    assert [item.text for item in logs.read(str(path), tail=1, stdout=False)] == [b"line 0\n"]


def test_since_and_until_are_inclusive(tmp_path: Path) -> None:
    written(tmp_path / "log", 0, 10)
    found = logs.read(str(tmp_path / "log"), since_ns=1_000_000_003, until_ns=1_000_000_005)
    assert [item.text for item in found] == [b"line 3\n", b"line 4\n", b"line 5\n"]


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert list(logs.read(str(tmp_path / "log"))) == []
    assert list(logs.read(str(tmp_path / "log"), tail=5)) == []


@given(st.lists(st.one_of(st.binary(max_size=80), st.just(record(1)), st.just(b"\n")), max_size=12))
def test_damaged_files_never_break_the_reader(parts: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(b"\n".join(parts))
        whole = list(logs.read(str(path)))
        for tail in (0, 1, 3, 100):
            found = list(logs.read(str(path), tail=tail))
            assert len([r for r in found if r.text.endswith(b"\n")]) <= max(tail, 0) or found == whole


def test_a_line_without_end_is_not_gathered(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (8 << 20) + b"\n" + record(1))
    assert [item.text for item in logs.read(str(path))] == [b"line 1\n"]
    assert [item.text for item in logs.read(str(path), tail=1)] == [b"line 1\n"]


def test_following_through_several_rotations(tmp_path: Path) -> None:
    """The writer rotates as the monitor does, faster than the reader looks."""
    path = str(tmp_path / "log")
    done = threading.Event()

    def write() -> None:
        for part in range(40):
            with open(path, "ab", buffering=0) as file:
                for number in range(part * 50, part * 50 + 50):
                    file.write(record(number))
            if part % 3 == 2:
                for number in range(60, 0, -1):
                    if os.path.exists(f"{path}.{number}"):
                        os.rename(f"{path}.{number}", f"{path}.{number + 1}")
                os.rename(path, f"{path}.1")
            if part % 7 == 6:
                done.wait(0.06)
        finished.set()

    finished = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    found = [item.text for item in logs.read(path, follow=True, running=lambda: not finished.is_set())]
    writer.join()
    assert found == [f"line {n}\n".encode() for n in range(2000)]


def test_stop_ends_a_follower_at_once(tmp_path: Path) -> None:
    written(tmp_path / "log", 0, 3)
    stop = threading.Event()
    found = logs.read(str(tmp_path / "log"), follow=True, running=lambda: True, stop=stop)
    assert next(found).text == b"line 0\n"
    stop.set()
    assert len(list(found)) <= 2
