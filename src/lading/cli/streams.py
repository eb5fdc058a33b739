"""Between the user's three descriptors and a container's stream: one poll loop. Owns framing, half close and signals.

Framing is Docker's: eight bytes (stream number, three zeros, size big-endian) before each piece of output, unless the
container has a terminal (Engine API, "Attach to a container").
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would import enum
import os
import select

from lading.base.errors import Unavailable
from lading.cli.context import write_all
from lading.cli.terminal import Keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lading.cli.context import Context
    from lading.client.api import Hijacked

_MSG_DONTWAIT = 0x40  # bits/socket.h, Linux on every architecture
_SHUT_WR = 1
_PIECE = 65536
SIGWINCH = 28

# Not CHLD, PIPE, URG (docker's client keeps them too), not KILL and STOP (nobody can), not WINCH of a terminal.
_FORWARDED = (1, 2, 3, 10, 12, 14, 15, 18, 20, 21, 22)


class Signals:
    """`with Signals(numbers):` these arrive as bytes on `.fd` instead of ending us."""

    __slots__ = ("_into", "_numbers", "_old", "_wakeup", "fd")

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers
        self.fd = self._into = self._wakeup = -1
        self._old: list[tuple[int, object]] = []

    def __enter__(self) -> Signals:
        if self._numbers:
            self.fd, self._into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._wakeup = _signal.set_wakeup_fd(self._into, warn_on_full_buffer=False)
            for number in self._numbers:
                self._old.append((number, _signal.signal(number, _ignore)))
        return self

    def __exit__(self, *_: object) -> None:
        if self._numbers:
            for number, handler in self._old:
                _signal.signal(number, handler)
            _signal.set_wakeup_fd(self._wakeup)
            os.close(self.fd)
            os.close(self._into)

    def take(self) -> list[int]:
        """The numbers that have come."""
        try:
            return list(os.read(self.fd, 64))
        except BlockingIOError:
            return []


def _ignore(_number: int, _frame: object) -> None:
    """The byte on the wake-up descriptor is all that is wanted."""


def wanted(tty: bool, proxy: bool) -> tuple[int, ...]:
    """The signals to take for a container with or without a terminal."""
    return (_FORWARDED if proxy else ()) + ((SIGWINCH,) if tty else ())


class Demultiplexer:
    """Framed output to descriptors 1 and 2, as it comes: no frame is ever held in memory."""

    __slots__ = ("_fd", "_head", "_left", "err", "out")

    def __init__(self, out: int, err: int) -> None:
        self.out, self.err = out, err
        self._head = b""
        self._left = 0
        self._fd = out

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                write_all(self._fd, piece)
                continue
            need = 8 - len(self._head)
            self._head += data[at : at + need]
            at += need
            if len(self._head) == 8:
                self._frame(self._head)
                self._head = b""

    def _frame(self, head: bytes) -> None:
        if head[0] > 3 or head[1:4] != b"\0\0\0":
            raise Unavailable("the container's output is garbled", why=f"{head!r} is no frame header.")
        self._fd = self.out if head[0] < 2 else self.err
        self._left = int.from_bytes(head[4:], "big")


class Raw:
    """Output of a terminal: bytes to stdout."""

    __slots__ = ("out",)

    def __init__(self, out: int) -> None:
        self.out = out

    def feed(self, data: bytes) -> None:
        write_all(self.out, data)


class Pump:
    """One attached stream, from the first byte to the last."""

    __slots__ = ("_keys", "_output", "_pending", "_poll", "_sock", "_stdin", "detached")

    def __init__(
        self, context: Context, stream: Hijacked, *, tty: bool, stdin: bool, keys: bytes = b""
    ) -> None:
        framed = stream.framed if stream.framed is not None else not tty
        out, err = context.out.fd, context.err.fd
        self._output: Demultiplexer | Raw = Demultiplexer(out, err) if framed else Raw(out)
        self._sock = stream.sock
        self._stdin = context.stdin if stdin else -1
        self._keys = Keys(keys) if keys and tty and stdin else None
        self._pending = b""
        self._poll = select.poll()
        self.detached = False
        context.out.flush()
        if stream.early:
            self._output.feed(stream.early)

    def run(self, signals: Signals, on_signal: Callable[[int], None], until: int = -1) -> None:
        """Until the stream ends and then `until` is readable, or the user detaches."""
        sock, ended = self._sock.fileno(), False
        poller = self._poll
        poller.register(sock, select.POLLIN)
        if self._stdin >= 0:
            poller.register(self._stdin, select.POLLIN)
        if signals.fd >= 0:
            poller.register(signals.fd, select.POLLIN)
        while not self.detached:
            if ended and until < 0:
                return
            for fd, event in poller.poll():
                if fd == sock:
                    if event & select.POLLOUT:
                        self._push()
                    if event & ~select.POLLOUT and not self._pull():
                        ended = True
                        poller.unregister(sock)
                        self._forget_stdin()
                        if until >= 0:
                            poller.register(until, select.POLLIN)
                elif fd == signals.fd:
                    for number in signals.take():
                        on_signal(number)
                elif fd == self._stdin:
                    self._type()
                elif fd == until:
                    return

    def _pull(self) -> bool:
        """Move output; False at its end."""
        try:
            data = self._sock.recv(_PIECE)
        except ConnectionResetError:
            data = b""
        if data:
            self._output.feed(data)
        return bool(data)

    def _type(self) -> None:
        """Move input; at its end close our half, so that the container reads an end of file."""
        try:
            data = os.read(self._stdin, _PIECE)
        except OSError:  # EIO: the terminal hung up; EBADF: started without a stdin
            data = b""
        if not data:
            self._forget_stdin()
            if not self._pending:
                self._close_half()
            return
        if self._keys is not None:
            data, self.detached = self._keys.feed(data)
        self._pending += data
        self._push()

    def _push(self) -> None:
        """Send what the socket takes now. Never blocking here keeps `cat` of a large file from standing still for ever:
        the container may refuse more input until we have read its output."""
        try:
            while self._pending:
                self._pending = self._pending[self._sock.send(self._pending, _MSG_DONTWAIT) :]
        except BlockingIOError:
            self._poll.register(self._sock.fileno(), select.POLLIN | select.POLLOUT)
            if self._stdin >= 0:
                self._poll.modify(self._stdin, 0)
            return
        except (BrokenPipeError, ConnectionResetError):
            self._pending = b""
            self._forget_stdin()
            return
        self._poll.register(self._sock.fileno(), select.POLLIN)
        if self._stdin >= 0:
            self._poll.modify(self._stdin, select.POLLIN)
        else:
            self._close_half()

    def _close_half(self) -> None:
        try:
            self._sock.shutdown(_SHUT_WR)
        except OSError:
            pass  # the other side is gone already

    def _forget_stdin(self) -> None:
        if self._stdin >= 0:
            self._poll.unregister(self._stdin)
            self._stdin = -1
