"""The benchmark table: units, ratios, empty cells with their reasons, no path of a machine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import report
from bench.measure import Failed, run, seconds
from bench.rows import ROWS, Row, attempt

ROW = Row("run", "run a thing", "ms", 70, 45, lambda bench: {})


def test_peers_show_how_many_times_as_much() -> None:
    text = report.table({"run": {"lading": 0.040, "docker": 0.390, "podman": "it is not installed"}}, (ROW,))
    assert "| run a thing, ms | 40 | 390 (9.8x) | - | 70 | 45 |" in text
    assert "- run a thing, podman: it is not installed" in text


def test_rows_that_were_not_taken_are_left_out() -> None:
    assert "run a thing" not in report.table({}, (ROW,))


def test_a_peer_without_lading_beside_it_has_no_ratio() -> None:
    assert report.cell(2e6, "MB", "lading did not start") == "2.0"
    assert report.cell(None, "s", None) == "-"


def test_reasons_name_no_path() -> None:
    assert report.plain("cannot open\n /var/tmp/run-1/x/y: denied") == "cannot open ...: denied"


def test_every_row_has_a_goal_and_a_unit() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS) == 11
    assert all(row.unit in report.SCALE and row.must > row.aim > 0 for row in ROWS)


def test_a_failing_command_becomes_its_last_words() -> None:
    def work() -> float:
        run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])
        return 1.0

    assert attempt(work) == "sh failed: the reason"


def test_a_missing_command_is_named() -> None:
    try:
        run(["no-such-command-anywhere"])
    except Failed as error:
        assert str(error) == "no-such-command-anywhere is not installed"
    else:
        raise AssertionError("it ran")


def test_warm_runs_do_not_count() -> None:
    calls: list[int] = []
    assert seconds(lambda: calls.append(1), 3, warm=2) >= 0
    assert len(calls) == 5
