"""What the snapshotters share: everything but how a tree is stored. Owns unpacking and its crash protocol.

Never mounts anything; `overlay` and `copy` say what a snapshot's files are.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator

from lading.base import errors
from lading.image.layer import apply as unpack
from lading.image.layer.compress import Ahead, Decompressed
from lading.image.layer.reader import Source
from lading.linux import trees
from lading.store.database import Database, Row
from lading.store.snapshots import Change, Info, Rootfs, Usage
from lading.store.snapshots.records import Records

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Stored(abc.ABC):
    """A snapshotter over `Records`; see the Protocol `Snapshotter` for the words."""

    name: str
    whiteouts: unpack.Whiteouts

    def __init__(self, root: str, db: Database) -> None:
        self.records = Records(root, db, self.name)
        self._usages: dict[int, Usage] = {}

    @abc.abstractmethod
    def rootfs(self, key: str, *, volatile: bool = False) -> Rootfs: ...

    @abc.abstractmethod
    def diff(self, key: str) -> Iterator[Change]: ...

    @abc.abstractmethod
    def layer(self, key: str, out: Callable[[bytes], object], *, latest_ns: int | None = None) -> None: ...

    @abc.abstractmethod
    def mounted(self, key: str, *, readonly: bool = False) -> contextlib.AbstractContextManager[int]: ...

    @abc.abstractmethod
    def _fill(self, row: Row) -> None:
        """Put the parent's files into a new snapshot, where this way of storing needs it."""

    @abc.abstractmethod
    def _below(self, row: Row) -> contextlib.AbstractContextManager[Callable[[], int] | None]:
        """How unpacking may look at the parent's tree; None where the parent's files are in place already."""

    def _create(self, key: str, parent: str | None, *, view: bool = False, owned: bool = False) -> Row:
        row = self.records.create(key, parent, "view" if view else "active", owned=owned)
        try:
            self._fill(row)
        except BaseException:
            self.records.remove(key)
            raise
        return row

    def prepare(self, key: str, parent: str | None) -> None:
        self._create(key, parent)

    def view(self, key: str, parent: str | None) -> None:
        self._create(key, parent, view=True)

    def commit(self, key: str, committed: str) -> None:
        self.records.commit(key, committed)

    def remove(self, key: str) -> None:
        self.records.remove(key)

    def exists(self, key: str) -> bool:
        return self.records.exists(key)

    def info(self, key: str) -> Info:
        return self.records.info(key)

    def infos(self) -> list[Info]:
        return self.records.infos()

    def keys(self) -> list[str]:
        return [info.key for info in self.records.infos()]

    def sync(self) -> None:
        self.records.sync()

    def recover(self) -> None:
        self.records.recover()

    def _files(self, row: Row) -> str:
        return f"{self.records.root}/{row['id']}/d"

    def usage(self, key: str) -> Usage:
        """Blocks and inodes of the snapshot's own files; hard links count once. Remembered for committed
        ones."""
        row = self.records.get(key)
        known = self._usages.get(row["id"])
        if known is not None:
            return known
        fd = os.open(self._files(row), _DIR)
        try:
            found = Usage(*trees.usage(fd))
        finally:
            os.close(fd)
        if row["kind"] == "committed":
            self._usages[row["id"]] = found
        return found

    def apply(self, parent: str | None, committed: str, tar: Source, diff_id: str = "") -> None:
        with self.records.locked(committed):
            if self.records.exists(committed):
                return
            key = f"unpack-{os.urandom(8).hex()}"
            row = self._create(key, parent, owned=True)
            try:
                found = self._unpack(row, tar)
                if diff_id and found != diff_id:
                    raise errors.Invalid(
                        "layer does not match its diffID",
                        why=f"Expected {diff_id}, got {found}.",
                        hint="Get the image anew.",
                    )
                self.records.commit(key, committed)
            except BaseException:
                self.records.remove(key)
                raise

    def _unpack(self, row: Row, tar: Source) -> str:
        """Unpack into the snapshot's directory; the digest of the uncompressed tar."""
        digest = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            root = os.open(self._files(row), _DIR)
            stack.callback(os.close, root)
            base = stack.enter_context(self._below(row))
            source = stack.enter_context(Ahead(Decompressed(tar), digest.update))
            options = unpack.Options(whiteouts=self.whiteouts, devices=os.geteuid() == 0, base=base)
            unpack.apply(root, source, options)
        return "sha256:" + digest.hexdigest()
