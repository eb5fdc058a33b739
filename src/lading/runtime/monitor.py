"""The monitor: one small process per container or exec, forked from the zygote, which outlives the daemon.

It makes the container's first process, owns its streams, log and exit file, and answers on a control socket. Messages
are marshalled tuples, one a SEQPACKET record. From the daemon: ("go",), ("attach", stdin, stdout, stderr, framed, detach
keys) with a descriptor, ("resize", height, width), ("watch",). To the daemon: ("created", pid, mount points made),
("started", pid), ("error", step, errno, detail), ("exited", code, signal, oom, time), ("ok",).
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import signal
import time

from lading.base.atomic import write_file
from lading.linux import process
from lading.runtime import init, turns, wire
from lading.runtime.cgroup.remove import remove_directories
from lading.runtime.hooks import HookFailed
from lading.runtime.log import Log
from lading.runtime.streams import Client, Streams

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any


class Seat:
    """A process that waits in a container's v1 control groups for its plan, and the channel to it."""

    def __init__(self) -> None:
        self.channel, child = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self.channel.close()
            init.seat_main(child)
        child.close()


class Monitor:
    """State of one monitored process. `run` is its whole life."""

    def __init__(
        self, plan: dict[str, Any], fds: list[int], report: _socket.socket, seat: Seat | None
    ) -> None:
        self.plan, self.fds = plan, fds
        self.poll = select.epoll()
        self.handlers: dict[int, Any] = {}
        self.log = (
            Log(plan["log_path"], plan["log_max_size"], plan["log_max_files"]) if plan["log_path"] else None
        )
        self.streams = Streams(self.poll, self.handlers, self.log)
        self.report = report
        self.watchers = [report]
        self.seat = seat
        self.pid = 0
        self.midwife = 0  # the process that gives birth to ours, in the right groups or namespaces
        self.turns = plan.get("turns") or {}  # of the host's hooks
        self.hooked = False  # init waits for them
        self.ready = False
        self.started = False
        self.ended = False
        self.mounted: list[bytes] = []

    def run(self) -> None:
        """From the plan to the exit file."""
        plan = self.plan
        os.setsid()
        process.set_name(b"lading-monitor")
        os.chdir(plan["run_dir"])
        self._listen()
        for index, stdin, stdout, stderr, framed, keys in plan["attach"]:
            self.streams.attach(Client(self.fds[index], stdin, stdout, stderr, framed, keys))
        stdio = self._stdio()
        if self.seat is not None:
            self._occupy(self.seat, stdio)
        else:
            self._clone_exec(stdio)
        for fd in set(stdio):
            os.close(fd)
        self._watch(self.report.fileno(), self._control_event(self.report))
        self._watch(self.channel.fileno(), self._init_event)
        while not self.ended:
            for fd, events in self.poll.poll():
                handler = self.handlers.get(fd)
                if handler is not None:
                    handler(fd, events)

    # -- making the process ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.listener.bind(b"ctl")
        self.listener.listen(16)
        self._watch(self.listener.fileno(), self._accept)

    def _stdio(self) -> tuple[int, int, int]:
        """The child's three descriptors; the monitor's ends go to the streams. A terminal's come later from init."""
        plan = self.plan
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if plan["tty"]:
            return null, null, null
        child_in = null
        if plan["open_stdin"]:
            child_in, our_in = os.pipe()
            self.streams.set_stdin(our_in, plan["stdin_once"])
        out, child_out = os.pipe()
        err, child_err = os.pipe()
        self.streams.add_output(out, 1)
        self.streams.add_output(err, 2)
        return child_in, child_out, child_err

    def _occupy(self, seat: Seat, stdio: tuple[int, int, int]) -> None:
        """Have the seat, which sits in the container's v1 groups already, give birth to init there."""
        self.channel = seat.channel
        self.midwife = seat.pid
        self._join_groups(seat.pid)
        wire.send_many(self.channel, b"plan", [*self.fds, *stdio])

    def _clone_exec(self, stdio: tuple[int, int, int]) -> None:
        plan = self.plan
        self.channel, child = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        cgroup = self.fds[plan["cgroup_fd"]] if plan["cgroup_fd"] >= 0 else -1
        helper = process.clone3(0, cgroup_fd=cgroup)
        if helper == 0:
            init.exec_main(child, self.fds, stdio)
        child.close()
        self.midwife = helper
        self._join_groups(helper)
        self.channel.send(b"joined")

    def _write_id_maps(self) -> None:
        for name, text in zip(("uid_map", "gid_map"), self.plan["id_maps"], strict=True):
            fd = os.open(f"/proc/{self.pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text)
            finally:
                os.close(fd)
        self.channel.send(b"mapped")

    def _join_groups(self, pid: int) -> None:
        for index in self.plan["cgroup_procs"]:
            try:
                os.write(self.fds[index], b"%d" % pid)
            except ProcessLookupError:
                return  # it failed already and said why

    # -- events ------------------------------------------------------------------------------------------------

    def _watch(self, fd: int, handler: Any) -> None:
        self.handlers[fd] = handler
        self.poll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def _init_event(self, fd: int, events: int) -> None:
        """Word from init: its terminal, readiness, an error; the end of the stream means that execve succeeded."""
        message, passed = wire.receive(self.channel)
        if message is None:
            self._unwatch(fd)
            self.channel.close()
            self._running()
        elif message[0] == "console":
            self.streams.set_terminal(passed)
            if any(self.plan["size"]):
                self.streams.resize(*self.plan["size"])
        elif message[0] == "pid":
            self.pid = message[1]
            os.waitpid(self.midwife, 0)  # it ends with this word
            if self.plan["userns"] and self.seat is not None:
                self._write_id_maps()
            self._early()
            self._created()
        elif message[0] == "hooks":
            self.hooked = True
            self._early()
        elif message[0] == "ready":
            self.mounted, self.ready = message[1], True
            self._created()
        else:
            self._failed(message)

    def _early(self) -> None:
        """The hooks that run before init enters the root, once it is known by pid."""
        if self.hooked and self.pid:
            self.hooked = False
            try:
                turns.early(self.turns, self.pid, self.channel)
            except HookFailed as failure:
                self._failed(("error", "createRuntime", 0, failure.detail))

    def _created(self) -> None:
        """Init is ready and known by pid; the two words come from two processes, in any order."""
        if self.ready and self.pid:
            self._tell(self.report, ("created", self.pid, self.mounted))

    def _running(self) -> None:
        """The command runs, or init died without a word (killed while it was being made)."""
        try:
            turns.started(self.turns, self.pid)
        except HookFailed as failure:
            self._failed(("error", "poststart", 0, failure.detail))
            return
        self.started = True
        now = time.time_ns()
        try:
            born = process.start_time(self.pid)
        except ProcessLookupError:
            born = 0
        state = b'{"pid":%d,"start":%d,"monitor":%d,"boot":"%s","started_ns":%d,"container":"%s"}' % (
            self.pid, born, os.getpid(), self.plan["boot_id"], now, self.plan["container"],
        )  # fmt: skip
        write_file("state", state)
        self._tell(self.report, ("started", self.pid, now))
        self._close_all_but_kept()
        self.pidfd = process.pidfd_open(self.pid)
        self._watch(self.pidfd, self._ended)

    def _close_all_but_kept(self) -> None:
        """What was needed to start alone: the plan, groups, namespaces. Clients close theirs themselves."""
        kept = {*self.plan["keep"], *(entry[0] for entry in self.plan["attach"]), self.plan.get("report")}
        for index, fd in enumerate(self.fds):
            if index not in kept:
                os.close(fd)

    def _failed(self, message: tuple[Any, ...]) -> None:
        self._tell(self.report, message)
        self.abandon()

    def abandon(self) -> None:
        """Undo a start that did not come to be: no exit file, no group, no process."""
        self.channel.close()  # whoever still waits for a word ends now
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        self._leave()
        turns.stopped(self.turns)

    def _leave(self) -> None:
        self.ended = True
        if self.plan["kind"] == "container":
            remove_directories([os.fsdecode(path) for path in self.plan["cgroup_dirs"]])
        try:
            os.unlink("ctl")
        except OSError:
            pass

    def _accept(self, fd: int, events: int) -> None:
        connection_fd, _ = self.listener._accept()  # type: ignore[attr-defined]
        connection = _socket.socket(fileno=connection_fd)
        self._watch(connection.fileno(), self._control_event(connection))

    def _control_event(self, connection: _socket.socket) -> Any:
        def event(fd: int, events: int) -> None:
            try:
                message, passed = wire.receive(connection, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                message, passed = None, -1
            if message is None:
                self._unwatch(fd)
                if connection in self.watchers:
                    self.watchers.remove(connection)
                connection.close()
                if connection is self.report and not self.started:
                    self.abandon()  # the daemon died before it said go
                return
            self._control(connection, message, passed)

        return event

    def _control(self, connection: _socket.socket, message: tuple[Any, ...], passed: int) -> None:
        verb = message[0]
        if verb == "go":
            try:
                turns.go(self.turns, self.pid, self.channel)
            except OSError:
                pass  # init is gone; its channel's end says so
        elif verb == "attach":
            self.streams.attach(Client(passed, *message[1:]))
            self._tell(connection, ("ok",))
        elif verb == "resize":
            self.streams.resize(message[1], message[2])
            self._tell(connection, ("ok",))
        elif verb == "watch":
            self.watchers.append(connection)
            self._tell(connection, ("ok",))

    def _tell(self, connection: _socket.socket, message: tuple[Any, ...]) -> None:
        try:
            connection.send(marshal.dumps(message), _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
        except OSError:
            pass  # whoever asked has gone

    # -- the end -----------------------------------------------------------------------------------------------

    def _ended(self, fd: int, events: int) -> None:
        _, status = os.waitpid(self.pid, 0)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status)
        oom = self._oom_killed()
        if self.plan["kill_path"]:
            self._kill_rest()
        self.streams.drain()
        finished = time.time_ns()
        try:
            write_file(
                "exit",
                b'{"code":%d,"signal":%d,"oom":%s,"finished_ns":%d}'
                % (code, number, b"true" if oom else b"false", finished),
            )
        except OSError:
            pass  # a full disk: a daemon that listens hears the code all the same
        self._leave()
        for connection in self.watchers:
            self._tell(connection, ("exited", code, number, oom, finished))
        self.listener.close()
        self.streams.close_stdin()
        self.streams.finish()
        turns.stopped(self.turns)

    def _oom_killed(self) -> bool:
        """Whether the kernel killed a process of this group for memory (memory.events, memory.oom_control)."""
        for path in self.plan["oom_files"]:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            text = os.read(fd, 4096)
            os.close(fd)
            for line in text.splitlines():
                if line.startswith(b"oom_kill ") and int(line.split()[1]) > 0:
                    return True
        return False

    def _kill_rest(self) -> None:
        """Without a pid namespace of its own a container's other processes do not die with the first."""
        path = self.plan["kill_path"]
        by_list = path.endswith(b"procs")
        for _ in range(100):  # a forking process may be a step ahead of the list
            try:
                fd = os.open(path, (os.O_RDONLY if by_list else os.O_WRONLY) | os.O_CLOEXEC)
            except OSError:
                return
            try:
                if not by_list:
                    os.write(fd, b"1")
                    return
                pids = os.read(fd, 1 << 16).split()
            except OSError:
                return
            finally:
                os.close(fd)
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)
