"""The container's standard streams and the clients attached to them. Owns framing, backlog limits and detach keys.

The monitor hands every read of stdout or stderr here; clients get it framed as Docker's multiplexed stream (8 bytes:
stream number, three zeros, big-endian length) or raw for a terminal. A client that does not read stops the container's
output at BACKLOG bytes, as a pipe would, and takes no more memory than that.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select

BACKLOG = 1 << 20
_CHUNK = 65536
_DONTWAIT = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


class Client:
    """One attached connection: what it wants, what it has not taken yet."""

    def __init__(self, fd: int, stdin: bool, stdout: bool, stderr: bool, framed: bool, detach: bytes) -> None:
        self.socket = _socket.socket(fileno=fd)
        self.fd = fd
        self.stdin, self.framed, self.detach = stdin, framed, detach
        self.wants = {1: stdout, 2: stderr}
        self.backlog = bytearray()
        self.held = b""  # typed, and so far the beginning of the detach keys

    def offer(self, stream: int, data: bytes) -> bool:
        """Queue and send what goes at once; False when the connection is dead."""
        if not self.wants[stream]:
            return True
        if self.framed:
            self.backlog += bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big")
        self.backlog += data
        return self.flush()

    def flush(self) -> bool:
        """Send as much of the backlog as the connection takes; False when it is dead."""
        while self.backlog:
            try:
                sent = self.socket.send(self.backlog, _DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.backlog[:sent]
        return True

    def typed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes for the container, whether the detach keys are complete); a partial match is held back."""
        if not self.detach:
            return data, False
        out = bytearray()
        for position in range(len(data)):
            self.held += data[position : position + 1]
            while not self.detach.startswith(self.held):
                out += self.held[:1]  # the rest may be a beginning again
                self.held = self.held[1:]
            if self.held == self.detach:
                return bytes(out), True
        return bytes(out), False


