"""Snapshots as full copies, for hosts without overlayfs. Slower and larger, but it works on every file
system.

Owns copying a tree (sharing blocks where the file system can) and finding what changed by comparing two
trees.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from lading.base import errors
from lading.image.layer.write import Writer, xattrs_of
from lading.linux import trees
from lading.store.database import Row
from lading.store.snapshots import ADDED, DELETED, MODIFIED, Change, Rootfs
from lading.store.snapshots.base import Stored

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Copy(Stored):
    """The snapshotter that needs nothing of the kernel."""

    name = "copy"
    whiteouts = "delete"

    def _fill(self, row: Row) -> None:
        if row["parent"] is None:
            return
        with contextlib.ExitStack() as stack:
            source = _opened(stack, self._parent_files(row))
            target = _opened(stack, self._files(row))
            try:
                trees.copy(source, target, chown=os.geteuid() == 0)
            except OSError as error:
                raise errors.Unavailable(
                    "a snapshot cannot be copied", why=error.strerror or str(error)
                ) from error

    def _parent_files(self, row: Row) -> str:
        return f"{self.records.root}/{row['parent']}/d"

    @contextlib.contextmanager
    def _below(self, row: Row) -> Iterator[Callable[[], int] | None]:
        yield None

    def rootfs(self, key: str, *, volatile: bool = False) -> Rootfs:
        row = self.records.get(key)
        if row["kind"] == "committed":
            raise errors.Conflict(f"snapshot {key[:80]} is committed: make a view of it to mount it")
        return Rootfs("bind", source=self._files(row), readonly=row["kind"] == "view")

    @contextlib.contextmanager
    def mounted(self, key: str, *, readonly: bool = False) -> Iterator[int]:
        """The tree itself: without a mount nothing enforces `readonly`, which the caller keeps."""
        fd = os.open(self._files(self.records.get(key)), _DIR)
        try:
            yield fd
        finally:
            os.close(fd)

    def _trees(self, stack: contextlib.ExitStack, key: str) -> tuple[int, int]:
        """Descriptors of the snapshot's tree and of its parent's; -1 where there is no parent."""
        row = self.records.get(key)
        mine = _opened(stack, self._files(row))
        return mine, -1 if row["parent"] is None else _opened(stack, self._parent_files(row))

    def diff(self, key: str) -> Iterator[Change]:
        with contextlib.ExitStack() as stack:
            mine, other = self._trees(stack, key)
            for found in _compare(mine, other, ""):
                yield Change(found.kind, f"/{found.path}")

    def layer(self, key: str, out: Callable[[bytes], object], *, latest_ns: int | None = None) -> None:
        with contextlib.ExitStack() as stack:
            mine, other = self._trees(stack, key)
            writer = Writer(out, latest_ns=latest_ns)
            try:
                for found in _compare(mine, other, ""):
                    found.write(writer)
            except OSError as error:
                raise errors.Unavailable(
                    "a layer cannot be read", why=error.strerror or str(error)
                ) from error
            writer.close()


def _opened(stack: contextlib.ExitStack, path: str) -> int:
    fd = os.open(path, _DIR)
    stack.callback(os.close, fd)
    return fd


class _Found:
    """One difference, with the descriptor of the directory it is in, valid until the next one is asked
    for."""

    __slots__ = ("base", "kind", "parent", "path", "st")

    def __init__(self, kind: int, path: str, parent: int, base: str, st: os.stat_result | None) -> None:
        self.kind, self.path, self.parent, self.base, self.st = kind, path, parent, base, st

    def write(self, writer: Writer) -> None:
        name = os.fsencode(self.path)
        if self.st is None:
            writer.whiteout(name)
        elif stat.S_ISDIR(self.st.st_mode):
            fd = os.open(self.base, _DIR, dir_fd=self.parent)
            try:
                writer.directory(name, fd)
            finally:
                os.close(fd)
        else:
            writer.file(name, self.parent, self.base, self.st)


def _compare(mine: int, other: int, above: str) -> Iterator[_Found]:
    """Differences below two directories, sorted; `other` -1 means that all is new. A changed file's directory
    comes first, as in an overlay upper directory, so that both snapshotters make the same layer."""
    trees.check_depth(above)
    names = set(os.listdir(mine))
    gone = set(os.listdir(other)) - names if other >= 0 else set()
    for base in sorted(names | gone, key=os.fsencode):
        path = f"{above}{base}"
        if base in gone:
            yield _Found(DELETED, path, mine, base, None)
            continue
        st = os.stat(base, dir_fd=mine, follow_symlinks=False)
        before = _lstat(other, base)
        if not stat.S_ISDIR(st.st_mode):
            if before is None or _differs(mine, other, base, st, before):
                yield _Found(ADDED if before is None else MODIFIED, path, mine, base, st)
            continue
        yield from _compare_directory(mine, other, base, path, st, before)


def _compare_directory(
    mine: int, other: int, base: str, path: str, st: os.stat_result, before: os.stat_result | None
) -> Iterator[_Found]:
    here = _Found(ADDED if before is None else MODIFIED, path, mine, base, st)
    if before is None or not stat.S_ISDIR(before.st_mode):
        yield here
    with contextlib.ExitStack() as stack:
        child = os.open(base, _DIR, dir_fd=mine)
        stack.callback(os.close, child)
        if before is None or not stat.S_ISDIR(before.st_mode):
            yield from _compare(child, -1, f"{path}/")
            return
        twin = os.open(base, _DIR, dir_fd=other)
        stack.callback(os.close, twin)
        reported = _attributes(st) != _attributes(before) or xattrs_of(child) != xattrs_of(twin)
        if reported:
            yield here
        for found in _compare(child, twin, f"{path}/"):
            if not reported:
                reported = True
                yield here
            yield found


def _attributes(st: os.stat_result) -> tuple[int, int, int]:
    """What makes a directory differ; its time alone does not."""
    return (st.st_mode, st.st_uid, st.st_gid)


def _differs(mine: int, other: int, base: str, st: os.stat_result, before: os.stat_result) -> bool:
    """Whether a path changed. Copies keep times, so the same size and time to the nanosecond mean the same
    content."""
    if (_attributes(st), st.st_rdev, st.st_size) != (_attributes(before), before.st_rdev, before.st_size):
        return True
    if st.st_mtime_ns != before.st_mtime_ns:
        return True
    if stat.S_ISLNK(st.st_mode):
        return os.readlink(base, dir_fd=mine) != os.readlink(base, dir_fd=other)
    if stat.S_ISREG(st.st_mode):
        return _xattrs(mine, base) != _xattrs(other, base)
    return False


def _xattrs(parent: int, base: str) -> dict[bytes, bytes]:
    fd = os.open(base, _FILE, dir_fd=parent)
    try:
        return xattrs_of(fd)
    finally:
        os.close(fd)


def _lstat(fd: int, base: str) -> os.stat_result | None:
    if fd < 0:
        return None
    try:
        return os.stat(base, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
