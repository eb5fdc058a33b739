"""The syntax of --network in its long form, and of the flags that go with it."""

from __future__ import annotations

from lading.cli.flags import UsageError
from lading.cli.values import fields, pairs, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Body = dict[str, Any]


def networks(
    names: list[str], aliases: list[str], fixed: dict[str, str], mac: str, body: Body, host: Body
) -> None:
    """--network in its long form or given twice, and what goes with the first: --ip, --network-alias."""
    endpoints: dict[str, Body] = {}
    for item in names or ["default"]:
        name, endpoint = _network(item)
        if name in endpoints:
            raise UsageError(f"network {name!r} is specified multiple times")
        endpoints[name] = endpoint
    first = next(iter(endpoints))
    if aliases:
        endpoints[first]["Aliases"] = endpoints[first].get("Aliases", []) + aliases
    if fixed:
        endpoints[first]["IPAMConfig"] = {**endpoints[first].get("IPAMConfig", {}), **fixed}
    if mac:
        endpoints[first]["MacAddress"] = mac
    if names:
        host["NetworkMode"] = first
    body["NetworkingConfig"] = {"EndpointsConfig": endpoints}


def _network(item: str) -> tuple[str, Body]:
    if "=" not in item:
        return item, {}
    name = ""
    out: Body = {}
    for field in fields(item):
        key, _, value = field.partition("=")
        key = key.strip().lower()
        if key == "name":
            name = value
        elif key == "alias":
            out.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            out.setdefault("IPAMConfig", {})["IPv4Address" if key == "ip" else "IPv6Address"] = value
        elif key == "mac-address":
            out["MacAddress"] = value
        elif key == "driver-opt":
            out.setdefault("DriverOpts", {}).update(pairs("network", [value]))
        elif key == "gw-priority":
            out["GwPriority"] = int(value) if value.lstrip("-").isdigit() else 0
        else:
            raise wrong("network", item, f"invalid field {key!r}")
    if not name:
        raise wrong("network", item, "it needs name=NETWORK")
    return name, out


def rate(text: str) -> Body:
    """--net-rate: one rate for both directions, or egress=RATE,ingress=RATE."""
    from lading.cli.units import parse_rate

    try:
        if "=" not in text:
            return dict.fromkeys(("Egress", "Ingress"), parse_rate(text))
        out = {}
        for field in text.split(","):
            key, _, value = field.partition("=")
            name = {"egress": "Egress", "ingress": "Ingress"}.get(key.strip().lower())
            if name is None or name in out:
                raise ValueError(f"{key.strip()!r} is not egress or ingress, each once")
            out[name] = parse_rate(value)
        return out
    except ValueError as error:
        raise UsageError(f'invalid argument "{text}" for "--net-rate" flag: {error}') from None
