"""What a build is asked to do, as one value. Owns its fields and defaults; never reads the environment or
the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lading.base.errors import Cancelled
from lading.build.ports import NO_LIMITS, Limits


def never() -> bool:
    """The default `cancelled`: nobody asks to stop."""
    return False


@dataclass(frozen=True)
class BuildRequest:
    """One build. Strings are as the user gave them; the builder checks them and answers with Invalid.

    `context_dir` is an absolute directory on this host, or "" for a build without context (a Dockerfile from
    standard input). A context that came as a tar is unpacked first with `context.received`, which also says
    `ephemeral=True`: the digests of its files are then not remembered, since their inodes will not come back.
    """

    context_dir: str = ""
    dockerfile: str = ""  # path inside the context; "" is Dockerfile
    dockerfile_text: bytes | None = (
        None  # the text itself, when it is not in the context (-f -, -f elsewhere)
    )
    dockerignore_text: bytes | None = None  # wins over the context's ignore files
    ephemeral: bool = False
    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str | None] = field(default_factory=dict)  # None: declared without a value
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""  # stage name or index; "" is the last stage
    no_cache: bool = False
    pull: bool = False
    platform: str = ""  # os/arch[/variant]; "" is this host's
    host_trust: bool | None = None  # None: on when the executor says that the host has a bundle of its own
    network_mode: str = "default"  # default, none, host, or what the executor knows
    extra_hosts: tuple[str, ...] = ()  # "name:ip"
    limits: Limits = NO_LIMITS
    compression: str = "gzip"  # gzip, zstd or tar: the media type of new layers
    cancelled: Callable[[], bool] = never
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # by id; in memory only
    access: object = None  # what the caller brought for registries; handed to `Fetch` as it is

    def check(self) -> None:
        """Cancelled, when the caller has asked to stop."""
        if self.cancelled():
            raise Cancelled("the build was cancelled")
