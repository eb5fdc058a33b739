"""`--here`: the engine and its API inside this process, each connection a socketpair. Joins nothing itself."""

from __future__ import annotations

import _thread
import atexit
import socket

from lading.client.api import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context
    from lading.client.http import Socket


class HereClient(Client):
    """A client that owns the engine it talks to, and ends it."""

    __slots__ = ("_end",)

    def __init__(self, context: Context) -> None:
        from lading.api.server import serve_connection
        from lading.assemble import build_engine
        from lading.base import paths

        engine = build_engine(paths.from_environment(context.environ, context.uid), dict(context.environ))

        def dial() -> Socket:
            ours, theirs = socket.socketpair()
            _thread.start_new_thread(serve_connection, (engine, theirs))
            return ours

        super().__init__(dial)
        self._end = engine.close
        atexit.register(self.close)

    def close(self) -> None:
        super().close()
        atexit.unregister(self.close)
        end, self._end = self._end, _nothing
        end()


def _nothing() -> None:
    """What is left to end once the engine has ended."""
