"""A container in the foreground: streams, signals, the terminal's size, the exit code. For run, start and attach."""

from __future__ import annotations

from lading.base.errors import LadingError
from lading.cli import terminal
from lading.cli.streams import SIGWINCH, Pump, Signals, wanted
from lading.client.http import Broken
from lading.client.wire import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lading.cli.context import Context
    from lading.client.api import Hijacked
    from lading.client.http import Response


def attach(
    context: Context, identifier: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool = False
) -> Hijacked:
    """The container's streams on a connection of their own."""
    query = {
        "stream": 1,
        "stdin": int(stdin),
        "stdout": int(stdout),
        "stderr": int(stderr),
        "logs": int(logs),
    }
    return context.client.hijack("POST", f"/containers/{identifier}/attach", query)


def wait(context: Context, identifier: str, removed: bool, condition: str = "next-exit") -> Response:
    """Ask for the exit code before it can be lost: the answer's head comes at once, its body when the container ends."""
    return context.client.open(
        "POST", f"/containers/{identifier}/wait", {"condition": "removed" if removed else condition}
    )


def follow(
    context: Context,
    identifier: str,
    stream: Hijacked,
    waiting: Response,
    *,
    tty: bool,
    stdin: bool,
    keys: bytes,
    proxy: bool,
    start: Callable[[], None] | None = None,
) -> int | None:
    """Run the streams until the container ends; its exit code, or None when the user detached.

    `start` is called once everything is in place to lose neither a signal nor a byte.
    """
    path = f"/containers/{identifier}"

    def resize() -> None:
        now = terminal.size(context.out.fd, context.stdin)
        if now:
            tell(context, f"{path}/resize", {"h": now[0], "w": now[1]})

    def on_signal(number: int) -> None:
        if number == SIGWINCH:
            resize()
        else:
            tell(context, f"{path}/kill", {"signal": number})

    with Signals(wanted(tty, proxy)) as signals:
        if start is not None:
            start()
        raw = terminal.Raw(context.stdin if tty and stdin else -1)
        with raw:
            if tty:
                resize()
            pump = Pump(context, stream, tty=tty, stdin=stdin, keys=keys)
            pump.run(
                signals,
                on_signal,
                until=waiting.connection.sock.fileno() if not waiting.connection.buffer else -1,
            )
        if pump.detached:
            return None
        return exit_code(context, path, waiting)


def exit_code(context: Context, path: str, waiting: Response) -> int:
    """The StatusCode of a /wait answer; 125 with a complaint when waiting itself failed.

    The container's stream does not pass through the daemon and outlives it; a daemon that died meanwhile is started
    again, and has the exit code from the disk.
    """
    try:
        body = loads(waiting.read(1 << 20))
    except Broken:
        body = context.client.call("POST", f"{path}/wait")
    error = body.get("Error") if isinstance(body, dict) else None
    if isinstance(error, dict) and error.get("Message"):
        context.complain(str(error["Message"]))
        return 125
    if isinstance(body, dict) and isinstance(body.get("Hint"), str):
        context.complain(body["Hint"])
    code = body.get("StatusCode") if isinstance(body, dict) else None
    return int(code) & 0xFF if isinstance(code, int) else 125


def tell(context: Context, path: str, query: dict[str, int]) -> None:
    """A request whose failure means only that the container ended meanwhile."""
    try:
        context.client.call("POST", path, query)
    except LadingError:
        pass
