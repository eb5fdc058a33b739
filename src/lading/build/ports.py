"""What the builder needs from the floor around it: an executor for RUN steps. Owns the Protocol and its
values only.

The promise of an executor, which `tests/unit/test_build_solve.py` pins with a fake one:

- it runs `argv` on the writable root file system that `rootfs` describes, waits, and returns the exit code;
- mount points it needs and does not find (/proc, /dev, /etc/hosts, the place of a CA bundle) never appear in
  the writable layer of an overlay; in a bind root (the copy snapshotter) it may create them, as empty
  directories and empty files, at the paths it names in `stubs`: the builder looks before the step which of
  them are there, and afterwards takes the new ones away again;
- nothing of the host (proxy variables, CA bundle, resolver) may be written into the root file system;
- it leaves no process, mount, cgroup or interface behind, also when it raises or is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lading.store.snapshots import Rootfs


@dataclass(frozen=True)
class Limits:
    """Resource limits of each RUN step, in Docker's build units (bytes, microseconds); 0 or "" means
    unset.
    """

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    pids_limit: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()  # (name, soft, hard)
    cgroup_parent: str = ""


NO_LIMITS = Limits()


@dataclass(frozen=True)
class StepMount:
    """A `RUN --mount`, made over the root file system; the mount point exists already.

    `type` is bind (`source` is an absolute host path), tmpfs (`size` in bytes, 0 for no limit) or secret: a file of
    `content` with `owner` and `mode`, which the executor puts nowhere but on a tmpfs.
    """

    type: str
    target: str
    source: str = ""
    read_only: bool = False
    size: int = 0
    content: bytes = field(default=b"", repr=False)
    owner: tuple[int, int] = (0, 0)
    mode: int = 0o400


@dataclass(frozen=True)
class Step:
    """One command to run in a root file system.

    `env` is complete (PATH included) but for HOME, which comes with the user, and what host trust adds.
    `working_dir` exists already.
    `output` may be called from any one thread, with chunks of any size, stream "stdout" or "stderr".
    `cancelled` is polled at least every 100 ms; when it becomes true the executor kills everything in the
    step and raises Cancelled.
    """

    id: str  # 64 hex digits, names the step's container, cgroup and run directory
    rootfs: Rootfs
    argv: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    user: str  # as USER says: "", name, uid, name:group, uid:gid
    network_mode: str  # default, none, host
    host_trust: bool
    extra_hosts: tuple[str, ...]
    limits: Limits
    output: Callable[[str, bytes], None]
    cancelled: Callable[[], bool]
    mounts: tuple[StepMount, ...] = ()
    hostname: str = ""


class Executor(Protocol):
    """Runs one step at a time or several at once; the engine implements it over its runtime."""

    @property
    def stubs(self) -> tuple[str, ...]:
        """Where `run` may leave empty mount points in a bind root; absolute, parents before children."""

    def run(self, step: Step) -> int:
        """Run the step to its end and return its exit code (128+n when signal n killed it).

        Raises a LadingError when the step could not be started at all (126 and 127, a program that cannot be
        run or is not there, are exit codes, with the reason given to `output`); raises Cancelled when
        `cancelled` became true.
        """

    def host_trust(self) -> str:
        """What of the host a trusting step sees, in a few words ("the CA bundle /etc/corp.pem and proxy
        variables").

        "" when the host has nothing beyond the distribution's defaults: automatic host trust is then off.
        """


class Fetch(Protocol):
    """Brings a base image into the store; the engine implements it over the registries."""

    def __call__(self, name: str, platform: str, access: object) -> object:
        """Pull `name` for `platform` (os/arch[/variant]); `access` is the request's. A LadingError when it fails,
        Unavailable when no registry answers.
        """
