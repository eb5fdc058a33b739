"""Containers as `inspect` and `ps` see them: intent, history and live state in one value. Owns deriving the state.

Never stores what it derives. Filters of `ps` are here, since they look at the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base.errors import Invalid, LadingError
from lading.engine import compose
from lading.engine import filters as filtering
from lading.engine.model import ContainerView, Endpoint, EndpointState, Mount, MountPoint, State
from lading.engine.record import Record
from lading.engine.start import log_path

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.engine.roster import Entry

STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_FILTER_NAMES = (
    "id name label status exited ancestor before since volume network publish expose health is-task"
)
_FILTERS = tuple(_FILTER_NAMES.split())


def state(rooms: Rooms, entry: Entry) -> State:
    """Status, from run/c/<id>/ where there is any, else from history."""
    history, probe = entry.history, entry.probe
    live = rooms.runtime.live(entry.id) if entry.running else None
    ended = rooms.runtime.exit(entry.id) if entry.running and live is None else None
    status = "exited" if history.started_ns else "created"
    if entry.removing:
        status = "removing"
    elif live is not None:
        status = "paused" if live.paused else "running"
    elif entry.restarting is not None:
        status = "restarting"
    return State(
        status=status,
        pid=live.pid if live is not None else 0,
        exit_code=ended.code if ended is not None else history.exit_code,
        oom_killed=ended.oom if ended is not None else history.oom_killed,
        error=history.error or history.hint,
        started_ns=live.started_ns or history.started_ns if live is not None else history.started_ns,
        finished_ns=ended.finished_ns if ended is not None else history.finished_ns,
        health=probe.status if probe is not None else "",
        failing_streak=probe.streak if probe is not None else 0,
        health_log=probe.results if probe is not None else (),
    )


def view(rooms: Rooms, entry: Entry, *, size: bool = False) -> ContainerView:
    """One container; `size` counts its files, which takes time."""
    record, history = entry.record, entry.history
    directory = rooms.paths.container_dir(record.id)
    found = ContainerView(
        id=record.id,
        name=record.name,
        created_ns=record.created_ns,
        image_id=record.image_id,
        image_ref=record.image_ref,
        command=record.command,
        config=record.config,
        host=compose.shown(record.host),
        state=state(rooms, entry),
        mounts=tuple(_mount_point(rooms, mount) for mount in record.mounts),
        networks=history.endpoints if entry.running else _idle_endpoints(rooms, record),
        ports=history.ports if entry.running else (),
        restart_count=history.restarts,
        driver=rooms.snapshotter.name,
        platform=record.platform,
        log_path=log_path(directory) if record.host.log_driver != "none" else "",
        hostname_path=f"{directory}/hostname",
        hosts_path=f"{directory}/hosts",
        resolv_conf_path=f"{directory}/resolv.conf",
        exec_ids=tuple(entry.execs),
    )
    return with_size(rooms, found) if size else found


def with_size(rooms: Rooms, found: ContainerView) -> ContainerView:
    """Bytes of the writable layer, and of it and the image together."""
    writable = rooms.snapshotter.usage(found.id).bytes
    total, key = writable, rooms.snapshotter.info(found.id).parent
    while key is not None:
        total += rooms.snapshotter.usage(key).bytes
        key = rooms.snapshotter.info(key).parent
    return replace(found, size_rw=writable, size_root=total)


def _idle_endpoints(rooms: Rooms, record: Record) -> tuple[EndpointState, ...]:
    """The networks a stopped container will join, without addresses."""
    from lading.engine.joining import wanted_networks

    mode = record.host.network_mode
    alone = mode in ("none", "host")
    asked = {mode: Endpoint()} if alone else wanted_networks(record.host, record.networks)
    found = []
    for name, endpoint in asked.items():
        try:
            network = rooms.networks.inspect(name)
        except LadingError:
            continue  # removed since
        found.append(EndpointState(network.name, network.id, aliases=endpoint.aliases, requested=endpoint))
    return tuple(found)


def _mount_point(rooms: Rooms, mount: Mount) -> MountPoint:
    source, name = mount.source, ""
    if mount.type == "volume":
        name = mount.source
        source = f"{rooms.paths.volumes}/{name}/_data"
    return MountPoint(
        type=mount.type,
        name=name,
        source=source,
        destination=mount.target,
        driver="local" if mount.type == "volume" else "",
        mode="ro" if mount.read_only else ("z" if mount.type == "volume" else ""),
        rw=not mount.read_only,
        propagation=(mount.propagation or "rprivate") if mount.type == "bind" else "",
    )


def select(
    rooms: Rooms, entries: list[Entry], everything: bool, limit: int, filters: Mapping[str, tuple[str, ...]]
) -> list[ContainerView]:
    """`ps`: newest first. Any filter on status or exit code, and any limit, looks at stopped ones too."""
    filtering.known(filters, _FILTERS)
    for status in filters.get("status", ()):
        if status not in STATUSES:
            raise Invalid(f"invalid filter 'status={status}'", hint=f"Known are {', '.join(STATUSES)}.")
    for code in filters.get("exited", ()):
        if not code.lstrip("-").isdigit():
            raise Invalid(f"invalid filter 'exited={code}'", hint="Give an exit code.")
    stopped = everything or limit > 0 or bool(filters.get("status") or filters.get("exited"))
    lowest, highest = _window(rooms, filters)
    images = [_image_id(rooms, ref) for ref in filters.get("ancestor", ())]
    found: list[ContainerView] = []
    for entry in entries:
        if limit > 0 and len(found) >= limit:
            break
        record = entry.record
        if not lowest < record.created_ns < highest or not _quick(record, filters):
            continue
        if images and record.image_id not in images and record.image_ref not in filters["ancestor"]:
            continue
        if not stopped and not entry.running and entry.restarting is None:
            continue
        shown = view(rooms, entry)
        if not stopped and shown.state.status not in ("running", "paused", "restarting"):
            continue
        if _slow(shown, filters):
            found.append(shown)
    return found


def _image_id(rooms: Rooms, ref: str) -> str:
    try:
        return rooms.images.get(ref).id
    except LadingError:
        return ref  # an image that has gone: only its name can match


def _window(rooms: Rooms, filters: Mapping[str, tuple[str, ...]]) -> tuple[float, float]:
    lowest, highest = -1.0, float("inf")
    for ref in filters.get("since", ()):
        lowest = max(lowest, rooms.roster.find(ref).record.created_ns)
    for ref in filters.get("before", ()):
        highest = min(highest, rooms.roster.find(ref).record.created_ns)
    return lowest, highest


def _quick(record: Record, filters: Mapping[str, tuple[str, ...]]) -> bool:
    """Filters on intent alone."""
    if filters.get("id") and not any(record.id.startswith(text) for text in filters["id"]):
        return False
    if filters.get("name") and not any(_named(record.name, text) for text in filters["name"]):
        return False
    if not filtering.labels(record.config.labels, filters.get("label", ())):
        return False
    if filters.get("volume"):
        places = {place for mount in record.mounts for place in (mount.source, mount.target)}
        if not places & set(filters["volume"]):
            return False
    if filters.get("expose"):
        wanted = {text if "/" in text else f"{text}/tcp" for text in filters["expose"]}
        if not wanted & set(record.config.exposed_ports):
            return False
    return True


def _named(name: str, text: str) -> bool:
    """Docker takes a regular expression; ours knows the anchors, and everything else is plain text.

    A full regular expression from a request could be made to run for ever.
    """
    plain = text.removeprefix("^").removeprefix("/")
    begins, ends = text.startswith(("^", "/")), text.endswith("$")
    plain = plain.removesuffix("$")
    if begins and ends:
        return name == plain
    if begins:
        return name.startswith(plain)
    return name.endswith(plain) if ends else plain in name


def _slow(shown: ContainerView, filters: Mapping[str, tuple[str, ...]]) -> bool:
    """Filters on what is derived."""
    now = shown.state
    if filters.get("status") and now.status not in filters["status"]:
        return False
    if filters.get("exited") and not (now.status == "exited" and str(now.exit_code) in filters["exited"]):
        return False
    if filters.get("health") and (now.health or "none") not in filters["health"]:
        return False
    if filters.get("network"):
        names = {name for state in shown.networks for name in (state.network_name, state.network_id)}
        if not names & set(filters["network"]):
            return False
    if filters.get("publish"):
        ports = {f"{p.host_port}/{p.protocol}" for p in shown.ports}
        if not {text if "/" in text else f"{text}/tcp" for text in filters["publish"]} & ports:
            return False
    return True
