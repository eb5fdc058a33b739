"""`lading version` and `lading info`. Owns their layout; the facts are the daemon's."""

from __future__ import annotations

import sys

from lading import __version__
from lading.base.errors import LadingError
from lading.cli.flags import Flags, Verb
from lading.cli.human import binary
from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

_FORMAT = ("format", "f", "string", "Format output: 'json', or a Go TEMPLATE")


def _version(context: Context, flags: Flags) -> int:
    client = {
        "Version": __version__,
        "ApiVersion": "1.54",
        "Python": ".".join(map(str, sys.version_info[:3])),
        "Os": sys.platform,
        "Arch": _machine(),
    }
    server: dict[str, Any] | None = None
    failure = ""
    try:
        server = context.client.call("GET", "/version")
    except LadingError as error:
        failure = str(error)
    form = flags.text("format")
    if form:
        _formatted(context, {"Client": client, "Server": server}, form)
    else:
        _version_text(context, client, server)
    if failure:
        context.complain(failure)
    return 1 if failure else 0


def _version_text(context: Context, client: dict[str, str], server: dict[str, Any] | None) -> None:
    out = context.out
    out.line("Client:")
    for key, label in (("Version", "Version"), ("ApiVersion", "API version"), ("Python", "Python version")):
        out.line(f" {label + ':':<21} {client[key]}")
    out.line(f" {'OS/Arch:':<21} {client['Os']}/{client['Arch']}")
    if server is None:
        return
    out.line("\nServer:")
    for key, label in (
        ("Version", "Version"),
        ("ApiVersion", "API version"),
        ("MinAPIVersion", "Minimum API version"),
    ):
        if server.get(key):
            out.line(f" {label + ':':<21} {server[key]}")
    out.line(f" {'OS/Arch:':<21} {server.get('Os', '')}/{server.get('Arch', '')}")
    if server.get("KernelVersion"):
        out.line(f" {'Kernel version:':<21} {server['KernelVersion']}")
    for component in server.get("Components") or ():
        out.line(f" {component.get('Name', '')}:")
        out.line(f"  {'Version:':<20} {component.get('Version', '')}")


def _machine() -> str:
    import os

    name = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, name)


def _formatted(context: Context, value: Any, form: str) -> None:
    if form == "json":
        context.out.line(dumps(value))
        return
    from lading.cli.template import Template

    context.out.line(Template(form).render(value))


def _info(context: Context, flags: Flags) -> int:
    info = context.client.call("GET", "/info")
    if flags.text("format"):
        _formatted(context, info, flags.text("format"))
        return 0
    out = context.out
    out.line("Client:")
    out.line(f" Version:    {__version__}")
    out.line("\nServer:")
    for line in _info_lines(info):
        out.line(" " + line)
    for warning in info.get("Warnings") or ():
        context.complain(f"warning: {warning}")
    return 0


def _info_lines(info: dict[str, Any]) -> list[str]:
    out = []
    if "Containers" in info:
        out.append(f"Containers: {info['Containers']}")
        out += [
            f" {state}: {info.get('Containers' + state, 0)}" for state in ("Running", "Paused", "Stopped")
        ]
    for key, label in (
        ("Images", "Images"),
        ("ServerVersion", "Server Version"),
        ("Driver", "Storage Driver"),
    ):
        if key in info:
            out.append(f"{label}: {info[key]}")
    out += [f" {pair[0]}: {pair[1]}" for pair in info.get("DriverStatus") or () if len(pair) == 2]
    for key, label in (
        ("LoggingDriver", "Logging Driver"),
        ("CgroupDriver", "Cgroup Driver"),
        ("CgroupVersion", "Cgroup Version"),
    ):
        if info.get(key):
            out.append(f"{label}: {info[key]}")
    plugins = info.get("Plugins") or {}
    if plugins:
        out.append("Plugins:")
        out += [
            f" {kind}: {' '.join(plugins[kind])}"
            for kind in ("Volume", "Network", "Log")
            if plugins.get(kind)
        ]
    runtimes = info.get("Runtimes")
    if runtimes:
        out += [
            f"Runtimes: {' '.join(sorted(runtimes))}",
            f"Default Runtime: {info.get('DefaultRuntime', '')}",
        ]
    if info.get("CDISpecDirs"):
        out += ["CDI spec directories:", *(f" {path}" for path in info["CDISpecDirs"])]
    if info.get("SecurityOptions"):
        out.append("Security Options:")
        out += [f" {option.split(',')[0].removeprefix('name=')}" for option in info["SecurityOptions"]]
    for key, label in (
        ("KernelVersion", "Kernel Version"),
        ("OperatingSystem", "Operating System"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("NCPU", "CPUs"),
    ):
        if key in info:
            out.append(f"{label}: {info[key]}")
    if "MemTotal" in info:
        out.append(f"Total Memory: {binary(info['MemTotal'])}")
    for key, label in (("Name", "Name"), ("ID", "ID"), ("DockerRootDir", "Root Dir"), ("Socket", "Socket")):
        if info.get(key):
            out.append(f"{label}: {info[key]}")
    if info.get("Labels"):
        out.append("Labels:")
        out += [f" {label}" for label in info["Labels"]]
    return out


VERSION = Verb("version [OPTIONS]", (_FORMAT,), _version)
INFO = Verb("info [OPTIONS]", (_FORMAT,), _info)
