"""`cp`, `export`: tars out of and into a container's tree. Owns resolving the path and Docker's shapes.

The tree is a directory descriptor: of a running container its own root (through /proc/<pid>/root, volumes and all),
of a stopped one its snapshot, with paths below a volume led to the volume. Every path is resolved by the kernel below
that descriptor (openat2(2), RESOLVE_IN_ROOT), so no link leads out of it, whoever changes the tree meanwhile.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from lading.base import clock
from lading.base.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from lading.image.layer import apply as unpack
from lading.image.layer import header as headers
from lading.image.layer.write import Writer
from lading.image.layer.write import tree as write_tree
from lading.linux import files

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# Go's os.FileMode, in which Docker tells modes (pkg.go.dev/io/fs#FileMode).
_GO_KINDS = (
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISCHR, 1 << 26 | 1 << 21),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
)
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass(frozen=True)
class Tree:
    """A directory to work below, and the path there; `shown` is the path as the user gave it."""

    root: int
    path: str
    shown: str


@contextmanager
def tree(rooms: Rooms, entry: Entry, path: str, *, write: bool = False) -> Iterator[Tree]:
    """Where `path` of the container lies."""
    if "\0" in path or len(path) > 4096:
        raise Invalid("the path is not valid", why="It holds a NUL or is longer than 4096 bytes.")
    if not path:
        raise Invalid("the path is empty")
    path = path if path.startswith("/") else "/" + path
    with ExitStack() as stack:
        with entry.lock:
            where = _open(rooms, entry, path, write, stack)
        yield where


def _open(rooms: Rooms, entry: Entry, path: str, write: bool, stack: ExitStack) -> Tree:
    """The caller holds the lock, so that nothing starts or ends between the look and the open.

    Only writing into a stopped container keeps the lock: its upper directory must not be mounted twice.
    """
    live = rooms.runtime.live(entry.id) if entry.running else None
    directory, inside, read_only = (f"/proc/{live.pid}/root", path, False) if live else ("", "", False)
    if live is None:
        directory, inside, read_only = _mount_of(rooms, entry, path)
    if write and read_only:
        raise Denied(f"mounted volume at {path} is marked read-only")
    if not directory:
        if write:
            entry.lock.acquire()
            stack.callback(entry.lock.release)
        root = stack.enter_context(rooms.snapshotter.mounted(entry.id, readonly=not write))
        return Tree(root, path, path)
    fd = os.open(directory, _DIR)
    stack.callback(os.close, fd)
    if live is not None and rooms.runtime.live(entry.id) is None:
        raise Conflict(f"container {entry.record.name} has just ended", hint="Try again.")
    return Tree(fd, inside, path)


def _mount_of(rooms: Rooms, entry: Entry, path: str) -> tuple[str, str, bool]:
    """(host directory, path inside, read-only) when `path` is at or below a mount of a stopped container."""
    clean = posixpath.normpath(path)
    for mount in reversed(entry.record.mounts):  # children come after parents
        if clean == mount.target or clean.startswith(mount.target + "/"):
            if mount.type == "tmpfs":
                raise NotFound(
                    f"could not find the file {path} in container {entry.record.name}",
                    why="It lies in a tmpfs, which is gone while the container does not run.",
                )
            host = mount.source if mount.type == "bind" else rooms.volumes.inspect(mount.source).mountpoint
            if not os.path.isdir(host):
                continue
            tail = path[path.find(mount.target) + len(mount.target) :] if mount.target in path else ""
            return host, tail or "/", mount.read_only
    return "", "", False


def _missing(shown: str) -> NotFound:
    return NotFound(f"could not find the file {shown[:300]} in the container")


@contextmanager
def _parent(where: Tree) -> Iterator[tuple[int, str, os.stat_result]]:
    """(parent directory, name, lstat) of a path; the name is "." for the tree's top and for "dir/." forms."""
    path, final = where.path, ""
    follow = path.endswith(("/", "/."))
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if follow or clean == "/" or path.endswith("/.."):
        folder, final = clean, "."
    else:
        folder, final = posixpath.split(clean)
    try:
        fd = files.openat2(where.root, folder, _DIR)
    except OSError as e:
        if e.errno == errno.ENOTDIR and follow:
            raise Invalid(f"{where.shown[:300]} is not a directory") from e
        raise _missing(where.shown) from e
    try:
        try:
            yield fd, final, os.stat(final, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError as e:
            raise _missing(where.shown) from e
    finally:
        os.close(fd)


def head(where: Tree) -> dict[str, Any]:
    """Docker's PathStat."""
    with _parent(where) as (fd, name, info):
        mode = stat.S_IMODE(info.st_mode) & 0o777
        for test, bit in _GO_KINDS:
            if test(info.st_mode):
                mode |= bit
        for mask, bit in _GO_BITS:
            if info.st_mode & mask:
                mode |= bit
        target = ""
        if stat.S_ISLNK(info.st_mode):
            link = os.readlink(name, dir_fd=fd)
            target = posixpath.normpath(posixpath.join(posixpath.dirname(where.shown.rstrip("/")), link))
        return {
            "name": posixpath.basename(posixpath.normpath(where.shown)) or "/",
            "size": info.st_size,
            "mode": mode,
            "mtime": clock.rfc3339(info.st_mtime_ns),
            "linkTarget": target,
        }


def get(where: Tree, out: Callable[[bytes], object]) -> None:
    """The path, and all below it, as a tar whose names begin with the path's last part."""
    with _parent(where) as (fd, name, info):
        shown = "." if where.path.endswith("/.") else posixpath.basename(posixpath.normpath(where.shown))
        prefix = os.fsencode(shown or ".")
        writer = Writer(out)
        try:
            if stat.S_ISDIR(info.st_mode):
                child = os.open(name, _DIR | os.O_NOFOLLOW, dir_fd=fd)
                try:
                    writer.directory(prefix, child)
                    write_tree(child, writer, prefix)
                finally:
                    os.close(child)
            else:
                writer.file(prefix, fd, name, info)
        except OSError as e:
            raise Unavailable(f"{where.shown[:300]} cannot be read", why=e.strerror or str(e)) from e
        writer.close()


def put(where: Tree, stream: BinaryIO, *, no_overwrite: bool, owner: tuple[int, int] | None) -> None:
    """Unpack a tar, compressed or not, into the directory at the path."""
    from lading.image.layer.compress import Decompressed

    try:
        fd = files.openat2(where.root, where.path, _DIR)
    except OSError as e:
        if e.errno == errno.ENOTDIR:
            raise Invalid("extraction point is not a directory", why=f"{where.shown[:300]} is a file.") from e
        raise _missing(where.shown) from e
    try:
        source = _Peeked(Decompressed(stream))
        if no_overwrite:
            _check_first(fd, source)
        unpack.apply(fd, source, unpack.Options(whiteouts="plain", owner=owner, devices=True))
    finally:
        os.close(fd)


class _Peeked:
    """A stream whose first block can be looked at before it is read."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.first = b""
        while len(self.first) < headers.BLOCK:
            more = source.read(headers.BLOCK - len(self.first))
            if not more:
                break
            self.first += more
        self._kept = self.first

    def read(self, size: int = -1, /) -> bytes:
        if self._kept:
            data = self._kept[:size] if size >= 0 else self._kept
            self._kept = self._kept[len(data) :]
            return data
        data = self._source.read(size)
        return bytes(data)


def _check_first(fd: int, source: _Peeked) -> None:
    """Docker's noOverwriteDirNonDir, for the member that names what is copied: no file over a folder, nor back."""
    if len(source.first) < headers.BLOCK:
        return
    header = headers.parse(source.first)
    name = b"/".join(unpack.components(header.name)) if header is not None else b""
    if header is None or not name:
        return
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return
    folder = header.type == headers.DIRECTORY
    if folder != stat.S_ISDIR(info.st_mode):
        words = ("directory", "non-directory") if folder else ("non-directory", "directory")
        raise Invalid(f"cannot overwrite {words[1]} {os.fsdecode(name)[:200]!r} with {words[0]}")


def export(root: int, out: Callable[[bytes], object]) -> None:
    """The whole tree as a tar."""
    writer = Writer(out)
    fd = files.openat2(root, ".", _DIR)
    try:
        write_tree(fd, writer)
    except OSError as e:
        raise Unavailable("the container's files cannot be read", why=e.strerror or str(e)) from e
    finally:
        os.close(fd)
    writer.close()
