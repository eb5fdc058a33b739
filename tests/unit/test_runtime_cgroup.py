"""Control groups without a kernel: layouts from text, limits to file writes, and the v2 code on a fake tree."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from lading.base.errors import Denied, Invalid, LadingError
from lading.runtime.cgroup import devices, layout, settings, stats
from lading.runtime.cgroup.group import Group

V1_INFO = """\
30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/with\\040space rw - cgroup cgroup rw,pids
35 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""


def test_layouts_are_read_from_mountinfo() -> None:
    v1, unified = layout.parse(V1_INFO)
    assert v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/cgroup/with space",
    }
    assert unified == "/sys/fs/cgroup/unified"
    assert layout.Layout(v1, unified, frozenset()).mode == "hybrid"
    assert layout.Layout({}, "/sys/fs/cgroup", frozenset({"memory"})).mode == "v2"
    assert layout.Layout(v1, "", frozenset()).mode == "v1"
    assert layout.parse("garbage\n- -\n") == ({}, "")


RESOURCES: dict[str, Any] = {
    "memory": {"limit": 100, "swap": 150, "reservation": 50},
    "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"},
    "pids": {"limit": -1},
    "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
}


def test_limits_on_v1() -> None:
    writes = {(w.file, w.value) for w in settings.v1(RESOURCES)}
    assert writes == {
        ("memory.limit_in_bytes", "100"),
        ("memory.memsw.limit_in_bytes", "150"),
        ("memory.soft_limit_in_bytes", "50"),
        ("cpu.shares", "1024"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "max"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
    }


def test_limits_on_v2() -> None:
    writes = {(w.file, w.value) for w in settings.v2(RESOURCES)}
    assert writes == {
        ("memory.max", "100"),
        ("memory.swap.max", "50"),
        ("memory.low", "50"),
        ("cpu.weight", "39"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "max"),
        ("io.max", "8:0 rbps=1000"),
    }
    assert {settings.weight_of_shares(s) for s in (0, 2, 262144, 10**9)} == {1, 10000}
    with pytest.raises(Invalid):
        list(settings.v2({"memory": {"limit": 100, "swap": 50}}))
    with pytest.raises(Invalid):
        list(settings.v2({"unified": {"../x": "1"}}))


def test_device_rules_on_v1_keep_their_order() -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
    ]
    assert [(w.file, w.value) for w in settings.v1({"devices": rules})] == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rw"),
    ]


def _verdict(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run the eBPF program over struct bpf_cgroup_dev_ctx."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers, at = [0] * 11, 0
    for _ in range(10000):
        opcode, both, offset, immediate = struct.unpack_from("=BBhi", program, at * 8)
        dst, src = both & 15, both >> 4
        at += 1
        if opcode == 0x61:
            registers[dst] = struct.unpack_from("=I", context, offset)[0]
        elif opcode in (0xBF, 0xBC):
            registers[dst] = registers[src]
        elif opcode == 0x54:
            registers[dst] &= immediate
        elif opcode == 0x74:
            registers[dst] >>= immediate
        elif opcode == 0xB4:
            registers[dst] = immediate
        elif opcode == 0x56:
            at += offset if registers[dst] != immediate else 0
        elif opcode == 0x16:
            at += offset if registers[dst] == immediate else 0
        elif opcode == 0x5E:
            at += offset if registers[dst] != registers[src] else 0
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(hex(opcode))
    raise AssertionError("the program does not end")


def test_device_rules_on_v2_let_the_last_match_decide() -> None:
    program = devices.compile_rules(
        [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": True, "type": "c", "major": 136, "access": "rw"},
            {"allow": False, "type": "c", "major": 136, "minor": 9, "access": "rwm"},
        ]
    )
    c, b, mknod, read, write = 2, 1, 1, 2, 4
    assert _verdict(program, c, read | write, 1, 3) == 1
    assert _verdict(program, c, mknod, 1, 3) == 1
    assert _verdict(program, b, read, 1, 3) == 0
    assert _verdict(program, c, read, 1, 4) == 0
    assert _verdict(program, c, read, 136, 5) == 1
    assert _verdict(program, c, read | mknod, 136, 5) == 0, "only read and write were given"
    assert _verdict(program, c, read, 136, 9) == 0


def test_a_denial_of_one_access_on_v2_holds_for_whoever_asks_for_more() -> None:
    """open(2) with O_RDWR asks for reading and writing in one question."""
    program = devices.compile_rules(
        [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "w"},
        ]
    )
    c, read, write = 2, 2, 4
    assert _verdict(program, c, write, 1, 11) == 0
    assert _verdict(program, c, read | write, 1, 11) == 0
    assert _verdict(program, c, read, 1, 11) == 1
    assert _verdict(program, c, read | write, 1, 12) == 1


class FakeGroup(Group):
    """A group on an ordinary directory, whose control files must be made by hand."""

    def _attach_devices(self, rules: Any) -> None:
        self.device_rules = rules


@pytest.fixture
def v2_tree(tmp_path: Path) -> layout.Layout:
    """A fake unified hierarchy: ordinary files, so it shows what is written, not what a kernel makes of it."""
    for directory in (tmp_path, tmp_path / "lading", tmp_path / "lading" / "c1"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text("")
    for file in (
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "pids.max",
        "io.max",
    ):
        (tmp_path / "lading" / "c1" / file).write_text("")
    return layout.Layout({}, str(tmp_path), frozenset({"cpu", "cpuset", "memory", "pids", "io"}))


def test_a_v2_group_is_delegated_and_limited(v2_tree: layout.Layout, tmp_path: Path) -> None:
    group = FakeGroup(v2_tree, "c1")
    group.create({**RESOURCES, "devices": [{"allow": False}]})
    leaf = tmp_path / "lading" / "c1"
    assert (leaf / "memory.max").read_text() == "100"
    assert (leaf / "cpu.max").read_text() == "50000 100000"
    assert (tmp_path / "cgroup.subtree_control").read_text().startswith("+")
    assert group.device_rules == [{"allow": False}]


def test_a_limit_the_host_lacks_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "lading").mkdir()
    bare = layout.Layout({}, str(tmp_path), frozenset())
    with pytest.raises(LadingError) as caught:
        Group(bare, "c1").create({"memory": {"limit": 1}})
    assert "memory" in str(caught.value)
    assert not (tmp_path / "lading" / "c1").exists(), "a failed creation leaves no group"


def test_counters_of_a_v2_group(v2_tree: layout.Layout, tmp_path: Path) -> None:
    leaf = tmp_path / "lading" / "c1"
    (leaf / "cpu.stat").write_text("usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\n")
    (leaf / "memory.current").write_text("4096\n")
    (leaf / "memory.max").write_text("max\n")
    (leaf / "memory.events").write_text("low 0\noom_kill 2\n")
    (leaf / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1 wios=2\n")
    (leaf / "memory.pressure").write_text("some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n")
    counters = stats.read(Group(v2_tree, "c1"))
    assert counters["cpu"]["usage_ns"] == 5000
    assert counters["memory"]["usage"] == 4096
    assert counters["memory"]["limit"] == 0
    assert counters["memory"]["oom_kills"] == 2
    assert counters["io"][1] == {"major": 8, "minor": 0, "op": "write", "bytes": 20, "count": 2}
    assert counters["pressure"]["memory"]["some"]["avg10"] == 1.5


def test_a_tree_that_takes_no_groups_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int = 0o777) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(Denied, match="control group") as caught:
        Group(layout.Layout({"cpu": str(tmp_path)}, "", frozenset()), "c1").create({})
    assert str(tmp_path) in caught.value.why and "root" in caught.value.hint
