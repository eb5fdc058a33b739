"""The engine's values: what a container is asked to be. Owns their fields and defaults; validation is in `request`.

Names follow Docker's Config and HostConfig in snake case, so that the api room translates by rule. Sizes are bytes,
times nanoseconds, CPU is in units of 1e-9 CPUs (nano_cpus) unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Health:
    """A health check (Docker's Healthcheck). `test` is ("CMD", ...), ("CMD-SHELL", text) or ("NONE",); 0 means default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Config:
    """What runs. None means "as the image says"; an empty tuple means none at all."""

    image: str = ""
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    exposed_ports: tuple[str, ...] = ()  # "5000/tcp"
    volumes: tuple[str, ...] = ()  # anonymous volume targets
    healthcheck: Health | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds


@dataclass(frozen=True)
class PortBinding:
    """One published port. `host_port` "" asks for an ephemeral one; a range "8000-8010" asks for the first free one."""

    container_port: int
    protocol: str = "tcp"  # tcp or udp
    host_ip: str = ""  # "" is every address
    host_port: str = ""


@dataclass(frozen=True)
class Mount:
    """A volume, bind or tmpfs (Docker's Mount). `source` is a volume's name ("" for anonymous) or a host path."""

    type: str  # volume, bind, tmpfs
    target: str
    source: str = ""
    read_only: bool = False
    no_copy: bool = False  # volume: do not copy the image's files up
    propagation: str = ""  # bind: rprivate, rslave, rshared, private, slave, shared
    non_recursive: bool = False  # bind
    create_source: bool = False  # bind: make a missing host directory (-v does, --mount does not)
    tmpfs_size: int = 0
    tmpfs_mode: int = 0o1777
    tmpfs_options: str = ""  # the text after `--tmpfs PATH:`
    labels: Mapping[str, str] = field(default_factory=dict)
    driver_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """A host device node given to the container; `permissions` is a subset of "rwm"."""

    host: str
    container: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class DeviceRequest:
    """Accelerators by what they are (Docker's DeviceRequest): `count` -1 is all; `driver` "cdi" takes qualified names."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, ...], ...] = ()  # any one of the lists is enough
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class ThrottleDevice:
    path: str
    rate: int


@dataclass(frozen=True)
class Restart:
    """Restart policy: no, always, unless-stopped, on-failure (with `maximum` tries; 0 is without limit)."""

    name: str = "no"
    maximum: int = 0


@dataclass(frozen=True)
class Resources:
    """Cgroup limits; 0 or "" means unset. -1 for memory_swap and pids_limit means no limit."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    device_read_bps: tuple[ThrottleDevice, ...] = ()
    device_write_bps: tuple[ThrottleDevice, ...] = ()
    device_read_iops: tuple[ThrottleDevice, ...] = ()
    device_write_iops: tuple[ThrottleDevice, ...] = ()


@dataclass(frozen=True)
class Rate:
    """Bits a second on each network interface, sent (`egress`) and received; 0 is without limit. lading's own."""

    egress: int = 0
    ingress: int = 0


NO_RATE = Rate()


@dataclass(frozen=True)
class HostConfig:
    """How it runs on this host."""

    binds: tuple[str, ...] = ()  # "src:dst[:opts]" as given; the engine parses them into mounts
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    volumes_from: tuple[str, ...] = ()
    port_bindings: tuple[PortBinding, ...] = ()
    publish_all_ports: bool = False
    network_mode: str = "default"  # default, bridge, none, host, container:ID, or a network's name
    restart: Restart = Restart()
    auto_remove: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    userns_mode: str = ""  # "", host, or private (a user namespace of its own)
    ipc_mode: str = ""
    pid_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:ip"; ip may be host-gateway
    group_add: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    shm_size: int = 0  # 0 is 64 MiB
    readonly_rootfs: bool = False
    init: bool = False
    oom_score_adj: int = 0
    runtime: str = ""
    log_driver: str = ""  # "" or json-file/local: our file log; none
    log_options: Mapping[str, str] = field(default_factory=dict)  # max-size, max-file
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    resources: Resources = Resources()
    net_rate: Rate = NO_RATE
    host_trust: bool = False  # lading's own: show the host's CA bundle, proxies and resolver to the processes


@dataclass(frozen=True)
class Endpoint:
    """How a container joins one network."""

    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    links: tuple[str, ...] = ()
    gw_priority: int = 0  # of several networks, the default route goes by the one with the highest


@dataclass(frozen=True)
class CreateRequest:
    """Everything `create` needs. `platform` is "os/arch[/variant]" or ""."""

    config: Config
    host: HostConfig = HostConfig()
    networks: Mapping[str, Endpoint] = field(default_factory=dict)
    name: str = ""
    platform: str = ""


@dataclass(frozen=True)
class ExecRequest:
    """A command to run beside a running container's init."""

    cmd: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    privileged: bool = False
    detach_keys: str = ""


@dataclass(frozen=True)
class State:
    """A container's state, derived on each look from run/c/<id>/ and never stored (the design's third truth)."""

    status: str  # created, running, paused, restarting, removing, exited, dead
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    health: str = ""  # "", starting, healthy, unhealthy
    failing_streak: int = 0
    health_log: tuple[HealthResult, ...] = ()


@dataclass(frozen=True)
class HealthResult:
    start_ns: int
    end_ns: int
    exit_code: int
    output: str


@dataclass(frozen=True)
class MountPoint:
    """A mount as `inspect` shows it."""

    type: str
    name: str
    source: str
    destination: str
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""


@dataclass(frozen=True)
class EndpointState:
    """A container's place on one network, as `inspect` shows it."""

    network_name: str
    network_id: str
    endpoint_id: str = ""
    ipv4: str = ""
    prefix: int = 0
    gateway: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    requested: Endpoint = Endpoint()


@dataclass(frozen=True)
class ContainerView:
    """One container as `inspect` and `ps` need it: the stored intent plus the live state."""

    id: str
    name: str
    created_ns: int
    image_id: str  # config digest, "sha256:..."
    image_ref: str  # as the user gave it
    command: tuple[str, ...]  # entrypoint + cmd, resolved
    config: Config  # merged with the image's: what really runs
    host: HostConfig
    state: State
    mounts: tuple[MountPoint, ...] = ()
    networks: tuple[EndpointState, ...] = ()
    ports: tuple[PortBinding, ...] = ()  # as published, with real host ports
    restart_count: int = 0
    driver: str = ""  # how snapshots are stored: overlay or copy
    platform: str = "linux"
    log_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    resolv_conf_path: str = ""
    size_rw: int | None = None
    size_root: int | None = None
    exec_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogRecord:
    """One line, or part of a line longer than 16 KiB, of a container's output. `text` keeps its newline if it had one."""

    ns: int
    stream: str  # stdout, stderr
    text: bytes


@dataclass(frozen=True)
class Event:
    """Something that happened, in Docker's words: type container/image/volume/network/builder/daemon."""

    type: str
    action: str
    actor: str
    attributes: Mapping[str, str]
    ns: int
    scope: str = "local"


@dataclass(frozen=True)
class Change:
    """One path that differs from the image: kind 0 modified, 1 added, 2 deleted (Docker's numbers)."""

    kind: int
    path: str
