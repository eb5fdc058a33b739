"""Floor 2: what connects containers. Bridges, veth pairs, addresses, NAT and published ports, by netlink
alone, and the resolver of their names.

Never decides which container gets what: the engine says so in values. The only program it runs is its own resolver.
Names are looked up when they are asked for (PEP 562), since the resolver's process lives in this package too and
needs none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.network.networks import Networks
    from lading.network.values import Bridge, Forward, Interface

__all__ = ["Bridge", "Forward", "Interface", "Networks"]


def __getattr__(name: str) -> Any:
    if name == "Networks":
        from lading.network import networks

        return networks.Networks
    if name in __all__:
        from lading.network import values

        return getattr(values, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
