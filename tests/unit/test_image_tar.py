"""Writing and reading tar: our own round trip, Python's tarfile as the outside judge, and trees to archives
and back."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_archives import apply, file, listing, pack, tar

from lading.base import errors
from lading.image.layer import header, reader, write
from lading.image.layer.header import Header

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")

parts = (
    st.binary(min_size=1, max_size=90)
    .map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda b: b not in (b".", b".."))
)
names = st.lists(parts, min_size=1, max_size=6).map(b"/".join)
headers = st.builds(
    Header,
    name=names,
    type=st.sampled_from(
        [header.REGULAR, header.DIRECTORY, header.SYMLINK, header.HARD_LINK, header.FIFO, header.CHARACTER]
    ),
    mode=st.integers(0, 0o7777),
    size=st.just(0),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    mtime_ns=st.integers(-(1 << 33), 1 << 36).map(lambda seconds: seconds * 1_000_000_000),
    linkname=names,
    major=st.integers(0, 4095),
    minor=st.integers(0, 0o7777777),
    xattrs=st.dictionaries(
        st.sampled_from([b"user.a", b"security.capability", b"user.ue"]), st.binary(max_size=600), max_size=3
    ),
)


def _expected(head: Header) -> Header:
    if head.type not in (header.CHARACTER,):
        head = head._replace(major=0, minor=0)
    if head.type == header.DIRECTORY:
        head = head._replace(name=head.name + b"/")
    return head._replace(size=0)


@given(headers)
@settings(max_examples=400)
def test_any_header_comes_back_as_it_was_written(head: Header) -> None:
    (found,) = reader.Reader(tar(head))
    assert found == _expected(head)


@given(headers)
@settings(max_examples=200)
def test_tarfile_reads_what_we_write(head: Header) -> None:
    with tarfile.open(fileobj=tar(head), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        (member,) = archive.getmembers()
    assert os.fsencode(member.name) == head.name.rstrip(b"/")
    assert (member.type, member.mode, member.uid, member.gid) == (head.type, head.mode, head.uid, head.gid)
    assert int(member.mtime) == head.mtime_ns // 1_000_000_000
    if head.type in (header.SYMLINK, header.HARD_LINK):
        assert os.fsencode(member.linkname) == head.linkname


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name",
    ["short", "d" * 60 + "/" + "f" * 60, "p" * 154 + "/" + "n" * 100, "é" * 40, "l" * 99, "l" * 100],
)
def test_we_read_what_tarfile_writes(format: int, name: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.uid, info.mode = 5, 1_700_000_000, 1000, 0o4755
        archive.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, name[:50]
        archive.addfile(link)
    data.seek(0)
    archive2 = reader.Reader(data)
    members = []
    for member in archive2:
        members.append((member, archive2.read()))
    assert [os.fsdecode(m.name) for m, _ in members] == [name, "link"]
    assert members[0][0].mtime_ns == 1_700_000_000 * 10**9
    assert (members[0][0].uid, members[0][0].mode, members[0][1]) == (1000, 0o4755, b"hello")
    assert os.fsdecode(members[1][0].linkname) == name[:50]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["x" * 150, "a/" * 150 + "z", "ü" * 120])
def test_we_read_long_names(format: int, name: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format) as archive:
        archive.addfile(tarfile.TarInfo(name))
    data.seek(0)
    assert [os.fsdecode(member.name) for member in reader.Reader(data)] == [name]


def test_a_huge_size_is_written_and_read() -> None:
    # 9 GiB cannot be said in octal; the data itself is left out.
    block = header.pack(Header(b"big", header.REGULAR, size=9 << 30))
    archive = reader.Reader(io.BytesIO(block))
    assert next(iter(archive)).size == 9 << 30
    gnu = tarfile.TarInfo("big")
    gnu.size = 9 << 30
    archive = reader.Reader(io.BytesIO(gnu.tobuf(tarfile.GNU_FORMAT)))
    assert next(iter(archive)).size == 9 << 30


def test_sub_second_times_are_read_and_not_written() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.mtime = 5.25
        archive.addfile(info)
    data.seek(0)
    (found,) = reader.Reader(data)
    assert found.mtime_ns == 5_250_000_000
    assert len(header.pack(found)) == 512


def test_data_is_given_in_pieces_and_skipped_when_not_taken() -> None:
    archive = reader.Reader(tar(file("a", b"x" * 5000), file("b", b"y" * 3), file("c", b"")))
    seen = []
    for member in archive:
        seen.append((member.name, archive.read(10)))
    assert seen == [(b"a", b"x" * 10), (b"b", b"yyy"), (b"c", b"")]


def _tree(root: Path) -> None:
    (root / "bin").mkdir(mode=0o755)
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "bin/tool").chmod(0o4755)
    (root / "bin/alias").symlink_to("/bin/tool")
    os.link(root / "bin/tool", root / "bin/twin")
    (root / "empty").mkdir(mode=0o1777)
    (root / "big").write_bytes(bytes(range(256)) * 9000)
    (root / "dir with space" / "ümläut").mkdir(parents=True)
    (root / ("n" * 200)).write_bytes(b"long")
    os.mkfifo(root / "pipe", 0o600)
    (root / "zero").touch()
    os.setxattr(root / "big", "user.note", b"\0\xff\n")
    for path in root.rglob("*"):
        os.utime(path, (1, 1_500_000_000), follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(root / "big", 1234, 4_000_000)
        os.mknod(root / "null", 0o020666, os.makedev(1, 3))
        os.setxattr(
            root / "zero", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
        )


def test_a_tree_survives_packing_and_unpacking(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    _tree(one)
    packed = pack(one)
    assert apply(two, io.BytesIO(packed), devices=True) == len(listing(one))
    assert listing(two) == listing(one)
    assert pack(two) == packed


def test_outside_tar_agrees_with_the_tree(tmp_path: Path) -> None:
    _tree(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path))) as archive:
        found = {member.name for member in archive.getmembers()}
        assert archive.extractfile("bin/tool").read() == b"#!/bin/sh\n"  # type: ignore[union-attr]
        assert archive.getmember("bin/twin").islnk()
    assert found == set(listing(tmp_path))


def test_order_does_not_depend_on_the_directory(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for root, order in ((one, "abcde"), (two, "edcba")):
        root.mkdir()
        for name in order:
            (root / name).write_text(name)
            os.utime(root / name, (7, 7))
    assert pack(one) == pack(two)


def test_times_can_be_capped(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "new").touch()
    os.utime(tmp_path / "old", (5, 5))
    found = {
        member.name: member.mtime_ns
        for member in reader.Reader(io.BytesIO(pack(tmp_path, latest_ns=9_000_000_000)))
    }
    assert found == {b"old": 5_000_000_000, b"new": 9_000_000_000}


def test_sockets_are_left_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        (tmp_path / "t").touch()
        assert [member.name for member in reader.Reader(io.BytesIO(pack(tmp_path)))] == [b"t"]


def test_a_file_that_shrinks_while_it_is_read_does_not_break_the_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"after")
    parts: list[bytes] = []

    def out(data: bytes) -> None:
        os.truncate(tmp_path / "a", 10)
        parts.append(data)

    fd = os.open(tmp_path, os.O_RDONLY)
    writer = write.Writer(out)
    write.tree(fd, writer)
    writer.close()
    os.close(fd)
    members = {member.name: member.size for member in reader.Reader(io.BytesIO(b"".join(parts)))}
    assert members == {b"a": 3_000_000, b"b": 5}


def test_a_symlink_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """A running container swaps a file for a symlink between stat and open."""
    root = tmp_path / "root"
    root.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("host")
    (root / "a").write_text("mine")
    fd = os.open(root, os.O_RDONLY)
    st = os.stat("a", dir_fd=fd)
    os.unlink("a", dir_fd=fd)
    os.symlink(secret, "a", dir_fd=fd)
    writer = write.Writer(lambda data: None)
    with pytest.raises(OSError):
        writer.file(b"a", fd, "a", st)
    os.close(fd)


def test_a_tree_deeper_than_any_path_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    at = os.dup(fd)
    for _ in range(400):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="nested deeper"):
        write.tree(fd, write.Writer(lambda data: None))
    assert len(os.listdir("/proc/self/fd")) <= before, "fewer where a thread of an earlier test lets go"
    os.close(fd)


@root_only
def test_ids_beyond_octal_survive(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "f").touch()
    os.chown(one / "f", 4_000_000_000, 3_000_000)
    apply(two, io.BytesIO(pack(one)))
    st = (two / "f").stat()
    assert (st.st_uid, st.st_gid) == (4_000_000_000, 3_000_000)


def test_keep_leaves_subtrees_out(tmp_path: Path) -> None:
    (tmp_path / "skip/inner").mkdir(parents=True)
    (tmp_path / "stay").mkdir()
    parts: list[bytes] = []
    fd = os.open(tmp_path, os.O_RDONLY)
    writer = write.Writer(parts.append)
    write.tree(fd, writer, b"prefix", keep=lambda name, st: name != b"prefix/skip")
    writer.close()
    os.close(fd)
    assert [member.name for member in reader.Reader(io.BytesIO(b"".join(parts)))] == [b"prefix/stay/"]


def test_limits_are_kept() -> None:
    stream = tar(file("a", b"x" * 100), file("b", b"x" * 100))
    with pytest.raises(errors.Invalid, match="more than 1 members"):
        list(reader.Reader(stream, reader.Limits(members=1)))
    stream.seek(0)
    with pytest.raises(errors.Invalid, match="more than 150 bytes"):
        list(reader.Reader(stream, reader.Limits(bytes=150)))
