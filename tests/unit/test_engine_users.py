"""--user against an image's passwd and group, honest and hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.base.errors import Invalid
from lading.engine import users
from lading.store.snapshots import Rootfs

PASSWD = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
model:x:1000:1001::/home/model:/bin/sh
1001:x:7:7::/odd:/bin/sh
"""
GROUP = """root:x:0:
wheel:x:10:root,model
model:x:1001:
video:x:44:model
"""


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 10), "/root"),
        ("root", 0, 0, (0, 10), "/root"),
        ("0", 0, 0, (0, 10), "/root"),
        ("model", 1000, 1001, (1001, 10, 44), "/home/model"),
        ("1000", 1000, 1001, (1001, 10, 44), "/home/model"),
        ("model:video", 1000, 44, (44,), "/home/model"),
        ("model:77", 1000, 77, (77,), "/home/model"),
        ("4242", 4242, 0, (0,), "/"),
        ("4242:4243", 4242, 4243, (4243,), "/"),
        ("1001", 7, 7, (7,), "/odd"),  # a login name of digits wins over the number
    ],
)
def test_forms(text: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    assert users.resolve(text, (), PASSWD, GROUP) == users.User(uid, gid, groups, home)


@pytest.mark.parametrize(
    "text",
    [
        "nobody-here",
        "model:nogroup",
        ":",
        "model:",
        "x" * 300,
        "a\0b",
        "-1",
        "4294967295",
        "2147483648",
        "99999999999999",
    ],
)
def test_what_is_no_user(text: str) -> None:
    with pytest.raises(Invalid):
        users.resolve(text, (), PASSWD, GROUP)


def test_added_groups_by_name_and_number() -> None:
    assert users.resolve("model", ("video", "555"), PASSWD, GROUP).groups == (1001, 10, 44, 555)
    with pytest.raises(Invalid):
        users.resolve("model", ("nope",), PASSWD, GROUP)


def test_an_image_without_passwd_has_root_and_numbers() -> None:
    assert users.resolve("", (), "", "") == users.User(0, 0, (0,), "/")
    assert users.resolve("12", (), "", "").uid == 12
    with pytest.raises(Invalid):
        users.resolve("model", (), "", "")


@pytest.mark.parametrize(
    "line",
    [
        "evil:x:-1:0::/:/x",
        "evil:x:4294967296:0::/:/x",
        "evil:x:0x0:0::/:/x",
        "evil:x:٣:0::/:/x",
        "evil",
        "evil:x:0",
        "::0:0::/:",
    ],
)
def test_hostile_lines_are_skipped(line: str) -> None:
    with pytest.raises(Invalid):
        users.resolve("evil", (), line + "\n", "")


def test_a_relative_or_endless_home_is_not_taken() -> None:
    assert users.resolve("a", (), "a:x:5:5::relative:/x\n", "").home == "/"
    assert users.resolve("a", (), f"a:x:5:5::/{'h' * 5000}:/x\n", "").home == "/"


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.parametrize("kind", ["fifo", "absolute", "upward", "loop", "directory", "missing"])
def test_a_planted_passwd_is_not_followed(tmp_path: Path, kind: str) -> None:
    """A FIFO must not block, a link must not reach the host's own file."""
    (tmp_path / "etc").mkdir()
    target = tmp_path / "etc" / "passwd"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "absolute":
        target.symlink_to("/proc/self/environ")
    elif kind == "upward":
        target.symlink_to("../../../../../../../../etc/passwd")
    elif kind == "loop":
        target.symlink_to("passwd")
    elif kind == "directory":
        target.mkdir()
    root = opened(tmp_path)
    try:
        assert users.read_database(root, "etc/passwd") == ""
    finally:
        os.close(root)


def test_a_link_inside_is_followed_and_a_huge_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "passwd").write_text("x" * (3 << 20))
    (tmp_path / "etc" / "passwd").symlink_to("/usr/passwd")
    root = opened(tmp_path)
    try:
        assert len(users.read_database(root, "etc/passwd")) == 1 << 20
    finally:
        os.close(root)


def test_layers_are_searched_from_the_top(tmp_path: Path) -> None:
    for layer, text in (("low", "old"), ("high", None), ("up", None)):
        (tmp_path / layer / "etc").mkdir(parents=True)
        if text:
            (tmp_path / layer / "etc" / "passwd").write_text(text)
    rootfs = Rootfs("overlay", str(tmp_path), ("high", "low"), "up", "work")
    assert users.read_layers(rootfs, "etc/passwd") == "old"
    (tmp_path / "up" / "etc" / "passwd").write_text("new")
    assert users.read_layers(rootfs, "etc/passwd") == "new"
    assert users.read_layers(Rootfs("bind", source=str(tmp_path / "low")), "etc/passwd") == "old"
    (tmp_path / "high" / "etc").rmdir()
    (tmp_path / "high" / "etc").write_text("a file hides the directory")
    (tmp_path / "up" / "etc" / "passwd").unlink()
    assert users.read_layers(rootfs, "etc/passwd") == ""
