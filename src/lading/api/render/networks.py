"""A network as Docker's JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lading.api.ports import Network
from lading.api.render.json import present, when
from lading.engine.model import EndpointState


def network(
    value: Network, members: Mapping[str, EndpointState] | None = None, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`members` (container id to its endpoint) and their `names` appear in an inspection only."""
    pools = [
        _pool(subnet, gateway, part, {k: v for k, v in value.auxiliary.items() if (":" in v) == six})
        for subnet, gateway, part, six in (
            (value.subnet, value.gateway, value.ip_range, False),
            (value.subnet6, value.gateway6, value.ip_range6, True),
        )
        if subnet
    ]
    return {
        "Name": value.name,
        "Id": value.id,
        "Created": when(value.created_ns),
        "Scope": value.scope,
        "Driver": value.driver,
        "EnableIPv4": True,
        "EnableIPv6": value.enable_ipv6,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": value.internal,
        "Attachable": value.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            container: {
                "Name": (names or {}).get(container, ""),
                "EndpointID": state.endpoint_id,
                "MacAddress": state.mac,
                "IPv4Address": f"{state.ipv4}/{state.prefix}" if state.ipv4 else "",
                "IPv6Address": f"{state.ipv6}/{state.prefix6}" if state.ipv6 else "",
            }
            for container, state in (members or {}).items()
        },
        "Options": present(value.options),
        "Labels": present(value.labels),
    }


def _pool(subnet: str, gateway: str, part: str, auxiliary: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"Subnet": subnet}
    if part:
        found["IPRange"] = part
    if gateway:
        found["Gateway"] = gateway
    if auxiliary:
        found["AuxiliaryAddresses"] = dict(auxiliary)
    return found
