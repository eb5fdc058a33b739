"""Edits in the runtime specification's words: merged, completed from the host, all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.base.errors import Invalid, NotFound, Unsupported
from lading.device import document, edits
from lading.device.model import Device, Edits, Hook, Mount, Node, Spec

NULL = os.stat("/dev/null")


def test_shared_edits_come_once_and_first() -> None:
    one = Device("a", Edits(env=("A=1",), gids=(5,)))
    two = Device("b", Edits(env=("B=1",), gids=(5, 6)))
    spec = Spec(
        "1.0.0",
        "x.com/y",
        {"a": one, "b": two},
        Edits(env=("S=1",), hooks=(Hook("poststop", "/h"),)),
        origin="f",
    )
    merged = edits.merge([(spec, two), (spec, one), (spec, two)])
    assert merged.env == ("S=1", "B=1", "A=1") and merged.gids == (5, 6)
    assert merged.hooks == (Hook("poststop", "/h"),)


def test_a_node_takes_the_hosts_numbers() -> None:
    made = edits.node(Node("/dev/inside", "/dev/null"))
    assert made["path"] == "/dev/inside" and made["hostPath"] == "/dev/null" and made["type"] == "c"
    assert (made["major"], made["minor"]) == (1, 3) and made["fileMode"] == NULL.st_mode & 0o7777
    assert "uid" not in made and "gid" not in made


def test_what_a_spec_says_of_a_node_stands() -> None:
    made = edits.node(Node("/dev/gone", "", "b", 7, 9, "r", 0o640, 1, 2))
    assert made == {
        "path": "/dev/gone", "hostPath": "/dev/gone", "type": "b", "major": 7, "minor": 9,
        "fileMode": 0o640, "uid": 1, "gid": 2,
    }  # fmt: skip
    assert edits.node(Node("/dev/pipe", type="p")) == {
        "path": "/dev/pipe",
        "hostPath": "/dev/pipe",
        "type": "p",
    }
    assert edits.node(Node("/dev/null", major=0, minor=0, type="c"))["minor"] == 3, (
        "0:0 is what Go writes for unknown"
    )


def test_a_node_that_is_not_there_fails(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be looked at"):
        edits.node(Node("/dev/no-such-node"))
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(Invalid, match="not a device node"):
        edits.node(Node("/dev/x", str(plain)))
    with pytest.raises(Invalid, match="is of type c, and the spec says b"):
        edits.node(Node("/dev/null", type="b"))


def test_everything_that_is_granted(tmp_path: Path) -> None:
    asked = Edits(
        env=("A=1",),
        nodes=(
            Node("/dev/a", "/dev/null", permissions="rw"),
            Node("/dev/b", type="p"),
            Node("/dev/a", "/dev/zero"),
        ),
        mounts=(Mount(str(tmp_path), "/m", "", ("ro",)), Mount("tmpfs", "/t", "tmpfs", ("size=1m",))),
        hooks=(Hook("createContainer", "/h", ("h", "x"), (), 3), Hook("poststop", "/p", (), ("E=1",))),
        gids=(44,),
    )
    got = edits.grant(asked)
    assert [node["path"] for node in got.nodes] == ["/dev/a", "/dev/b"]
    assert got.nodes[0]["minor"] == 5, "a later edit of one path replaces the earlier"
    assert got.rules == (
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
    )
    assert got.mounts == (
        {"destination": "/m", "type": "bind", "source": str(tmp_path), "options": ["rbind", "ro"]},
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    )
    assert got.hooks == {
        "createContainer": [{"path": "/h", "env": [], "args": ["h", "x"], "timeout": 3}],
        "poststop": [{"path": "/p", "env": ["E=1"], "timeout": 30}],
    }
    assert got.gids == (44,)


def test_what_cannot_be_done_is_refused_whole() -> None:
    with pytest.raises(Unsupported, match="asks for netDevices and intelRdt"):
        edits.grant(Edits(env=("A=1",), refused=("netDevices", "intelRdt")))
    with pytest.raises(NotFound, match=r"/no/such, which the spec mounts at /x, does not exist"):
        edits.grant(Edits(mounts=(Mount("/no/such", "/x"),)))


def test_no_image_undoes_a_devices_variables() -> None:
    made = edits.environment(
        ("PATH=/bin", "MODE=image", "LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/opt/lib", "UNSET"),
        ("MODE=device", "LD_LIBRARY_PATH=/usr/local/nvidia/lib64"),
    )
    assert made == ("PATH=/bin", "MODE=device", "LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/opt/lib", "UNSET")
    assert edits.environment(("LD_LIBRARY_PATH=",), ("LD_LIBRARY_PATH=/a",)) == ("LD_LIBRARY_PATH=/a",)
    assert edits.environment((), ()) == ()


def test_edits_are_shown_in_a_specs_words() -> None:
    asked = Edits(
        env=("A=1",),
        nodes=(Node("/dev/a", "/dev/b", "c", 0, 3, "rw", 0o600, 0, 5),),
        mounts=(Mount("/h", "/c", "bind", ("ro",)),),
        hooks=(Hook("poststop", "/h", ("h",), ("E=1",), 3),),
        gids=(9,),
    )
    shown = edits.as_document(asked)
    made = {"cdiVersion": "1.1.0", "kind": "a.com/b", "devices": [{"name": "x", "containerEdits": shown}]}
    assert document.read(made).devices["x"].edits == asked
    assert edits.as_document(Edits()) == {}
