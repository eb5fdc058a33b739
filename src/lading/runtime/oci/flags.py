"""The command line's words: which flags each verb takes, and how they are read. Pure; runc's spelling is the contract."""

from __future__ import annotations

from lading.base.errors import Invalid

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

GLOBAL = {
    "root": "s", "log": "s", "log-format": "s", "debug": "b", "systemd-cgroup": "b", "rootless": "s", "version": "b",
    "help": "b", "criu": "s", "v": "=version", "h": "=help",
}  # fmt: skip

_MAKE = {
    "bundle": "s", "b": "=bundle", "console-socket": "s", "pid-file": "s", "preserve-fds": "i", "no-pivot": "b",
    "no-new-keyring": "b", "no-subreaper": "b",
}  # fmt: skip

VERBS: dict[str, dict[str, str]] = {
    "create": _MAKE,
    "run": {**_MAKE, "detach": "b", "d": "=detach", "keep": "b"},
    "start": {},
    "state": {},
    "kill": {"all": "b", "a": "=all"},
    "delete": {"force": "b", "f": "=force"},
    "exec": {
        "console-socket": "s", "cwd": "s", "env": "l", "e": "=env", "tty": "b", "t": "=tty", "user": "s", "u": "=user",
        "additional-gids": "l", "g": "=additional-gids", "process": "s", "p": "=process", "detach": "b", "d": "=detach",
        "pid-file": "s", "process-label": "s", "apparmor": "s", "no-new-privs": "b", "cap": "l", "c": "=cap",
        "preserve-fds": "i", "ignore-paused": "b",
    },
    "ps": {"format": "s", "f": "=format"},
    "list": {"format": "s", "f": "=format", "quiet": "b", "q": "=quiet"},
    "pause": {},
    "resume": {},
    "update": {
        "resources": "s", "r": "=resources", "blkio-weight": "i", "cpu-period": "i", "cpu-quota": "i", "cpu-burst": "i",
        "cpu-share": "i", "cpu-rt-period": "i", "cpu-rt-runtime": "i", "cpuset-cpus": "s", "cpuset-mems": "s",
        "cpu-idle": "i", "memory": "s", "memory-reservation": "s", "memory-swap": "s", "kernel-memory": "s",
        "kernel-memory-tcp": "s", "pids-limit": "i",
    },
    "events": {"stats": "b", "interval": "s"},
    "spec": {"bundle": "s", "b": "=bundle", "rootless": "b"},
    "features": {},
    "checkpoint": {"*": "s"},
    "restore": {"*": "s"},
    "help": {},
}  # fmt: skip
_STOPS = ("exec",)  # what follows the container's id is the command's own


def parse(words: list[str], known: dict[str, str], *, stop: bool) -> tuple[dict[str, Any], list[str]]:
    """(values by flag, the other words). `stop`: the first word that is no flag ends the flags."""
    values: dict[str, Any] = {}
    rest: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            return values, rest + words[position:]
        if not word.startswith("-") or word == "-":
            if stop:
                return values, [*rest, word, *words[position:]]
            rest.append(word)
            continue
        name, given, text = word.lstrip("-").partition("=")
        kind = known.get(name, "")
        if kind.startswith("="):
            name, kind = kind[1:], known[kind[1:]]
        if not kind:
            raise Invalid(f"flag provided but not defined: -{name}")
        if kind == "b":
            if given and text not in ("true", "false"):
                raise Invalid(f"--{name}: true or false is wanted, not {text!r}")
            values[name] = text != "false"
            continue
        if not given:
            if position == len(words):
                raise Invalid(f"flag needs an argument: -{name}")
            text = words[position]
            position += 1
        if kind == "l":
            values.setdefault(name, []).append(text)
        elif kind == "i":
            values[name] = number(name, text)
        else:
            values[name] = text
    return values, rest


def number(name: str, text: str) -> int:
    """A whole number, also below zero."""
    if not text.removeprefix("-").isdecimal() or len(text) > 20:
        raise Invalid(f"--{name}: a whole number is wanted, not {text!r}")
    return int(text)


def verb(words: list[str]) -> tuple[dict[str, Any], str, dict[str, Any], list[str]]:
    """(global flags, verb, its flags, its arguments)."""
    before, rest = parse(words, GLOBAL, stop=True)
    if not rest:
        return before, "", {}, []
    name = rest[0]
    if name not in VERBS:
        raise Invalid(f"No help topic for {name!r}", hint=f"Known: {', '.join(VERBS)}.")
    if name in ("checkpoint", "restore"):
        return before, name, {}, []
    values, arguments = parse(rest[1:], VERBS[name], stop=name in _STOPS)
    return before, name, values, arguments
