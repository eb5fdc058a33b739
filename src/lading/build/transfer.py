"""COPY and ADD: from an instruction and a source tree to a listed, digested work order, and its execution.

Owns which file lands where (Dockerfile reference, "COPY" and "ADD"); `tree` lists, `place` writes, the stage
caches.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lading.base.errors import Invalid, NotFound, Unsupported
from lading.build import ignore, owners, place, tree
from lading.build.dockerfile import DockerfileError
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.expand import ExpansionError, expand
from lading.build.dockerfile.lexer import Heredoc
from lading.build.place import Attributes, Root
from lading.build.tree import Entry, Source, Tree
from lading.build.variables import Scope

_GIT = ("git://", "git@", "ssh://")
_REMOTE = ("http://", "https://", "ftp://", "git://", "git@", "ssh://")


@dataclass(frozen=True)
class Inline:
    """A here-document as a file."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Order:
    """A transfer with its variables expanded; sources are not looked at yet."""

    keyword: str
    sources: tuple[str, ...]
    inline: tuple[Inline, ...]
    destination: str  # absolute; ends with a slash where it must be a directory
    chown: str
    chmod: str
    exclude: tuple[str, ...]
    parents: bool
    unpack: bool

    def parts(self) -> list[object]:
        """What of the order itself counts for the cache key."""
        return [
            self.keyword,
            [[one.name, one.content] for one in self.inline],
            self.destination,
            self.chown,
            self.chmod,
            self.parents,
            self.unpack,
        ]

    @property
    def mode(self) -> place.Mode:
        return place.parse_chmod(self.chmod) if self.chmod else place.same_mode

    @property
    def ignore(self) -> ignore.Ignore:
        return (
            ignore.compile_patterns(enumerate(self.exclude, 1), "--exclude")
            if self.exclude
            else ignore.NOTHING
        )


def order(one: ins.Transfer, scope: Scope, workdir: str) -> Order:
    """Expand the instruction; refuse what cannot be done, with its place."""
    sources = tuple(scope.expand(word) for word in one.sources)
    for word, source in zip(one.sources, sources, strict=True):
        if not source:
            raise DockerfileError(f"a source of {one.keyword} has become empty", word.position, text=one.text)
        remote = isinstance(one, ins.Add) and source.startswith(_REMOTE)
        if remote and (source.startswith(_GIT) or source.split("#", 1)[0].endswith(".git")):
            raise Unsupported(
                f"ADD from a git repository is not supported (line {word.position.line}, column {word.position.column})",
                why=f"{source[:200]} would be cloned by the engine.",
                hint="Clone it before the build, or with RUN git clone and a commit's id.",
            )
        if remote:
            raise Unsupported(
                f"ADD from the network is not supported (line {word.position.line}, column {word.position.column})",
                why=f"{source[:200]} is not a file of the build context.",
                hint="Download it before the build, or with RUN curl or RUN python.",
            )
    if isinstance(one, ins.Add) and one.checksum is not None:
        raise DockerfileError(
            "--checksum is for sources from the network", one.checksum.position, text=one.text
        )
    destination = _destination(one, scope, workdir, len(sources) + len(one.heredocs))
    return Order(
        one.keyword,
        sources,
        tuple(_inline(heredoc, scope) for heredoc in one.heredocs),
        destination,
        scope.expand(one.chown) if one.chown else "",
        scope.expand(one.chmod) if one.chmod else "",
        tuple(scope.expand(word) for word in one.exclude),
        one.parents,
        isinstance(one, ins.Add) and one.unpack is not False,
    )


def _destination(one: ins.Transfer, scope: Scope, workdir: str, count: int) -> str:
    text = scope.expand(one.destination)
    if not text or len(text) > 4096:
        raise DockerfileError(
            f"the destination of {one.keyword} has become empty or too long",
            one.destination.position,
            text=one.text,
        )
    if count > 1 and not text.endswith("/") and text not in (".", ".."):
        raise DockerfileError(
            f"{one.keyword} has several sources, so its destination must be a directory and end with a slash",
            one.destination.position,
            text=one.destination.text,
            hint=f"Write {text}/.",
        )
    whole = posixpath.normpath(posixpath.join(workdir or "/", text))
    whole = "/" + whole.lstrip("/")
    directory = text.endswith("/") or posixpath.basename(text) in (".", "..")
    return whole + "/" if directory and whole != "/" else whole


