"""lading-runtime's pure parts: flags, the types of a configuration, mount options, cgroup paths, hooks' plan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lading.base import jsontext
from lading.base.errors import Conflict, Invalid, LadingError
from lading.linux import mount as m
from lading.runtime import identity, options, plan
from lading.runtime.cgroup.layout import Layout
from lading.runtime.oci import flags, groups, schema
from lading.runtime.oci.state import check_id

SOURCE = str(Path(__file__).parents[2] / "src")


def test_flags_are_read_as_runc_s_callers_write_them() -> None:
    before, verb, values, arguments = flags.verb(
        [
            "--root=/r",
            "--log-format",
            "json",
            "--systemd-cgroup",
            "create",
            "-b",
            "/b",
            "--pid-file",
            "/p",
            "name",
        ]
    )
    assert before == {"root": "/r", "log-format": "json", "systemd-cgroup": True}
    assert (verb, values, arguments) == ("create", {"bundle": "/b", "pid-file": "/p"}, ["name"])
    assert flags.verb(["kill", "--all", "name", "9"])[2:] == ({"all": True}, ["name", "9"])
    assert flags.verb(["kill", "name", "9", "--all"])[2:] == ({"all": True}, ["name", "9"])
    _, _, values, arguments = flags.verb(["exec", "-e", "A=1", "--env=B=2", "-t", "name", "ls", "-la"])
    assert values == {"env": ["A=1", "B=2"], "tty": True} and arguments == ["name", "ls", "-la"]
    assert flags.verb(["update", "--cpu-quota", "-1", "name"])[2] == {"cpu-quota": -1}
    assert flags.verb(["run", "--detach=false", "name"])[2] == {"detach": False}


@pytest.mark.parametrize(
    "words",
    [
        ["frob"],
        ["create", "--frob"],
        ["create", "--bundle"],
        ["run", "--detach=maybe"],
        ["create", "--preserve-fds", "x"],
    ],
)
def test_wrong_flags_are_refused(words: list[str]) -> None:
    with pytest.raises(Invalid):
        flags.verb(words)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "config.json"),
        ({"ociVersion": "1.0.0", "process": []}, "process"),
        ({"ociVersion": "1.0.0", "process": {"cwd": "/", "args": ["a", 1]}}, "process.args[1]"),
        ({"ociVersion": "1.0.0", "linux": {"sysctl": {"a": 1}}}, "linux.sysctl.a"),
        (
            {"ociVersion": "1.0.0", "linux": {"resources": {"cpu": {"shares": -1}}}},
            "linux.resources.cpu.shares",
        ),
        ({"ociVersion": "1.0.0", "mounts": [{}]}, "mounts[0].destination"),
        (
            {"ociVersion": "1.0.0", "hooks": {"poststop": [{"path": "/x", "args": "y"}]}},
            "hooks.poststop[0].args",
        ),
        ({"ociVersion": None}, "ociVersion"),
    ],
)
def test_types_are_refused_by_the_field_s_name(value: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        schema.check(value, schema.CONFIG)
    assert caught.value.what.startswith(field + ":")


def test_null_and_unknown_properties_pass() -> None:
    schema.check(
        {"ociVersion": "1.0.0", "process": None, "linux": {"resources": None, "future": 1}, "x": 2},
        schema.CONFIG,
    )


def test_recursive_attributes() -> None:
    assert options.recursive_attributes(["ro", "nosuid"]) == (0, 0)
    assert options.recursive_attributes(["rro", "rnosuid"]) == (m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID, 0)
    assert options.recursive_attributes(["rro", "rrw"]) == (0, m.MOUNT_ATTR_RDONLY)
    assert options.recursive_attributes(["rnoatime"]) == (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME)
    # A later access time replaces an earlier one: they are one field of the kernel's.
    set_, clear = options.recursive_attributes(["rnoatime", "rstrictatime"])
    assert set_ & m.MOUNT_ATTR__ATIME == m.MOUNT_ATTR_STRICTATIME and clear == m.MOUNT_ATTR__ATIME
    for name in options.RECURSIVE:
        assert options.mount_options([name]) == (0, 0, b"")


def _steps(entry: dict[str, Any], **linux: Any) -> list[Any]:
    spec = {"mounts": [entry], "linux": linux, "process": {"args": ["x"], "cwd": "/"}}
    return plan.build(spec, ("bind_root", b"/r", False, True), "/r", {}, deep_readonly=False)[2:]


def test_an_id_mapped_bind_carries_its_maps() -> None:
    maps = [{"containerID": 0, "hostID": 9, "size": 1}]
    entry = {"destination": "/d", "source": "/s", "options": ["rbind", "ridmap", "rro"]}
    steps = _steps({**entry, "uidMappings": maps, "gidMappings": maps})
    assert steps[0][:2] == ("bind_mapped", b"/s") and steps[0][-3:] == (b"0 9 1\n", b"0 9 1\n", True)
    assert steps[1] == ("attributes", b"/d", m.MOUNT_ATTR_RDONLY, 0)
    assert _steps(entry, uidMappings=maps, gidMappings=maps)[0][-3] == b"0 9 1\n"  # the container's own
    for wrong in (entry, {**entry, "uidMappings": maps}):
        with pytest.raises(Invalid):
            _steps(wrong)


def test_hooks_and_time_offsets_in_the_plan() -> None:
    spec = {
        "hooks": {"prestart": [{"path": "/x"}]},
        "linux": {"timeOffsets": {"boottime": {"secs": 5, "nanosecs": 6}}},
    }
    names = [step[0] for step in plan.build(spec, ("bind_root", b"/r", False, True), "/r", {})]
    assert names.index("hooks") + 1 == names.index("pivot")
    assert plan.time_offsets(spec) == b"boottime 5 6\n"
    with pytest.raises(Invalid):
        plan.time_offsets({"linux": {"timeOffsets": {"realtime": {"secs": 1}}}})


def test_scheduling_and_affinity() -> None:
    def process(**changes: Any) -> dict[str, Any]:
        return identity.process({"process": {"args": ["x"], **changes}})

    assert process(scheduler={"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})[
        "scheduler"
    ] == (1, 1, 0, 3, 0, 0, 0)
    assert process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 4})["io_priority"] == 2 << 13 | 4
    assert process(execCPUAffinity={"final": "0-2, 5"})["affinity"] == [0, 1, 2, 5]
    for wrong in (
        {"scheduler": {"policy": "SCHED_OTHER", "priority": 3}},
        {"scheduler": {"policy": "SCHED_FIFO", "runtime": 3}},
        {"scheduler": {"policy": "SCHED_OTHER", "flags": ["X"]}},
        {"ioPriority": {"class": "X"}},
        {"execCPUAffinity": {"final": "0-99999999"}},
        {"execCPUAffinity": {"final": "a"}},
    ):
        with pytest.raises(Invalid):
            process(**wrong)


LAYOUT = Layout({"memory": "/m/memory", "pids": "/m/pids"}, "", frozenset())


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("", "lading/box"),
        ("/a/b", "a/b"),
        ("/a", "a"),
        ("a/b", "lading/a/b"),
        ("system.slice:docker:x", "system.slice/docker-x.scope"),
        ("a-b.slice:p:x", "a.slice/a-b.slice/p-x.scope"),
        (":p:x", "system.slice/p-x.scope"),
        ("user.slice::x.slice", "user.slice/x.slice"),
    ],
)
def test_cgroups_path(path: str, below: str) -> None:
    group = groups.chosen(LAYOUT, "box", {"linux": {"cgroupsPath": path}})
    assert group.v1 == {"memory": f"/m/memory/{below}", "pids": f"/m/pids/{below}"}
    assert groups.found(LAYOUT, groups.saved(group)).directories == group.directories


@pytest.mark.parametrize("path", ["/", "/../x", "/a/./b", "a/../../b", "/" + "x" * 300])
def test_hostile_cgroup_paths_are_refused(path: str) -> None:
    with pytest.raises(LadingError):
        groups.chosen(LAYOUT, "box", {"linux": {"cgroupsPath": path}})


def test_a_group_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g/cgroup.procs").write_text("1\n")
    with pytest.raises(Conflict):
        groups.chosen(Layout({"pids": str(tmp_path)}, "", frozenset()), "x", {"linux": {"cgroupsPath": "/g"}})


@pytest.mark.parametrize("identifier", ["", ".", "..", "a/b", "a b", "ä", "a\n", "x" * 300])
def test_ids_that_are_no_names_are_refused(identifier: str) -> None:
    with pytest.raises(Invalid):
        check_id(identifier)


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[1] x", b'{"a":Infinity}', b"[" * 100000])
def test_jsontext_refuses_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(text)


def test_a_start_imports_no_more_than_it_needs() -> None:
    """Each of these costs milliseconds of every start: typing 4, re 8, json 10, ctypes 2 in the parent."""
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r})\n"
        "from lading.runtime.oci import bundle, entry, launch, making, stage\n"
        "from lading.runtime.seccomp import assemble\n"
        "print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", probe], capture_output=True, text=True, timeout=30, check=True
    )
    heavy = {
        "typing",
        "re",
        "json",
        "argparse",
        "dataclasses",
        "enum",
        "signal",
        "subprocess",
        "socket",
        "ctypes",
    }
    assert not heavy & set(ran.stdout.split())
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r})\nfrom lading.runtime import init\nprint(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", probe], capture_output=True, text=True, timeout=30, check=True
    )
    assert not (heavy - {"ctypes"}) & set(ran.stdout.split())
