"""Device requests (--gpus, --device VENDOR/CLASS=NAME, the API's DeviceRequests) to what a container gets with them.

Owns which CDI devices a request means, and the defaults that go with accelerators. The specs and their edits are the
device room's. An image has no say: no variable of it, NVIDIA_VISIBLE_DEVICES included, is ever read for devices.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lading.base.errors import Invalid, LadingError, NotFound
from lading.base.paths import Paths
from lading.device import catalog, document, edits, generate, inventory
from lading.device.model import Spec
from lading.engine import compose, spec
from lading.engine.model import DeviceRequest, HostConfig, Ulimit
from lading.engine.record import History
from lading.engine.users import User
from lading.linux import identity

ALL = -1
"""DeviceRequest.count for every device."""

_KINDS = {"nvidia": generate.NVIDIA, "amd": "amd.com/gpu", "intel": "intel.com/gpu"}
"""Drivers of a request by their kinds, in the order in which one without a driver looks for them."""

_CAPABILITIES = frozenset("gpu compute compat32 graphics utility video display ngx nvidia amd intel".split())
_MAX_REQUESTS, _MAX_IDS = 64, 1024
_SHM_FLOOR = 64 << 20


def check(requests: Sequence[DeviceRequest]) -> None:
    """Refuse a request that contradicts itself, before anything is looked at."""
    if len(requests) > _MAX_REQUESTS or any(len(one.device_ids) > _MAX_IDS for one in requests):
        raise Invalid("too many device requests")
    for one in requests:
        if one.count and one.device_ids:
            raise Invalid("cannot set both Count and DeviceIDs on device request")
        if one.count < ALL:
            raise Invalid(f"invalid device count {one.count}", hint="Give a number, or -1 for all.")
        if one.driver == "cdi":
            if one.count or not one.device_ids:
                raise Invalid(
                    "a request of the driver cdi names its devices", hint="Write VENDOR/CLASS=NAME."
                )
        elif one.driver not in ("", *_KINDS):
            raise _no_driver(one, f"The drivers are cdi, {', '.join(_KINDS)}.")
        elif one.capabilities and not any(
            "gpu" in words and _CAPABILITIES.issuperset(words) for words in one.capabilities
        ):
            raise _no_driver(
                one, f"The capabilities are {', '.join(sorted(_CAPABILITIES))}, and gpu is always one."
            )


def _no_driver(one: DeviceRequest, why: str, hint: str = "") -> NotFound:
    words = " ".join(f"[{' '.join(group)}]" for group in one.capabilities) or "[gpu]"
    return NotFound(
        f'could not select device driver "{one.driver[:40]}" with capabilities: [{words[:120]}]',
        why=why,
        hint=hint,
    )


def names(requests: Iterable[DeviceRequest], known: catalog.Catalog, missing: str = "") -> list[str]:
    """The qualified names that the requests mean, each once; `missing` tells why this machine's GPUs are not known."""
    found: list[str] = []
    for one in requests:
        if one.driver == "cdi":
            found += one.device_ids
            continue
        kind = _kind(one, known, missing)
        if one.device_ids:
            found += [name if "=" in name else f"{kind}={name}" for name in one.device_ids]
        else:
            found += _counted(one.count, known.names(kind), kind)
    return list(dict.fromkeys(found))


def _kind(one: DeviceRequest, known: catalog.Catalog, missing: str) -> str:
    wanted = [_KINDS[one.driver]] if one.driver else list(_KINDS.values())
    kinds = known.kinds()
    for kind in wanted:
        if kind in kinds:
            return kind
    why = missing or f"No spec in {', '.join(known.directories)} is of kind {' or '.join(wanted)}."
    if known.names():
        why += f" This machine has {', '.join(known.names()[:40])}."
    raise _no_driver(one, why, "`lading cdi generate` makes a spec from the machine's devices.")


def _counted(count: int, present: list[str], kind: str) -> list[str]:
    """The first `count` devices by number; where a spec names them otherwise, by name."""
    if count == ALL and f"{kind}=all" in present:
        return [f"{kind}=all"]
    single = [name for name in present if not name.endswith("=all")]
    # A GPU has a number and a UUID, a MIG device a pair of numbers and a UUID: count each once.
    single = [name for name in single if name.partition("=")[2].replace(":", "", 1).isdecimal()] or single
    if count == ALL:
        return single
    if count > len(single):
        raise NotFound(
            f"{count} devices of {kind} were asked for, and this machine has {len(single)}",
            why=f"They are {', '.join(single)}." if single else "",
        )
    return single[: count or 1]


