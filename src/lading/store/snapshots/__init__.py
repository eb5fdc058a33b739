"""Snapshots: stacks of file trees. Owns the words: active, view, committed, parent, and the Protocol both
implementations keep.

A snapshot has a key. *Active* ones are writable and belong to one container or build step; *views* are
read-only; *committed* ones never change and may be parents. A committed key is a chainID. Keys of active
snapshots are the caller's (a container id).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from lading.image.layer.reader import Source

Kind = Literal["active", "view", "committed"]

MODIFIED, ADDED, DELETED = 0, 1, 2


class Rootfs(NamedTuple):
    """How to mount a snapshot: a plain value, so that it can be stored, printed and handed to a process
    without imports.

    Overlay paths are relative to `base`, so that 127 layers fit into the one page that mount(2) takes.
    """

    type: Literal["overlay", "bind"]
    base: str = ""  # overlay: the directory to change to before mounting
    lower: tuple[str, ...] = ()  # overlay: the topmost first
    upper: str = ""  # overlay: "" when read-only
    work: str = ""
    source: str = ""  # bind: absolute path
    readonly: bool = False
    options: tuple[str, ...] = ()  # overlay: further mount options, such as "userxattr"


class Change(NamedTuple):
    """One path, absolute inside the tree, that differs from the parent: MODIFIED, ADDED or DELETED (Docker's
    numbers)."""

    kind: int
    path: str


class Usage(NamedTuple):
    """What a snapshot takes on disk over its parent; both count as a pair for `bytes, inodes =
    usage(key)`."""

    bytes: int
    inodes: int


class Info(NamedTuple):
    """One snapshot as recorded."""

    key: str
    parent: str | None
    kind: Kind
    created_ns: int


class Snapshotter(Protocol):
    """The contract; `tests/contract/test_store_snapshots.py` holds every implementation to it."""

    name: str

    def prepare(self, key: str, parent: str | None) -> None:
        """Make a writable snapshot over a committed one (None: over nothing). Conflict when the key is
        taken."""

    def view(self, key: str, parent: str | None) -> None:
        """Make a read-only snapshot."""

    def rootfs(self, key: str, *, volatile: bool = False) -> Rootfs:
        """How to mount an active snapshot or a view. Ask anew before every mount.

        `volatile`: nothing written has to survive a power cut, so fsync inside and the sync at unmount may be
        left out. For build steps, whose snapshots are thrown away or committed (and then have their own
        protection), and `--rm` containers.
        """

    def commit(self, key: str, committed: str) -> None:
        """Turn an active snapshot, no longer mounted, into the committed one `committed`; `key` is gone
        afterwards.

        When `committed` exists already, it stays as it is and `key` is removed.
        """

    def remove(self, key: str) -> None:
        """Delete a snapshot; absent is fine. Conflict when others stand on it."""

    def exists(self, key: str) -> bool:
        """Whether the snapshot is there and whole."""

    def info(self, key: str) -> Info:
        """NotFound when absent."""

    def infos(self) -> list[Info]: ...

    def keys(self) -> list[str]: ...

    def usage(self, key: str) -> Usage: ...

    def diff(self, key: str) -> Iterator[Change]:
        """What an active snapshot changes over its parent, sorted by path."""

    def layer(self, key: str, out: Callable[[bytes], object], *, latest_ns: int | None = None) -> None:
        """The same as an OCI layer tar. `latest_ns` caps modification times."""

    def apply(self, parent: str | None, committed: str, tar: Source, diff_id: str = "") -> None:
        """Unpack a layer (gzip, zstd or plain) as the committed snapshot `committed`; at once or not at all.

        Two threads that unpack the same one do it once. When `diff_id` is given the tar must have that
        digest.
        """

    def mounted(self, key: str, *, readonly: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the merged tree, seen by nobody else; of a committed snapshot always read-only."""

    def sync(self) -> None:
        """Write everything to disk (syncfs), so that a power cut no longer costs a re-unpack."""

    def recover(self) -> None:
        """At start: forget what a power cut made doubtful and what killed processes left half done."""
