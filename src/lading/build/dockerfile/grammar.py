"""What each instruction's line must be: one function for each, from `Rest` to a value of `instructions`.

Never expands variables and never touches the disk. Source: the Dockerfile reference, one section for each
instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.errors import Position, closest
from lading.build.dockerfile.instructions import Instruction, Word
from lading.build.dockerfile.lexer import Heredoc
from lading.build.dockerfile.words import Rest, duration

_STAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}\Z")
_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Common = tuple[str, Position, int, str]


def _from(rest: Rest, common: Common) -> ins.From:
    rest.allow("platform")
    rest.required("FROM IMAGE [AS NAME]")
    words = rest.words()
    alias = ""
    if len(words) == 3 and words[1].text.upper() == "AS":
        alias = words[2].text
        if not _STAGE_NAME.match(alias):
            raise rest.error(
                f'"{alias}" is no name for a stage',
                position=words[2].position,
                text=alias,
                hint="It begins with a letter and has letters, digits, dots, dashes and underscores.",
            )
    elif len(words) != 1:
        name = words[-1].text if words[-1].text.upper() != "AS" else "NAME"
        raise rest.error(
            "FROM takes one image, or IMAGE AS NAME",
            position=words[1].position,
            text=words[1].text,
            hint=f"Did you mean FROM {words[0].text} AS {name}?",
        )
    return ins.From(*common, image=words[0], alias=alias, platform=rest.flag("platform"))


def _command(rest: Rest, usage: str) -> tuple[tuple[str, ...] | None, str]:
    """(argv, "") for the exec form, (None, line) for the shell form."""
    line = rest.required(usage)
    argv = rest.json()
    if argv is None:
        return None, line
    return tuple(argv), ""


def _run(rest: Rest, common: Common) -> ins.Run:
    rest.allow("mount", "network", "security", "device")
    argv, line = _command(rest, "RUN COMMAND")
    if argv is not None and not argv:
        raise rest.error("RUN has an empty list of arguments", hint='Write RUN ["program", "argument"].')
    mounts = tuple(
        _mount(rest, flag.value or "", flag.position) for flag in rest.flags if flag.name == "mount"
    )
    network = rest.flag("network")
    if network and network.text not in ("default", "none", "host"):
        raise rest.error(
            f'RUN has no network "{network.text}"',
            position=network.position,
            text=network.text,
            hint="Use default, none or host.",
        )
    security = rest.flag("security")
    if security and security.text not in ("sandbox", "insecure"):
        raise rest.error(
            f'RUN has no security mode "{security.text}"',
            position=security.position,
            text=security.text,
            hint="Use sandbox or insecure.",
        )
    devices = tuple(
        Word(flag.value or "", flag.position, literal=True) for flag in rest.flags if flag.name == "device"
    )
    return ins.Run(
        *common,
        argv=argv,
        line=line,
        heredocs=rest.line.heredocs,
        mounts=mounts,
        network=network.text if network else "",
        security=security.text if security else "",
        devices=devices,
    )


_MOUNT_OPTIONS = {
    "bind": ("from", "source", "src", "target", "dst", "destination", "rw", "readwrite", "ro", "readonly"),
    "cache": ("id", "from", "source", "src", "target", "dst", "destination", "ro", "readonly", "rw",
    "readwrite",
              "sharing", "mode", "uid", "gid"),
    "tmpfs": ("target", "dst", "destination", "size"),
    "secret": ("id", "target", "dst", "destination", "required", "mode", "uid", "gid", "env"),
    "ssh": ("id", "target", "dst", "destination", "required", "mode", "uid", "gid"),
}  # fmt: skip
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw"}


def _mount(rest: Rest, text: str, position: Position) -> ins.RunMount:
    """`type=cache,target=/root/.cache`; type is bind when it is not given. Values may hold variables."""
    fields = [part.partition("=") for part in text.split(",") if part]
    kind = next((value for key, _, value in fields if key.lower() == "type"), "bind").lower()
    if kind not in _MOUNT_OPTIONS:
        near = closest(kind, tuple(_MOUNT_OPTIONS))
        raise rest.error(
            f'--mount has no type "{kind}"',
            position=position,
            text=f"--mount={text}",
            hint=f"Did you mean {near}?" if near else "Use bind, cache, tmpfs, secret or ssh.",
        )
    options: list[tuple[str, str]] = []
    for key, equals, value in fields:
        lower = key.lower()
        if lower == "type":
            continue
        if lower not in _MOUNT_OPTIONS[kind]:
            near = closest(lower, _MOUNT_OPTIONS[kind])
            raise rest.error(
                f"a {kind} mount has no option {key}",
                position=position,
                text=f"--mount={text}",
                hint=f"Did you mean {near}?" if near else "",
            )
        options.append((_ALIASES.get(lower, lower), value if equals else "true"))
    if kind in ("bind", "cache", "tmpfs") and not any(key == "target" and value for key, value in options):
        raise rest.error(
            f"a {kind} mount needs a target",
            position=position,
            text=f"--mount={text}",
            hint="Add target=/PATH.",
        )
    return ins.RunMount(kind, tuple(options), position)


def _cmd(rest: Rest, common: Common) -> ins.Cmd:
    rest.allow()
    if not rest.text:
        return ins.Cmd(*common, argv=())
    argv, line = _command(rest, 'CMD ["program", "argument"]')
    return ins.Cmd(*common, argv=argv, line=line)


def _entrypoint(rest: Rest, common: Common) -> ins.Entrypoint:
    rest.allow()
    if not rest.text:
        return ins.Entrypoint(*common, argv=())
    argv, line = _command(rest, 'ENTRYPOINT ["program", "argument"]')
    return ins.Entrypoint(*common, argv=argv, line=line)


def _shell(rest: Rest, common: Common) -> ins.Shell:
    rest.allow()
    rest.required('SHELL ["/bin/bash", "-c"]')
    argv = rest.json()
    if not argv:
        raise rest.error("SHELL must be a JSON array of strings", hint='Write SHELL ["/bin/bash", "-c"].')
    return ins.Shell(*common, argv=tuple(argv))


def _paths(rest: Rest) -> list[Word]:
    """Words, or the items of a JSON array as literals."""
    array = rest.json()
    if array is None:
        return rest.words()
    return [Word(item, rest.position, literal=True) for item in array]


def _transfer(rest: Rest) -> tuple[tuple[Word, ...], tuple[Heredoc, ...], Word]:
    keyword = rest.keyword
    usage = f"{keyword} SOURCE... DESTINATION"
    rest.required(usage)
    words = _paths(rest)
    heredocs = rest.line.heredocs
    at = {heredoc.position: heredoc for heredoc in heredocs}
    sources = tuple(word for word in words[:-1] if word.position not in at)
    if not words or words[-1].position in at or len(words) < 2:
        raise rest.error(f"{keyword} needs at least one source and a destination", hint=f"Write {usage}.")
    for word in words:
        if not word.text:
            raise rest.error(f"a path of {keyword} is empty", position=word.position)
    return sources, heredocs, words[-1]


def _copy(rest: Rest, common: Common) -> ins.Copy:
    rest.allow("from", "chown", "chmod", "link", "parents", "exclude")
    sources, heredocs, destination = _transfer(rest)
    return ins.Copy(
        *common,
        sources=sources,
        heredocs=heredocs,
        destination=destination,
        chown=rest.flag("chown"),
        chmod=rest.flag("chmod"),
        exclude=_excludes(rest),
        link=bool(rest.switch("link")),
        parents=bool(rest.switch("parents")),
        source_stage=rest.flag("from"),
    )


def _add(rest: Rest, common: Common) -> ins.Add:
    rest.allow("keep-git-dir", "checksum", "chown", "chmod", "link", "exclude", "unpack")
    sources, heredocs, destination = _transfer(rest)
    return ins.Add(
        *common,
        sources=sources,
        heredocs=heredocs,
        destination=destination,
        chown=rest.flag("chown"),
        chmod=rest.flag("chmod"),
        exclude=_excludes(rest),
        link=bool(rest.switch("link")),
        keep_git_dir=bool(rest.switch("keep-git-dir")),
        checksum=rest.flag("checksum"),
        unpack=rest.switch("unpack"),
    )


def _excludes(rest: Rest) -> tuple[Word, ...]:
    found = []
    for flag in rest.flags:
        if flag.name == "exclude":
            if not flag.value:
                raise rest.error("the flag --exclude needs a value", position=flag.position, text=flag.text)
            found.append(Word(flag.value, flag.position, literal=True))
    return tuple(found)


def _env(rest: Rest, common: Common) -> ins.Env:
    rest.allow()
    rest.required("ENV NAME=VALUE")
    return ins.Env(*common, pairs=rest.pairs())


def _label(rest: Rest, common: Common) -> ins.Label:
    rest.allow()
    rest.required("LABEL NAME=VALUE")
    return ins.Label(*common, pairs=rest.pairs())


def _arg(rest: Rest, common: Common) -> ins.Arg:
    rest.allow()
    rest.required("ARG NAME[=DEFAULT]")
    pairs = rest.arguments()
    for pair in pairs:
        if not _ARG_NAME.match(pair.key.text) and "$" not in pair.key.text and pair.key.text[0] not in "\"'":
            raise rest.error(
                f'"{pair.key.text}" is no name for a variable',
                position=pair.key.position,
                text=pair.key.text,
                hint="Use letters, digits and underscores, and begin with a letter.",
            )
    return ins.Arg(*common, pairs=pairs)


def _user(rest: Rest, common: Common) -> ins.User:
    return ins.User(*common, value=_single(rest, "USER NAME[:GROUP]"))


def _workdir(rest: Rest, common: Common) -> ins.Workdir:
    return ins.Workdir(*common, value=_single(rest, "WORKDIR /PATH"))


def _stopsignal(rest: Rest, common: Common) -> ins.Stopsignal:
    return ins.Stopsignal(*common, value=_single(rest, "STOPSIGNAL SIGTERM"))


def _maintainer(rest: Rest, common: Common) -> ins.Maintainer:
    return ins.Maintainer(*common, value=_single(rest, "MAINTAINER NAME"))


def _single(rest: Rest, usage: str) -> Word:
    rest.allow()
    return Word(rest.required(usage), rest.position)


def _expose(rest: Rest, common: Common) -> ins.Expose:
    rest.allow()
    rest.required("EXPOSE PORT[/tcp|/udp]")
    return ins.Expose(*common, ports=tuple(rest.words()))


def _volume(rest: Rest, common: Common) -> ins.Volume:
    rest.allow()
    rest.required('VOLUME ["/PATH"]')
    paths = tuple(_paths(rest))
    if not paths or any(not word.text for word in paths):
        raise rest.error("VOLUME has an empty path")
    return ins.Volume(*common, paths=paths)


def _healthcheck(rest: Rest, common: Common) -> ins.Healthcheck:
    flags = ("interval", "timeout", "start-period", "start-interval", "retries")
    rest.allow(*flags)
    usage = "HEALTHCHECK [FLAGS] CMD COMMAND, or HEALTHCHECK NONE"
    rest.required(usage)
    word = rest.words()[0]
    kind = word.text.upper()
    if kind == "NONE":
        if rest.text.upper().strip() != "NONE" or rest.flags:
            raise rest.error("HEALTHCHECK NONE takes nothing more", position=word.position)
        return ins.Healthcheck(*common, none=True)
    if kind != "CMD":
        raise rest.error(
            f"HEALTHCHECK is followed by CMD or NONE, not {word.text[:40]}",
            position=word.position,
            text=word.text,
            hint=f"Did you mean HEALTHCHECK CMD {rest.text[:60]}?",
        )
    command = Rest(rest.line, rest.start + len(word.text), "HEALTHCHECK CMD", rest.escape)
    command.start = command._skip(rest.start + len(word.text))
    argv, line = _command(command, usage)
    if argv is not None and not argv:
        raise command.error("HEALTHCHECK CMD has an empty list of arguments")
    times = [_time(rest, name) for name in flags[:4]]
    return ins.Healthcheck(*common, argv=argv, line=line, none=False, interval=times[0], timeout=times[1],
                           start_period=times[2], start_interval=times[3], retries=_count(rest))  # fmt: skip


def _time(rest: Rest, name: str) -> int:
    word = rest.flag(name)
    if word is None:
        return 0
    try:
        value = duration(word.text)
    except ValueError:
        raise rest.error(
            f'--{name} is no duration: "{word.text}"',
            position=word.position,
            text=word.text,
            hint="Write a number with a unit, as in 30s, 1m30s or 500ms.",
        ) from None
    if 0 < value < 1_000_000:
        raise rest.error(f"--{name} is shorter than 1ms", position=word.position, text=word.text)
    return value


def _count(rest: Rest) -> int:
    word = rest.flag("retries")
    if word is None:
        return 0
    if not (word.text.isascii() and word.text.isdigit() and len(word.text) < 10):
        raise rest.error(
            f'--retries is no number: "{word.text}"',
            position=word.position,
            text=word.text,
            hint="Write --retries=3.",
        )
    return int(word.text)


READERS: dict[str, Callable[[Rest, Common], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "CMD": _cmd,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "EXPOSE": _expose,
    "ENV": _env,
    "ADD": _add,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "VOLUME": _volume,
    "USER": _user,
    "WORKDIR": _workdir,
    "ARG": _arg,
    "STOPSIGNAL": _stopsignal,
    "HEALTHCHECK": _healthcheck,
    "SHELL": _shell,
}
