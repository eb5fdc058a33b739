"""JSON of create, exec, update and connect requests to the engine's values. Owns the field names; judges no meaning.

Whether a limit makes sense or an image exists is the engine's to say. Field names are the Engine API's, definitions
ContainerConfig, HostConfig, NetworkingConfig, Mount and ExecConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lading.api.fields import Fields
from lading.base.errors import Invalid, Unsupported
from lading.engine.model import (
    Config,
    CreateRequest,
    Device,
    DeviceRequest,
    Endpoint,
    ExecRequest,
    Health,
    HostConfig,
    Mount,
    PortBinding,
    Rate,
    Resources,
    Restart,
    ThrottleDevice,
    Ulimit,
)


def create(body: Mapping[str, Any], name: str, platform: str) -> CreateRequest:
    """The body of POST /containers/create."""
    top = Fields(body)
    networking = top.object("NetworkingConfig")
    endpoints = networking.mapping("EndpointsConfig")
    host = top.get("HostConfig")
    return CreateRequest(
        config=config(top),
        host=host_config(top.object("HostConfig")) if host else HostConfig(),
        networks={
            network: endpoint(networking.object("EndpointsConfig").object(network)) for network in endpoints
        },
        name=name.removeprefix("/"),
        platform=platform,
    )


def config(top: Fields) -> Config:
    """ContainerConfig, whose fields stand at the top of the body."""
    return Config(
        image=top.text("Image"),
        cmd=top.words("Cmd"),
        entrypoint=top.words("Entrypoint"),
        env=top.strings("Env"),
        working_dir=top.text("WorkingDir"),
        user=top.text("User"),
        labels=top.string_map("Labels"),
        hostname=top.text("Hostname"),
        domainname=top.text("Domainname"),
        tty=top.flag("Tty"),
        open_stdin=top.flag("OpenStdin"),
        stdin_once=top.flag("StdinOnce"),
        attach_stdin=top.flag("AttachStdin"),
        attach_stdout=top.flag("AttachStdout"),
        attach_stderr=top.flag("AttachStderr"),
        exposed_ports=tuple(_port_text(*_port(port, "ExposedPorts")) for port in top.mapping("ExposedPorts")),
        volumes=tuple(top.mapping("Volumes")),
        healthcheck=health(top.object("Healthcheck")) if top.get("Healthcheck") is not None else None,
        stop_signal=top.text("StopSignal"),
        stop_timeout=top.maybe_integer("StopTimeout"),
    )


def health(fields: Fields) -> Health:
    return Health(
        test=fields.strings("Test"),
        interval=fields.integer("Interval"),
        timeout=fields.integer("Timeout"),
        start_period=fields.integer("StartPeriod"),
        start_interval=fields.integer("StartInterval"),
        retries=fields.integer("Retries"),
    )


def _port(text: str, where: str) -> tuple[int, str]:
    """ "80/tcp" to (80, "tcp"); the protocol may be left out."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) < 65536):
        raise Invalid(f'invalid port "{text[:40]}" in {where}', why='A port is a number such as "80/tcp".')
    if protocol not in ("tcp", "udp", "sctp"):
        raise Invalid(f'invalid protocol "{protocol[:20]}" in {where}', why="It must be tcp, udp or sctp.")
    if protocol == "sctp":
        raise Unsupported("sctp ports cannot be published")
    return int(number), protocol


def _port_text(number: int, protocol: str) -> str:
    return f"{number}/{protocol}"


def _port_bindings(fields: Fields) -> tuple[PortBinding, ...]:
    """PortMap; a port with no binding at all asks for an ephemeral one only through PublishAllPorts."""
    found = []
    bindings = fields.object("PortBindings")
    for key in bindings.value:
        number, protocol = _port(key, "PortBindings")
        for binding in bindings.objects(key):
            host_port = binding.text("HostPort")
            if host_port == "0":  # as bind(2) has it: any free one
                host_port = ""
            found.append(PortBinding(number, protocol, binding.text("HostIp"), host_port))
    return tuple(found)


