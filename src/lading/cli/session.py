"""Which daemon a command talks to: the one given, the default one (started when it is not there), or this process.

Owns that choice only; dialling is the client's matter, starting is `spawn`'s.
"""

from __future__ import annotations

from lading.client.api import Client
from lading.client.endpoint import NotListening, default_host, dialler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context
    from lading.client.http import Socket


def connect(context: Context) -> Client:
    """A client for this command line. A default daemon that is not there, or that died meanwhile, is started."""
    if context.here:
        from lading.cli.here import HereClient

        return HereClient(context)
    chosen = context.host or context.environ.get("LADING_HOST", "")
    # What the user names is theirs to trust; the default socket must be root's or their own.
    trusted = () if chosen else (0, context.uid)
    plain = dialler(chosen or default_host(context.environ, context.uid), trusted)

    def dial() -> Socket:
        try:
            return plain()
        except NotListening:
            if chosen:
                raise  # somebody else's daemon is not ours to start
            from lading.cli.spawn import start_daemon

            start_daemon(context)
            return plain()

    return Client(dial)
