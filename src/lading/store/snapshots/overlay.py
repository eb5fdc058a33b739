"""Snapshots as overlayfs layers: an active snapshot is an upper directory, committed ones are its lower
directories.

Owns the choice of mount options and the private mounts for looking at a tree. Sources: kernel
Documentation/filesystems/overlayfs.rst; mount(2); fsconfig in include/uapi/linux/mount.h.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from lading.base import errors
from lading.image.layer import whiteout
from lading.image.layer.write import Writer, tree
from lading.linux import identity, overlayfs, trees
from lading.store.database import Database, Row
from lading.store.snapshots import ADDED, DELETED, MODIFIED, Change, Rootfs
from lading.store.snapshots.base import Stored
from lading.store.snapshots.records import EMPTY

MAX_LOWER = 500
"""OVL_MAX_STACK of the kernel (fs/overlayfs/params.h)."""


def unsupported(root: str) -> str:
    """Why overlay snapshots cannot be used below `root`; "" when they can. Tried for real, in a scratch
    directory there."""
    os.makedirs(root, mode=0o700, exist_ok=True)
    try:
        overlayfs.probe(root, overlayfs.options(identity.host_root()))
    except OSError as error:
        return f"overlayfs does not work below {root}: {error.strerror or error}"
    return ""


class Overlay(Stored):
    """The snapshotter for hosts with overlayfs."""

    name = "overlay"
    whiteouts = "overlay"

    def __init__(self, root: str, db: Database) -> None:
        super().__init__(root, db)
        self._options = overlayfs.options(identity.host_root())

    def _fill(self, row: Row) -> None:
        """Nothing: the parent's files are seen through overlayfs."""

    def rootfs(self, key: str, *, volatile: bool = False) -> Rootfs:
        row = self.records.get(key)
        if row["kind"] == "committed":
            raise errors.Conflict(f"snapshot {key[:80]} is committed: make a view of it to mount it")
        if row["kind"] == "view":
            return self._readonly(row)
        overlayfs.forget_volatile(f"{self.records.root}/{row['id']}/w")
        return self._writable(row, volatile=volatile)

    def _lower(self, row: Row) -> tuple[str, ...]:
        """The parents' directories, topmost first; one that is empty where there are none."""
        lower = tuple(f"{number}/d" for number in self.records.chain(row))
        if len(lower) >= MAX_LOWER:
            raise errors.Unsupported(
                f"an image of {len(lower)} layers is more than overlayfs stacks ({MAX_LOWER})"
            )
        return lower or (EMPTY,)

    def _readonly(self, row: Row) -> Rootfs:
        # Without an upper directory overlayfs wants two lower ones; a view's own directory is empty.
        lower = (f"{row['id']}/d", *self._lower(row))
        return Rootfs("overlay", self.records.root, lower, readonly=True, options=self._options)

    def _writable(self, row: Row, *, volatile: bool) -> Rootfs:
        options = (*self._options, "volatile") if volatile and overlayfs.has_volatile() else self._options
        upper, work = f"{row['id']}/d", f"{row['id']}/w"
        return Rootfs("overlay", self.records.root, self._lower(row), upper, work, options=options)

    @contextlib.contextmanager
    def mounted(self, key: str, *, readonly: bool = False) -> Iterator[int]:
        row = self.records.get(key)
        if readonly or row["kind"] != "active":
            with self._mounted(self._readonly(row)) as fd:
                yield fd
            return
        work = f"{self.records.root}/{row['id']}/w"
        overlayfs.forget_volatile(work)
        try:
            with self._mounted(self._writable(row, volatile=True)) as fd:
                yield fd
        finally:
            overlayfs.forget_volatile(work)

    @contextlib.contextmanager
    def _mounted(self, value: Rootfs) -> Iterator[int]:
        try:
            fd = overlayfs.mount_detached(value.base, value.lower, value.upper, value.work, value.options)
        except OSError as error:
            raise errors.Unavailable(
                "a snapshot cannot be mounted", why=error.strerror or str(error)
            ) from error
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _below(self, row: Row) -> Iterator[Callable[[], int] | None]:
        if row["parent"] is None:
            yield None
            return
        with contextlib.ExitStack() as stack:
            opened: list[int] = []

            def base() -> int:
                # Few layers need it (their archives list all parents), so it is mounted at the first question
                # only.
                if not opened:
                    opened.append(stack.enter_context(self._parent_tree(row)))
                return opened[0]

            yield base

    def _parent_tree(self, row: Row) -> contextlib.AbstractContextManager[int]:
        lower = tuple(f"{number}/d" for number in self.records.chain(row))
        return self._mounted(
            Rootfs("overlay", self.records.root, (*lower, EMPTY), readonly=True, options=self._options)
        )

    def layer(self, key: str, out: Callable[[bytes], object], *, latest_ns: int | None = None) -> None:
        row = self.records.get(key)
        fd = os.open(self._files(row), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            writer = Writer(out, latest_ns=latest_ns)
            tree(fd, writer, overlay=True)
            writer.close()
        except OSError as error:
            raise errors.Unavailable("a layer cannot be read", why=error.strerror or str(error)) from error
        finally:
            os.close(fd)

    def diff(self, key: str) -> Iterator[Change]:
        row = self.records.get(key)
        with contextlib.ExitStack() as stack:
            upper = os.open(self._files(row), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, upper)
            lower = stack.enter_context(self._parent_tree(row)) if row["parent"] is not None else -1
            yield from _changes(upper, lower, "")


def _changes(upper: int, lower: int, above: str) -> Iterator[Change]:
    """Compare one upper directory with the directory of the parent's tree at the same place; -1: there is
    none."""
    trees.check_depth(above)
    names = sorted(os.listdir(upper), key=os.fsencode)
    gone = set(os.listdir(lower)) - set(names) if lower >= 0 and whiteout.is_opaque(upper) else set()
    for name in sorted([*names, *gone], key=os.fsencode):
        path = f"{above}/{name}"
        if name in gone:
            yield Change(DELETED, path)
            continue
        st = os.stat(name, dir_fd=upper, follow_symlinks=False)
        if whiteout.is_device(st):
            yield Change(DELETED, path)
            continue
        below = _lstat(name, lower)
        yield Change(MODIFIED if below is not None else ADDED, path)
        if stat.S_ISDIR(st.st_mode):
            with contextlib.ExitStack() as stack:
                child = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper
                )
                stack.callback(os.close, child)
                other = -1
                if below is not None and stat.S_ISDIR(below.st_mode):
                    other = os.open(
                        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=lower
                    )
                    stack.callback(os.close, other)
                yield from _changes(child, other, path)


def _lstat(name: str, fd: int) -> os.stat_result | None:
    if fd < 0:
        return None
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
