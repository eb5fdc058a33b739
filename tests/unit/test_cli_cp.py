"""cp: docker's rules for names, and unpacking an archive that a hostile container made."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon, Request, lading

from lading.base.errors import Invalid
from lading.cli.cp import local_target, remote_target, split
from lading.cli.tarball import pack, unpack

DIRECTORY, LINK = 1 << 31, 1 << 27


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("c:/p", ("c", "/p")),
        ("c:p:q", ("c", "p:q")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("plain", ("", "plain")),
        ("-", ("", "-")),
    ],
)
def test_which_side_is_the_container(text: str, wanted: tuple[str, str]) -> None:
    assert split(text) == wanted


def tar(*members: tuple[str, Any]) -> list[bytes]:
    """(name, bytes | TarInfo changes) as a stream in small pieces."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o4755
            if isinstance(what, bytes):
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
            else:
                for key, value in what.items():
                    setattr(info, key, value)
                archive.addfile(info)
    data = buffer.getvalue()
    return [data[at : at + 700] for at in range(0, len(data), 700)]


DIR: dict[str, Any] = {"type": tarfile.DIRTYPE, "mode": 0o755, "mtime": 1000}


def refuse(message: str) -> None:
    raise AssertionError(message)


def test_unpacking(tmp_path: Path) -> None:
    stream = tar(
        ("src", DIR),
        ("src/a", b"A" * 5000),
        ("src/sub", DIR),
        ("src/sub/b", b"B"),
        ("src/ln", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("src/hard", {"type": tarfile.LNKTYPE, "linkname": "src/a"}),
        ("src/pipe", {"type": tarfile.FIFOTYPE, "mode": 0o600}),
    )
    assert unpack(stream, str(tmp_path / "dst"), keep_owner=False, complain=refuse) == 5001
    made = tmp_path / "dst"
    assert (made / "a").read_bytes() == b"A" * 5000 and (made / "sub/b").read_bytes() == b"B"
    assert os.readlink(made / "ln") == "/etc/passwd", "a link is copied, not followed"
    assert (made / "hard").stat().st_ino == (made / "a").stat().st_ino
    assert stat.S_ISFIFO((made / "pipe").stat().st_mode)
    assert stat.S_IMODE((made / "a").stat().st_mode) == 0o755, "set-id bits stay behind"
    assert (made / "sub").stat().st_mtime == 1000


@pytest.mark.parametrize(
    "members",
    [
        [("src", DIR), ("src/../../evil", b"x")],
        [
            ("src", DIR),
            ("src/out", {"type": tarfile.SYMTYPE, "linkname": "{outside}"}),
            ("src/out/evil", b"x"),
        ],
        [
            ("src", DIR),
            ("src/out", {"type": tarfile.SYMTYPE, "linkname": "{outside}"}),
            ("src/out", DIR),
            ("src/out/evil", b"x"),
        ],
        [("src", DIR), ("src/h", {"type": tarfile.LNKTYPE, "linkname": "src/../../secret"})],
        [
            ("src", DIR),
            ("src/l", {"type": tarfile.SYMTYPE, "linkname": "{outside}"}),
            ("src/h", {"type": tarfile.LNKTYPE, "linkname": "src/l/secret"}),
        ],
    ],
)
def test_nothing_lands_outside(tmp_path: Path, members: list[tuple[str, Any]]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    filled = [
        (
            name,
            {k: v.format(outside=outside) if isinstance(v, str) else v for k, v in what.items()}
            if isinstance(what, dict)
            else what,
        )
        for name, what in members
    ]
    (tmp_path / "in").mkdir()
    with pytest.raises((Invalid, OSError)):
        unpack(tar(*filled), str(tmp_path / "in/dst"), keep_owner=False, complain=refuse)
    assert sorted(p.name for p in outside.iterdir()) == ["secret"] and not (tmp_path / "evil").exists()
    assert (outside / "secret").stat().st_nlink == 1


def test_a_link_that_is_there_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("old")
    (tmp_path / "dst").symlink_to(victim)
    unpack(tar(("src", b"new")), str(tmp_path / "dst"), keep_owner=False, complain=refuse)
    assert victim.read_text() == "old" and (tmp_path / "dst").read_text() == "new"


def test_devices_and_broken_archives(tmp_path: Path) -> None:
    said: list[str] = []
    unpack(
        tar(("src", DIR), ("src/dev", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
        str(tmp_path / "d"),
        keep_owner=False,
        complain=said.append,
    )
    assert "device" in said[0] and list((tmp_path / "d").iterdir()) == []
    with pytest.raises(Invalid, match="broken"):
        unpack([b"this is no tar" * 100], str(tmp_path / "e"), keep_owner=False, complain=refuse)
    with pytest.raises(Invalid, match="cannot overwrite directory"):
        unpack(tar(("src", b"file")), str(tmp_path / "d"), keep_owner=False, complain=refuse)


def test_packing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"A" * 1000)
    os.link(root / "a", root / "b")
    (root / "l").symlink_to("nowhere")
    made = pack(str(root), "name", follow=False, keep_owner=False)
    with tarfile.open(fileobj=io.BytesIO(b"".join(made))) as archive:
        members = {m.name: m for m in archive}
        assert list(members) == ["name", "name/a", "name/b", "name/l", "name/sub"]
        assert members["name/b"].islnk() and members["name/b"].linkname == "name/a"
        assert members["name/l"].linkname == "nowhere" and made.size == 1000
        assert {(m.uid, m.gid) for m in archive} == {(0, 0)}
    followed = pack(str(root / "l2"), "x", follow=True, keep_owner=True)
    (root / "l2").symlink_to("a")
    with tarfile.open(fileobj=io.BytesIO(b"".join(followed))) as archive:
        assert archive.getmember("x").size == 1000


def test_names_here(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()

    def target(given: str, source: str, directory: bool) -> str:
        name = os.path.basename(source.removesuffix("/.")) or "/"
        return os.path.relpath(
            local_target(f"{tmp_path}/{given.rstrip('/')}", given, source, name, directory), tmp_path
        )

    assert target("dir", "/a/b", False) == "dir/b"
    assert target("dir", "/a/b", True) == "dir/b"
    assert target("dir", "/a/b/.", True) == "dir"
    assert target("dir", "/", True) == "dir"
    assert (
        target("new", "/a/b", False) == target("new", "/a/b", True) == target("new/", "/a/b", True) == "new"
    )
    assert target("file", "/a/b", False) == "file"
    for given, source, directory in (
        ("file", "/a", True),
        ("no/where", "/a", False),
        ("new/", "/a", False),
        ("file/", "/a", False),
    ):
        with pytest.raises(Invalid):
            target(given, source, directory)


def test_names_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()

    def target(local: str, source: str, there: str, exists: bool, is_directory: bool) -> tuple[str, str]:
        placed = remote_target(f"{tmp_path}/{local}", source, there, exists, is_directory)
        return placed.directory, placed.name

    assert target("f", "f", "/x", True, True) == ("/x", "f")
    assert target("d", "d", "/x", True, True) == ("/x", "d")
    assert target("d", "d/.", "/x", True, True) == ("/x", ".")
    assert target("d", "d/.", "/x/y", False, False) == target("d", "d", "/x/y", False, False) == ("/x", "y")
    assert (
        target("f", "f", "/x/new", False, False) == target("f", "f", "/x/new", True, False) == ("/x", "new")
    )
    for wrong in (
        ("d", "d", "/x", True, False),
        ("f", "f", "/x/", False, False),
        ("d", "d/.", "/x", True, False),
    ):
        with pytest.raises(Invalid):
            target(*wrong)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(str(tmp_path / "d.sock"))
    stats = {
        "/etc/conf": {"name": "conf", "size": 3, "mode": 0o644, "linkTarget": ""},
        "/etc": {"name": "etc", "size": 0, "mode": DIRECTORY | 0o755, "linkTarget": ""},
        "/link": {"name": "link", "size": 0, "mode": LINK | 0o777, "linkTarget": "/etc"},
    }

    def archive(request: Request) -> Any:
        path = request.query["path"][0]
        if path not in stats:
            return 404, {"message": f"Could not find the file {path}"}
        text = base64.b64encode(json.dumps(stats[path]).encode()).decode()
        body = b"" if request.method == "HEAD" else b"".join(tar(("conf", b"abc")))
        request.sock.sendall(
            f"HTTP/1.1 200 OK\r\nX-Docker-Container-Path-Stat: {text}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return None

    served.on("GET|HEAD", "/containers/c/archive", archive)
    served.on("PUT", "/containers/c/archive", lambda _: (200, b""))
    served.on("GET", "/containers/c/json", lambda _: {"Id": "c"})
    yield served
    served.close()


def test_the_verb(daemon: Daemon, tmp_path: Path) -> None:
    def cp(*argv: str, stdin: bytes = b"") -> Any:
        return lading(daemon, "cp", *argv, cwd=str(tmp_path), stdin=stdin)

    assert cp("c:/etc/conf", "out").returncode == 0 and (tmp_path / "out").read_bytes() == b"abc"
    with tarfile.open(fileobj=io.BytesIO(cp("c:/etc/conf", "-").stdout)) as archive:
        assert archive.getnames() == ["conf"]
    assert cp("out", "c:/etc").returncode == 0
    put = daemon.last("PUT", ".*")
    assert put.query["path"] == ["/etc"]
    with tarfile.open(fileobj=io.BytesIO(put.body)) as archive:
        assert archive.getnames() == ["out"]
    assert cp("out", "c:/link").returncode == 0
    assert daemon.last("PUT", ".*").query["path"] == ["/etc"], "a link to a directory is that directory"
    assert cp("-a", "-", "c:/etc", stdin=b"a tar").returncode == 0
    assert daemon.last("PUT", ".*").body == b"a tar" and daemon.last("PUT", ".*").query["copyUIDGID"] == [
        "true"
    ]
    for argv, message in (
        (("c:/no", "x"), "could not find the file /no in container c"),
        (("nobody:/no", "x"), "no such container: nobody"),
        (("a", "b"), "must specify at least one container source"),
        (("c:/a", "c:/b"), "copying between containers is not supported"),
        (("missing", "c:/etc"), "'missing' does not exist"),
        (("-", "c:/etc/conf"), "must be a directory"),
        (("c:", "x"), "the path in the container is empty"),
    ):
        ran = cp(*argv)
        assert ran.returncode == 1 and message in ran.stderr.decode(), (argv, ran.stderr)
