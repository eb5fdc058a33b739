"""From a create request and the image's config to the record of what will run. Owns merging, defaults and checks.

Never touches the host: limits are checked against the CPU count it is given, volumes get names but are not made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from lading.base.errors import Invalid, Unsupported
from lading.base.ids import new_id
from lading.engine import binds, caps, resources, security, signals, spec
from lading.engine.model import Config, CreateRequest, Endpoint, Health, HostConfig, Mount, PortBinding
from lading.engine.record import Record
from lading.image.config import ContainerConfig, Healthcheck

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")
_ENV_LIMIT = 4096
_TEXT_LIMIT = 1 << 20


def check_name(name: str) -> str:
    """The name without its leading slash; Invalid when Docker's rule refuses it."""
    clean = name.removeprefix("/")
    if len(clean) > 255 or not _NAME.fullmatch(clean):
        raise Invalid(
            f'invalid container name "{name[:64]}"',
            why="Only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least.",
        )
    return clean


def merge_config(config: Config, image: ContainerConfig, hostname: str) -> Config:
    """What the user said over what the image says (docker run's rules); `hostname` where nobody said one."""
    entrypoint, cmd = config.entrypoint, config.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint
        if cmd is None or (not cmd and image.cmd is None):
            cmd = image.cmd
    elif entrypoint == ("",):
        entrypoint = ()  # `--entrypoint ""` resets it
    merged = replace(
        config,
        entrypoint=entrypoint,
        cmd=cmd,
        env=merge_env(image.env, config.env),
        working_dir=config.working_dir or image.working_dir,
        user=config.user or image.user,
        labels={**image.labels, **config.labels},
        exposed_ports=tuple(dict.fromkeys([*image.exposed_ports, *config.exposed_ports])),
        volumes=tuple(dict.fromkeys([*image.volumes, *config.volumes])),
        healthcheck=merge_health(config.healthcheck, image.healthcheck),
        stop_signal=config.stop_signal or image.stop_signal,
        stop_timeout=config.stop_timeout if config.stop_timeout is not None else image.stop_timeout,
        hostname=config.hostname or hostname,
    )
    _check_config(merged)
    return merged


def _check_config(config: Config) -> None:
    if not (config.entrypoint or config.cmd):
        raise Invalid(
            "no command specified", hint="Name a command after the image, or use an image that has one."
        )
    words = (*(config.entrypoint or ()), *(config.cmd or ()), *config.env, config.working_dir, config.user)
    if any("\0" in word for word in words):
        raise Invalid("the request holds a NUL character", why="No argument or variable can carry one.")
    if sum(map(len, words)) > _TEXT_LIMIT:
        raise Invalid("command and environment are larger than 1 MiB")
    if len(config.env) > _ENV_LIMIT:
        raise Invalid(f"more than {_ENV_LIMIT} environment variables")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if config.stop_signal:
        signals.parse(config.stop_signal)
    if not _valid_hostname(config.hostname):
        raise Invalid(f'invalid hostname "{config.hostname[:80]}"', why="See hostname(7).")


def _valid_hostname(name: str) -> bool:
    return len(name) <= 63 and _HOSTNAME.fullmatch(name) is not None


def merge_env(base: Iterable[str], over: Iterable[str]) -> tuple[str, ...]:
    """`over` replaces variables of `base`; a bare name takes the variable away."""
    merged = {item.partition("=")[0]: item for item in base}
    for item in over:
        key, separator, _ = item.partition("=")
        if not key:
            raise Invalid(f'invalid environment variable: "{item[:80]}"', why="It has no name.")
        if separator:
            merged[key] = item
        else:
            merged.pop(key, None)
    return tuple(merged.values())


def merge_health(asked: Health | None, image: Healthcheck | None) -> Health | None:
    """The user's health check with the image's values where it says nothing."""
    base = (
        Health(
            image.test, image.interval, image.timeout, image.start_period, image.start_interval, image.retries
        )
        if image is not None
        else Health()
    )
    if asked is None:
        return base if base.test else None
    for value in (asked.interval, asked.timeout, asked.start_period, asked.start_interval):
        if value < 0 or 0 < value < 1_000_000:
            raise Invalid("a health check's times cannot be less than 1ms")
    if asked.retries < 0:
        raise Invalid("a health check's retries cannot be negative")
    return Health(
        test=asked.test or base.test,
        interval=asked.interval or base.interval,
        timeout=asked.timeout or base.timeout,
        start_period=asked.start_period or base.start_period,
        start_interval=asked.start_interval or base.start_interval,
        retries=asked.retries or base.retries,
    )