class Streams:
    """The monitor's ends of stdin, stdout and stderr (or of the terminal) and everyone who reads and writes them."""

    def __init__(self, poll: select.epoll, handlers: dict[int, object], log: object) -> None:
        self._poll, self._handlers, self._log = poll, handlers, log
        self._clients: dict[int, Client] = {}
        self._outputs: dict[int, int] = {}  # descriptor to stream number
        self._paused = False
        self._stdin = -1
        self._stdin_once = False
        self._pending = bytearray()  # typed by a client, not yet taken by the container
        self._tty = False
        self._input_ended = False

    # -- ends ------------------------------------------------------------------------------------------------

    def add_output(self, fd: int, stream: int) -> None:
        os.set_blocking(fd, False)
        self._outputs[fd] = stream
        self._watch(fd, select.EPOLLIN, self._readable)

    def set_stdin(self, fd: int, once: bool) -> None:
        os.set_blocking(fd, False)
        self._stdin, self._stdin_once = fd, once
        self._feed(b"")

    def set_terminal(self, master: int) -> None:
        """The terminal's master is stdin and stdout in one."""
        self._tty = True
        self.add_output(master, 1)
        self._stdin = master
        if self._pending:
            self._feed(b"")

    def resize(self, height: int, width: int) -> None:
        if self._tty and self._stdin >= 0:
            size = height.to_bytes(2, "little") + width.to_bytes(2, "little") + bytes(4)
            fcntl.ioctl(self._stdin, 0x5414, size)  # TIOCSWINSZ

    def attach(self, client: Client) -> None:
        self._clients[client.fd] = client
        self._watch(client.fd, self._interest(client), self._client_event)

    def _interest(self, client: Client) -> int:
        events = select.EPOLLOUT if client.backlog else 0
        if client.stdin and len(self._pending) < _CHUNK:
            events |= select.EPOLLIN
        return events  # HUP and ERR are always reported

    def _watch(self, fd: int, events: int, handler: object) -> None:
        if fd in self._handlers:
            self._poll.modify(fd, events)
        else:
            self._handlers[fd] = handler
            self._poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # -- output ----------------------------------------------------------------------------------------------

    def _readable(self, fd: int, events: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose last user has gone
                raise
            data = b""
        if data:
            self._deliver(self._outputs[fd], data)
        else:
            self._close_output(fd)

    def _deliver(self, stream: int, data: bytes) -> None:
        if self._log is not None:
            self._log.write(b"stdout" if stream == 1 else b"stderr", data)  # type: ignore[attr-defined]
        for client in list(self._clients.values()):
            if client.offer(stream, data):
                self._watch(client.fd, self._interest(client), self._client_event)
            else:
                self._drop(client)
        self._balance()

    def _close_output(self, fd: int) -> None:
        self._unwatch(fd)
        del self._outputs[fd]
        if fd == self._stdin:
            self._stdin = -1
        os.close(fd)

    def _balance(self) -> None:
        """Stop or resume reading the container according to the slowest client."""
        full = any(len(client.backlog) > BACKLOG for client in self._clients.values())
        if full != self._paused:
            self._paused = full
            for fd in self._outputs:
                if full:
                    self._unwatch(fd)
                else:
                    self._watch(fd, select.EPOLLIN, self._readable)

    # -- clients and input -----------------------------------------------------------------------------------

    def _client_event(self, fd: int, events: int) -> None:
        client = self._clients[fd]
        if events & select.EPOLLOUT and not client.flush():
            self._drop(client)
            return
        if events & select.EPOLLIN and not self._receive(client):
            return
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._drop(client)
            return
        self._watch(fd, self._interest(client), self._client_event)
        self._balance()

    def _receive(self, client: Client) -> bool:
        """Take typed bytes; False when the client is gone from the table."""
        try:
            data = client.socket.recv(_CHUNK, _DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            self._drop(client)
            return False
        if not data:
            client.stdin = False
            self._end_of_input()
            return True
        data, detached = client.typed(data)
        self._feed(data)
        if detached:
            self._drop(client, ended=False)
            return False
        return True

    def _end_of_input(self) -> None:
        """A client's half-close ends the container's stdin when it was opened for that client alone (StdinOnce)."""
        if self._stdin_once and not self._tty:
            self._input_ended = True
            if self._stdin >= 0:
                self._feed(b"")

    def close_stdin(self) -> None:
        if self._stdin >= 0 and not self._tty:
            self._unwatch(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    def _feed(self, data: bytes) -> None:
        self._pending += data
        while self._pending and self._stdin >= 0:
            try:
                written = os.write(self._stdin, self._pending[:_CHUNK])
            except BlockingIOError:
                self._watch_stdin(True)
                return
            except OSError:
                self._pending.clear()  # the container closed its stdin
                self.close_stdin()
                return
            del self._pending[:written]
        if self._stdin >= 0:
            self._watch_stdin(False)
            if self._input_ended:
                self.close_stdin()

    def _watch_stdin(self, wanted: bool) -> None:
        if self._tty:
            self._watch(
                self._stdin, select.EPOLLIN | (select.EPOLLOUT if wanted else 0), self._terminal_event
            )
        elif wanted:
            self._watch(self._stdin, select.EPOLLOUT, self._stdin_writable)
        else:
            self._unwatch(self._stdin)

    def _terminal_event(self, fd: int, events: int) -> None:
        if events & select.EPOLLOUT:
            self._stdin_writable(fd, events)
        if events & ~select.EPOLLOUT and fd in self._outputs:
            self._readable(fd, events)

    def _stdin_writable(self, fd: int, events: int) -> None:
        self._feed(b"")
        for client in self._clients.values():
            self._watch(client.fd, self._interest(client), self._client_event)

    def _drop(self, client: Client, *, ended: bool = True) -> None:
        self._unwatch(client.fd)
        self._clients.pop(client.fd, None)
        if client.stdin and ended:
            self._end_of_input()
        client.socket.close()
        self._balance()

    # -- the end ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Read what the ended container left in its pipes, without waiting for others who may hold them."""
        for fd in list(self._outputs):
            while fd in self._outputs:
                try:
                    data = os.read(fd, _CHUNK)
                except OSError:
                    data = b""
                if not data:
                    self._close_output(fd)
                else:
                    self._deliver(self._outputs[fd], data)

    def finish(self) -> None:
        """Let every client take its backlog, for as long as it keeps reading, then hang up."""
        pending = {client.fd: client for client in self._clients.values()}
        waiter = select.poll()
        for client in list(pending.values()):
            if not client.flush() or not client.backlog:
                del pending[client.fd]
            else:
                waiter.register(client.fd, select.POLLOUT)
        while pending:
            ready = waiter.poll(60_000)
            if not ready:
                break  # a minute without one byte taken
            for fd, _ in ready:
                waiting = pending.get(fd)
                if waiting is not None and (not waiting.flush() or not waiting.backlog):
                    waiter.unregister(fd)
                    del pending[fd]
        for client in list(self._clients.values()):
            try:
                client.socket.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass
            client.socket.close()
        self._clients.clear()
