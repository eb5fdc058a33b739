"""The verb exec: another process in a running container, in its namespaces, control groups and behind its filter."""

from __future__ import annotations

import os

from lading.base.errors import Conflict, Invalid
from lading.runtime import identity, joined
from lading.runtime.cgroup.layout import discover
from lading.runtime.failures import start_error
from lading.runtime.oci import bundle, exchange, making, schema, stage, state, terminal

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

    from lading.runtime.oci.entry import Context


def execute(context: Context, options: dict[str, Any], identifier: str, words: list[str]) -> int:
    """The command's exit code, or 0 at once with --detach."""
    foreground = making.Foreground()
    shared = making.settings(options)
    pid, channel = stage.spawn("exec", shared["preserve"])
    born = 0
    opened: list[int] = []
    try:
        container = state.Container.found(context.root, identifier)
        described = _process(container, options, words)
        bundle.check_process(described, True, context.warn)
        attached = not options.get("detach")
        if described.get("terminal") and not attached and not shared["console_socket"]:
            raise Invalid("--tty: a detached process with a terminal needs --console-socket")
        group = container.group(discover())
        status = container.status(group)
        if status not in ("created", "running") and not (status == "paused" and options.get("ignore-paused")):
            raise Conflict(f"cannot exec in a container that is {status}")
        pidfd = os.pidfd_open(container.pid)
        opened.append(pidfd)
        if not container.alive():
            raise Conflict("cannot exec in a container that has just stopped")
        plan = _plan(container, described, shared)
        names = [name for name in group.v1 if name != "memory"] + (["memory"] if "memory" in group.v1 else [])
        directories = [group.v1[name] for name in names if os.path.isdir(group.v1[name])]
        if affinity := identity.cpus((described.get("execCPUAffinity") or {}).get("initial")):
            os.sched_setaffinity(pid, affinity)  # before it enters the container's groups
        exchange.join(pid, dict.fromkeys([*directories, *([group.unified] if group.unified else [])]))
        memory = exchange.plan_file(plan)
        opened.append(memory)
        exchange.send_plan(channel, [memory, pidfd])
        channel.send(b"joined")
        ready, master = False, -1
        while not (ready and born):
            message, fd = exchange.receive(channel)
            if message[0] == "pid":
                born = message[1]
                os.waitpid(pid, 0)
                pid = 0
            elif message[0] == "console":
                master = fd
                terminal.resize(fd, described.get("consoleSize"))
            elif message[0] == "ready":
                ready = True
            else:
                raise start_error(*message[1:4])
        if master >= 0 and shared["console_socket"]:
            terminal.hand_over(shared["console_socket"], master)
            os.close(master)
            master = -1
        if shared["pid_file"]:
            exchange.write_pid(shared["pid_file"], born)
        foreground.pid = born
        exchange.go(container, channel)
        running, born = born, 0
    finally:
        channel.close()
        for fd in opened:
            os.close(fd)
        for left in (pid, born):
            if left:
                _end(left)
    return foreground.wait(running, master) if attached else 0


def _end(pid: int) -> None:
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _process(container: state.Container, options: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """The process object: a file's, or the container's own with what the flags change."""
    if options.get("process"):
        described = bundle.read_json(options["process"], "--process")
        schema.check(described, schema.PROCESS, "process")
        return dict(described)
    if not words:
        raise Invalid("exec: no command is given")
    described = dict(container.data["process"])
    described["args"] = words
    described["terminal"] = bool(options.get("tty"))
    described.pop("consoleSize", None)
    described["env"] = [*(described.get("env") or ()), *options.get("env", ())]
    if options.get("cwd"):
        described["cwd"] = options["cwd"]
    if options.get("no-new-privs"):
        described["noNewPrivileges"] = True
    for flag, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.get(flag):
            described[key] = options[flag]
    user = dict(described.get("user") or {})
    if options.get("user"):
        uid, _, gid = options["user"].partition(":")
        user = {"uid": _id("user", uid), "gid": _id("user", gid or "0")}
    if options.get("additional-gids"):
        extra = [_id("additional-gids", text) for text in options["additional-gids"]]
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *extra]
    described["user"] = user
    if options.get("cap"):
        capabilities = {kind: list(names) for kind, names in (described.get("capabilities") or {}).items()}
        for kind in ("bounding", "effective", "permitted"):
            capabilities[kind] = [*capabilities.get(kind, ()), *options["cap"]]
        described["capabilities"] = capabilities
    schema.check(described, schema.PROCESS, "process")
    return described


def _id(flag: str, text: str) -> int:
    if not text.isdecimal() or int(text) >= 0xFFFFFFFF:
        raise Invalid(f"--{flag}: {text!r} is not a numeric id")
    return int(text)


def _plan(container: state.Container, described: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    flags, user = joined.namespaces(container.pid)
    seccomp: tuple[bytes, int] = (b"", 0)
    profile = container.data.get("seccomp")
    if profile:
        from lading.linux.syscall_numbers import NATIVE
        from lading.runtime.seccomp.assemble import compile_filter

        seccomp = compile_filter(profile, NATIVE[os.uname().machine])
    process = identity.process({"process": described})
    process["dies_with_parent"] = False
    process["keep_groups"] = os.geteuid() != 0 and not process["groups"]
    return {
        "kind": "exec",
        "process": process,
        "seccomp": seccomp,
        "pidfd": 1,
        "join_flags": flags,
        "userns": user,
        "reaper": False,
        "find_home": True,
        "dies_with_parent": False,
        "preserve_fds": shared["preserve"],
        "gaps": shared["gaps"],
    }
