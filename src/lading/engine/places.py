"""A container's places among its networks: by which it goes out, and what its interfaces are called. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lading.engine.model import EndpointState

_INDEX = len("lv") + 8
"""Where the number stands in the name of an interface, after eight digits of the container's id."""


def outward(endpoints: Iterable[EndpointState]) -> EndpointState | None:
    """The place by which a container goes out: of those with a gateway the one preferred, else the first."""
    found = [state for state in endpoints if state.gateway or state.gateway6]
    return max(found, key=lambda state: state.requested.gw_priority, default=None)


def host_name(container_id: str, number: int) -> str:
    """What the host calls a container's interface of this number."""
    return f"lv{container_id[:8]}{number}"


def guest_name(host_name: str) -> str:
    """What the container calls the interface whose other end is `host_name`."""
    return f"eth{host_name[_INDEX:]}"


def free_index(host_names: Iterable[str]) -> int:
    """The number of a container's next interface; one that is freed is used again."""
    used = {int(name[_INDEX:]) for name in host_names}
    return next(number for number in range(len(used) + 1) if number not in used)
