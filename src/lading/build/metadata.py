"""Instructions that change only the image's config: what each does to it, and how history tells it.

Pure: a config goes in, a new one comes out. Never touches a file or a cache. Wording of history as Docker's
builder has it, so that `history` and scanners read ours alike.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lading.base.errors import Invalid
from lading.build.dockerfile import DockerfileError, Instruction, Position, parse_trigger
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.errors import closest, shown
from lading.build.variables import Globals, Scope
from lading.image.config import ContainerConfig, Healthcheck

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-zA-Z]+))?\Z")
_REAL_TIME = re.compile(r"RTMIN(\+\d{1,2})?|RTMAX(-\d{1,2})?")
_SIGNALS = tuple(item.name for item in signal.Signals)


def environment(config: ContainerConfig) -> dict[str, str]:
    """The config's Env as a mapping; an entry without an equals sign has no value and is left out."""
    return {name: value for name, equals, value in (e.partition("=") for e in config.env) if equals}


def set_env(config: ContainerConfig, pairs: Iterable[tuple[str, str]]) -> ContainerConfig:
    """`config` with these variables, each in its old place or at the end."""
    env = environment(config) | dict(pairs)
    return replace(config, env=tuple(f"{name}={value}" for name, value in env.items()))


def argv(command: ins.Command, shell: Sequence[str]) -> tuple[str, ...]:
    """Exec form as it is; shell form below the stage's shell."""
    return command.argv if command.argv is not None else (*shell, command.line)


def shell_of(config: ContainerConfig) -> tuple[str, ...]:
    return config.shell or DEFAULT_SHELL