def _inline(heredoc: Heredoc, scope: Scope) -> Inline:
    content = heredoc.content
    if heredoc.expand:
        try:
            content = expand(content, scope.lookup, scope.outer.escape, quotes=False)
        except ExpansionError as error:
            raise DockerfileError(
                error.message, heredoc.position, text=f"<<{heredoc.name}", hint=error.hint
            ) from None
    return Inline(heredoc.name, content.encode())


def select(what: Order, source: Tree | None) -> list[Source]:
    """List the sources; NotFound names one that is not there."""
    if not what.sources:
        return []
    if source is None:
        raise NotFound(
            f'"{what.sources[0][:200]}" cannot be copied',
            why="The build has no context.",
            hint="Give a directory to build from.",
        )
    found: list[Source] = []
    for text in what.sources:
        found += source.select(text, what.ignore)
    files = sum(1 for one in found if not one.is_dir)
    if len(found) > 1 and not what.destination.endswith("/") and (files != len(found) or files > 1):
        raise Invalid(
            f'"{what.sources[0][:100]}" matches {len(found)} files, but {what.destination} is no directory',
            hint=f"Write {what.destination}/.",
        )
    return found


def perform(
    what: Order,
    source: Tree | None,
    selected: Iterable[Source],
    root_fd: int,
    check: Callable[[], None],
    now_ns: int,
) -> None:
    """Write everything into the root file system whose root directory is `root_fd`."""
    root = Root(root_fd, check)
    owner = None
    if what.chown:
        owner = owners.numeric(what.chown) or owners.resolve(root_fd, what.chown)
    how = Attributes(owner, what.mode)
    try:
        if source is not None:
            for one in selected:
                _place(what, source, one, root, how)
        for inline in what.inline:
            inside = what.destination.endswith("/") or root.is_dir(what.destination)
            path = posixpath.join(what.destination, inline.name) if inside else what.destination
            mode = how.mode(0o100644) & 0o7777
            root.write(path, inline.content, owner or (0, 0), mode, now_ns)
    except OSError as error:
        raise place.full_disk(error, f"{what.keyword} to {what.destination} failed") from error


def _place(what: Order, source: Tree, one: Source, root: Root, how: Attributes) -> None:
    destination = what.destination
    if what.parents:
        base = posixpath.join(destination, _kept(what, one.given))
        root.copy(source, one, base, how)
        return
    if one.is_dir:
        root.copy(source, one, destination.rstrip("/") or "/", how)
        return
    if what.unpack and place.is_archive(source, one.entries[0]):
        root.unpack(source, one.entries[0], destination.rstrip("/") or "/", how.owner)
        return
    if destination.endswith("/") or root.is_dir(destination):
        destination = posixpath.join(destination, one.name)
    root.copy(source, one, destination, how)


def _kept(what: Order, given: str) -> str:
    """What of a source's path `--parents` keeps: all of it, or what follows a `/./` in the argument."""
    for text in what.sources:
        before, pivot, _ = text.partition("/./")
        clean = posixpath.normpath("/" + before).lstrip("/")
        if pivot and (given == clean or given.startswith(clean + "/" if clean else "")):
            return given[len(clean) :].lstrip("/")
    return given


def digest(
    what: Order,
    source: Tree | None,
    selected: Iterable[Source],
    contents: Callable[[Tree, list[Entry]], list[bytes]],
) -> bytes:
    """What the selected files are, for the cache key."""
    if source is None:
        return b""
    return tree.digest(source, selected, contents, what.mode)


def listed(
    source: Tree, selected: Iterable[Source], contents: Callable[[Tree, list[Entry]], list[bytes]]
) -> bytes:
    """What the selected files are as they lie there (a bind mount)."""
    return tree.digest(source, selected, contents, place.same_mode)


def history(what: Order, source_name: str) -> str:
    """The line of `created_by`."""
    flags = [f"--from={source_name}"] if source_name else []
    flags += [f"--chown={what.chown}"] if what.chown else []
    flags += [f"--chmod={what.chmod}"] if what.chmod else []
    names = [*what.sources, *(os.path.basename(one.name) for one in what.inline)]
    return " ".join([what.keyword, *flags, *names, what.destination])
