"""Tar streams for tests, made by hand so that they can be wrong in any way."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from lading.image.layer import apply as unpack
from lading.image.layer import header, write
from lading.image.layer.header import Header


def tar(*members: Header | tuple[Header, bytes] | bytes, end: bytes = header.END) -> io.BytesIO:
    """Members one after the other: a header, a header with data, or raw bytes."""
    out = b""
    for member in members:
        if isinstance(member, bytes):
            out += member
        elif isinstance(member, Header):
            out += header.pack(member)
        else:
            head, data = member
            out += header.pack(head._replace(size=len(data))) + data + header.padding(len(data))
    return io.BytesIO(out + end)


def file(name: str | bytes, data: bytes = b"data", **more: object) -> tuple[Header, bytes]:
    return Header(os.fsencode(name), header.REGULAR, **more), data  # type: ignore[arg-type]


def directory(name: str, mode: int = 0o755) -> Header:
    return Header(name.encode(), header.DIRECTORY, mode)


def symlink(name: str, target: str) -> Header:
    return Header(name.encode(), header.SYMLINK, linkname=target.encode())


def hardlink(name: str, target: str) -> Header:
    return Header(name.encode(), header.HARD_LINK, linkname=target.encode())


def apply(root: Path, stream: io.BytesIO, **options: object) -> int:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack.apply(fd, stream, unpack.Options(**options))  # type: ignore[arg-type]
    finally:
        os.close(fd)


def pack(root: Path, *, overlay: bool = False, latest_ns: int | None = None) -> bytes:
    parts: list[bytes] = []
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        writer = write.Writer(parts.append, latest_ns=latest_ns)
        write.tree(fd, writer, overlay=overlay)
        writer.close()
    finally:
        os.close(fd)
    return b"".join(parts)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below `root` that an archive carries: type, mode, owner, time in seconds, content,
    attributes."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for path in sorted(root.rglob("*")):
        st = path.lstat()
        name = str(path.relative_to(root))
        kind = stat.S_IFMT(st.st_mode)
        content: object = None
        if stat.S_ISREG(kind):
            content = path.read_bytes()
        elif stat.S_ISLNK(kind):
            content = os.readlink(path)
        elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            content = st.st_rdev
        link = first.setdefault((st.st_dev, st.st_ino), name) if not stat.S_ISDIR(kind) else name
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
        found[name] = (
            kind,
            stat.S_IMODE(st.st_mode),
            st.st_uid,
            st.st_gid,
            int(st.st_mtime),
            content,
            link,
            attributes,
        )
    return found
