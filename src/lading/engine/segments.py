"""A network as it is remembered, and the subnets it gets. Pure: what else is in use is told.

Owns the value, Docker's driver options as far as they mean something here, and the checks of what a user asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lading.base.errors import Denied, Invalid, Unsupported

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_BRIDGE = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"


@dataclass(frozen=True)
class Network:
    """One network. `bridge` is the interface's name on the host; subnets are empty until first use."""

    id: str
    name: str
    created_ns: int
    driver: str = "bridge"
    bridge: str = ""
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    mtu: int = 1500
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    scope: str = "local"
    ip_range: str = ""  # where addresses are chosen from, a part of the subnet
    ip_range6: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)  # name -> address that nobody is given

    @property
    def masquerade(self) -> bool:
        """Whether its containers go out as the host."""
        return not self.internal and self.options.get(f"{_BRIDGE}enable_ip_masquerade", "true") != "false"

    @property
    def host_binding(self) -> str:
        """Where a port is published that names no address of the host; "" for everywhere."""
        address = self.options.get(f"{_BRIDGE}host_binding_ipv4", "")
        return "" if address == "0.0.0.0" else address


@dataclass(frozen=True)
class Pools:
    """The addresses a user asks a network to have; "" where the choice is ours."""

    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    ip_range6: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Invalid for what cannot be a network's name."""
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if not 1 <= len(name) <= 128 or not (name.isascii() and plain.isalnum() and name[0].isalnum()):
        raise Invalid(
            f'invalid network name "{name[:64]}"', why="Only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed."
        )
    if name in ("default", "container"):
        raise Invalid(f'network name "{name}" has a meaning of its own')


def with_options(network: Network, options: Mapping[str, str]) -> Network:
    """The network with Docker's driver options; unknown ones are kept for `inspect`, as Docker does."""
    from ipaddress import IPv4Address

    from lading.network.values import check_interface_name

    mtu = options.get(_MTU, "1500")
    if not (mtu.isascii() and mtu.isdigit() and len(mtu) < 6 and 68 <= int(mtu) <= 65535):
        raise Invalid(f'invalid mtu "{mtu[:20]}"', why="The range is 68 to 65535.")
    if options.get(f"{_BRIDGE}enable_icc", "true") == "false":
        raise Unsupported(
            "containers of one network cannot be kept apart (enable_icc=false)",
            hint="Give each its own network: networks are kept apart.",
        )
    name = options.get(f"{_BRIDGE}name", "")
    if name:
        check_interface_name(name)
    address = options.get(f"{_BRIDGE}host_binding_ipv4", "")
    if address:
        try:
            IPv4Address(address)
        except ValueError:
            raise Invalid(
                f'invalid host_binding_ipv4 "{address[:40]}"', why="It is no IPv4 address."
            ) from None
    return replace(network, mtu=int(mtu), bridge=name or network.bridge, options=dict(options))


def addressed(network: Network, asked: Pools, others: Iterable[Network], routes: Iterable[str]) -> Network:
    """The network with its subnets: those asked for, or some that nobody uses.

    `others` are the engine's networks, `routes` what the host reaches already.
    """
    from lading.network import addresses

    others = tuple(others)
    used = [other.subnet for other in others if other.subnet]
    used6 = [other.subnet6 for other in others if other.subnet6]
    subnet = _given(asked.subnet, 4, used) if asked.subnet else addresses.pick_subnet([*used, *routes])
    subnet6 = ""
    if asked.subnet6:
        subnet6 = _given(asked.subnet6, 6, used6)
    elif network.enable_ipv6:
        # A unique local subnet (RFC 4193): 40 random bits and 16 more, all from the network's random id.
        digits = f"fd{network.id[:14]}"
        subnet6 = _given(":".join(digits[i : i + 4] for i in range(0, 16, 4)) + "::/64", 6, used6)
    found = replace(
        network,
        subnet=subnet,
        gateway=_gateway(asked.gateway, subnet),
        subnet6=subnet6,
        gateway6=_gateway(asked.gateway6, subnet6) if subnet6 else "",
        enable_ipv6=bool(subnet6),
        ip_range=_range(asked.ip_range, subnet),
        ip_range6=_range(asked.ip_range6, subnet6),
        auxiliary=dict(asked.auxiliary),
    )
    for address in found.auxiliary.values():
        _inside(address, subnet6 if ":" in address else subnet, "auxiliary address")
    return found


def _given(text: str, version: int, used: Iterable[str]) -> str:
    import ipaddress

    wanted = _subnet(text, version)
    for other in used:
        if wanted.overlaps(ipaddress.ip_network(other)):
            raise Denied(
                "invalid pool request: Pool overlaps with other one on this address space",
                why=f"{wanted} and {other} share addresses.",
            )
    return str(wanted)


def _subnet(text: str, version: int) -> IPv4Network | IPv6Network:
    import ipaddress

    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as e:
        raise Invalid(f'invalid subnet "{text[:64]}"', why=str(e)) from e
    if network.version != version or network.num_addresses < 4:
        raise Invalid(
            f'invalid subnet "{text[:64]}"', why=f"It must be IPv{version} with room for two hosts."
        )
    return network


def _gateway(text: str, subnet: str) -> str:
    import ipaddress

    return _inside(text, subnet, "gateway") if text else str(ipaddress.ip_network(subnet)[1])


def _inside(text: str, subnet: str, what: str) -> str:
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Invalid(f'invalid {what} "{text[:64]}"', why="It is no IP address.") from None
    if not subnet or address not in ipaddress.ip_network(subnet):
        raise Invalid(f"{what} {text} is not in subnet {subnet or 'of its family'}")
    return str(address)


def _range(text: str, subnet: str) -> str:
    """A part of the subnet in which addresses are chosen."""
    if not text:
        return ""
    import ipaddress

    try:
        part = ipaddress.ip_network(text, strict=False)
        whole = ipaddress.ip_network(subnet)
    except ValueError as e:
        raise Invalid(f'invalid ip range "{text[:64]}"', why=str(e)) from e
    if part.version != whole.version or not (part[0] in whole and part[-1] in whole):
        raise Invalid(f"ip range {text[:64]} is not in subnet {subnet}")
    return str(part)
