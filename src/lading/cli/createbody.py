"""Flags of run and create to the body of POST /containers/create. Owns docker's rules for it; sends nothing.

Only what was given is sent: what is left out is the daemon's default or the image's. The syntax of single values
(ports, mounts, volumes, devices) is in `values`, `values_mounts` and `values_devices`, imported when one is given.
"""

from __future__ import annotations

from lading.cli.flags import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context
    from lading.cli.flags import Flags

# flag: (section, key, how). Sections: C Config, H HostConfig.
PLAIN = {
    "cgroup-parent": ("H", "CgroupParent", "text"),
    "cgroupns": ("H", "CgroupnsMode", "text"),
    "cidfile": ("H", "ContainerIDFile", "text"),
    "cpuset-cpus": ("H", "CpusetCpus", "text"),
    "cpuset-mems": ("H", "CpusetMems", "text"),
    "domainname": ("C", "Domainname", "text"),
    "hostname": ("C", "Hostname", "text"),
    "ipc": ("H", "IpcMode", "text"),
    "pid": ("H", "PidMode", "text"),
    "runtime": ("H", "Runtime", "text"),
    "stop-signal": ("C", "StopSignal", "text"),
    "user": ("C", "User", "text"),
    "userns": ("H", "UsernsMode", "text"),
    "uts": ("H", "UTSMode", "text"),
    "volume-driver": ("H", "VolumeDriver", "text"),
    "workdir": ("C", "WorkingDir", "text"),
    "blkio-weight": ("H", "BlkioWeight", "integer"),
    "cpu-period": ("H", "CpuPeriod", "integer"),
    "cpu-quota": ("H", "CpuQuota", "integer"),
    "cpu-shares": ("H", "CpuShares", "integer"),
    "memory-swappiness": ("H", "MemorySwappiness", "integer"),
    "oom-score-adj": ("H", "OomScoreAdj", "integer"),
    "pids-limit": ("H", "PidsLimit", "integer"),
    "stop-timeout": ("C", "StopTimeout", "integer"),
    "memory": ("H", "Memory", "size"),
    "memory-reservation": ("H", "MemoryReservation", "size"),
    "memory-swap": ("H", "MemorySwap", "size"),
    "shm-size": ("H", "ShmSize", "size"),
    "host-trust": ("H", "HostTrust", "on"),
    "init": ("H", "Init", "on"),
    "oom-kill-disable": ("H", "OomKillDisable", "on"),
    "privileged": ("H", "Privileged", "on"),
    "publish-all": ("H", "PublishAllPorts", "on"),
    "read-only": ("H", "ReadonlyRootfs", "on"),
    "rm": ("H", "AutoRemove", "on"),
    "interactive": ("C", "OpenStdin", "on"),
    "tty": ("C", "Tty", "on"),
    "cap-add": ("H", "CapAdd", "many"),
    "cap-drop": ("H", "CapDrop", "many"),
    "device-cgroup-rule": ("H", "DeviceCgroupRules", "many"),
    "dns": ("H", "Dns", "many"),
    "dns-search": ("H", "DnsSearch", "many"),
    "group-add": ("H", "GroupAdd", "many"),
    "volumes-from": ("H", "VolumesFrom", "many"),
}

_REFUSED = {
    "link": (
        "--link is not supported",
        "Put both containers on one network: names resolve there by themselves.",
    ),
    "link-local-ip": ("--link-local-ip is not supported", ""),
}

# Flags whose values need `values.py`: (flag, name of its function, which takes (context, flags, config, host)).
_SHAPED = (
    ("add-host", "hosts"),
    ("annotation", "maps"),
    ("device", "devices"),
    ("device-read-bps", "throttles"),
    ("device-read-iops", "throttles"),
    ("device-write-bps", "throttles"),
    ("device-write-iops", "throttles"),
    ("env-file", "environment"),
    ("expose", "ports"),
    ("gpus", "gpus"),
    ("health-cmd", "health"),
    ("health-interval", "health"),
    ("health-retries", "health"),
    ("health-start-interval", "health"),
    ("health-start-period", "health"),
    ("health-timeout", "health"),
    ("label", "labels"),
    ("label-file", "labels"),
    ("log-driver", "logging"),
    ("log-opt", "logging"),
    ("mount", "mounts"),
    ("no-healthcheck", "health"),
    ("publish", "ports"),
    ("restart", "restart"),
    ("security-opt", "security"),
    ("storage-opt", "maps"),
    ("sysctl", "maps"),
    ("tmpfs", "tmpfs"),
    ("ulimit", "ulimits"),
    ("volume", "volumes"),
)

