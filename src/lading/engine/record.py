"""A container's row: what it was asked to be (intent), and what is known of its past runs (history).

Owns the values, not where they are kept. Whether it runs now is in neither: that is derived from run/c/<id>/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lading.engine.model import Config, Endpoint, EndpointState, HostConfig, Mount, PortBinding


@dataclass(frozen=True)
class Record:
    """Intent, fixed at create but for rename and update."""

    id: str
    name: str
    created_ns: int
    image_id: str
    image_ref: str
    config: Config  # merged with the image's
    host: HostConfig
    networks: Mapping[str, Endpoint] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()  # volumes named, parents before children
    anonymous: tuple[str, ...] = ()  # volumes that rm -v takes along
    parent: str = ""  # committed snapshot the container stands on; "" for none
    platform: str = "linux"

    @property
    def command(self) -> tuple[str, ...]:
        """Entrypoint and arguments, as executed."""
        return (*(self.config.entrypoint or ()), *(self.config.cmd or ()))


@dataclass(frozen=True)
class History:
    """What outlives a run: how the last one went, and what it holds while it is up."""

    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    hint: str = ""  # advice on how the last run ended, where that is no failure of ours
    restarts: int = 0
    wanted: bool = False  # started by the user, and not stopped by the user since
    endpoints: tuple[EndpointState, ...] = ()
    host_names: tuple[str, ...] = ()  # the host's ends of its veth pairs, in the order of `endpoints`
    ports: tuple[PortBinding, ...] = ()
    device_env: tuple[str, ...] = ()  # what its devices' specs set, for execs
    device_gids: tuple[int, ...] = ()
