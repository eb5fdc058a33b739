"""/networks. Owns the request's form and the answer's; bridges and addresses are the engine's."""

from __future__ import annotations

from dataclasses import replace

from lading.api import parse
from lading.api.exchange import Exchange
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render import networks as render
from lading.api.router import Route
from lading.base.errors import Invalid, Unsupported
from lading.engine.segments import Pools


def list_(engine: Engine, x: Exchange) -> None:
    x.json([render.network(item) for item in engine.networks.list(x.filters())])


def inspect(engine: Engine, x: Exchange) -> None:
    ref = x.params["id"]
    found = engine.networks.inspect(ref)
    members = engine.networks.containers(found.id)
    names = {view.id: view.name for view in engine.containers.list(True, 0, {}, False)} if members else {}
    x.json(render.network(found, members, names))


def create(engine: Engine, x: Exchange) -> None:
    fields = Fields(x.json_body())
    name = fields.text("Name")
    if not name:
        raise Invalid("a network needs a name")
    ipam = fields.object("IPAM")
    if ipam.text("Driver") not in ("", "default"):
        raise Unsupported(f'no address driver "{ipam.text("Driver")[:40]}"', hint="Leave --ipam-driver out.")
    if fields.get("EnableIPv4") is False:
        raise Unsupported("a network without IPv4 cannot be made", hint="Leave --ipv4=false out.")
    made = engine.networks.create(
        name,
        fields.text("Driver") or "bridge",
        _pools(ipam),
        internal=fields.flag("Internal"),
        attachable=fields.flag("Attachable"),
        enable_ipv6=fields.flag("EnableIPv6"),
        labels=fields.string_map("Labels"),
        options=fields.string_map("Options"),
    )
    x.json({"Id": made.id, "Warning": ""}, 201)


def _pools(ipam: Fields) -> Pools:
    """IPAM.Config: at most one pool of each address family."""
    pools = Pools()
    seen: set[bool] = set()
    for config in ipam.objects("Config"):
        subnet, gateway, part = config.text("Subnet"), config.text("Gateway"), config.text("IPRange")
        six = ":" in (subnet or gateway or part)
        if six in seen:
            raise Invalid("a network has one subnet of each address family")
        seen.add(six)
        auxiliary = {**pools.auxiliary, **config.string_map("AuxiliaryAddresses")}
        if six:
            pools = replace(pools, subnet6=subnet, gateway6=gateway, ip_range6=part, auxiliary=auxiliary)
        else:
            pools = replace(pools, subnet=subnet, gateway=gateway, ip_range=part, auxiliary=auxiliary)
    return pools


def remove(engine: Engine, x: Exchange) -> None:
    engine.networks.remove(x.params["id"])
    x.empty()


def connect(engine: Engine, x: Exchange) -> None:
    fields = Fields(x.json_body())
    endpoint = parse.endpoint(fields.object("EndpointConfig"))
    engine.networks.connect(x.params["id"], fields.text("Container"), endpoint)
    x.empty(200)


def disconnect(engine: Engine, x: Exchange) -> None:
    fields = Fields(x.json_body())
    engine.networks.disconnect(x.params["id"], fields.text("Container"), fields.flag("Force"))
    x.empty(200)


def prune(engine: Engine, x: Exchange) -> None:
    deleted, _ = engine.networks.prune(x.filters())
    x.json({"NetworksDeleted": list(deleted) or None})


ROUTES = [
    Route("GET", "/networks", list_),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{id}", inspect),
    Route("DELETE", "/networks/{id}", remove),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
]
