"""Sources of COPY and ADD: selecting and listing files below a directory, and the digest of what was listed.

Owns the meaning of a source path: wildcards, ignore patterns, symlinks (the named source is followed, inside
the tree only; those below it are copied as links). Never writes. The tree may be hostile: every path is
opened below its root.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lading.base.errors import Invalid, NotFound
from lading.build import ignore
from lading.build.dockerfile.errors import closest
from lading.build.ignore import Ignore
from lading.linux import files, trees

_MAX_ENTRIES = 5_000_000
_MAX_PATH = 4000  # PATH_MAX less room for a name
_MAX_SPAN = 64  # directories that one ** of a COPY pattern looks into, one below the other
_LOOKED_AT = 10_000  # names that a suggestion is drawn from
_WILD = "*?[\\"
_XATTRS = ("security.capability", "user.")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory of a source. `path` is relative to the source ("" is the source itself)."""

    path: str
    at: str  # relative to the tree's root
    info: os.stat_result
    link: str = ""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)


@dataclass(frozen=True, slots=True)
class Source:
    """What one path or one match of a wildcard selects; `entries` has parents before children, in order of
    names.
    """

    given: str  # clean, relative to the tree's root; "" is the root
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        return posixpath.basename(self.given)

    @property
    def is_dir(self) -> bool:
        return self.entries[0].is_dir


