"""create and run: from a bundle to a process that waits for `start`, or runs. Whatever fails undoes itself.

The parent's half of what `init` does: the second process is started first, and control groups are joined while it loads.
"""

from __future__ import annotations

import _socket
import os

from lading.base.errors import Conflict, Denied, Invalid
from lading.runtime import hooks, plan
from lading.runtime.cgroup.layout import discover
from lading.runtime.failures import start_error
from lading.runtime.oci import bundle, exchange, groups, state, terminal

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Callable
    from typing import Any

    from lading.runtime.cgroup.group import Group
    from lading.runtime.oci.stage import Priming

_CLONE_NEWTIME, _CLONE_NEWCGROUP, _CLONE_NEWUSER, _CLONE_NEWNS = 0x80, 0x02000000, 0x10000000, 0x20000
_NEW_LISTENER = 8


class Launch:
    """One container being made. `make` leaves it created; `go` lets the command run."""

    def __init__(
        self,
        root: str,
        identifier: str,
        options: dict[str, Any],
        warn: Callable[[str], None],
        second: tuple[int, _socket.socket],
        priming: Priming,
    ) -> None:
        self.priming = priming
        self.container = state.Container(root, identifier)
        self.options, self.warn = options, warn
        self.opened: list[int] = []
        self.fds: list[int] = []
        self.group: Group | None = None
        self.stage, self.channel = second
        self.pid = 0
        self.master = -1
        self.reserved = False

    # -- before anything is made ---------------------------------------------------------------------------------

    def make(self, *, waits: bool) -> None:
        """Up to the point before the command. `waits`: init listens for `start`, and this process may go."""
        try:
            try:
                self._prepare(waits)
            finally:
                self.priming.wait()
            self._perform()
        except BaseException:
            self.undo()
            raise
        finally:
            for fd in self.opened:
                os.close(fd)
            self.opened = []

    def _prepare(self, waits: bool) -> None:
        directory = os.path.realpath(self.options["bundle"])
        self.spec = spec = bundle.load(directory, self.warn)
        self._check_terminal()
        container = self.container
        if os.path.exists(container.directory):
            raise Conflict(
                f"container {container.id!r} exists already", hint="Delete it, or choose another id."
            )
        layout = discover()
        self.group = group = groups.chosen(layout, container.id, spec)
        linux = spec.get("linux") or {}
        self.plan = self._plan(group)
        seccomp = linux.get("seccomp")
        self.listener_path = (seccomp or {}).get("listenerPath") or ""
        if self.plan["seccomp"][1] & _NEW_LISTENER and not os.path.exists(self.listener_path):
            raise Invalid(f"linux.seccomp.listenerPath: there is no {self.listener_path}")
        container.reserve()
        self.reserved = True
        container.data = {
            "bundle": directory,
            "rootfs": spec["root"]["path"],
            "created": state.now(),
            "annotations": spec.get("annotations") or {},
            "cgroups": {},
            "hooks": {k: v for k, v in (spec.get("hooks") or {}).items() if k in ("poststart", "poststop")},
            "process": spec["process"],
            "seccomp": seccomp,
            "pidns": bool(self.plan["clone_flags"] & 0x20000000),
            "started_hooks": bool((spec.get("hooks") or {}).get("startContainer")),
        }
        self._make_groups(group, linux.get("resources") or {})
        self.priming.wait()
        self._join_groups(group)
        if waits:
            self.plan["listener"] = self._listen()

    def _check_terminal(self) -> None:
        wanted, socket = bool(self.spec["process"].get("terminal")), self.options.get("console_socket")
        if wanted and not socket and not self.options.get("foreground"):
            raise Invalid("process.terminal: a detached container with a terminal needs --console-socket")
        if socket and not wanted:
            raise Invalid("--console-socket: process.terminal is not true")

    def _plan(self, group: Group) -> dict[str, Any]:
        spec = self.spec
        linux = spec.get("linux") or {}
        create, join = plan.namespaces(spec)
        root = spec["root"]
        visible = _visible(group)
        maps = plan.id_maps(spec)
        birth = [(flag, self._open(path)) for flag, path in join if flag != _CLONE_NEWUSER]
        user = [path for flag, path in join if flag == _CLONE_NEWUSER]
        source = os.fsencode(root["path"])
        steps = plan.build(
            spec, ("bind_root", source, False, True), root["path"], visible, deep_readonly=False
        )
        process = plan.process(spec)
        process["dies_with_parent"] = False
        process["keep_groups"] = os.geteuid() != 0 and not process["groups"]
        if self.options.get("no_new_keyring"):
            process["own_keyring"] = False
        seccomp: tuple[bytes, int] = (b"", 0)
        if linux.get("seccomp"):
            from lading.linux.syscall_numbers import NATIVE
            from lading.runtime.seccomp.assemble import compile_filter

            seccomp = compile_filter(linux["seccomp"], NATIVE[os.uname().machine])
        made: dict[str, Any] = {
            "kind": "container",
            "steps": steps,
            "process": process,
            "seccomp": seccomp,
            "clone_flags": create & ~(_CLONE_NEWCGROUP | _CLONE_NEWTIME),
            "unshare_cgroup": bool(create & _CLONE_NEWCGROUP),
            "time_offsets": plan.time_offsets(spec) if create & _CLONE_NEWTIME else None,
            "birth": birth,
            "join": [],
            "hostname": os.fsencode(spec.get("hostname") or ""),
            "domainname": os.fsencode(spec.get("domainname") or ""),
            "userns": bool(create & _CLONE_NEWUSER),
            "map_root": False,
            "unprivileged": os.geteuid() != 0,  # init mounts all by itself, in its user namespace
            "prepare": any(step[0] == "bind_mapped" for step in steps),
            "id_maps": maps,
            "reaper": False,
            "find_home": True,
            "early_command": True,
            "dies_with_parent": False,
            "own_keyring": not self.options.get("no_new_keyring"),
            "preserve_fds": self.options["preserve"],
            "gaps": self.options["gaps"],
            "hooks": {
                point: hooks.encode((spec.get("hooks") or {}).get(point) or [])
                for point in ("createContainer", "startContainer")
            },
            "cgroup_fd": -1,
        }
        if user:
            made["userns_joined"] = self._open(user[0])
        if not create & _CLONE_NEWNS and made["prepare"]:
            raise Invalid("mounts: id-mapped mounts need a mount namespace of the container's own")
        if self.options["listen_fds"]:
            process["env"][b"LISTEN_FDS"] = b"%d" % self.options["listen_fds"]
            process["env"][b"LISTEN_PID"] = b"1"
        return made

    def _open(self, path: str) -> int:
        """Open a namespace to be joined; its index among the descriptors handed over (0 is the plan itself)."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Invalid(f"linux.namespaces: {path} cannot be joined", why=error.strerror or "") from None
        self.opened.append(fd)
        self.fds.append(fd)
        return len(self.fds)

    def _join_groups(self, group: Group) -> None:
        """Put the second process into the v1 groups; memory comes last, so that what it loads is not charged there.

        On v2 init is born into its group (CLONE_INTO_CGROUP).
        """
        if group.unified:
            fd = group.open_unified()
            self.opened.append(fd)
            self.fds.append(fd)
            self.plan["cgroup_fd"] = len(self.fds)
        names = [name for name in group.v1 if name != "memory"] + (["memory"] if "memory" in group.v1 else [])
        exchange.join(self.stage, dict.fromkeys([group.v1[name] for name in names]))

    def _make_groups(self, group: Group, resources: dict[str, Any]) -> None:
        """An ordinary user without a delegated group does without, unless a limit is asked for."""
        try:
            group.create(resources)
        except Denied:
            if os.geteuid() == 0 or any(resources[key] for key in resources if key != "devices"):
                raise
            hidden = {os.fsencode(directory) for directory in group.directories}
            self.plan["steps"] = [
                step for step in self.plan["steps"] if len(step) < 2 or step[1] not in hidden
            ]
            group.v1, group.unified = {}, ""
        self.container.data["cgroups"] = groups.saved(group)

    def _listen(self) -> int:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        folder = os.open(self.container.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(
                f"/proc/self/fd/{folder}/start"
            )  # a socket's path may hold 107 bytes only (unix(7))
        finally:
            os.close(folder)
        listener.listen(1)
        fd = listener.detach()
        self.opened.append(fd)
        self.fds.append(fd)
        return len(self.fds)

    # -- making --------------------------------------------------------------------------------------------------

    def _perform(self) -> None:
        memory = exchange.plan_file(self.plan)
        self.opened.append(memory)
        exchange.send_plan(self.channel, [memory, *self.fds])
        early: list[tuple[Any, ...]] = []
        ready = False
        while not (ready and self.pid):
            message, fd = exchange.receive(self.channel)
            if message[0] == "pid":
                self.pid = message[1]
                os.waitpid(self.stage, 0)
                self.stage = 0
                self.container.data |= {"pid": self.pid, "start": state.started(self.pid)}
                if self.plan["userns"]:
                    self._write_id_maps()
            elif message[0] == "console":
                self.master = fd
                terminal.resize(fd, self.spec["process"].get("consoleSize"))
            elif message[0] == "ready":
                ready = True
            elif message[0] == "hooks":
                early.append(message)
            else:
                raise start_error(*message[1:4])
            if early and self.pid:
                early.clear()
                self._early_hooks()
        if self.master >= 0 and self.options.get("console_socket"):
            terminal.hand_over(self.options["console_socket"], self.master)
            os.close(self.master)
            self.master = -1
        self.container.save()
        if self.options.get("pid_file"):
            exchange.write_pid(self.options["pid_file"], self.pid)

    def _write_id_maps(self) -> None:
        uid_map, gid_map = self.plan["id_maps"]
        if os.geteuid() != 0:
            exchange.write_once(f"/proc/{self.pid}/setgroups", b"deny")  # user_namespaces(7)
        exchange.write_once(f"/proc/{self.pid}/uid_map", uid_map)
        exchange.write_once(f"/proc/{self.pid}/gid_map", gid_map)
        self.channel.send(b"mapped")

    def _early_hooks(self) -> None:
        """prestart and createRuntime, here; then init runs createContainer with the state it is handed."""
        text = self.container.text("creating")
        try:
            for point in ("prestart", "createRuntime"):
                exchange.run_hooks(point, (self.spec.get("hooks") or {}).get(point) or [], text)
            exchange.send_go(self.channel, text)
        finally:
            os.close(text)

    def undo(self) -> None:
        """Nothing stays of a container that did not come to be."""
        self.channel.close()
        for pid in (self.pid, self.stage):
            if pid:
                try:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
        if self.reserved:
            if self.pid and self.container.data["hooks"].get("poststop"):
                exchange.after_stop(self.container, self.warn)
            if self.group is not None:
                self.group.kill()
                groups.remove(self.group)
            self.container.remove()


def _visible(group: Group) -> dict[str, str]:
    """What a mount of type cgroup shows, by name below /sys/fs/cgroup."""
    if not group.v1:
        return {"": group.unified} if group.unified else {}
    shown = {os.path.basename(group.layout.v1[c]): path for c, path in group.v1.items()}
    return shown | ({"unified": group.unified} if group.unified else {})