class Accelerators:
    """The machine's devices for one engine: spec directories, and GPUs that no file describes."""

    def __init__(self, paths: Paths) -> None:
        self.directories = (*catalog.SYSTEM_DIRECTORIES, paths.cdi)
        self._lock = threading.Lock()
        self._made: tuple[tuple[str, ...], Spec] | None = None

    def known(self) -> catalog.Catalog:
        """The devices that spec files name."""
        return catalog.Catalog(self.directories)

    def everything(self) -> tuple[catalog.Catalog, str]:
        """All devices, those that only the machine itself tells of too; and why these cannot be told, or ""."""
        known = self.known()
        if generate.NVIDIA in known.kinds() or not inventory.present():
            return known, ""
        return known, self._add_made(known)

    def grant(self, requests: Sequence[DeviceRequest]) -> edits.Granted:
        """Everything the requests mean, or an error that names each device there is not; nothing in between."""
        if not requests:
            return edits.Granted()
        check(requests)
        known, missing = self.known(), ""
        if generate.NVIDIA not in known.kinds() and any(_may_be_nvidia(one) for one in requests):
            missing = self._add_made(known)
        chosen = known.find_all(names(requests, known, missing), missing)
        return edits.grant(edits.merge(chosen))

    def prepare(self, host: HostConfig) -> HostConfig:
        """A new container's configuration with what goes with its devices; an error when one of them is not there."""
        self.grant(host.device_requests)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return with_defaults(host, memory)

    def dress(self, plan: spec.Plan, host: HostConfig, granted: edits.Granted) -> spec.Plan:
        """The plan of a start with its devices in it."""
        resources = dict(plan.resources)
        if not host.privileged:
            resources["devices"] = [*resources.get("devices", ()), *granted.rules]
        mapped = "user" in plan.namespaces or not identity.host_root()
        made = [] if mapped else nodes(granted, plan.user)
        taken = {node["path"] for node in made}
        return replace(
            plan,
            env=edits.environment(plan.env, granted.env),
            user=_with_groups(plan.user, granted.gids),
            ulimits=_ulimits(host),
            resources=resources,
            devices=(*(node for node in plan.devices if node["path"] not in taken), *made),
            device_mounts=(*plan.device_mounts, *granted.mounts, *(binds(granted) if mapped else ())),
            hooks=granted.hooks,
        )

    def dress_exec(self, plan: spec.Plan, host: HostConfig, history: History) -> spec.Plan:
        """An exec sees what the container's own process got at the start of this run."""
        return replace(
            plan,
            env=edits.environment(plan.env, history.device_env),
            user=_with_groups(plan.user, history.device_gids),
            ulimits=_ulimits(host),
        )

    def _add_made(self, known: catalog.Catalog) -> str:
        """Describe NVIDIA's GPUs from the machine, where no file does; why that could not be done, or ""."""
        if not inventory.present():
            return "NVIDIA's driver is not loaded on this machine, and no spec names its GPUs."
        with self._lock:
            now = inventory.state()
            if self._made is None or self._made[0] != now:
                try:
                    machine = inventory.look()
                    self._made = (now, document.read(generate.nvidia(machine), "this machine"))
                except LadingError as e:
                    return str(e)
            known.add(self._made[1])
        return ""


def _may_be_nvidia(one: DeviceRequest) -> bool:
    if one.driver == "cdi":
        return any(name.startswith(f"{generate.NVIDIA}=") for name in one.device_ids)
    return one.driver in ("", "nvidia")


def with_defaults(host: HostConfig, host_memory: int) -> HostConfig:
    """A /dev/shm that data loaders do not fill at once: half of the memory there is, as tmpfs(5) has it by default.

    Its pages count against the container's memory limit as any others do, so this gives no more memory to anybody.
    """
    if not host.device_requests or host.shm_size or host.ipc_mode not in ("", "private", "shareable"):
        return host
    memory = min(filter(None, (host.resources.memory, host_memory)), default=0)
    return replace(host, shm_size=max(memory // 2 // 4096 * 4096, _SHM_FLOOR))


def ulimits(host: HostConfig, own_hard: int, may_raise: bool) -> tuple[Ulimit, ...]:
    """The user's limits, and memory that may be locked without bound with an accelerator: drivers pin buffers.

    `own_hard` is this process's own hard limit, -1 for none; it is the most it can give unless it `may_raise` it.
    """
    if not host.device_requests or any(limit.name == "memlock" for limit in host.ulimits):
        return host.ulimits
    most = -1 if may_raise else own_hard
    return (*host.ulimits, Ulimit("memlock", most, most))


def _ulimits(host: HostConfig) -> tuple[Ulimit, ...]:
    """`ulimits` by what this process may do (capabilities(7), CAP_SYS_RESOURCE)."""
    own = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    hard = -1 if own == resource.RLIM_INFINITY else own
    return ulimits(host, hard, compose.may_raise_limits())


def _with_groups(user: User, gids: Iterable[int]) -> User:
    return replace(user, groups=tuple(dict.fromkeys((*user.groups, *gids))))


def nodes(granted: edits.Granted, user: User) -> list[dict[str, Any]]:
    """linux.devices' entries: a node without an owner belongs to whoever the container runs as, as CDI has it."""
    found = []
    for item in granted.nodes:
        made = {key: value for key, value in item.items() if key != "hostPath"}
        made.setdefault("uid", user.uid)
        made.setdefault("gid", user.gid)
        found.append(made)
    return found


def binds(granted: edits.Granted) -> list[Mapping[str, Any]]:
    """The nodes as bind mounts, for a user namespace, where mknod(2) is refused."""
    options = ["bind", "rw", "nosuid", "noexec", "rprivate"]
    return [
        {"destination": item["path"], "type": "bind", "source": item["hostPath"], "options": options}
        for item in granted.nodes
    ]