def env(one: ins.Env, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    """All values of one instruction see the variables as they were before it, as documented."""
    pairs: list[tuple[str, str]] = []
    for pair in one.pairs:
        name = scope.expand(pair.key)
        if not name or "=" in name:
            raise DockerfileError(
                "ENV has an empty name or one with an equals sign", pair.key.position, text=name
            )
        pairs.append((name, scope.expand(pair.value) if pair.value else ""))
    scope.env.update(pairs)
    return set_env(config, pairs), "ENV " + " ".join(f"{name}={value}" for name, value in pairs)


def label(one: ins.Label, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    pairs = []
    for pair in one.pairs:
        name = scope.expand(pair.key)
        if not name:
            raise DockerfileError("LABEL has an empty name", pair.key.position, text=one.text)
        pairs.append((name, scope.expand(pair.value) if pair.value else ""))
    text = "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)
    return replace(config, labels={**config.labels, **dict(pairs)}), text


def user(one: ins.User, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    value = scope.expand(one.value)
    if not value:
        raise DockerfileError("USER has become empty", one.value.position, text=one.text)
    return replace(config, user=value), f"USER {value}"


def workdir(one: ins.Workdir, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    """The new working directory, absolute; a relative one continues the old one."""
    value = scope.expand(one.value)
    if not value or len(value) > 4096:
        raise DockerfileError("WORKDIR has become empty or too long", one.value.position, text=one.text)
    path = posixpath.normpath(posixpath.join(config.working_dir or "/", value))
    path = "/" + path.lstrip("/")
    return replace(config, working_dir=path), f"WORKDIR {path}"


def stopsignal(one: ins.Stopsignal, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    value = scope.expand(one.value)
    number = value.isascii() and value.isdigit() and len(value) < 3 and 1 <= int(value) <= 64
    name = value.upper().removeprefix("SIG")
    if not number and f"SIG{name}" not in _SIGNALS and not _REAL_TIME.fullmatch(name):
        near = closest(f"SIG{name}", _SIGNALS)
        raise DockerfileError(
            f'"{value[:40]}" is no signal',
            one.value.position,
            text=one.text,
            hint=f"Did you mean {near}?" if near else "Write SIGTERM, SIGINT or a number.",
        )
    return replace(config, stop_signal=value), f"STOPSIGNAL {value}"


def expose(one: ins.Expose, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    found: set[str] = set()
    for word in one.ports:
        for text in scope.expand_words(word):
            found.update(_ports(text, word.position))
    if not found:
        raise DockerfileError("EXPOSE has become empty", one.position, text=one.text)
    ports = tuple(sorted(set(config.exposed_ports) | found))
    shown = " ".join(f"{port}:{{}}" for port in sorted(found))
    return replace(config, exposed_ports=ports), f"EXPOSE map[{shown}]"


def _ports(text: str, position: Position) -> list[str]:
    match = _PORT.match(text)
    protocol = (match[3] or "tcp").lower() if match else ""
    if match is None or protocol not in ("tcp", "udp", "sctp"):
        raise DockerfileError(
            f'"{text[:60]}" is no port',
            position,
            text=text,
            hint="Write 8080, 53/udp or a range such as 8000-8010/tcp.",
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise DockerfileError(
            f'the port "{text}" is out of range',
            position,
            text=text,
            hint="Ports are from 1 to 65535, smaller first.",
        )
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def volume(one: ins.Volume, config: ContainerConfig, scope: Scope) -> tuple[ContainerConfig, str]:
    paths = [scope.expand(word) for word in one.paths]
    for path, word in zip(paths, one.paths, strict=True):
        if not path:
            raise DockerfileError("VOLUME has an empty path", word.position, text=one.text)
    return (
        replace(config, volumes=tuple(sorted({*config.volumes, *paths}))),
        f"VOLUME [{' '.join(paths)}]",
    )


def cmd(one: ins.Cmd, config: ContainerConfig) -> tuple[ContainerConfig, str]:
    args = argv(one, shell_of(config))
    return replace(config, cmd=args, args_escaped=False), f"CMD {_array(args)}"


def entrypoint(one: ins.Entrypoint, config: ContainerConfig, cmd_here: bool) -> tuple[ContainerConfig, str]:
    """A new entry point resets the command that came from the base image (reference, "CMD and ENTRYPOINT
    interact").
    """
    args = argv(one, shell_of(config))
    changed = replace(config, entrypoint=args)
    if not cmd_here:
        changed = replace(changed, cmd=None)
    return changed, f"ENTRYPOINT {_array(args)}"


def shell(one: ins.Shell, config: ContainerConfig) -> tuple[ContainerConfig, str]:
    return replace(config, shell=one.argv), f"SHELL [{' '.join(one.argv or ())}]"


def healthcheck(one: ins.Healthcheck, config: ContainerConfig) -> tuple[ContainerConfig, str]:
    if one.none:
        return replace(config, healthcheck=Healthcheck(("NONE",))), "HEALTHCHECK NONE"
    test = ("CMD", *one.argv) if one.argv is not None else ("CMD-SHELL", one.line)
    check = Healthcheck(test, one.interval, one.timeout, one.start_period, one.start_interval, one.retries)
    return replace(config, healthcheck=check), f"HEALTHCHECK &{{{_array(test)}}}"


def onbuild(one: ins.Onbuild, config: ContainerConfig) -> tuple[ContainerConfig, str]:
    return replace(config, onbuild=(*config.onbuild, one.trigger)), f"ONBUILD {one.trigger}"


def apply(
    one: Instruction, config: ContainerConfig, scope: Scope, *, cmd_here: bool = False
) -> tuple[ContainerConfig, str] | None:
    """What an instruction does to the config and how history tells it; None when it does more than that."""
    expanding = _EXPANDING.get(type(one))
    if expanding is not None:
        return expanding(one, config, scope)
    match one:
        case ins.Cmd():
            return cmd(one, config)
        case ins.Entrypoint():
            return entrypoint(one, config, cmd_here)
        case ins.Shell():
            return shell(one, config)
        case ins.Healthcheck():
            return healthcheck(one, config)
        case ins.Onbuild():
            return onbuild(one, config)
    return None


_EXPANDING: dict[type[Instruction], Callable[..., tuple[ContainerConfig, str]]] = {
    ins.Env: env,
    ins.Label: label,
    ins.User: user,
    ins.Workdir: workdir,
    ins.Stopsignal: stopsignal,
    ins.Expose: expose,
    ins.Volume: volume,
}


def changed(config: ContainerConfig, changes: Iterable[str]) -> ContainerConfig:
    """`commit --change` and `import --change`: instructions on a config, without a build.

    Invalid for one that does more than change the config. A CMD stays when an ENTRYPOINT follows.
    """
    scope = Scope(Globals("\\", {}, {}), env=environment(config))
    for text in changes:
        one = parse_trigger(text)
        result = None if isinstance(one, ins.Shell) else apply(one, config, scope, cmd_here=True)
        if result is None:
            raise Invalid(
                f'"{shown(text)}" cannot be a change',
                hint="Use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR.",
            )
        config = result[0]
    return config


def _array(items: Sequence[str]) -> str:
    return json.dumps(list(items), ensure_ascii=False, separators=(", ", ": ")).replace(", ", " ")