_MOUNTS = {"mounts", "tmpfs", "volumes"}
"""Those of them that are in `values_mounts.py`."""

_DEVICES = {"devices", "gpus"}
"""Those in `values_devices.py`."""


def create_body(context: Context, flags: Flags, detach: bool) -> dict[str, Any]:
    """The request for `flags` whose positionals are IMAGE [COMMAND] [ARG...]; UsageError when they contradict."""
    for name, (what, hint) in _REFUSED.items():
        if flags.given(name):
            raise UsageError(what, hint=hint)
    config: dict[str, Any] = {"Image": flags.args[0]}
    if flags.args[1:]:
        config["Cmd"] = flags.args[1:]
    host: dict[str, Any] = {}
    body: dict[str, Any] = config
    body["HostConfig"] = host
    for name in flags.values:
        row = PLAIN.get(name)
        if row is not None:
            section = config if row[0] == "C" else host
            section[row[1]] = getattr(flags, row[2])(name)
    _streams(flags, config, detach)
    if flags.given("entrypoint"):
        config["Entrypoint"] = [flags.text("entrypoint")]
    if flags.given("cpus"):
        from lading.cli.units import parse_cpus

        host["NanoCpus"] = parse_cpus(flags.text("cpus"))
    if flags.given("env"):
        config["Env"] = environment(context, flags.many("env"))
    options = flags.many("dns-option") + flags.many("dns-opt")
    if options:
        host["DnsOptions"] = options
    wanted = {function for name, function in _SHAPED if name in flags.values}
    if wanted:
        from lading.cli import values

        for function in sorted(wanted - _MOUNTS - _DEVICES):
            getattr(values, function)(context, flags, config, host)
    if wanted & _MOUNTS:
        from lading.cli import values_mounts

        for function in sorted(wanted & _MOUNTS):
            getattr(values_mounts, function)(context, flags, config, host)
    if wanted & _DEVICES:
        from lading.cli import values_devices

        for function in sorted(wanted & _DEVICES):
            getattr(values_devices, function)(context, flags, config, host)
    _network(flags, body, host)
    if flags.on("rm") and flags.text("restart") not in ("", "no"):
        raise UsageError("conflicting options: --restart and --rm")
    return body


def _streams(flags: Flags, config: dict[str, Any], detach: bool) -> None:
    attach = [name.lower() for name in flags.many("attach")]
    for name in attach:
        if name not in ("stdin", "stdout", "stderr"):
            raise UsageError(
                f'invalid argument "{name}" for "-a, --attach" flag: it is stdin, stdout or stderr'
            )
    if detach and attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach", code=1)
    config["AttachStdin"] = not detach and ("stdin" in attach or flags.on("interactive"))
    config["AttachStdout"] = not detach and (not attach or "stdout" in attach)
    config["AttachStderr"] = not detach and (not attach or "stderr" in attach)
    if config["AttachStdin"] and flags.on("interactive"):
        config["StdinOnce"] = True


def environment(context: Context, given: list[str]) -> list[str]:
    """`-e NAME=value` as it is, `-e NAME` with the value it has here, or bare (the daemon then unsets it)."""
    out = []
    for item in given:
        name, mark, _ = item.partition("=")
        if not name:
            raise UsageError(
                f'invalid argument "{item}" for "-e, --env" flag: invalid environment variable: {item}'
            )
        out.append(item if mark or name not in context.environ else f"{name}={context.environ[name]}")
    return out


def _network(flags: Flags, body: dict[str, Any], host: dict[str, Any]) -> None:
    networks = flags.many("network") + flags.many("net")
    aliases = flags.many("network-alias") + flags.many("net-alias")
    fixed = {
        key: flags.text(flag)
        for key, flag in (("IPv4Address", "ip"), ("IPv6Address", "ip6"))
        if flags.given(flag)
    }
    mac = flags.text("mac-address")
    if flags.given("net-rate"):
        from lading.cli.values_networks import rate

        host["NetRate"] = rate(flags.text("net-rate"))
    plain = (
        len(networks) < 2
        and not aliases
        and not fixed
        and not mac
        and not any("=" in name for name in networks)
    )
    if plain:
        if networks:
            host["NetworkMode"] = networks[0]
        return
    from lading.cli.values_networks import networks as join

    join(networks, aliases, fixed, mac, body, host)
