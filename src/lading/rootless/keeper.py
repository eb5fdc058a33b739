"""The small process that holds an ordinary user's namespaces: the user namespace and one network, with its way out.

The daemon joins it and may be killed; containers, their published ports and their network go on, and the next daemon
finds the keeper by its socket. It ends when nobody is connected to it and no container lives. Run as
`python -m lading.rootless.keeper RUN_DIR READY_FD`, by the user, outside; it is root of the namespace afterwards.

Over its SEQPACKET socket come marshalled tuples, and each is answered by one: ("hello",) -> ("here", pid, facts) with
the network's descriptor, ("publish", id, [(protocol, address, port)]) with the bound sockets, ("withdraw", id),
("published",) -> ("ids", ids). The connection is what keeps it: whoever uses the namespaces holds one.
"""

from __future__ import annotations

import errno
import logging
import marshal
import os
import pwd
import resource
import selectors
import signal
import socket
import subprocess
import sys
from typing import Any

from lading.linux import identity, process
from lading.network import links
from lading.rootless.maps import Identities, write_single
from lading.rootless.outside import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.rootless.ports import Ports

log = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds between looks whether containers live, when nobody is connected."""
_PATIENCE = 10.0
"""Seconds the first user has to come."""
_MAX_PORTS = 120


class Refused(Exception):
    """The namespaces cannot be made; the text says why."""


def main(run_dir: str, ready_fd: int) -> int:
    """Make the namespaces, say so on `ready_fd`, and hold them. The exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s keeper: %(message)s")
    process.set_name(b"lading-keeper")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ready = socket.socket(fileno=ready_fd)
    try:
        keeper = Keeper(run_dir)
    except (Refused, OSError) as error:
        ready.send(marshal.dumps(("error", str(error))))
        return 1
    ready.send(marshal.dumps(("ready",)))
    ready.close()
    keeper.serve()
    return 0


def become_root() -> str:
    """Enter a user namespace of this user's as its root; the reason why it has one identity only, "" when it has more."""
    uid, gid = os.getuid(), os.getgid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    identities = Identities(os.environ, uid, gid, user)
    reason = identities.reason
    ours, theirs = socket.socketpair()
    helper = 0
    if not reason:
        helper = os.fork()
        if helper == 0:
            ours.close()
            _write_from_outside(identities, theirs)
    theirs.close()
    try:
        process.unshare(process.CLONE_NEWUSER)
    except OSError as error:
        ours.close()
        raise Refused(f"user namespaces are refused: {error.strerror}.") from error
    if helper:
        ours.send(b"unshared")
        reason = ours.recv(4096).decode("utf-8", "replace").strip()
        os.waitpid(helper, 0)
    ours.close()
    if not identity.ranges("uid"):
        write_single(uid, gid)
    if not identity.ranges("gid"):
        raise Refused(f"the group ids could not be mapped: {reason}")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Whoever joins looks at /proc/PID/ns, which a change of credentials has closed (proc(5), PR_SET_DUMPABLE).
    process.prctl(process.PR_SET_DUMPABLE, 1)
    return reason


def _write_from_outside(identities: Identities, channel: socket.socket) -> None:
    """Body of the helper: a process that stays outside, where newuidmap has its privilege. Never returns."""
    try:
        parent = os.getppid()
        if channel.recv(16):
            channel.send((identities.write(parent) or " ").encode())
    finally:
        os._exit(0)


class Keeper:
    """The namespaces, and who uses them."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._path = f"{run_dir}/keeper.sock"
        reason = become_root()
        self._network = links.sandbox()
        self._way = Way(self._network, os.environ, f"{run_dir}/keeper.log")
        self._ports: Ports | None = None
        self._facts = {
            "identities": reason,  # "" when there are many
            "way": self._way.name,
            "no_way": self._way.reason if not self._way.name else "",
        }
        self._selector = selectors.DefaultSelector()
        self._users = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.path.exists(self._path):
            os.unlink(self._path)  # a dead one's: whoever starts us holds the lock and found nobody there
        self._listener.bind(self._path)
        os.chmod(self._path, 0o600)
        self._listener.listen(16)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until nobody needs it."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            self._round(_PATIENCE)
            while self._users or self._lives():
                self._round(None if self._users else _LOOK)
        finally:
            self._end()

    def _round(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._answer(key.fileobj)  # type: ignore[arg-type]

    def _end(self) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        self._way.end()
        self._end_rest()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.set_inheritable(False)
        uid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
        if uid != 0:  # the user outside is root here; nobody else
            sock.close()
            return
        self._selector.register(sock, selectors.EVENT_READ)
        self._users += 1

    def _answer(self, sock: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(sock, 1 << 16, _MAX_PORTS)
        except OSError:
            data, fds = b"", []
        if not data:
            self._selector.unregister(sock)
            sock.close()
            self._users -= 1
            return
        sockets = [socket.socket(fileno=fd) for fd in fds]
        answer: tuple[Any, ...] = ("ok",)
        send: list[int] = []
        try:
            message = marshal.loads(data)
            if message[0] == "hello":
                answer, send = ("here", os.getpid(), self._facts), [self._network]
            elif message[0] == "publish":
                from lading.rootless.ports import Forward, Ports  # asyncio takes longer than all the rest

                self._ports = self._ports or Ports(self._network)
                forwards = [Forward(*entry) for entry in message[2]]
                self._ports.publish(message[1], zip(forwards, sockets, strict=True))
                sockets = []
            elif message[0] == "withdraw" and self._ports is not None:
                self._ports.withdraw(message[1])
            elif message[0] == "published":
                answer = ("ids", self._ports.ids() if self._ports is not None else [])
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s", error)
            answer = ("error", str(error))
        for one in sockets:
            one.close()
        try:
            socket.send_fds(sock, [marshal.dumps(answer)], send)
        except OSError:
            pass  # its end comes with the next look

    # -- who lives ----------------------------------------------------------------------------------------------

    def _neighbours(self) -> dict[int, str]:
        """Other processes of this user namespace, by pid: their names."""
        own = os.stat("/proc/self/ns/user").st_ino
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    if os.stat(f"/proc/{name}/ns/user").st_ino == own:
                        with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                            found[int(name)] = file.read().strip()
                except OSError:
                    continue  # it ended, or is somebody else's
        return found

    def _lives(self) -> bool:
        """Whether a container or a daemon that is about to connect is there."""
        return any(name in ("lading-monitor", "lading-init") for name in self._neighbours().values())

    def _end_rest(self) -> None:
        """Nothing of the namespace outlives it: a resolver, a spare process of a killed daemon."""
        for pid, name in self._neighbours().items():
            if name.startswith("lading-"):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def start(run_dir: str, isolation: str, log_path: str) -> str:
    """Start a keeper in a session of its own and wait until it is ready; the reason when it could not be."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(log_path, "ab", opener=_private) as words:
        process_ = subprocess.Popen(
            [sys.executable, isolation, "-m", "lading.rootless.keeper", run_dir, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=words, stderr=words,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        theirs.close()
        ours.settimeout(60)
        try:
            data = ours.recv(4096)
        except TimeoutError:
            data = b""
    answer = marshal.loads(data) if data else ("error", f"it ended without a word; its log is {log_path}")
    if answer[0] != "ready":
        process_.kill()
        process_.wait()
        return str(answer[1])
    process_.returncode = 0  # it goes on by itself: nobody waits for it here
    return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def is_gone(error: OSError) -> bool:
    """Whether connecting failed because no keeper is there."""
    return error.errno in (errno.ENOENT, errno.ECONNREFUSED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
