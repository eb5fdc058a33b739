"""A container as `inspect`, `ps` and exec inspection show it. Pure: ContainerView to dictionaries of Docker's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lading.api.ports import ExecView
from lading.api.render import human
from lading.api.render.hosts import host_config
from lading.api.render.json import keys, present, strings, when
from lading.engine.model import Config, ContainerView, EndpointState, Health, MountPoint, PortBinding, State


def state(value: State) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Status": value.status,
        "Running": value.status in ("running", "paused", "restarting"),
        "Paused": value.status == "paused",
        "Restarting": value.status == "restarting",
        "OOMKilled": value.oom_killed,
        "Dead": value.status == "dead",
        "Pid": value.pid,
        "ExitCode": value.exit_code,
        "Error": value.error,
        "StartedAt": when(value.started_ns),
        "FinishedAt": when(value.finished_ns),
    }
    if value.health:
        found["Health"] = {
            "Status": value.health,
            "FailingStreak": value.failing_streak,
            "Log": [
                {
                    "Start": when(result.start_ns),
                    "End": when(result.end_ns),
                    "ExitCode": result.exit_code,
                    "Output": result.output,
                }
                for result in value.health_log
            ],
        }
    return found


def health(value: Health) -> dict[str, Any]:
    """HealthConfig; a zero is left out, as it means "inherit"."""
    found: dict[str, Any] = {"Test": list(value.test)} if value.test else {}
    for name, number in (
        ("Interval", value.interval),
        ("Timeout", value.timeout),
        ("StartPeriod", value.start_period),
        ("StartInterval", value.start_interval),
        ("Retries", value.retries),
    ):
        if number:
            found[name] = number
    return found


def config(value: Config) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Hostname": value.hostname,
        "Domainname": value.domainname,
        "User": value.user,
        "AttachStdin": value.attach_stdin,
        "AttachStdout": value.attach_stdout,
        "AttachStderr": value.attach_stderr,
        "Tty": value.tty,
        "OpenStdin": value.open_stdin,
        "StdinOnce": value.stdin_once,
        "Env": list(value.env),
        "Cmd": list(value.cmd) if value.cmd is not None else None,
        "Image": value.image,
        "Volumes": keys(value.volumes),
        "WorkingDir": value.working_dir,
        "Entrypoint": list(value.entrypoint) if value.entrypoint is not None else None,
        "OnBuild": None,
        "Labels": present(value.labels),
    }
    if value.exposed_ports:
        found["ExposedPorts"] = keys(value.exposed_ports)
    if value.healthcheck is not None:
        found["Healthcheck"] = health(value.healthcheck)
    if value.stop_signal:
        found["StopSignal"] = value.stop_signal
    if value.stop_timeout is not None:
        found["StopTimeout"] = value.stop_timeout
    return found


def mount(value: MountPoint) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": value.type}
    if value.name:
        found["Name"] = value.name
    found |= {"Source": value.source, "Destination": value.destination}
    if value.driver:
        found["Driver"] = value.driver
    return found | {"Mode": value.mode, "RW": value.rw, "Propagation": value.propagation}


def endpoint(value: EndpointState, container: str = "") -> dict[str, Any]:
    asked = value.requested
    ipam: dict[str, str] = {}
    if asked.ipv4:
        ipam["IPv4Address"] = asked.ipv4
    if asked.ipv6:
        ipam["IPv6Address"] = asked.ipv6
    return {
        "IPAMConfig": ipam or None,
        "Links": strings(asked.links),
        "Aliases": strings(value.aliases),
        "MacAddress": value.mac,
        "DriverOpts": None,
        "GwPriority": asked.gw_priority,
        "NetworkID": value.network_id,
        "EndpointID": value.endpoint_id,
        "Gateway": value.gateway,
        "IPAddress": value.ipv4,
        "IPPrefixLen": value.prefix,
        "IPv6Gateway": value.gateway6,
        "GlobalIPv6Address": value.ipv6,
        "GlobalIPv6PrefixLen": value.prefix6,
        "DNSNames": strings((container, *value.aliases) if value.network_name != "bridge" else ()),
    }


def _port_map(view: ContainerView) -> dict[str, list[dict[str, str]] | None]:
    """PortMap of a running container: exposed ports that are not published stand there with null."""
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(view.config.exposed_ports)
    for binding in view.ports:
        listed = found.setdefault(f"{binding.container_port}/{binding.protocol}", None) or []
        listed.append({"HostIp": _address(binding), "HostPort": binding.host_port})
        found[f"{binding.container_port}/{binding.protocol}"] = listed
    return found


def _address(binding: PortBinding) -> str:
    return binding.host_ip or "0.0.0.0"


def _is_up(view: ContainerView) -> bool:
    return view.state.status in ("running", "paused")


def _network_settings(view: ContainerView, version: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "SandboxID": "",
        "SandboxKey": f"/proc/{view.state.pid}/ns/net" if view.state.pid else "",
        "Ports": _port_map(view) if _is_up(view) else {},
        "Networks": {item.network_name: endpoint(item, view.name) for item in view.networks},
    }
    if version < 52:  # deprecated since 1.21, gone in 1.52
        first = next((item for item in view.networks if item.network_name == "bridge"), None)
        found |= {
            "Bridge": "",
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": first.endpoint_id if first else "",
            "Gateway": first.gateway if first else "",
            "GlobalIPv6Address": first.ipv6 if first else "",
            "GlobalIPv6PrefixLen": first.prefix6 if first else 0,
            "IPAddress": first.ipv4 if first else "",
            "IPPrefixLen": first.prefix if first else 0,
            "IPv6Gateway": first.gateway6 if first else "",
            "MacAddress": first.mac if first else "",
        }
    return found


def inspect(view: ContainerView, version: int) -> dict[str, Any]:
    """ContainerInspectResponse."""
    found: dict[str, Any] = {
        "Id": view.id,
        "Created": when(view.created_ns),
        "Path": view.command[0] if view.command else "",
        "Args": list(view.command[1:]),
        "State": state(view.state),
        "Image": view.image_id,
        "ResolvConfPath": view.resolv_conf_path,
        "HostnamePath": view.hostname_path,
        "HostsPath": view.hosts_path,
        "LogPath": view.log_path,
        "Name": f"/{view.name}",
        "RestartCount": view.restart_count,
        "Driver": view.driver,
        "Platform": view.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": _apparmor(view.host.security_opt),
        "ExecIDs": strings(view.exec_ids),
        "HostConfig": host_config(view.host),
        "GraphDriver": {"Data": {}, "Name": view.driver},
        "Mounts": [mount(item) for item in view.mounts],
        "Config": config(view.config),
        "NetworkSettings": _network_settings(view, version),
    }
    if view.size_rw is not None:
        found["SizeRw"] = view.size_rw
    if view.size_root is not None:
        found["SizeRootFs"] = view.size_root
    return found


def _apparmor(options: tuple[str, ...]) -> str:
    """The profile that --security-opt names, last word first."""
    return next((text[9:] for text in reversed(options) if text.startswith(("apparmor=", "apparmor:"))), "")


def command_line(words: Iterable[str]) -> str:
    """The Command column: words with a space in them stand in single quotes."""
    return " ".join([f"'{word}'" if " " in word else word for word in words])


def _ports(view: ContainerView) -> list[dict[str, Any]]:
    if not _is_up(view):
        return []
    published = {f"{port.container_port}/{port.protocol}" for port in view.ports}
    found: list[dict[str, Any]] = [
        {
            "IP": _address(binding),
            "PrivatePort": binding.container_port,
            "PublicPort": int(binding.host_port or 0),
            "Type": binding.protocol,
        }
        for binding in view.ports
    ]
    for port in view.config.exposed_ports:
        if port not in published:
            number, _, protocol = port.partition("/")
            found.append({"PrivatePort": int(number), "Type": protocol})
    return found


def summary(view: ContainerView, now_ns: int) -> dict[str, Any]:
    """ContainerSummary: one row of `ps`."""
    found: dict[str, Any] = {
        "Id": view.id,
        "Names": [f"/{view.name}"],
        "Image": view.image_ref,
        "ImageID": view.image_id,
        "Command": command_line(view.command),
        "Created": view.created_ns // 1_000_000_000,
        "Ports": _ports(view),
        "Labels": present(view.config.labels),
        "State": view.state.status,
        "Status": human.status(view.state, now_ns),
        "HostConfig": {"NetworkMode": view.host.network_mode},
        "Health": {"Status": view.state.health or "none", "FailingStreak": view.state.failing_streak},
        "NetworkSettings": {"Networks": {item.network_name: endpoint(item) for item in view.networks}},
        "Mounts": [mount(item) for item in view.mounts],
    }
    if view.size_rw is not None:
        found["SizeRw"] = view.size_rw
    if view.size_root is not None:
        found["SizeRootFs"] = view.size_root
    return found


def execution(view: ExecView) -> dict[str, Any]:
    """What GET /exec/{id}/json answers."""
    request = view.request
    return {
        "ID": view.id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": request.cmd[0] if request.cmd else "",
            "arguments": list(request.cmd[1:]),
            "privileged": request.privileged,
            **({"user": request.user} if request.user else {}),
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": False,
        "ContainerID": view.container_id,
        "DetachKeys": request.detach_keys,
        "Pid": view.pid,
    }
