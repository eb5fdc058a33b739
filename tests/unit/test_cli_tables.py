"""Tables, human sizes and times, stats' arithmetic, ports: as docker shows them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lading.cli import df, human, images, ps, stats
from lading.cli.context import Context
from lading.cli.events import line
from lading.cli.flags import UsageError
from lading.cli.inspect import pretty
from lading.cli.logs import timestamp
from lading.cli.table import Listing, aligned, filters, labels, width


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (5, "5B"),
        (999, "999B"),
        (1000, "1kB"),
        (12345, "12.35kB"),
        (72_800_000, "72.8MB"),
        (2**40, "1.1TB"),
        (999_999, "1000kB"),
        (999_999_999, "1000MB"),
    ],
)
def test_decimal_sizes(count: int, text: str) -> None:
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(412_345_678, "412MB"), (1_234, "1.23kB"), (987_654_321, "988MB"), (0, "0B"), (999_900, "1e+03kB")],
)
def test_three_digit_sizes(count: int, text: str) -> None:
    assert human.size3(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (308 << 10, "308KiB"), (2_087_354_368, "1.944GiB"), (1023, "1023B")]
)
def test_binary_sizes(count: int, text: str) -> None:
    assert human.binary(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


def test_go_times() -> None:
    assert human.go_time("2026-11-21T19:23:00.500000000Z") == "2026-11-21 19:23:00.5 +0000 UTC"
    assert human.go_time("2026-11-21T19:23:00+02:00") == "2026-11-21 19:23:00 +0200 +0200"
    assert human.go_time("") == "0001-01-01 00:00:00 +0000 UTC"


def test_columns_are_ten_wide_at_least_and_three_apart() -> None:
    assert aligned([["A", "LONGER HEADER", "C"], ["1", "2", "3"]]) == (
        "A         LONGER HEADER   C\n1         2               3\n"
    )
    assert aligned([]) == ""
    assert aligned([["ONLY"], ["x"]]) == "ONLY\nx\n"


def test_wide_characters_take_two_cells() -> None:
    assert width("模型") == 4 and width("é") == 1
    assert aligned([["NAME", "X"], ["模型", "y"]]).splitlines()[1] == "模型      y"


def shown(listing: Listing, items: list[Any], form: str) -> str:
    reader, writer = os.pipe()
    context = Context({}, stdout=writer)
    listing.show(context, items, form)
    context.out.flush()
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read().decode()


LISTING = Listing(
    (
        ("ID", "THE ID", lambda i: i["id"]),
        ("Name", "NAME", lambda i: i["name"]),
        ("Hidden", "HIDDEN", lambda i: 1 / 0),
    ),
    ("ID", "Name"),
)
ITEMS = [{"id": "1", "name": "one", "Labels": {"a": "b"}}, {"id": "2", "name": "two\nlines"}]


def test_forms_of_a_listing() -> None:
    assert (
        shown(LISTING, ITEMS, "")
        == shown(LISTING, ITEMS, "table")
        == "THE ID    NAME\n1         one\n2         two lines\n"
    )
    assert shown(LISTING, ITEMS, "{{.Name}}") == "one\ntwo\nlines\n"
    assert (
        shown(LISTING, ITEMS, "table {{.Name}}\t{{upper .ID}}")
        == "NAME        THE ID\none         1\ntwo lines   2\n"
    )
    assert shown(LISTING, ITEMS, r"table {{.Name}}\t{{.ID}}").startswith("NAME        THE ID\n")
    assert shown(LISTING, ITEMS, '{{.Label "a"}}|') == "b|\n|\n"
    assert shown(LISTING, [], "") == "THE ID    NAME\n"


def test_a_wrong_field_names_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"there is no field 'Nmae'. Did you mean .Name?") as caught:
        shown(LISTING, ITEMS, "{{.Nmae}}")
    assert caught.value.code == 64  # as docker's client exits


def test_labels_are_sorted() -> None:
    assert labels({"Labels": {"b": "2", "a": "1", "c": ""}}) == "a=1,b=2,c="
    assert labels({"Labels": None}) == labels({}) == ""


def test_filters() -> None:
    assert filters(["status=running", "label=a=b", "status=exited"]) == {
        "status": {"running": True, "exited": True},
        "label": {"a=b": True},
    }


def test_ports() -> None:
    public = [{"IP": ip, "PrivatePort": 5000, "PublicPort": 5000, "Type": "tcp"} for ip in ("0.0.0.0", "::")]
    assert ps.ports(public) == "0.0.0.0:5000->5000/tcp, [::]:5000->5000/tcp"
    span = [{"IP": "0.0.0.0", "PrivatePort": p, "PublicPort": p, "Type": "tcp"} for p in (8000, 8002, 8001)]
    assert ps.ports(span) == "0.0.0.0:8000-8002->8000-8002/tcp"
    assert (
        ps.ports([{"PrivatePort": 80, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}]) == "53/udp, 80/tcp"
    )
    assert ps.ports([]) == ""


def test_rows_of_images() -> None:
    image = {"Id": "sha256:1", "RepoTags": ["a/b:c", "host:5000/x:y"], "RepoDigests": ["a/b@sha256:9"]}
    rows = images.rows(image, True)
    assert [(r["_repository"], r["_tag"], r["_digest"]) for r in rows] == [
        ("a/b", "c", "sha256:9"),
        ("host:5000/x", "y", ""),
    ]
    assert [r["_tag"] for r in images.rows({"Id": "x", "RepoTags": []}, False)] == ["<none>"]
    assert images.split_reference("host:5000/x") == ("host:5000/x", "")


def test_stats_arithmetic() -> None:
    first = {"cpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000, "online_cpus": 2}}
    now = {
        "id": "a" * 64,
        "name": "/n",
        "read": "2026-01-01T00:00:00Z",
        "cpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 2000, "online_cpus": 2},
        "memory_stats": {"usage": 300, "limit": 1000, "stats": {"inactive_file": 100}},
        "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 1, "tx_bytes": 1}},
        "blkio_stats": {
            "io_service_bytes_recursive": [{"op": "Read", "value": 7}, {"op": "write", "value": 8}]
        },
        "pids_stats": {"current": 4},
    }
    row = stats.measure(now, first)
    assert (row["cpu"], row["memory"], row["memory_percent"]) == (20.0, 200, 20.0)
    assert (row["received"], row["sent"], row["read"], row["written"], row["pids"]) == (6, 7, 7, 8, 4)
    assert stats.measure(now)["cpu"] == 0.0, "without an earlier sample there is nothing to divide"
    stopped = stats.measure({"id": "b", "read": "0001-01-01T00:00:00Z"})
    listing = stats.columns(True)
    assert [listing.by_name[n][2](stopped) for n in ("Name", "CPUPerc", "MemUsage", "PIDs")] == [
        "--",
        "--",
        "-- / --",
        "--",
    ]


def test_disk_usage() -> None:
    rows = df.summary(
        {
            "LayersSize": 100,
            "Images": [
                {"Size": 60, "SharedSize": 0, "Containers": 1},
                {"Size": 40, "SharedSize": 0, "Containers": 0},
            ],
            "Containers": [{"SizeRw": 5, "State": "running"}, {"SizeRw": 7, "State": "exited"}],
            "Volumes": [
                {"UsageData": {"Size": 11, "RefCount": 0}},
                {"UsageData": {"Size": -1, "RefCount": 1}},
            ],
            "BuildCache": None,
        }
    )
    assert [(r["total"], r["active"], r["size"], r["free"]) for r in rows] == [
        (2, 1, 100, 40),
        (2, 1, 12, 7),
        (2, 1, 11, 11),
        (0, 0, 0, 0),
    ]
    assert df.COLUMNS.by_name["Reclaimable"][2](rows[0]) == "40B (40%)"


def test_event_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {
        "Type": "container",
        "Action": "start",
        "time": 0,
        "timeNano": 1_500_000_001_000_000_002,
        "Actor": {"ID": "abc", "Attributes": {"name": "n", "image": "i"}},
    }
    assert line(event).endswith(" container start abc (image=i, name=n)")
    assert ".000000002" in line(event)


def test_times_of_logs() -> None:
    assert timestamp("since", "", 100.0) == ""
    assert timestamp("since", "42", 100.0) == "42"
    assert float(timestamp("since", "10s", 100.0)) == 90.0
    assert timestamp("since", "2013-01-02T13:23:37Z", 0.0) == "1357133017.000000000"
    assert timestamp("since", "2013-01-02T13:23:37.5+01:00", 0.0) == "1357129417.500000000"
    assert timestamp("since", "2013-01-02", 0.0).endswith(".000000000")
    with pytest.raises(UsageError, match="it is no time"):
        timestamp("since", "yesterday", 0.0)


def test_pretty_json() -> None:
    assert pretty([{"a": [], "b": {"c": "é\n", "d": None}}]) == (
        '[\n    {\n        "a": [],\n        "b": {\n'
        '            "c": "\\u00e9\\n",\n            "d": null\n        }\n    }\n]'
    )
    assert pretty("模") == '"模"'
