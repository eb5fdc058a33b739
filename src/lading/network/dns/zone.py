"""Who is called what on which network. Pure: fed by `server`, asked by it.

A name is known to the containers that share a network with its bearer and to nobody else. Owns lookups by name and by
address; knows no sockets and no messages.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Place(NamedTuple):
    """A container's place on one network: packed addresses, and every name it has there, its own first."""

    network: str
    network_name: str
    addresses: tuple[bytes, ...]
    names: tuple[str, ...]
    subnets: tuple[tuple[bytes, int], ...] = ()  # (packed, prefix)


class Zone:
    """Places by container, and the names of every network."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Place, ...]] = {}
        self._names: dict[str, dict[str, dict[str, Place]]] = {}  # network -> name -> container -> place
        self._owners: dict[str, dict[bytes, Place]] = {}  # network -> address -> place
        self._turn = itertools.count()

    def put(self, container: str, places: tuple[Place, ...]) -> None:
        """The container is on these networks, instead of any others."""
        self.drop(container)
        self._places[container] = places
        for place in places:
            names = self._names.setdefault(place.network, {})
            for name in place.names:
                names.setdefault(name, {})[container] = place
            self._owners.setdefault(place.network, {}).update(dict.fromkeys(place.addresses, place))

    def drop(self, container: str) -> None:
        """The container is gone."""
        for place in self._places.pop(container, ()):
            names, owners = self._names[place.network], self._owners[place.network]
            for name in place.names:
                bearers = names.get(name, {})
                bearers.pop(container, None)
                if not bearers:
                    names.pop(name, None)
            for address in place.addresses:
                if owners.get(address) is place:
                    del owners[address]
            if not names and not owners:
                del self._names[place.network], self._owners[place.network]

    def addresses(self, asking: str, name: str) -> tuple[bytes, ...] | None:
        """What `name` is to this container: on the first of its networks that knows it; None when none does.

        Several containers may share an alias: each answer begins with another one. "name.network" asks one network.
        """
        first, dot, last = name.rpartition(".")
        for place in self._places.get(asking, ()):
            known = self._names.get(place.network, {})
            bearers = known.get(name) or (known.get(first) if dot and last == place.network_name else None)
            if bearers:
                found = list(dict.fromkeys(a for bearer in bearers.values() for a in bearer.addresses))
                start = next(self._turn) % len(found) if found else 0
                return (*found[start:], *found[:start])
        return None

    def name(self, asking: str, address: bytes) -> str | None:
        """ "name.network" of the bearer of an address; "" for a free one of this container's networks, else None."""
        for place in self._places.get(asking, ()):
            bearer = self._owners.get(place.network, {}).get(address)
            if bearer is not None and bearer.names:
                return f"{bearer.names[0]}.{bearer.network_name}"
        mine = (pair for place in self._places.get(asking, ()) for pair in place.subnets)
        return "" if any(_inside(address, packed, prefix) for packed, prefix in mine) else None


def _inside(address: bytes, packed: bytes, prefix: int) -> bool:
    if len(address) != len(packed):
        return False
    shift = len(packed) * 8 - prefix
    return int.from_bytes(address, "big") >> shift == int.from_bytes(packed, "big") >> shift
