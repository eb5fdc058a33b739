"""What the client asks of the store, as Protocols, and the values that cross its border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from lading.image.layer.reader import Source

Report = Callable[[dict[str, Any]], None]
"""Takes one line of progress in Docker's words."""


class Writer(Protocol):
    """A blob being written."""

    size: int

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def write(self, data: bytes, /) -> int: ...
    def peek(self) -> BinaryIO: ...
    def commit(self, expected: str | None = None) -> tuple[str, int]: ...


class Blobs(Protocol):
    """A blob store; `lading.store.blobs.Blobs` is one."""

    def writer(self) -> Writer: ...
    def put(self, data: bytes) -> str: ...
    def open(self, digest: str) -> BinaryIO: ...
    def read(self, digest: str, limit: int = ...) -> bytes: ...
    def size(self, digest: str) -> int: ...
    def refresh(self, digest: str) -> bool: ...


class Snapshots(Protocol):
    """Where layers are unpacked; `lading.store.snapshots.Snapshotter` is one."""

    def exists(self, key: str) -> bool: ...
    def apply(self, parent: str | None, committed: str, tar: Source, diff_id: str = "") -> None: ...


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a user has for one registry. Has no repr, so that no log or traceback shows a password."""

    username: str = ""
    password: str = ""
    identity_token: str = ""  # an OAuth2 refresh token
    registry_token: str = ""  # a bearer token, sent as it is

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


NOBODY = Credentials()