def check_host(host: HostConfig, cpus: int) -> None:
    """Refuse what cannot work, naming the field, before anything is made."""
    resources.check(host.resources, cpus)
    caps.resolve(host.cap_add, host.cap_drop, host.privileged)
    security.parse(host.security_opt, host.privileged)
    spec.rlimits(host.ulimits)
    restart = host.restart
    if restart.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise Invalid(
            f'invalid restart policy "{restart.name}"',
            hint="The policies are no, always, unless-stopped and on-failure[:N].",
        )
    if restart.maximum and restart.name != "on-failure":
        raise Invalid("maximum retry count can only be used with the restart policy on-failure")
    if restart.maximum < 0:
        raise Invalid("maximum retry count cannot be negative")
    if host.auto_remove and restart.name not in ("", "no"):
        raise Invalid("conflicting options: --rm and a restart policy cannot both be set")
    if host.userns_mode not in ("", "host", "private"):
        raise Invalid(f'invalid user namespace mode "{host.userns_mode}"', hint="Use host or private.")
    joined = (host.network_mode, host.pid_mode, host.ipc_mode)
    if host.userns_mode == "private" and any(mode.startswith("container:") for mode in joined):
        raise Invalid(
            "conflicting options: a private user namespace cannot join another container's namespaces",
            why="They belong to the other container's user namespace.",
        )
    if host.cgroupns_mode not in ("", "host", "private"):
        raise Invalid(f'invalid cgroup namespace mode "{host.cgroupns_mode}"', hint="Use host or private.")
    if host.uts_mode not in ("", "host", "private"):
        raise Invalid(f'invalid UTS mode "{host.uts_mode}"')
    if host.ipc_mode.startswith("container:"):
        raise Unsupported(
            "one container cannot share another's IPC namespace",
            why="Its /dev/shm lies in a mount namespace that others cannot mount from.",
            hint="Share a volume, or use --ipc host.",
        )
    for mode, field_name in ((host.pid_mode, "PID"), (host.ipc_mode, "IPC")):
        plain = (
            ("", "host", "private") if field_name == "PID" else ("", "host", "private", "none", "shareable")
        )
        if mode not in plain and not (mode.startswith("container:") and mode[10:]):
            raise Invalid(f'invalid {field_name} mode "{mode[:80]}"')
    if not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(f"invalid OOM score adjustment {host.oom_score_adj}", why="The range is -1000 to 1000.")
    if host.log_driver not in ("", "none", "json-file", "local", "lading"):
        raise Invalid(
            f'logging driver "{host.log_driver[:40]}" is not known', hint="Use json-file, local or none."
        )
    if host.runtime not in ("", "lading", "runc"):  # clients that know only Docker ask for runc
        raise Invalid(f'unknown or invalid runtime name: "{host.runtime[:40]}"', hint="Leave --runtime out.")
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    for name in host.sysctls:
        if not re.fullmatch(r"[a-zA-Z0-9_./-]+", name) or ".." in name:
            raise Invalid(f'invalid sysctl "{name[:80]}"')
        if not name.startswith(("net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm")):
            raise Invalid(
                f'sysctl "{name}" is not in a namespace of its own',
                why="It would change the host. net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm* are allowed.",
            )
    for binding in host.port_bindings:
        check_port(binding)


def check_port(binding: PortBinding) -> None:
    """Numbers and protocol of one published port."""
    if binding.protocol not in ("tcp", "udp"):
        raise Invalid(f'invalid port protocol "{binding.protocol[:20]}"', hint="Use tcp or udp.")
    if not 1 <= binding.container_port <= 65535:
        raise Invalid(f"invalid container port {binding.container_port}", why="The range is 1 to 65535.")
    host_range(binding.host_port)


def host_range(text: str) -> range:
    """The host ports "", "8080" or "8000-8010" allow; an empty range means an ephemeral one."""
    if text in ("", "0"):
        return range(0)
    first, dash, last = text.partition("-")
    numbers = (first, last if dash else first)
    if not all(n.isascii() and n.isdigit() and len(n) <= 5 and 1 <= int(n) <= 65535 for n in numbers):
        raise Invalid(f'invalid host port "{text[:20]}"', why="The range is 1 to 65535.")
    if int(numbers[1]) < int(numbers[0]):
        raise Invalid(f'invalid host port range "{text}"', why="It ends before it begins.")
    return range(int(numbers[0]), int(numbers[1]) + 1)


def resolve(
    request: CreateRequest,
    image: ContainerConfig,
    *,
    image_id: str,
    parent: str,
    name: str,
    now_ns: int,
    cpus: int,
    inherited: Callable[[str], Iterable[Mount]],
    networks: Mapping[str, Endpoint],
    nodename: str = "",
) -> Record:
    """The record of a container to be. `inherited` gives the mounts of a container named by --volumes-from;
    `nodename` is what this host is called, and so a container on the host's network.
    """
    check_host(request.host, cpus)
    container_id = new_id()
    on_host = request.host.network_mode == "host" and _valid_hostname(nodename)
    config = merge_config(request.config, image, nodename if on_host else container_id[:12])
    taken: list[Mount] = []
    for text in request.host.volumes_from:
        source, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise Invalid(f'invalid --volumes-from "{text}"')
        taken.extend(replace(mount, read_only=mount.read_only or mode == "ro") for mount in inherited(source))
    anonymous: list[str] = []
    mounts: list[Mount] = []
    for mount in binds.merge(
        config.volumes, taken, request.host.binds, request.host.mounts, request.host.tmpfs
    ):
        if mount.type == "volume" and not mount.source:
            volume = new_id()
            anonymous.append(volume)
            mount = replace(mount, source=volume)
        mounts.append(mount)
    return Record(
        id=container_id,
        name=name,
        created_ns=now_ns,
        image_id=image_id,
        image_ref=request.config.image,
        config=config,
        host=request.host,
        networks=networks,
        mounts=tuple(mounts),
        anonymous=tuple(anonymous),
        parent=parent,
    )
