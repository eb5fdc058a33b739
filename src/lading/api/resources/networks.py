"""/networks. Owns the request's form and the answer's; bridges and addresses are the engine's."""

from __future__ import annotations

from lading.api import parse
from lading.api.exchange import Exchange
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render import networks as render
from lading.api.router import Route
from lading.base.errors import Invalid


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
    subnets = {"": "", "6": ""}
    gateways = {"": "", "6": ""}
    for config in fields.object("IPAM").objects("Config"):
        family = "6" if ":" in config.text("Subnet") else ""
        if subnets[family]:
            raise Invalid("a network has one subnet of each address family")
        subnets[family], gateways[family] = config.text("Subnet"), config.text("Gateway")
    made = engine.networks.create(
        name,
        fields.text("Driver") or "bridge",
        subnet=subnets[""],
        gateway=gateways[""],
        subnet6=subnets["6"],
        gateway6=gateways["6"],
        internal=fields.flag("Internal"),
        attachable=fields.flag("Attachable"),
        enable_ipv6=fields.flag("EnableIPv6"),
        labels=fields.string_map("Labels"),
        options=fields.string_map("Options"),
    )
    x.json({"Id": made.id, "Warning": ""}, 201)


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
