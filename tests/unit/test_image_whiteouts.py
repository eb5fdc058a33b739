"""Whiteouts both ways: archive to overlayfs marks and to deletions, overlayfs marks to archive."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest
from image_archives import apply, directory, file, hardlink, pack, symlink, tar

from lading.base import errors
from lading.image.layer import header, reader

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="whiteout devices and trusted attributes need root")


def _names(data: bytes) -> list[str]:
    return [os.fsdecode(member.name) for member in reader.Reader(io.BytesIO(data))]


def _is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


@root_only
def test_a_whiteout_becomes_a_device_and_comes_back(tmp_path: Path) -> None:
    apply(tmp_path, tar(directory("d"), file("d/.wh.gone", b""), file(".wh.top", b"")), whiteouts="overlay")
    assert _is_whiteout(tmp_path / "d/gone")
    assert _is_whiteout(tmp_path / "top")
    assert _names(pack(tmp_path, overlay=True)) == ["d/", "d/.wh.gone", ".wh.top"]


@root_only
def test_an_opaque_mark_becomes_an_attribute_and_comes_back(tmp_path: Path) -> None:
    apply(tmp_path, tar(directory("d"), file("d/.wh..wh..opq", b""), file("d/new")), whiteouts="overlay")
    assert os.getxattr(tmp_path / "d", "trusted.overlay.opaque") == b"y"
    packed = pack(tmp_path, overlay=True)
    assert _names(packed) == ["d/", "d/.wh..wh..opq", "d/new"]
    members = {member.name: member for member in reader.Reader(io.BytesIO(packed))}
    assert members[b"d/"].xattrs == {}


@root_only
def test_without_overlay_marks_are_not_interpreted(tmp_path: Path) -> None:
    os.mknod(tmp_path / "dev", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    assert _names(pack(tmp_path)) == ["dev"]
    assert _names(pack(tmp_path, overlay=True)) == [".wh.dev"]


def test_a_file_that_looks_like_a_whiteout_stays_out_of_a_layer(tmp_path: Path) -> None:
    """Otherwise a container could delete files of the image for those who build on it."""
    (tmp_path / ".wh.passwd").touch()
    (tmp_path / ".wh.d").mkdir()
    (tmp_path / "fine").touch()
    assert _names(pack(tmp_path, overlay=True)) == ["fine"]
    assert len(_names(pack(tmp_path))) == 3


def test_plain_unpacking_gives_whiteouts_no_meaning(tmp_path: Path) -> None:
    apply(tmp_path, tar(file("a"), file(".wh.a", b"")))
    assert sorted(os.listdir(tmp_path)) == [".wh.a", "a"]


def _lower(root: Path) -> None:
    (root / "d/sub").mkdir(parents=True)
    (root / "d/old").write_text("old")
    (root / "d/sub/deep").write_text("deep")
    (root / "keep").write_text("keep")


def test_deleting_in_a_full_tree(tmp_path: Path) -> None:
    _lower(tmp_path)
    apply(tmp_path, tar(directory("d"), file("d/.wh.sub", b""), file(".wh.nothing", b"")), whiteouts="delete")
    assert sorted(os.listdir(tmp_path / "d")) == ["old"]
    assert (tmp_path / "keep").exists()


@pytest.mark.parametrize("mark_first", [True, False])
def test_an_opaque_mark_spares_what_its_own_archive_brings(tmp_path: Path, mark_first: bool) -> None:
    """layer.md: the mark may come after its siblings."""
    _lower(tmp_path)
    mark, new = file("d/.wh..wh..opq", b""), file("d/new/inner")
    apply(tmp_path, tar(directory("d"), *((mark, new) if mark_first else (new, mark))), whiteouts="delete")
    assert os.listdir(tmp_path / "d") == ["new"]
    assert (tmp_path / "d/new/inner").exists()


def test_a_whiteout_does_not_follow_a_symlink(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "other").symlink_to(outside / "file")
    apply(root, tar(file("link/.wh.file", b""), file(".wh.other", b"")), whiteouts="delete")
    assert (outside / "file").exists()
    assert not os.path.lexists(root / "other")


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..."])
def test_senseless_whiteouts_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.Invalid):
        apply(tmp_path, tar(file(name, b"")), whiteouts="delete")


def test_bookkeeping_of_old_drivers_is_passed_over(tmp_path: Path) -> None:
    apply(tmp_path, tar(directory(".wh..wh.plnk"), file(".wh..wh.aufs", b"")), whiteouts="delete")
    assert os.listdir(tmp_path) == []


@root_only
def test_a_member_after_its_whiteout_wins(tmp_path: Path) -> None:
    apply(tmp_path, tar(file(".wh.a", b""), file("a")), whiteouts="overlay")
    assert (tmp_path / "a").read_bytes() == b"data"


class Base:
    """A tree below an upper directory, opened when asked for."""

    def __init__(self, root: Path) -> None:
        self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.fd


@pytest.fixture
def base(tmp_path: Path) -> Base:
    lower = tmp_path / "lower"
    (lower / "opt/tool").mkdir(parents=True)
    (lower / "opt/tool").chmod(0o750)
    (lower / "opt/tool/bin").write_text("program")
    os.utime(lower / "opt/tool", (3, 3))
    return Base(lower)


def test_a_parent_the_archive_leaves_out_keeps_the_attributes_it_has_below(
    tmp_path: Path, base: Base
) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    apply(upper, tar(file("opt/tool/extra")), base=base)
    st = (upper / "opt/tool").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_mtime) == (0o750, 3)


def test_a_symlink_below_is_not_hidden_by_a_layer_without_parents(tmp_path: Path) -> None:
    """`/lib -> usr/lib` in the base, `lib/x/tool.so` in a layer that lists no directories (as some builders
    write)."""
    lower = tmp_path / "lower"
    (lower / "usr/lib").mkdir(parents=True)
    (lower / "usr/lib").chmod(0o751)
    (lower / "lib").symlink_to("usr/lib")
    (lower / "lib64").symlink_to("/lib")
    (lower / "away").symlink_to("/outside")
    upper = tmp_path / "upper"
    upper.mkdir()
    members = tar(
        file("lib/x/tool.so"), file("lib64/y.so"), hardlink("lib/z.so", "lib64/y.so"), file("away/f")
    )
    apply(upper, members, base=Base(lower))
    assert os.readlink(upper / "lib") == "usr/lib"
    assert os.readlink(upper / "lib64") == "/lib"
    assert (upper / "usr/lib/x/tool.so").read_bytes() == b"data"
    assert sorted(os.listdir(upper / "usr/lib")) == ["x", "y.so", "z.so"]
    assert stat.S_IMODE((upper / "usr/lib").stat().st_mode) == 0o751
    assert (upper / "away/f").exists() and not (upper / "away").is_symlink(), "a dangling one is replaced"


def test_a_hard_link_to_a_file_below_brings_the_file_up(tmp_path: Path, base: Base) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    apply(upper, tar(hardlink("alias", "opt/tool/bin")), base=base)
    assert (upper / "alias").read_text() == "program"
    assert (upper / "alias").stat().st_ino == (upper / "opt/tool/bin").stat().st_ino


def test_the_tree_below_is_not_asked_when_the_archive_is_complete(tmp_path: Path, base: Base) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    apply(
        upper,
        tar(directory("opt"), directory("opt/tool"), file("opt/tool/x"), symlink("y", "opt")),
        base=base,
    )
    assert base.asked == 0


def test_whiteout_members_have_no_content_and_no_mode(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("whiteout devices need root")
    os.mknod(tmp_path / "x", stat.S_IFCHR, 0)
    (member,) = reader.Reader(io.BytesIO(pack(tmp_path, overlay=True)))
    assert (member.type, member.size, member.mode) == (header.REGULAR, 0, 0)