def _mount(fields: Fields) -> Mount:
    kind = fields.text("Type")
    if kind not in ("bind", "volume", "tmpfs"):
        raise Invalid(f'invalid mount type "{kind[:20]}"', why="It must be bind, volume or tmpfs.")
    bind, volume, tmpfs = (
        fields.object("BindOptions"),
        fields.object("VolumeOptions"),
        fields.object("TmpfsOptions"),
    )
    if volume.text("Subpath"):
        raise Unsupported("a volume's subpath cannot be mounted", hint="Mount the whole volume.")
    return Mount(
        type=kind,
        target=fields.text("Target"),
        source=fields.text("Source"),
        read_only=fields.flag("ReadOnly"),
        no_copy=volume.flag("NoCopy"),
        propagation=bind.text("Propagation"),
        non_recursive=bind.flag("NonRecursive"),
        create_source=bind.flag("CreateMountpoint"),
        tmpfs_size=tmpfs.integer("SizeBytes"),
        tmpfs_mode=tmpfs.integer("Mode", 0o1777) or 0o1777,
        labels=volume.string_map("Labels"),
        driver_options=volume.object("DriverConfig").string_map("Options"),
    )


def _throttles(fields: Fields, name: str) -> tuple[ThrottleDevice, ...]:
    return tuple(ThrottleDevice(item.text("Path"), item.integer("Rate")) for item in fields.objects(name))


def resources(fields: Fields) -> Resources:
    """The limits inside HostConfig, which are also the body of an update."""
    return Resources(
        memory=fields.integer("Memory"),
        memory_swap=fields.integer("MemorySwap"),
        memory_reservation=fields.integer("MemoryReservation"),
        # -1 is how older clients say "unset".
        memory_swappiness=None
        if fields.integer("MemorySwappiness", -1) == -1
        else fields.integer("MemorySwappiness"),
        oom_kill_disable=fields.flag("OomKillDisable"),
        nano_cpus=fields.integer("NanoCpus"),
        cpu_shares=fields.integer("CpuShares"),
        cpu_period=fields.integer("CpuPeriod"),
        cpu_quota=fields.integer("CpuQuota"),
        cpuset_cpus=fields.text("CpusetCpus"),
        cpuset_mems=fields.text("CpusetMems"),
        pids_limit=fields.maybe_integer("PidsLimit"),
        blkio_weight=fields.integer("BlkioWeight"),
        device_read_bps=_throttles(fields, "BlkioDeviceReadBps"),
        device_write_bps=_throttles(fields, "BlkioDeviceWriteBps"),
        device_read_iops=_throttles(fields, "BlkioDeviceReadIOps"),
        device_write_iops=_throttles(fields, "BlkioDeviceWriteIOps"),
    )


def _device_request(fields: Fields) -> DeviceRequest:
    groups = fields.items("Capabilities")
    if not all(isinstance(group, list) and all(isinstance(word, str) for word in group) for group in groups):
        raise Invalid("HostConfig.DeviceRequests[].Capabilities must be a list of lists of strings")
    return DeviceRequest(
        driver=fields.text("Driver"),
        count=fields.integer("Count"),
        device_ids=fields.strings("DeviceIDs"),
        capabilities=tuple(tuple(group) for group in groups),
        options=fields.string_map("Options"),
    )


def restart(fields: Fields) -> Restart:
    policy = fields.object("RestartPolicy")
    return Restart(policy.text("Name") or "no", policy.integer("MaximumRetryCount"))


