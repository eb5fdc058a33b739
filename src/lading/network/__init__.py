"""Floor 2: what connects containers. Bridges, veth pairs, addresses, NAT and published ports, by netlink
alone.

Never runs another program, and never decides which container gets what: the engine says so in values.
"""

from lading.network.networks import Networks
from lading.network.values import Bridge, Forward, Interface

__all__ = ["Bridge", "Forward", "Interface", "Networks"]
