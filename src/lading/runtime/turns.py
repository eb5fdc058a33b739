"""Hooks of an engine's container: what the monitor is told of them, and how it runs those of the host at their turns.

The monitor runs prestart, createRuntime, poststart and poststop; init runs createContainer and startContainer, with the
state that the monitor hands it (runtime-spec runtime.md, "Lifecycle"). A hook gets the environment its entry names and
nothing else. The bundle of the state is the container's run directory, with a config.json for hooks that look for one.
"""

from __future__ import annotations

import _socket
import os

from lading.runtime import hooks

if False:  # names for the type checker only; the zygote must not import typing
    from collections.abc import Mapping
    from typing import Any

_EARLY = ("prestart", "createRuntime")
_HOSTS = ("poststart", "poststop")
_INITS = ("createContainer", "startContainer")


def for_monitor(spec: Mapping[str, Any], identifier: str, run_dir: str) -> dict[str, Any]:
    """The monitor's part of a configuration's hooks; empty where it has none. For the daemon."""
    given = spec.get("hooks") or {}
    if not any(given.values()):
        return {}
    import json

    known = {"ociVersion": spec.get("ociVersion", "1.2.0"), "id": identifier, "bundle": run_dir}
    if spec.get("annotations"):
        known["annotations"] = spec["annotations"]
    ours = {point: hooks.encode(given.get(point) or []) for point in (*_EARLY, *_HOSTS)}
    text = json.dumps(known)[:-1].encode()  # left open: status and pid are known later
    return {**ours, "state": text, "start": bool(given.get("startContainer"))}


def for_init(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Init's part. For the daemon."""
    given = spec.get("hooks") or {}
    return {point: hooks.encode(given.get(point) or []) for point in _INITS} if given else {}


def write_bundle(spec: Mapping[str, Any], run_dir: str, root: str) -> None:
    """config.json beside the live state, its root where createContainer hooks find it mounted. For the daemon."""
    if not spec.get("hooks"):
        return
    import json

    from lading.base.atomic import write_file

    text = json.dumps({**spec, "root": {**(spec.get("root") or {}), "path": root}})
    write_file(f"{run_dir}/config.json", text.encode())


def _state(plan: dict[str, Any], status: bytes, pid: int) -> int:
    """A memory file with the state, as hooks get it on standard input."""
    more = b', "pid": %d' % pid if pid else b""
    fd = os.memfd_create("lading-state", os.MFD_CLOEXEC)
    os.write(fd, b'%b, "status": "%b"%b}' % (plan["state"], status, more))
    return fd


def _run(plan: dict[str, Any], points: tuple[str, ...], status: bytes, pid: int) -> None:
    state = _state(plan, status, pid)
    try:
        for point in points:
            hooks.run(plan[point], state)
    finally:
        os.close(state)


def early(plan: dict[str, Any], pid: int, channel: _socket.socket) -> None:
    """While init waits before entering the root: the host's hooks, then word to init. Raises HookFailed."""
    _run(plan, _EARLY, b"creating", pid)
    _hand_over(plan, b"creating", pid, channel)


def go(plan: dict[str, Any], pid: int, channel: _socket.socket) -> None:
    """Word to init that it may execute its command, with the state where it has hooks to run first."""
    if plan.get("start"):
        _hand_over(plan, b"created", pid, channel)
    else:
        channel.send(b"go")


def _hand_over(plan: dict[str, Any], status: bytes, pid: int, channel: _socket.socket) -> None:
    state = _state(plan, status, pid)
    try:
        channel.sendmsg([b"go"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, state.to_bytes(4, "little"))])
    finally:
        os.close(state)


def started(plan: dict[str, Any], pid: int) -> None:
    """The command runs. Raises HookFailed, which ends the container."""
    if plan:
        _run(plan, ("poststart",), b"running", pid)


def stopped(plan: dict[str, Any]) -> None:
    """It is over: every poststop hook is run, whatever became of the others."""
    if not plan:
        return
    state = _state(plan, b"stopped", 0)
    for hook in plan["poststop"]:
        try:
            hooks.run([hook], state)
        except (hooks.HookFailed, OSError):
            continue  # nobody is left to be told
    os.close(state)
