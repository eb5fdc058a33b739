"""The runtime's values: what to launch, what lives, how it ended. Daemon side only; the zygote gets plain tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Rootfs(Protocol):
    """How the root file system is mounted; the store's value of the same name fits.

    `type` is "overlay" (`lower`, topmost first, `upper` and `work` are relative to `base`) or "bind" (`source`).
    """

    @property
    def type(self) -> str: ...
    @property
    def base(self) -> str: ...
    @property
    def lower(self) -> tuple[str, ...]: ...
    @property
    def upper(self) -> str: ...
    @property
    def work(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def readonly(self) -> bool: ...


@dataclass(frozen=True)
class Attachment:
    """A client's connection to be served by the monitor; the descriptor is duplicated, the caller closes its own."""

    fd: int
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    detach_keys: bytes = b""


@dataclass(frozen=True)
class Launch:
    """A container to be made. `spec` is an OCI runtime-spec 1.2 configuration."""

    id: str
    spec: Mapping[str, Any]
    rootfs: Rootfs
    log_path: str = ""
    log_max_size: int = 10 << 20
    log_max_files: int = 3
    open_stdin: bool = False
    stdin_once: bool = False
    netns_fd: int = -1  # joined instead of a new network namespace
    keep_fds: Sequence[int] = ()  # held by the monitor while the container lives: port reservations
    attachments: Sequence[Attachment] = ()
    reaper: bool = False  # --init


@dataclass(frozen=True)
class ExecLaunch:
    """A process to be started in a running container. `process` is the specification's process object."""

    id: str
    container: str
    process: Mapping[str, Any]
    seccomp: Mapping[str, Any] | None = None
    open_stdin: bool = False
    attachments: Sequence[Attachment] = ()


@dataclass(frozen=True)
class Live:
    """A process that runs, by host pid; `created_paths` are mount points that had to be made in the image."""

    pid: int
    started_ns: int = 0
    paused: bool = False
    created_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exit:
    """How it ended: `code` is 128+n for signal n. `lost` means that the monitor was killed and the code is a guess."""

    code: int
    signal: int = 0
    oom: bool = False
    finished_ns: int = 0
    lost: bool = False
