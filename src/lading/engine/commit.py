"""`commit`: a new image from a container's present files. Owns making the layer and the config's changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base import clock
from lading.base.errors import Conflict
from lading.engine.images import Change
from lading.engine.model import Config
from lading.image import mutate
from lading.image.config import ContainerConfig, Healthcheck, History, ImageConfig
from lading.image.layer.compress import write_layer

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry


def image_config(config: Config) -> ContainerConfig:
    """What a container runs with, as an image says it."""
    check = config.healthcheck
    return ContainerConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=dict(config.labels),
        stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout,
        healthcheck=Healthcheck(
            check.test, check.interval, check.timeout, check.start_period, check.start_interval, check.retries
        )
        if check is not None
        else None,
    )


def commit(
    rooms: Rooms,
    entry: Entry,
    repo: str,
    tag: str,
    comment: str,
    author: str,
    changes: tuple[str, ...],
    pause: bool,
    change: Change,
) -> str:
    """Store the image and name it "repo:tag" when a repo is given; returns its id."""
    record = entry.record
    with entry.lock:
        if entry.removing:
            raise Conflict(f"container {entry.id} is being removed")
        live = rooms.runtime.live(entry.id) if entry.running else None
        can = rooms.runtime.layout.freezes  # else the layer is of a moving tree, as with --pause=false
        froze = pause and can and live is not None and not live.paused
        if froze:
            rooms.runtime.pause(entry.id)
        try:
            with rooms.leases.hold():
                layer = write_layer(rooms.blobs, lambda out: rooms.snapshotter.layer(entry.id, out))
                base = mutate.Draft(ImageConfig())
                if record.parent:
                    image = rooms.images.get(record.image_id)
                    base = mutate.draft(image.manifest, image.config)
                now = clock.rfc3339(clock.now_ns())
                history = History(
                    created=now, created_by=" ".join(record.command), comment=comment, author=author
                )
                draft = mutate.append(base, layer, history)
                draft = mutate.configure(draft, lambda _: change(image_config(record.config), changes))
                if author:
                    draft = mutate.Draft(replace(draft.config, author=author), draft.layers)
                return rooms.images.store(draft, (f"{repo}:{tag}" if tag else repo) if repo else "").id
        finally:
            if froze:
                rooms.runtime.resume(entry.id)
