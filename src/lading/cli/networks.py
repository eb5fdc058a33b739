"""`lading network create|ls|rm|connect|disconnect`. Owns their table and flags."""

from __future__ import annotations

from lading.base.errors import LadingError
from lading.cli import human
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.ps import FILTER, FORMAT, NO_TRUNC
from lading.cli.table import Listing, filters, labels
from lading.cli.values import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context


def _create(context: Context, flags: Flags) -> int:
    body: dict[str, Any] = {"Name": flags.args[0], "Driver": flags.text("driver", "bridge")}
    for flag, key in (("internal", "Internal"), ("attachable", "Attachable"), ("ipv6", "EnableIPv6")):
        if flags.on(flag):
            body[key] = True
    if flags.given("ipv4"):
        body["EnableIPv4"] = flags.on("ipv4")
    body["Options"] = pairs("opt", flags.many("opt"))
    body["Labels"] = pairs("label", flags.many("label"))
    pools = _pools(flags)
    if pools:
        body["IPAM"] = {"Driver": flags.text("ipam-driver", "default"), "Config": pools}
    answer = context.client.call("POST", "/networks/create", None, body)
    if answer.get("Warning"):
        context.complain(f"warning: {answer['Warning']}")
    context.out.line(answer["Id"])
    return 0


def _pools(flags: Flags) -> list[dict[str, Any]]:
    """Subnets with the gateway and range that belong to each: by position, or by family where one is missing."""
    subnets = _listed(flags, "subnet")
    pools: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in subnets]
    for flag, key in (("gateway", "Gateway"), ("ip-range", "IPRange")):
        for item in _listed(flags, flag):
            family = ":" in item
            home = [pool for pool in pools if (":" in pool["Subnet"]) == family and key not in pool]
            if not home:
                raise UsageError(
                    f"no matching subnet for {flag} {item}",
                    hint="Give --subnet for it, of the same family.",
                    code=1,
                )
            home[0][key] = item
    if flags.given("aux-address"):
        if not pools:
            raise UsageError("--aux-address needs a --subnet", code=1)
        pools[0]["AuxiliaryAddresses"] = pairs("aux-address", flags.many("aux-address"))
    return pools


def _listed(flags: Flags, name: str) -> list[str]:
    return [part.strip() for item in flags.many(name) for part in item.split(",") if part.strip()]


def _ls(context: Context, flags: Flags) -> int:
    found = context.client.call("GET", "/networks", {"filters": filters(flags.many("filter"))})
    found.sort(key=lambda network: network["Name"])
    trunc = not flags.on("no-trunc")
    listing = Listing(
        (
            ("ID", "NETWORK ID", lambda n: human.short_id(n["Id"]) if trunc else n["Id"]),
            ("Name", "NAME", lambda n: n["Name"]),
            ("Driver", "DRIVER", lambda n: n.get("Driver", "")),
            ("Scope", "SCOPE", lambda n: n.get("Scope", "")),
            ("IPv4", "IPV4", lambda n: _flag(n, "EnableIPv4")),
            ("IPv6", "IPV6", lambda n: _flag(n, "EnableIPv6")),
            ("Internal", "INTERNAL", lambda n: _flag(n, "Internal")),
            ("Labels", "LABELS", labels),
            ("CreatedAt", "CREATED AT", lambda n: human.go_time(str(n.get("Created") or ""))),
        ),
        ("ID", "Name", "Driver", "Scope"),
    )
    if flags.on("quiet") and flags.text("format") in ("", "table"):
        for network in found:
            context.out.line(listing.by_name["ID"][2](network))
        return 0
    listing.show(context, found, flags.text("format"))
    return 0


def _flag(network: dict[str, Any], key: str) -> str:
    return "true" if network.get(key) else "false"


def _rm(context: Context, flags: Flags) -> int:
    def one(name: str) -> None:
        try:
            context.client.call("DELETE", f"/networks/{path_name(name)}")
        except LadingError as error:
            if not (flags.on("force") and getattr(error, "status", 0) == 404):
                raise

    return context.each(flags.args, one)


def _connect(context: Context, flags: Flags) -> int:
    network, container = flags.args
    if flags.given("link"):
        raise UsageError(
            "--link is not supported", hint="Names resolve on a shared network; --alias adds more."
        )
    endpoint: dict[str, Any] = {}
    if _listed(flags, "alias"):
        endpoint["Aliases"] = _listed(flags, "alias")
    fixed = {
        key: flags.text(flag)
        for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address"))
        if flags.given(flag)
    }
    if fixed:
        endpoint["IPAMConfig"] = fixed
    if flags.given("driver-opt"):
        endpoint["DriverOpts"] = pairs("driver-opt", _listed(flags, "driver-opt"))
    if flags.given("gw-priority"):
        endpoint["GwPriority"] = flags.integer("gw-priority")
    body = {"Container": container, "EndpointConfig": endpoint}
    context.client.call("POST", f"/networks/{path_name(network)}/connect", None, body)
    return 0


def _disconnect(context: Context, flags: Flags) -> int:
    body = {"Container": flags.args[1], "Force": flags.on("force")}
    context.client.call("POST", f"/networks/{path_name(flags.args[0])}/disconnect", None, body)
    return 0


CREATE = Verb(
    "create [OPTIONS] NETWORK",
    (
        ("attachable", "", "bool", ""),
        ("aux-address", "", "map", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
        ("driver", "d", "string", 'Driver to manage the Network (default "bridge")'),
        ("gateway", "", "list", "IPv4 or IPv6 Gateway for the master subnet"),
        ("internal", "", "bool", "Restrict external access to the network"),
        ("ip-range", "", "list", "Allocate container ip from a sub-range"),
        ("ipam-driver", "", "string", 'IP Address Management Driver (default "default")'),
        ("ipv4", "", "bool", "Enable or disable IPv4 address assignment (default true)"),
        ("ipv6", "", "bool", "Enable or disable IPv6 address assignment"),
        ("label", "", "list", "Set metadata on a network"),
        ("opt", "o", "map", "Set driver specific options"),
        ("subnet", "", "list", "Subnet in CIDR format that represents a network segment"),
    ),
    _create,
    least=1,
    most=1,
)
LS = Verb("ls [OPTIONS]", (FILTER, FORMAT, NO_TRUNC, ("quiet", "q", "bool", "Only display network IDs")), _ls)
RM = Verb(
    "rm NETWORK [NETWORK...]",
    (("force", "f", "bool", "Do not error if the network does not exist"),),
    _rm,
    least=1,
    most=-1,
)
CONNECT = Verb(
    "connect [OPTIONS] NETWORK CONTAINER",
    (
        ("alias", "", "list", "Add network-scoped alias for the container"),
        ("driver-opt", "", "list", "driver options for the network"),
        ("gw-priority", "", "int", "Highest gw-priority provides the default gateway"),
        ("ip", "", "string", 'IPv4 address (e.g., "172.30.100.104")'),
        ("ip6", "", "string", 'IPv6 address (e.g., "2001:db8::33")'),
        ("link", "", "list", ""),
    ),
    _connect,
    least=2,
    most=2,
)
DISCONNECT = Verb(
    "disconnect [OPTIONS] NETWORK CONTAINER",
    (("force", "f", "bool", "Force the container to disconnect from a network"),),
    _disconnect,
    least=2,
    most=2,
)
