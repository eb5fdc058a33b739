"""The plan: what a configuration becomes, and what is refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from lading.base.errors import Invalid, LadingError
from lading.linux import mount as m
from lading.linux import process as p
from lading.runtime import plan

ROOT = ("overlay", b"/base", b"1/fs", b"2/fs", b"2/work", b"", False)


def spec(**changes: Any) -> dict[str, Any]:
    return {"process": {"args": ["sh"], "cwd": "/"}, "root": {"path": "r"}, **changes}


def test_a_plan_reads_as_text() -> None:
    text = plan.describe(
        plan.build(
            spec(
                process={"args": ["sh"], "cwd": "/app", "terminal": True},
                root={"path": "r", "readonly": True},
                mounts=[
                    {
                        "destination": "/proc",
                        "type": "proc",
                        "source": "proc",
                        "options": ["nosuid", "noexec", "nodev"],
                    },
                    {
                        "destination": "/data/",
                        "type": "bind",
                        "source": "/srv",
                        "options": ["rbind", "ro", "rslave"],
                    },
                ],
                linux={
                    "maskedPaths": ["/proc/kcore"],
                    "readonlyPaths": ["/proc/sys"],
                    "sysctl": {"net.core.somaxconn": "9"},
                    "namespaces": [{"type": "network"}],
                },
            ),
            ROOT,
            "/run/x/rootfs",
            {},
        )
    )
    lines = text.splitlines()
    assert lines[:4] == [
        f"propagate {m.MS_SLAVE | m.MS_REC}",
        "overlay /base 1/fs 2/fs 2/work  False /run/x/rootfs",
        f"mount proc proc /proc {m.MS_NOSUID | m.MS_NOEXEC | m.MS_NODEV}  0",
        f"bind /srv /data True {m.MS_RDONLY} {m.MS_SLAVE | m.MS_REC}",
    ]
    assert lines[-7:] == [
        "mkdir /app",
        "sysctl /proc/sys/net/core/somaxconn 9",
        "console",
        "readonly_path /proc/sys",
        "masked_path /proc/kcore",
        "pivot",
        "root_readonly",
    ]


def test_groups_are_shown_without_any_hierarchys_root() -> None:
    entry = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"]}
    v1 = plan.build(spec(mounts=[entry]), ROOT, "/r", {"memory": "/sys/fs/cgroup/memory/lading/x"})
    assert ("bind", b"/sys/fs/cgroup/memory/lading/x", b"/sys/fs/cgroup/memory", False, 3, 0) in v1
    assert not [step for step in v1 if step[0] == "mount" and step[1] == b"cgroup"]
    v2 = plan.build(spec(mounts=[entry]), ROOT, "/r", {"": "/sys/fs/cgroup/lading/x"})
    assert ("bind", b"/sys/fs/cgroup/lading/x", b"/sys/fs/cgroup", False, 3, 0) in v2


def test_namespaces_are_made_or_joined() -> None:
    create, join = plan.namespaces(
        {
            "linux": {
                "namespaces": [
                    {"type": "pid"},
                    {"type": "network", "path": "/proc/7/ns/net"},
                    {"type": "mount"},
                ]
            }
        }
    )
    assert create == p.CLONE_NEWPID | p.CLONE_NEWNS
    assert join == [(p.CLONE_NEWNET, "/proc/7/ns/net")]


def test_options_become_flags_and_data() -> None:
    flags, propagation, data = plan.mount_options(["ro", "nosuid", "rw", "mode=755", "rshared", "size=1k"])
    assert flags == m.MS_NOSUID, "a later rw takes an earlier ro back"
    assert propagation == m.MS_SHARED | m.MS_REC
    assert data == b"mode=755,size=1k"


def test_the_command_is_searched_in_the_containers_path() -> None:
    assert plan.candidates(b"sh", b"/a::/b") == [b"/a/sh", b"./sh", b"/b/sh"]
    assert plan.candidates(b"./sh", b"/a") == [b"./sh"]


def test_the_process_is_bytes_and_numbers() -> None:
    done = plan.process(
        spec(
            process={
                "args": ["écho"],
                "env": ["A=1", "A=2", "=x", "B"],
                "user": {"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o22},
                "capabilities": {"bounding": ["CAP_CHOWN", "CAP_BPF"]},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2**64 - 1}],
            }
        )
    )
    assert done["argv"] == ["écho".encode()]
    assert done["env"] == {b"A": b"2", b"B": b""}
    assert (done["uid"], done["gid"], done["groups"], done["umask"]) == (5, 6, [7], 0o22)
    assert done["capabilities"]["bounding"] == 1 | 1 << 39
    assert done["rlimits"] == [(7, 10, -1)]


def _process(**changes: Any) -> dict[str, Any]:
    return spec(process={"args": ["sh"], "cwd": "/", **changes})


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        (_process(args=[]), "process.args"),
        (_process(args=["a\0b"]), "NUL"),
        (_process(env=["A=\0"]), "NUL"),
        (_process(user={"uid": 2**32 - 1}), "process.user.uid"),
        (_process(user={"gid": -1}), "process.user.gid"),
        (_process(capabilities={"bounding": ["CAP_FLY"]}), "CAP_FLY"),
        (_process(rlimits=[{"type": "RLIMIT_FUN"}]), "RLIMIT_FUN"),
        (_process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 3}]), "RLIMIT_NOFILE"),
        (_process(cwd="app"), "process.cwd"),
        (spec(mounts=[{"destination": "data", "type": "tmpfs"}]), "data"),
        (spec(mounts=[{"destination": "/data", "type": "bind", "source": "srv"}]), "srv"),
        (spec(mounts=[{"destination": "/data"}]), "/data"),
        (spec(linux={"sysctl": {"kernel.core_pattern": "|/x"}}), "kernel.core_pattern"),
        (spec(linux={"sysctl": {"net/../kernel/core_pattern": "|/x"}}), "core_pattern"),
        (spec(linux={"sysctl": {"net...kernel.core_pattern": "|/x"}}), "core_pattern"),
        (spec(linux={"devices": [{"path": "dev/x", "type": "c"}]}), "dev/x"),
        (spec(linux={"devices": [{"path": "/dev/x", "type": "z"}]}), "/dev/x"),
        (spec(linux={"rootfsPropagation": "loud"}), "rootfsPropagation"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(configuration: dict[str, Any], named: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan.build(configuration, ROOT, "/r", {})
        plan.process(configuration)
    assert named in str(caught.value)


@pytest.mark.parametrize("entries", [[{"type": "pid"}, {"type": "pid"}], [{"type": "space"}], [{}]])
def test_unknown_or_repeated_namespaces_are_refused(entries: list[dict[str, str]]) -> None:
    with pytest.raises(LadingError):
        plan.namespaces({"linux": {"namespaces": entries}})
