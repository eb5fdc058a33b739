"""HostConfig as Docker's JSON. Pure; the other direction is `parse`, and a test holds the two together."""

from __future__ import annotations

from typing import Any

from lading.api.render.json import present, strings
from lading.engine.model import NO_RATE, DeviceRequest, HostConfig, Mount, Resources, ThrottleDevice

_SHM = 64 << 20


def _throttles(values: tuple[ThrottleDevice, ...]) -> list[dict[str, Any]]:
    return [{"Path": item.path, "Rate": item.rate} for item in values]


def resources(value: Resources) -> dict[str, Any]:
    return {
        "CpuShares": value.cpu_shares,
        "Memory": value.memory,
        "NanoCpus": value.nano_cpus,
        "CgroupParent": "",
        "BlkioWeight": value.blkio_weight,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": _throttles(value.device_read_bps),
        "BlkioDeviceWriteBps": _throttles(value.device_write_bps),
        "BlkioDeviceReadIOps": _throttles(value.device_read_iops),
        "BlkioDeviceWriteIOps": _throttles(value.device_write_iops),
        "CpuPeriod": value.cpu_period,
        "CpuQuota": value.cpu_quota,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": value.cpuset_cpus,
        "CpusetMems": value.cpuset_mems,
        "MemoryReservation": value.memory_reservation,
        "MemorySwap": value.memory_swap,
        "MemorySwappiness": value.memory_swappiness,
        "OomKillDisable": value.oom_kill_disable,
        "PidsLimit": value.pids_limit,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def mount(value: Mount) -> dict[str, Any]:
    """A mount as it was asked for."""
    found: dict[str, Any] = {"Type": value.type, "Source": value.source, "Target": value.target}
    if value.read_only:
        found["ReadOnly"] = True
    if value.type == "bind":
        options: dict[str, Any] = {}
        if value.propagation:
            options["Propagation"] = value.propagation
        if value.non_recursive:
            options["NonRecursive"] = True
        if value.create_source:
            options["CreateMountpoint"] = True
        if options:
            found["BindOptions"] = options
    elif value.type == "volume":
        options = {"NoCopy": True} if value.no_copy else {}
        if value.labels:
            options["Labels"] = dict(value.labels)
        if value.driver_options:
            options["DriverConfig"] = {"Name": "local", "Options": dict(value.driver_options)}
        if options:
            found["VolumeOptions"] = options
    elif value.tmpfs_size or value.tmpfs_mode != 0o1777:
        found["TmpfsOptions"] = {"SizeBytes": value.tmpfs_size, "Mode": value.tmpfs_mode}
    return found


def device_request(value: DeviceRequest) -> dict[str, Any]:
    return {
        "Driver": value.driver,
        "Count": value.count,
        "DeviceIDs": strings(value.device_ids),
        "Capabilities": [list(group) for group in value.capabilities] or None,
        "Options": dict(value.options),
    }


def host_config(value: HostConfig) -> dict[str, Any]:
    ports: dict[str, list[dict[str, str]]] = {}
    for binding in value.port_bindings:
        ports.setdefault(f"{binding.container_port}/{binding.protocol}", []).append(
            {"HostIp": binding.host_ip, "HostPort": binding.host_port}
        )
    found: dict[str, Any] = {
        "Binds": strings(value.binds),
        "ContainerIDFile": "",
        "LogConfig": {"Type": value.log_driver or "json-file", "Config": present(value.log_options)},
        "NetworkMode": value.network_mode,
        "PortBindings": ports,
        "RestartPolicy": {"Name": value.restart.name, "MaximumRetryCount": value.restart.maximum},
        "AutoRemove": value.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": strings(value.volumes_from),
        "ConsoleSize": [0, 0],
        "CapAdd": strings(value.cap_add),
        "CapDrop": strings(value.cap_drop),
        "CgroupnsMode": value.cgroupns_mode or "private",
        "Dns": list(value.dns),
        "DnsOptions": list(value.dns_options),
        "DnsSearch": list(value.dns_search),
        "ExtraHosts": strings(value.extra_hosts),
        "GroupAdd": strings(value.group_add),
        "IpcMode": value.ipc_mode or "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": value.oom_score_adj,
        "PidMode": value.pid_mode,
        "Privileged": value.privileged,
        "PublishAllPorts": value.publish_all_ports,
        "ReadonlyRootfs": value.readonly_rootfs,
        "SecurityOpt": strings(value.security_opt),
        "UTSMode": value.uts_mode,
        "UsernsMode": value.userns_mode,
        "ShmSize": value.shm_size or _SHM,
        "Runtime": value.runtime or "lading",
        "Isolation": "",
        **resources(value.resources),
        "Devices": [
            {
                "PathOnHost": item.host,
                "PathInContainer": item.container,
                "CgroupPermissions": item.permissions,
            }
            for item in value.devices
        ],
        "DeviceCgroupRules": strings(value.device_cgroup_rules),
        "DeviceRequests": [device_request(item) for item in value.device_requests] or None,
        "Ulimits": [{"Name": item.name, "Hard": item.hard, "Soft": item.soft} for item in value.ulimits],
        "MaskedPaths": list(value.masked_paths) if value.masked_paths is not None else None,
        "ReadonlyPaths": list(value.readonly_paths) if value.readonly_paths is not None else None,
    }
    if value.mounts:
        found["Mounts"] = [mount(item) for item in value.mounts]
    if value.tmpfs:
        found["Tmpfs"] = dict(value.tmpfs)
    if value.sysctls:
        found["Sysctls"] = dict(value.sysctls)
    if value.init:
        found["Init"] = True
    if value.net_rate != NO_RATE:
        found["NetRate"] = {"Egress": value.net_rate.egress, "Ingress": value.net_rate.ingress}
    if value.host_trust:
        found["HostTrust"] = True
    return found
