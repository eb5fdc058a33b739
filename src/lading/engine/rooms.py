"""The rooms an engine stands on, handed from verb to verb as one value. Owns nothing and opens nothing itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lading.base.paths import Paths
from lading.engine import trust_host
from lading.engine.events import Events
from lading.engine.networks import Networks
from lading.engine.publish import Publisher
from lading.engine.roster import Roster
from lading.engine.timers import Timers
from lading.engine.volumes import Volumes

if TYPE_CHECKING:
    from lading import network as network_room
    from lading.engine.accelerators import Accelerators
    from lading.runtime.runtime import Runtime
    from lading.store.blobs import Blobs
    from lading.store.database import Database
    from lading.store.images import Images
    from lading.store.leases import Leases
    from lading.store.snapshots import Snapshotter


@dataclass
class Rooms:
    """What assemble.py joined. `kernel_networks` opens the network room at its first use."""

    paths: Paths
    environ: Mapping[str, str]  # read once, at the door
    db: Database
    blobs: Blobs
    leases: Leases
    snapshotter: Snapshotter
    images: Images
    runtime: Runtime
    kernel_networks: Callable[[], network_room.Networks]
    roster: Roster
    events: Events
    volumes: Volumes
    networks: Networks
    publisher: Publisher
    pool: Executor
    timers: Timers
    stub_layer: str
    cpus: int
    ordinary: bool = False  # the engine of an ordinary user, in a user namespace
    no_way_out: str = ""  # why a network of one's own would lead nowhere

    @functools.cached_property
    def accelerators(self) -> Accelerators:
        """GPUs and the like, loaded when the first container asks for one."""
        from lading.engine.accelerators import Accelerators

        return Accelerators(self.paths)

    @functools.cached_property
    def trust(self) -> trust_host.HostTrust:
        """What the host's environment says of certificates, proxies and indexes."""
        return trust_host.find(self.environ)
