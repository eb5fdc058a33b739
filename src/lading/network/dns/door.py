"""The daemon's handle on the resolver: starts its process, gives it a container's sockets, tells it who is called what.

Owns the control socket in the run directory. A resolver that died is started again and told everything anew: `again`
asks the engine for what it would have been told. Safe from any thread.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from lading.base.errors import LadingError, Unavailable
from lading.linux import netlink_nft as nft
from lading.linux import netns
from lading.linux.netlink import NETFILTER, NLM_F_EXCL, Message, Netlink
from lading.network.dns.server import VERSION

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"
"""Where containers find the resolver: the address other engines use, known to images and to people."""

_MAIN = (
    "import os; os.fork() and os._exit(0); import sys; sys.path.insert(0, sys.argv[2]);"
    "from lading.network.dns.process import main; main(int(sys.argv[1]))"
)
_TABLE = "lading-names"
_PORT = 53
_WAIT = 5.0
_LINGER = 60.0
_LARGEST = 1 << 17


class Named(NamedTuple):
    """A container's place on one network, as others are told of it."""

    network_id: str
    network_name: str
    addresses: tuple[str, ...]
    subnets: tuple[str, ...]
    names: tuple[str, ...]


class Sockets(NamedTuple):
    """Bound inside a container's namespace; the caller closes them when they have been put, or not."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def open_sockets(sandbox_fd: int) -> Sockets:
    """The resolver's sockets in a network namespace, and the way to them from 127.0.0.11:53.

    They are bound to ports the kernel chooses and port 53 is translated to them, so that a name server of the
    container's own can have port 53 of all its addresses. Raises OSError.
    """

    def work() -> Sockets:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            udp.bind((ADDRESS, 0))
            tcp.bind((ADDRESS, 0))
            tcp.listen(64)
            rules = redirection(udp.getsockname()[1], tcp.getsockname()[1])
            table = nft.add_table(_TABLE)
            with Netlink(NETFILTER) as netlink:
                try:
                    # Deleting a table waits for a grace period of the kernel (10 ms here): only where there is one.
                    fresh = table._replace(flags=table.flags | NLM_F_EXCL)
                    netlink.transaction(nft.BEGIN, [fresh, *rules], nft.END)
                except FileExistsError:  # an earlier resolver's
                    again = [nft.delete_table(_TABLE), table, *rules]
                    netlink.transaction(nft.BEGIN, again, nft.END)
        except BaseException:
            udp.close()
            tcp.close()
            raise
        return Sockets(udp, tcp)

    return netns.inside(sandbox_fd, work)


def redirection(udp_port: int, tcp_port: int) -> list[Message]:
    """127.0.0.11:53 goes to these ports, by a table of the container's namespace."""
    address = socket.inet_aton(ADDRESS)
    messages = [nft.add_chain(_TABLE, "output", "nat", nft.OUTPUT, -100)]
    for protocol, port in ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port)):
        messages.append(
            nft.add_rule(
                _TABLE,
                "output",
                nft.meta(nft.NFPROTO, nft.R(0)),
                nft.equal(nft.R(0), bytes([nft.IPV4])),
                nft.network_header(16, 4, nft.R(0)),
                nft.equal(nft.R(0), address),
                nft.meta(nft.L4PROTO, nft.R(0)),
                nft.equal(nft.R(0), bytes([protocol])),
                nft.transport_header(2, 2, nft.R(0)),
                nft.equal(nft.R(0), struct.pack("!H", _PORT)),
                nft.immediate(nft.R(0), address),
                nft.immediate(nft.R(1), struct.pack("!H", port)),
                nft.dnat(nft.IPV4, nft.R(0), nft.R(1)),
            )
        )
    return messages


