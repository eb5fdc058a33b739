"""What every verb is given: the environment as read at the door, the way out, and the client, made when first asked for.

Owns output buffering; never decides what is printed.
"""

from __future__ import annotations

import os

from lading.base.errors import LadingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lading.client.api import Client


class Output:
    """Text to a descriptor, buffered until `flush` or 64 KiB; UTF-8 whatever the locale says, as docker does."""

    __slots__ = ("_parts", "_size", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, text: str) -> None:
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half of a pair, which JSON can name and UTF-8 cannot
            data = text.encode("utf-8", "replace")
        self.write_bytes(data)

    def write_bytes(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > 65536:
            self.flush()

    def line(self, text: str = "") -> None:
        self.write(text + "\n")

    def flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            write_all(self.fd, b"".join(parts))

    def is_terminal(self) -> bool:
        return os.isatty(self.fd)

    def width(self) -> int:
        """Columns of the terminal; 80 where there is none."""
        try:
            return os.get_terminal_size(self.fd).columns or 80
        except OSError:
            return 80


class Context:
    """One run of the command line."""

    __slots__ = ("_client", "environ", "err", "here", "host", "out", "stdin", "uid", "verb")

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        stdin: int = 0,
        stdout: int = 1,
        stderr: int = 2,
        uid: int | None = None,
    ) -> None:
        self.environ = environ
        self.stdin = stdin
        self.out = Output(stdout)
        self.err = Output(stderr)
        self.uid = os.geteuid() if uid is None else uid
        self.host = ""
        self.here = False
        self.verb = ""
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connection to the daemon, which is started when nobody answers (or is this process, with --here)."""
        if self._client is None:
            from lading.cli.session import connect

            self._client = connect(self)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def absolute(self, path: str) -> str:
        """`path` from the directory the user is in."""
        return os.path.normpath(os.path.join(os.getcwd(), path))

    def complain(self, message: str) -> None:
        """One error or warning on stderr, after what was already printed on stdout."""
        self.out.flush()
        self.err.write(f"lading: {printable(message)}\n")
        self.err.flush()

    def each(self, names: list[str], act: Callable[[str], object]) -> int:
        """Call `act(name)` for each; print what it returns (the name by default), complain and go on when it fails."""
        failed = False
        for name in names:
            try:
                shown = act(name)
            except LadingError as error:
                self.complain(str(error))
                failed = True
                continue
            self.out.line(name if shown is None else str(shown))
            self.out.flush()
        return 1 if failed else 0


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, waiting where a terminal or pipe is in non-blocking mode."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def printable(text: str) -> str:
    """`text` without control characters: messages quote images, Dockerfiles and containers, which may hold any."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text])
