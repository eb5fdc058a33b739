"""What an engine without the host's privileges answers to what users ask: another default network, refused limits.

Makes nothing; asks the rooms for the layout of control groups and for the reason why there is no way out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lading.base.errors import Unsupported
from lading.engine.model import CreateRequest, HostConfig, Resources

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms

_HINT = (
    "Leave the limit out, or start the daemon in control groups that are yours: "
    "systemd-run --user --scope -p Delegate=yes lading daemon."
)


def fit(asked: CreateRequest, rooms: Rooms) -> tuple[CreateRequest, list[str]]:
    """The request as it can be met, with warnings. Unsupported for a limit that could not be held."""
    if not rooms.ordinary:
        return asked, []
    check_limits(asked.host.resources, rooms)
    no_way_out = rooms.no_way_out
    if not no_way_out:
        return asked, []
    if not _default(asked.host) or asked.networks.keys() - {"default", "bridge"}:
        return asked, []
    if asked.host.port_bindings or asked.host.publish_all_ports:
        return asked, [f"The container reaches no network outside: {no_way_out}. Its published ports work."]
    host = replace(asked.host, network_mode="host")
    return replace(asked, host=host, networks={}), [f"The container uses the host's network: {no_way_out}."]


def _default(host: HostConfig) -> bool:
    return (host.network_mode or "default") == "default"


def check_limits(limits: Resources, rooms: Rooms) -> None:
    """Every limit an ordinary user asks for needs a control group of the user's own; Unsupported without."""
    if not rooms.ordinary:
        return
    wanted = {
        "memory": limits.memory or limits.memory_reservation or limits.memory_swap,
        "cpu": limits.nano_cpus or limits.cpu_quota or limits.cpu_shares or limits.cpu_period,
        "cpuset": limits.cpuset_cpus or limits.cpuset_mems,
        "pids": (limits.pids_limit or 0) > 0,
    }
    for controller, asked in wanted.items():
        if asked and not rooms.runtime.layout.has(controller):
            raise Unsupported(
                f"{controller} cannot be limited here",
                why=f"An ordinary user's engine has no {controller} control group that is its own.",
                hint=_HINT,
            )
