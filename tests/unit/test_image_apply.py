"""Unpacking hostile and merely odd archives: nothing lands outside, nothing outside is read or changed."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_archives import apply, directory, file, hardlink, listing, symlink, tar

from lading.base import errors
from lading.image.layer import header, reader
from lading.image.layer.header import Header
from lading.linux import files

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of resolving a path: the kernel's, and our own for kernels before 5.6."""
    if request.param == "walk":
        monkeypatch.setattr(files, "has_openat2", lambda: False)
    elif not files.has_openat2():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


class World:
    """A target directory with a secret beside it that must stay as it is."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.outside = base / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        (self.outside / "dir").mkdir()
        self.before = self._state()

    def _state(self) -> object:
        return {name: entry[:4] + entry[5:7] for name, entry in listing(self.outside).items()}

    def check(self) -> None:
        assert self._state() == self.before
        assert (self.outside / "secret").stat().st_nlink == 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _bad_checksum() -> bytes:
    block = bytearray(header.pack(Header(b"x", header.REGULAR)))
    block[0] = ord("y")
    return bytes(block)


def _patched(offset: int, text: bytes) -> bytes:
    """A header with one field overwritten and a correct checksum."""
    block = bytearray(header.pack(Header(b"x", header.REGULAR)))
    block[offset : offset + len(text)] = text
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(body: bytes) -> bytes:
    head = Header(b"p", header.PAX)
    return header.pack(head._replace(size=len(body))) + body + header.padding(len(body))


X = Header(b"x", header.REGULAR)

REFUSED: dict[str, Callable[[], io.BytesIO]] = {
    "parent": lambda: tar(file("../evil")),
    "parent inside": lambda: tar(file("a/../../evil")),
    "parent at the end": lambda: tar(directory("a"), file("a/..")),
    "absolute parent": lambda: tar(file("/../evil")),
    "parent directory": lambda: tar(directory("../evil")),
    "parent symlink": lambda: tar(symlink("../evil", "x")),
    "hard link to parent": lambda: tar(hardlink("x", "../outside/secret")),
    "hard link to absolute": lambda: tar(hardlink("x", "/etc/passwd")),
    "hard link to nothing": lambda: tar(hardlink("x", "")),
    "hard link to root": lambda: tar(hardlink("x", ".")),
    "hard link to missing": lambda: tar(hardlink("x", "y")),
    "hard link to a directory": lambda: tar(directory("d"), hardlink("x", "d")),
    "hard link named parent": lambda: tar(file("a"), hardlink("../evil", "a")),
    "hard link through a symlink": lambda: tar(symlink("s", "/outside"), hardlink("x", "s/secret")),
    "symlink to nothing": lambda: tar(symlink("x", "")),
    "symlink loop as a parent": lambda: tar(symlink("a", "b"), symlink("b", "a"), file("a/x")),
    "device": lambda: tar(Header(b"x", header.CHARACTER, major=1, minor=3)),
    "block device": lambda: tar(Header(b"x", header.BLOCK_DEVICE, major=8)),
    "name with a zero byte": lambda: tar(_pax(b"12 path=a\0b\n"), X),
    "link with a zero byte": lambda: tar(_pax(b"16 linkpath=a\0b\n"), Header(b"x", header.SYMLINK)),
    "component too long": lambda: tar(file("n" * 256)),
    "path too long": lambda: tar(file("d/" * 2048 + "x")),
    "cut in a header": lambda: io.BytesIO(tar(file("x")).getvalue()[:300]),
    "cut in the data": lambda: io.BytesIO(tar(file("x", b"y" * 2000)).getvalue()[:1500]),
    "cut in the padding": lambda: io.BytesIO(tar(file("x", b"y" * 100)).getvalue()[:650]),
    "cut after an extended header": lambda: io.BytesIO(_pax(b"10 path=ab\n"[:10] + b"")),
    "only an extended header": lambda: tar(_pax(b"8 path=\n")),
    "wrong checksum": lambda: tar(_bad_checksum()),
    "no checksum": lambda: tar(header.pack(X)[:148] + bytes(8) + header.pack(X)[156:]),
    "checksum of letters": lambda: tar(header.pack(X)[:148] + b"zzzzzz\0 " + header.pack(X)[156:]),
    "size of letters": lambda: tar(_patched(124, b"zzz")),
    "negative size": lambda: tar(_patched(124, b"\xff" * 12)),
    "endless size": lambda: tar(_patched(124, b"\x80" + b"\x7f" * 11)),
    "size beyond the limit": lambda: tar(_pax(b"28 size=9000000000000000000\n"), X),
    "pax size negative": lambda: tar(_pax(b"11 size=-5\n"), X),
    "pax size no number": lambda: tar(_pax(b"11 size=ab\n"), X),
    "pax uid too large": lambda: tar(_pax(b"24 uid=9999999999999999\n"), X),
    "uid minus one": lambda: tar(_pax(b"18 uid=4294967295\n"), X),
    "pax time no number": lambda: tar(_pax(b"13 mtime=abc\n"), X),
    "pax time endless": lambda: tar(_pax(b"30 mtime=99999999999999999999\n"), X),
    "base-256 time endless": lambda: tar(_patched(136, b"\x80" + b"\x00" * 4 + b"\x3f" * 7)),
    "pax length zero": lambda: tar(_pax(b"0 path=x\n"), X),
    "pax length too long": lambda: tar(_pax(b"99 path=x\n"), X),
    "pax length negative": lambda: tar(_pax(b"-9 path=x\n"), X),
    "pax without key": lambda: tar(_pax(b"5 =x\n"), X),
    "pax without equals": lambda: tar(_pax(b"7 path\n"), X),
    "pax garbage": lambda: tar(_pax(b"\xff" * 100), X),
    "pax too large": lambda: tar(header.pack(Header(b"p", header.PAX, size=1 << 30))),
    "endless pax headers": lambda: tar(
        *[_pax(b"10485 a%03d=" % n + b"x" * 10474 + b"\n") for n in range(500)], X
    ),
    "gnu long name too large": lambda: tar(header.pack(Header(b"p", header.GNU_LONG_NAME, size=1 << 40))),
    "sparse by pax": lambda: tar(_pax(b"22 GNU.sparse.major=1\n"), X),
    "sparse by gnu": lambda: tar(Header(b"x", b"S")),
    "unknown type": lambda: tar(Header(b"x", b"Z")),
    "not a tar": lambda: io.BytesIO(b"hello world " * 100),
    "file as a parent of the root name": lambda: tar(file("..")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, world: World, way: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((errors.Invalid, errors.Unsupported, errors.Denied)):
        apply(world.root, REFUSED[case]())
    world.check()
    assert len(os.listdir("/proc/self/fd")) == before


HARMLESS: dict[str, tuple[Callable[[], io.BytesIO], str, str]] = {
    # archive, path below the root where the data must be, what must not be a symlink any more
    "absolute name": (lambda: tar(file("/etc/x")), "etc/x", ""),
    "many slashes": (lambda: tar(file("//etc///./x")), "etc/x", ""),
    "absolute symlink as a parent": (
        lambda: tar(symlink("s", "/dir"), directory("dir"), file("s/x")),
        "dir/x",
        "",
    ),
    "symlink out of the root as a parent": (
        lambda: tar(directory("outside"), symlink("s", "../outside"), file("s/x")),
        "outside/x",
        "",
    ),
    "symlink far out of the root": (
        lambda: tar(directory("outside"), symlink("s", "../../../../../../outside"), file("s/x")),
        "outside/x",
        "",
    ),
    "chained symlinks": (
        lambda: tar(
            directory("o"), symlink("a", "b/.."), symlink("b", "/"), symlink("c", "a/o"), file("c/x")
        ),
        "o/x",
        "",
    ),
    "dangling symlink as a parent": (lambda: tar(symlink("s", "/outside/dir"), file("s/x")), "s/x", "s"),
    "symlink to a file as a parent": (lambda: tar(file("f"), symlink("s", "f"), file("s/x")), "s/x", "s"),
    "file as a parent": (lambda: tar(file("f"), file("f/x")), "f/x", ""),
    "symlink replaced by a file": (lambda: tar(symlink("x", "/outside/secret"), file("x")), "x", "x"),
    "symlink replaced by a directory": (
        lambda: tar(directory("o"), symlink("d", "o"), directory("d"), file("d/x")),
        "d/x",
        "d",
    ),
    "used symlink replaced by a directory": (
        lambda: tar(directory("o"), symlink("d", "o"), file("d/y"), directory("d"), file("d/x")),
        "d/x",
        "d",
    ),
    "directory replaced by a file": (lambda: tar(directory("x"), file("x/y"), file("x")), "x", ""),
    "directory replaced by a symlink to itself": (
        lambda: tar(directory("a"), file("a/1"), symlink("a", "."), file("a/x")),
        "x",
        "",
    ),
    "file twice": (lambda: tar(file("x", b"first and longer"), file("x")), "x", ""),
    "hard link to itself": (lambda: tar(file("x"), hardlink("x", "x")), "x", ""),
    "hard link then a file": (lambda: tar(file("y", b"other"), hardlink("x", "y"), file("x")), "x", ""),
    "hard link with a size": (
        lambda: tar(file("y"), Header(b"x", header.HARD_LINK, size=4, linkname=b"y")),
        "x",
        "",
    ),
    "missing parents": (lambda: tar(file("a/b/c/x")), "a/b/c/x", ""),
    "old style directory": (lambda: tar(Header(b"d/", header.REGULAR), file("d/x")), "d/x", ""),
    "contiguous file": (lambda: tar((Header(b"x", b"7", size=4), b"data")), "x", ""),
    "no end marker": (lambda: io.BytesIO(tar(file("x")).getvalue()[:1024]), "x", ""),
    "junk after the end": (lambda: tar(file("x"), end=header.END + b"junk" * 500), "x", ""),
    "global header": (
        lambda: tar(
            header.pack(Header(b"g", header.PAX_GLOBAL, size=10)) + b"10 a=bcde\n" + bytes(502), file("x")
        ),
        "x",
        "",
    ),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_made_harmless(case: str, world: World, way: str) -> None:
    make, path, replaced = HARMLESS[case]
    apply(world.root, make())
    assert (world.root / path).read_bytes() == b"data"
    if replaced:
        assert not (world.root / replaced).is_symlink()
    world.check()


def test_a_symlink_may_point_anywhere_and_is_never_followed(world: World) -> None:
    apply(
        world.root,
        tar(symlink("a", "/outside/secret"), symlink("b", "../../outside"), symlink("c", str(world.outside))),
    )
    assert os.readlink(world.root / "b") == "../../outside"
    world.check()


def test_attributes_of_a_directory_reached_by_symlink_stay(world: World) -> None:
    (world.root / "d").symlink_to(world.outside / "dir")
    apply(world.root, tar(directory("d", 0o777)))
    assert not (world.root / "d").is_symlink()
    world.check()


def test_directories_keep_their_times(tmp_path: Path) -> None:
    stamp = 1_000_000_000
    members: list[Header | tuple[Header, bytes]] = [
        directory("d")._replace(mtime_ns=stamp * 10**9),
        file("d/a"),
        directory("d/e")._replace(mtime_ns=5 * 10**9),
        file("d/e/f"),
    ]
    apply(tmp_path, tar(*members))
    assert (tmp_path / "d").stat().st_mtime == stamp
    assert (tmp_path / "d/e").stat().st_mtime == 5


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        apply(tmp_path, tar(file("a/b", mode=0o666), directory("d", 0o777), Header(b"p", header.FIFO, 0o666)))
    finally:
        os.umask(old)
    modes = {name: stat.S_IMODE((tmp_path / name).lstat().st_mode) for name in ("a", "a/b", "d", "p")}
    assert modes == {"a": 0o755, "a/b": 0o666, "d": 0o777, "p": 0o666}


@root_only
def test_owner_before_mode_and_capabilities(tmp_path: Path) -> None:
    """chown(2) clears set-user-ID and file capabilities, so it must come first."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    apply(
        tmp_path, tar(file("x", mode=0o4755, uid=1000, gid=1000, xattrs={b"security.capability": capability}))
    )
    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(tmp_path / "x", "security.capability") == capability