class Tree:
    """A directory that files are copied from: a build context, or the file system of a stage or image.

    `keeps_owner` is false for a context, whose files belong to the user of the host and become root's.
    """

    def __init__(
        self, root: int, *, name: str, patterns: Ignore = ignore.NOTHING, keeps_owner: bool = False
    ) -> None:
        self.root = root
        self.name = name
        self.patterns = patterns
        self.keeps_owner = keeps_owner
        self._count = 0

    def open(self, entry: Entry) -> int:
        """A descriptor of a regular file or directory, never of what a symlink points to."""
        return files.open_in_root(self.root, entry.at or ".", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)

    def select(self, text: str, exclude: Ignore = ignore.NOTHING) -> list[Source]:
        """The sources that one argument names. NotFound when there is none, Invalid when it leads out of the
        tree.
        """
        self._count = 0
        clean = _clean(text, self.name)
        if not any(c in clean for c in _WILD):
            source = self._source(clean, exclude)
            if source is None:
                raise self._missing(text, clean)
            return [source]
        found = []
        for path in self._matches(clean.split("/")):
            source = self._source(path, exclude)
            if source is not None:
                found.append(source)
        if not found:
            raise NotFound(
                f'no file in {self.name} matches "{text[:200]}"',
                hint="Look at the pattern and at .dockerignore."
                if self.patterns.patterns
                else "Look at the pattern.",
            )
        return found

    def _missing(self, text: str, clean: str) -> NotFound:
        verdict = self.patterns.verdict(clean) if clean else None
        if verdict is not None:
            return NotFound(
                f'"{text[:200]}" is left out of {self.name}',
                why=f'Line {verdict.line} of the ignore file, "{verdict.text[:80]}", excludes it.',
                hint="Remove that line, or add an exception that begins with !.",
            )
        near = self._near(clean)
        hint = (
            ""
            if self.keeps_owner
            else "Paths of COPY and ADD are relative to the context, not to the Dockerfile."
        )
        if near:
            hint = f'Did you mean "{near[:200]}"?'
        return NotFound(f'"{text[:200]}" is not in {self.name}', hint=hint)

    def _near(self, path: str) -> str:
        """A path beside the missing one whose name is much like its own; "" when there is none."""
        folder, name = posixpath.split(path)
        try:
            fd = files.open_in_root(self.root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return ""
        try:
            there = [entry for entry in os.listdir(fd)[:_LOOKED_AT] if entry.isprintable()]
            found = closest(name, tuple(sorted(there)))
        finally:
            os.close(fd)
        return posixpath.join(folder, found) if found else ""

    def _source(self, path: str, exclude: Ignore) -> Source | None:
        """List one path; None when it does not exist or is ignored with all that is below it."""
        try:
            fd = files.open_in_root(self.root, path or ".", os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Invalid(
                f'"{path[:200]}" in {self.name} cannot be opened', why=f"{error.strerror}."
            ) from None
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
        ignored = bool(path) and self.patterns.matches(path)
        if not stat.S_ISDIR(info.st_mode):
            if ignored or exclude.matches(posixpath.basename(path)) or stat.S_ISSOCK(info.st_mode):
                return None
            # The entry is opened without following, so a source that is a symlink is named by its target.
            return Source(path, (Entry("", self._target(path), info),))
        if ignored and self.patterns.prunes(path):
            return None
        entries = [Entry("", path, info if path or self.keeps_owner else _open_to_all(info))]
        self._walk(path, exclude, entries)
        if ignored and len(entries) == 1:
            return None
        return Source(path, tuple(entries))

    def _target(self, path: str) -> str:
        """The path with every symlink resolved inside the tree; the tree's root may be a detached mount
        without a path.
        """
        todo, done, links = [p for p in path.split("/") if p][::-1], list[str](), 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            fd = files.open_in_root(self.root, "/".join([*done, part]), os.O_PATH | os.O_NOFOLLOW)
            try:
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    done.append(part)
                    continue
                target = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            links += 1
            if links > 40:
                raise Invalid(f'"{path[:200]}" in {self.name} goes through too many symlinks')
            if target.startswith("/"):
                done = []
            todo += [p for p in target.split("/") if p not in ("", ".")][::-1]
        return "/".join(done)

    def _walk(self, base: str, exclude: Ignore, entries: list[Entry]) -> None:
        """List what is below the directory `base`: depth first, no descriptor held and no recursion, since a
        hostile tree may be deep.
        """
        # (entries of one directory still to be looked at; where its own entry is, if it may turn out
        # needless)
        stack: list[tuple[Iterator[Entry], int]] = [(iter(self._list(base, "")), -1)]
        while stack:
            listing, own = stack[-1]
            entry = next(listing, None)
            if entry is None:
                stack.pop()
                if own >= 0 and len(entries) == own + 1:
                    entries.pop()  # an ignored directory is there only for the sake of an exception below it
                continue
            ignored = self.patterns.matches(entry.at)
            excluded = exclude.matches(entry.path)
            if not entry.is_dir:
                if not ignored and not excluded:
                    self._add(entry, entries)
                continue
            if (ignored and self.patterns.prunes(entry.at)) or (excluded and exclude.prunes(entry.path)):
                continue
            self._add(entry, entries)
            stack.append(
                (iter(self._list(base, entry.path)), len(entries) - 1 if ignored or excluded else -1)
            )

    def _list(self, base: str, below: str) -> list[Entry]:
        """One directory, in order of names; sockets mean nothing without their process and are left out."""
        at = _join(base, below)
        if len(os.fsencode(at)) > _MAX_PATH or at.count("/") >= trees.MAX_DEPTH:
            raise Invalid(
                f"{self.name} is nested too deeply",
                why=f"{at[:60]}… has more than {trees.MAX_DEPTH} directories, or is longer than a path may be.",
                hint="Leave it out with .dockerignore.",
            )
        found = []
        fd = files.open_in_root(self.root, at or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in sorted(os.listdir(fd)):
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISSOCK(info.st_mode):
                    continue
                link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(info.st_mode) else ""
                found.append(Entry(_join(below, name), _join(at, name), info, link))
        finally:
            os.close(fd)
        return found

    def _add(self, entry: Entry, entries: list[Entry]) -> None:
        self._count += 1
        if self._count > _MAX_ENTRIES:
            raise Invalid(f"{self.name} has more than {_MAX_ENTRIES} files", hint="Use a .dockerignore file.")
        entries.append(entry)

    def _matches(self, parts: Sequence[str], base: str = "") -> Iterable[str]:
        """Paths that match a pattern with wildcards, component by component, in order of names."""
        first, rest = parts[0], parts[1:]
        if not any(c in first for c in _WILD):
            names = [first]
        else:
            try:
                match = ignore.translate(first).fullmatch
            except ValueError as error:
                raise Invalid(f'"{first[:80]}" is no pattern', why=f"{error}.") from None
            try:
                fd = files.open_in_root(self.root, base or ".", os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                names = [name for name in sorted(os.listdir(fd)) if match(name) or (first == "**")]
            finally:
                os.close(fd)
        if base.count("/") > _MAX_SPAN:
            raise Invalid(f'"{"/".join(parts)[:80]}" looks into more than {_MAX_SPAN} nested directories')
        if first == "**" and rest:
            yield from self._matches(rest, base)
        for name in names:
            path = _join(base, name)
            if first == "**" and self._is_dir(path):
                yield from self._matches(parts, path)
            if first == "**" and rest:
                continue
            if rest:
                yield from self._matches(rest, path)
            else:
                yield path

    def _is_dir(self, path: str) -> bool:
        fd = files.open_in_root(self.root, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)


def _open_to_all(info: os.stat_result) -> os.stat_result:
    """The root of a context, which is private where it lies (a home directory, our scratch) and 0755 in an image."""
    times = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")
    return os.stat_result((stat.S_IFDIR | 0o755, *info[1:10]), {name: getattr(info, name) for name in times})


def _clean(text: str, name: str) -> str:
    """A source as a path below the root. An absolute one means the tree's root; one that climbs out is
    refused.
    """
    if "\0" in text or len(text) > 4096:
        raise Invalid("a source path is not a path")
    clean = posixpath.normpath("/" + text).lstrip("/")
    if posixpath.normpath(text.lstrip("/")).startswith(".."):
        raise Invalid(
            f'"{text[:200]}" leads out of {name}',
            hint="Only files inside the build context can be copied; build from the directory above with -f.",
        )
    return clean


def _join(base: str, name: str) -> str:
    return f"{base}/{name}" if base and name else base or name


def xattrs(fd: int) -> dict[str, bytes]:
    """The extended attributes that are part of a file's meaning: file capabilities and the user's own."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    return {
        n: os.getxattr(fd, n)
        for n in sorted(names)
        if n.startswith(_XATTRS) and not n.startswith("user.overlay.")
    }


def digest(
    tree: Tree,
    sources: Iterable[Source],
    contents: Callable[[Tree, list[Entry]], list[bytes]],
    mode: Callable[[int], int],
) -> bytes:
    """What the files are: names, types, modes (after `--chmod`), owners where kept, contents; never times."""
    listed = [(source, entry) for source in sources for entry in source.entries]
    regular = [entry for _, entry in listed if stat.S_ISREG(entry.info.st_mode)]
    known = iter(contents(tree, regular))
    whole = hashlib.sha256()
    previous: Source | None = None
    for source, entry in listed:
        if source is not previous:
            _put(whole, b"source", source.given, b"")
            previous = source
        info = entry.info
        owner = b"%d:%d" % (info.st_uid, info.st_gid) if tree.keeps_owner else b""
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            body = next(known)
        elif kind == stat.S_IFLNK:
            body = os.fsencode(entry.link)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            body = b"%d" % info.st_rdev
        else:
            body = b""
        _put(whole, b"%o %s" % (mode(info.st_mode), owner), entry.path, body)
    return whole.digest()


def _put(whole: hashlib._Hash, head: bytes, path: str, body: bytes) -> None:
    raw = os.fsencode(path)
    whole.update(b"%d %d %d\n%s%s%s" % (len(head), len(raw), len(body), head, raw, body))
