"""From a container's record to what the runtime launches: looks up what spec.py must not. Owns those look-ups.

Namespaces of other containers, real bind sources, users in the image, volumes' directories, seccomp profiles.
"""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lading.base.errors import Conflict, Invalid, Unsupported
from lading.engine import caps, devices, resources, security, spec, users
from lading.engine.model import HostConfig, Mount
from lading.engine.record import Record
from lading.engine.trust_host import HostTrust
from lading.engine.users import User
from lading.engine.volumes import Volumes
from lading.linux import identity
from lading.store.snapshots import Rootfs

PidOf = Callable[[str], int]
"""The init pid of the running container a mode names; raises when it does not run."""

_LOOPBACK = 1  # the index of lo in every network namespace
_SUBORDINATE = (
    100_000,
    65_536,
)  # where distributions start their subordinate ids (login.defs(5), SUB_UID_MIN)


def namespaces(host: HostConfig, pid_of: PidOf) -> dict[str, str]:
    """kind -> "" for one of its own, a /proc path to join another's; what is missing is the host's."""
    found = {"mount": ""}
    for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode), ("uts", host.uts_mode)):
        if mode.startswith("container:"):
            found[kind] = f"/proc/{pid_of(mode[10:])}/ns/{kind}"
        elif mode != "host":
            found[kind] = ""
    if host.network_mode != "host":
        found["network"] = ""
    if host.cgroupns_mode != "host" and not (host.privileged and not host.cgroupns_mode):
        found["cgroup"] = ""
    if has_time_namespaces():
        found["time"] = ""
    if host.userns_mode == "private":
        found["user"] = ""
    return found


def binds(mounts: tuple[Mount, ...], volumes: Volumes) -> tuple[Mount | spec.Bind, ...]:
    """Mounts with their real sources. A missing bind source is made for -v and refused for --mount, as in Docker."""
    found: list[Mount | spec.Bind] = []
    for mount in mounts:
        if mount.type == "tmpfs":
            found.append(mount)
            continue
        volume = mount.type == "volume"
        source = volumes.inspect(mount.source).mountpoint if volume else _bind_source(mount)
        found.append(
            spec.Bind(
                source=source,
                target=mount.target,
                read_only=mount.read_only,
                propagation=mount.propagation or "rprivate",
                recursive=mount.type == "bind" and not mount.non_recursive,
            )
        )
    return tuple(found)


def _bind_source(mount: Mount) -> str:
    if not os.path.exists(mount.source):
        if not mount.create_source:
            raise Invalid(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
                hint="Make it on the host first, or use -v, which makes a directory.",
            )
        try:
            os.makedirs(mount.source, exist_ok=True)
        except OSError as e:
            raise Invalid(
                f"error while creating mount source path '{mount.source}'", why=e.strerror or ""
            ) from e
    return os.path.realpath(mount.source)


def user(rootfs: Rootfs, name: str, group_add: tuple[str, ...] = ()) -> User:
    """Who `name` is in this root file system."""
    return users.resolve(
        name, group_add, users.read_layers(rootfs, "etc/passwd"), users.read_layers(rootfs, "etc/group")
    )


@functools.lru_cache(maxsize=32)
def seccomp(profile: str, allowed: tuple[str, ...]) -> Mapping[str, Any] | None:
    """linux.seccomp for these capabilities; None for unconfined. The same answer is reused, never changed."""
    if profile == "unconfined":
        return None
    if profile:
        return security.lower(profile, allowed)
    from lading.runtime.seccomp.profile import default_profile

    return default_profile(allowed, os.uname().machine)


def plan(
    record: Record,
    rootfs: Rootfs,
    *,
    etc: tuple[spec.Bind, ...],
    volumes: Volumes,
    pid_of: PidOf,
    trust: HostTrust | None,
) -> spec.Plan:
    """Everything spec.compose needs for one start."""
    config, host = record.config, record.host
    asked = security.parse(host.security_opt, host.privileged)
    allowed = granted(host)
    spaces = namespaces(host, pid_of)
    hostname = config.hostname
    if "uts" not in spaces:
        hostname = os.uname().nodename
    mapped = "user" in spaces or not identity.host_root()
    rules = devices.rules(host.devices, host.device_cgroup_rules, host.privileged)
    own = {mount.target for mount in record.mounts}
    files = trust.files if trust is not None else ()
    shm = ""
    if host.ipc_mode == "host":
        shm = "/dev/shm"
    return spec.Plan(
        id=record.id,
        args=record.command,
        env=config.env,
        user=user(rootfs, config.user, host.group_add),
        cwd=config.working_dir or "/",
        tty=config.tty,
        hostname=hostname,
        domainname=config.domainname,
        caps=allowed,
        no_new_privileges=asked.no_new_privileges,
        apparmor=apparmor(asked.apparmor),
        seccomp=seccomp(asked.seccomp, allowed),
        ulimits=host.ulimits,
        nofile=nofile(),
        oom_score_adj=host.oom_score_adj,
        read_only=host.readonly_rootfs,
        privileged=host.privileged,
        masked=masked_paths(host),
        read_only_paths=read_only_paths(host),
        shm_size=host.shm_size,
        shm_source=shm,
        mounts=binds(record.mounts, volumes),
        etc=(
            *etc,
            *(spec.Bind(source, target, True) for source, target in files if target not in own),
        ),
        trust_env=trust.environment if trust is not None else (),
        namespaces=spaces,
        sysctls=host.sysctls,
        resources=resources.compose(host.resources, rules),
        devices=tuple(devices.nodes(() if mapped else host.devices, host.privileged)),
        device_mounts=tuple(devices.binds(host.devices)) if mapped else (),
        id_mappings=subordinate_ids() if "user" in spaces else (),
    )