def host_config(fields: Fields) -> HostConfig:
    """HostConfig, with lading's own HostTrust and NetRate. What would change nothing is refused, not swallowed."""
    if fields.text("VolumeDriver") not in ("", "local"):
        raise Invalid(
            f'volume driver "{fields.text("VolumeDriver")[:40]}" is not known', hint="There is only local."
        )
    if fields.string_map("StorageOpt"):
        raise Unsupported("--storage-opt is not supported", why="Snapshots have no quota.")
    if fields.text("CgroupParent"):
        raise Unsupported("--cgroup-parent is not supported", why="All groups are below lading's own.")
    log = fields.object("LogConfig")
    return HostConfig(
        binds=fields.strings("Binds"),
        mounts=tuple(_mount(mount) for mount in fields.objects("Mounts")),
        tmpfs=fields.string_map("Tmpfs"),
        volumes_from=fields.strings("VolumesFrom"),
        port_bindings=_port_bindings(fields),
        publish_all_ports=fields.flag("PublishAllPorts"),
        network_mode=fields.text("NetworkMode") or "default",
        restart=restart(fields),
        auto_remove=fields.flag("AutoRemove"),
        privileged=fields.flag("Privileged"),
        cap_add=fields.words("CapAdd") or (),
        cap_drop=fields.words("CapDrop") or (),
        security_opt=fields.strings("SecurityOpt"),
        userns_mode=fields.text("UsernsMode"),
        ipc_mode=fields.text("IpcMode"),
        pid_mode=fields.text("PidMode"),
        uts_mode=fields.text("UTSMode"),
        cgroupns_mode=fields.text("CgroupnsMode"),
        dns=fields.strings("Dns"),
        dns_search=fields.strings("DnsSearch"),
        dns_options=fields.strings("DnsOptions"),
        extra_hosts=fields.strings("ExtraHosts"),
        group_add=fields.strings("GroupAdd"),
        devices=tuple(
            Device(
                item.text("PathOnHost"),
                item.text("PathInContainer") or item.text("PathOnHost"),
                item.text("CgroupPermissions") or "rwm",
            )
            for item in fields.objects("Devices")
        ),
        device_cgroup_rules=fields.strings("DeviceCgroupRules"),
        device_requests=tuple(_device_request(item) for item in fields.objects("DeviceRequests")),
        ulimits=tuple(
            Ulimit(item.text("Name"), item.integer("Soft"), item.integer("Hard"))
            for item in fields.objects("Ulimits")
        ),
        sysctls=fields.string_map("Sysctls"),
        shm_size=fields.integer("ShmSize"),
        readonly_rootfs=fields.flag("ReadonlyRootfs"),
        init=fields.flag("Init"),
        oom_score_adj=fields.integer("OomScoreAdj"),
        runtime=fields.text("Runtime"),
        log_driver=log.text("Type"),
        log_options=log.string_map("Config"),
        masked_paths=fields.maybe_strings("MaskedPaths"),
        readonly_paths=fields.maybe_strings("ReadonlyPaths"),
        resources=resources(fields),
        net_rate=_rate(fields.object("NetRate")),
        host_trust=fields.flag("HostTrust"),
    )


def _rate(fields: Fields) -> Rate:
    """Bits a second, as lading's own NetRate has them."""
    return Rate(fields.integer("Egress"), fields.integer("Ingress"))


def endpoint(fields: Fields) -> Endpoint:
    """EndpointSettings as a request: what is asked for, not what was given."""
    ipam = fields.object("IPAMConfig")
    return Endpoint(
        aliases=fields.strings("Aliases"),
        ipv4=ipam.text("IPv4Address"),
        ipv6=ipam.text("IPv6Address"),
        mac=fields.text("MacAddress"),
        links=fields.strings("Links"),
        gw_priority=fields.integer("GwPriority"),
    )


def execution(body: Mapping[str, Any]) -> ExecRequest:
    """The body of POST /containers/{id}/exec."""
    fields = Fields(body)
    cmd = fields.words("Cmd") or ()
    if not cmd:
        raise Invalid("no exec command specified")
    return ExecRequest(
        cmd=cmd,
        env=fields.strings("Env"),
        working_dir=fields.text("WorkingDir"),
        user=fields.text("User"),
        tty=fields.flag("Tty"),
        attach_stdin=fields.flag("AttachStdin"),
        attach_stdout=fields.flag("AttachStdout"),
        attach_stderr=fields.flag("AttachStderr"),
        privileged=fields.flag("Privileged"),
        detach_keys=fields.text("DetachKeys"),
    )