def test_overlayfs_attributes_are_not_taken_from_an_archive(tmp_path: Path) -> None:
    """A redirect would make the kernel look up a path of the archive's choice."""
    evil = {
        b"trusted.overlay.redirect": b"/etc",
        b"user.overlay.redirect": b"/etc",
        b"security.selinux": b"x",
        b"user.fine": b"1",
    }
    apply(tmp_path, tar(Header(b"d", header.DIRECTORY, xattrs=evil)))
    assert os.listxattr(tmp_path / "d") == ["user.fine"]


@root_only
def test_devices_only_when_allowed(tmp_path: Path) -> None:
    null = Header(b"null", header.CHARACTER, 0o666, major=1, minor=3)
    with pytest.raises(errors.Denied, match="device node"):
        apply(tmp_path, tar(null))
    apply(tmp_path, tar(null), devices=True)
    assert (tmp_path / "null").stat().st_rdev == os.makedev(1, 3)
    for bad in (null._replace(major=0, minor=0), null._replace(major=1 << 12), null._replace(minor=1 << 20)):
        with pytest.raises(errors.Invalid):
            apply(tmp_path, tar(bad), devices=True)


@root_only
def test_owner_override(tmp_path: Path) -> None:
    apply(tmp_path, tar(file("x", uid=1, gid=2), symlink("s", "x")), owner=(33, 44))
    for name in ("x", "s"):
        st_ = (tmp_path / name).lstat()
        assert (st_.st_uid, st_.st_gid) == (33, 44)