@functools.cache
def has_time_namespaces() -> bool:
    """Whether this kernel has them (time_namespaces(7), Linux 5.6)."""
    return os.path.exists("/proc/self/ns/time")


def apparmor(profile: str) -> str:
    """The profile to change to; where the kernel has no AppArmor, unconfined is what one is anyway."""
    if not profile or has_apparmor():
        return profile
    if profile == "unconfined":
        return ""
    raise Unsupported(
        f'the AppArmor profile "{profile[:80]}" cannot be applied',
        why="AppArmor is not on in this kernel.",
        hint="Leave --security-opt apparmor= out.",
    )


@functools.cache
def has_apparmor() -> bool:
    """Whether the kernel enforces AppArmor profiles (apparmor(7))."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


@functools.cache
def _throttles() -> tuple[str, ...]:
    """Counters of thermal events, from which a neighbour's load can be told, one directory a processor."""
    root = "/sys/devices/system/cpu"
    try:
        names = sorted(name for name in os.listdir(root) if name[:3] == "cpu" and name[3:].isdigit())
    except OSError:
        return ()
    found = (f"{root}/{name}/thermal_throttle" for name in names)
    return tuple(path for path in found if os.path.isdir(path))


def masked_paths(host: HostConfig) -> tuple[str, ...]:
    """What is covered: the caller's list, else ours; nothing for --privileged and systempaths=unconfined."""
    if host.privileged or host.masked_paths is not None:
        return () if host.privileged else host.masked_paths or ()
    return (*spec.MASKED, *_throttles()) if security.parse(host.security_opt, False).system_paths else ()


def read_only_paths(host: HostConfig) -> tuple[str, ...]:
    """What is read-only, by the same rules."""
    if host.privileged or host.readonly_paths is not None:
        return () if host.privileged else host.readonly_paths or ()
    return spec.READ_ONLY if security.parse(host.security_opt, False).system_paths else ()


def shown(host: HostConfig) -> HostConfig:
    """The same with the paths that are covered and read-only by default, as `inspect` tells them."""
    return replace(host, masked_paths=masked_paths(host), readonly_paths=read_only_paths(host))


def loopback_up(netns: int) -> None:
    """Raise lo in a network namespace that came into being with its container."""
    from lading.linux import netlink, netlink_route
    from lading.linux import netns as namespaces_of

    def raise_it() -> None:
        with netlink.Netlink(netlink.ROUTE) as kernel:
            kernel.request([netlink_route.set_up(_LOOPBACK)])

    namespaces_of.inside(netns, raise_it)


@functools.cache
def available() -> frozenset[str]:
    """The capabilities this process holds, and so may grant (capabilities(7))."""
    with open("/proc/self/status", encoding="ascii") as file:
        masks = [line.split()[1] for line in file if line.startswith("CapEff:")]
    return caps.held(int(masks[0], 16)) if masks else frozenset()


def granted(host: HostConfig, *, privileged: bool = False) -> tuple[str, ...]:
    """The capabilities of a container's processes."""
    return caps.resolve(host.cap_add, host.cap_drop, privileged or host.privileged, available())


def may_raise_limits() -> bool:
    """CAP_SYS_RESOURCE counts for limits in the host's user namespace alone (setrlimit(2))."""
    return "CAP_SYS_RESOURCE" in available() and identity.host_root()


@functools.cache
def nofile() -> tuple[int, int]:
    """The default limit on descriptors, within what this process may grant (capabilities(7), CAP_SYS_RESOURCE)."""
    soft, hard = spec.NOFILE
    own = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if own == resource.RLIM_INFINITY or own >= hard:
        return soft, hard
    if may_raise_limits():
        return soft, hard
    return min(soft, own), own


@functools.cache
def subordinate_ids() -> tuple[tuple[int, int, int], ...]:
    """Host ids for --userns=private: root's range in subuid(5) and subgid(5) where both agree, else the usual one."""
    ranges = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read(65536).splitlines()
        except OSError:
            lines = []
        for line in lines:
            name, _, rest = line.partition(":")
            start, _, count = rest.partition(":")
            if (
                name in ("root", "0", "lading")
                and start.isdigit()
                and count.isdigit()
                and int(count) >= 65_536
            ):
                ranges.append((int(start), 65_536))
                break
    first, size = ranges[0] if len(ranges) == 2 and ranges[0] == ranges[1] else _SUBORDINATE
    return ((0, first, size),)


def netns_of(pid: int) -> int:
    """A descriptor of a process's network namespace."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise Conflict("the network namespace to join has gone", why=e.strerror or "") from e