class Door:
    """One resolver for one run directory."""

    def __init__(self, path: str, again: Callable[[Door], None]) -> None:
        """`path` is the control socket's; `again` puts every running container, after the resolver was lost."""
        self._path, self._again = path, again
        self._lock = threading.RLock()
        self._control: socket.socket | None = None
        self._boxes: set[str] = set()
        self._telling = False

    def put(
        self,
        container: str,
        places: Iterable[Named],
        forward: bool,
        servers: Sequence[str],
        sockets: Sockets | None = None,
        pid: int = 0,
    ) -> bool:
        """Tell of a container; with `sockets`, and the pid of its init, it gets a box. False: it has no box."""
        text = "\n".join(
            [
                f"put {container} {int(forward)} {_list(servers)}",
                *(
                    f"at {p.network_id} {p.network_name} {_list(p.addresses)} {_list(p.subnets)} {_list(p.names)}"
                    for p in places
                ),
            ]
        )
        with self._lock:
            if sockets is None:
                if container not in self._boxes:
                    return False
                return self._tell(text) == "ok"
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                return False  # it has just ended
            try:
                answer = self._tell(text, (sockets.udp.fileno(), sockets.tcp.fileno(), pidfd))
            finally:
                os.close(pidfd)
            self._boxes.add(container)
            return answer == "ok"

    def drop(self, container: str) -> None:
        """The container has ended; the resolver may know already."""
        with self._lock:
            if container not in self._boxes:
                return
            self._boxes.discard(container)
            if self._control is not None:
                with suppress(OSError, Unavailable):
                    self._exchange(self._control, f"drop {container}", ())

    def has(self, container: str) -> bool:
        with self._lock:
            return container in self._boxes

    def recover(self) -> frozenset[str]:
        """Find a resolver that an earlier daemon left: the containers it serves. One of another version is ended."""
        with self._lock:
            control = self._connect()
            if control is None:
                self._forget()
                return frozenset()
            self._connected(control)
            try:
                version, found = self._hello(control)
            except OSError:
                version, found = "", set()
            if version != VERSION:
                self._hang_up()
                return frozenset()
            self._boxes = found
            return frozenset(found)

    def close(self) -> None:
        """Let go of it: it goes on while containers need it."""
        with self._lock:
            if self._control is not None and not self._boxes:
                self._forget()
            self._hang_up()

    def _forget(self) -> None:
        """Nobody is there, or will be: the next daemon need not look."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    # -- the connection --------------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        if self._control is not None:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # the watching thread has a copy
            self._control.close()
            self._control = None

    def _tell(self, text: str, fds: Sequence[int] = ()) -> str:
        """The resolver's answer; one that is gone is started, and told of everyone else first."""
        if self._control is not None:
            try:
                return self._exchange(self._control, text, fds)
            except OSError:
                self._hang_up()
        control = self._bring_back()
        try:
            return self._exchange(control, text, fds)
        except OSError as error:
            self._hang_up()
            raise Unavailable("the resolver for container names does not answer", why=str(error)) from error

    def _bring_back(self) -> socket.socket:
        """A new resolver that knows what the last one knew."""
        control = self._start()
        self._connected(control)
        if self._boxes and not self._telling:
            self._boxes.clear()
            self._telling = True
            try:
                self._again(self)
            finally:
                self._telling = False
        return control

    def _connected(self, control: socket.socket) -> None:
        self._control = control
        copy = os.dup(control.fileno())
        threading.Thread(target=self._watch, args=(control, copy), name="names", daemon=True).start()

    def _watch(self, control: socket.socket, copy: int) -> None:
        """Until this connection ends. If the resolver died, bring it back: containers go on asking.

        One that nobody has needed for a while is let go, and ends; not at once, since it takes 30 ms to start.
        """
        poll = select.poll()
        poll.register(copy, select.POLLRDHUP)
        try:
            while not poll.poll(_LINGER * 1000):
                with self._lock:
                    if self._control is control and not self._boxes:
                        self._forget()
                        self._hang_up()
        finally:
            os.close(copy)
        with self._lock:
            if self._control is not control:
                return  # we hung up, or somebody who had something to tell has seen it first
            self._hang_up()
            if self._boxes:
                try:
                    self._bring_back()
                except LadingError as error:
                    log.warning("%s", error)

    @staticmethod
    def _exchange(control: socket.socket, text: str, fds: Sequence[int]) -> str:
        socket.send_fds(control, [text.encode()], fds)
        answer = control.recv(_LARGEST)
        if not answer:
            raise ConnectionResetError("it ended")
        return answer.decode()

    @staticmethod
    def _hello(control: socket.socket) -> tuple[str, set[str]]:
        control.send(b"hello")
        version = control.recv(_LARGEST).decode("ascii", "replace")
        found: set[str] = set()
        while version == VERSION:
            page = control.recv(_LARGEST).decode("ascii", "replace")
            if page in (".", ""):
                break
            found.update(page.split(" "))
        return version, found

    def _connect(self) -> socket.socket | None:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        control.settimeout(_WAIT)
        try:
            control.connect(self._path)
        except OSError:
            control.close()
            return None
        return control

    def _start(self) -> socket.socket:
        """A connection to a new resolver. Its socket listens before it runs, so nobody waits for its start."""
        self._forget()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
            listener.bind(self._path)
            os.chmod(self._path, 0o600)
            listener.listen(8)
            source = os.path.abspath(__file__).rpartition("/lading/")[0]
            try:
                # What is exec'd forks at once and ends, so that the resolver is nobody's zombie.
                subprocess.run(
                    [sys.executable, "-I", "-S", "-c", _MAIN, str(listener.fileno()), source],
                    pass_fds=(listener.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
                    cwd="/",
                    timeout=_WAIT,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise Unavailable(
                    "the resolver for container names cannot be started", why=str(error)
                ) from error
            control = self._connect()
        if control is None:
            raise Unavailable("the resolver for container names cannot be reached")
        return control


def _list(words: Sequence[str]) -> str:
    return ",".join(words) or "-"