def test_limits_stop_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="more than 1000 bytes"):
        apply(tmp_path, tar(file("x", b"y" * 2000)), limits=reader.Limits(bytes=1000))
    with pytest.raises(errors.Invalid, match="more than 2 members"):
        apply(tmp_path, tar(*[file(str(n)) for n in range(5)]), limits=reader.Limits(members=2))


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(errors.Unavailable, match=r"'x' cannot be unpacked.*No space"):
        apply(tmp_path, tar(file("x")))


pieces = st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq", "outside", "secret"])
paths = st.lists(pieces, min_size=1, max_size=4).map("/".join)
members = st.one_of(
    st.builds(file, paths),
    st.builds(directory, paths),
    st.builds(symlink, paths, paths.map(lambda p: p or "x") | paths.map(lambda p: "/" + p)),
    st.builds(hardlink, paths, paths),
)


@given(st.lists(members, max_size=8), st.sampled_from(["plain", "delete", "overlay"]), st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_sequence_of_members_gets_out(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[object], whiteouts: str, walk: bool
) -> None:
    if whiteouts == "overlay" and os.geteuid() != 0:
        whiteouts = "delete"
    world = World(tmp_path_factory.mktemp("w"))
    with pytest.MonkeyPatch.context() as patch:
        if walk:
            patch.setattr(files, "has_openat2", lambda: False)
        try:
            apply(world.root, tar(*sequence), whiteouts=whiteouts)  # type: ignore[arg-type]
        except errors.LadingError:
            pass
    world.check()
    fd = os.open(world.root.parent, os.O_RDONLY)
    files.remove_tree(fd, "root")
    os.close(fd)


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    try:
        apply(tmp_path_factory.getbasetemp(), io.BytesIO(data))
    except errors.LadingError as error:
        assert str(error)


@given(st.integers(0, 511), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_one_changed_byte_is_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    target = tmp_path_factory.mktemp("m")
    data = bytearray(tar(file("x", xattrs={b"user.a": b"1"}), symlink("s", "x")).getvalue())
    data[position * 3] = value
    try:
        apply(target, io.BytesIO(bytes(data)))
    except errors.LadingError:
        pass
