"""Writing into a root file system without a container: directories, files, copied trees, unpacked archives.

Owns where things land (COPY, ADD and WORKDIR of the Dockerfile reference). The root file system is hostile:
each path is resolved by the kernel below its root descriptor, so no symlink in the image leads out
(openat2(2), RESOLVE_IN_ROOT).
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass

from lading.base.errors import Conflict, Invalid, LadingError, Unavailable
from lading.build import archive
from lading.build.tree import Entry, Source, Tree, xattrs
from lading.image.layer import apply
from lading.image.layer.reader import Source as Readable
from lading.linux import files, identity

_DIR = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)\Z")
Mode = Callable[[int], int]


@dataclass(frozen=True)
class Attributes:
    """What new files get: an owner (None keeps the source's), and a mode computed from the source's."""

    owner: tuple[int, int] | None
    mode: Mode


def same_mode(mode: int) -> int:
    return mode


def parse_chmod(text: str) -> Mode:
    """`--chmod`: an octal number, or symbolic as chmod(1) takes it (u=rwX,go=rX). The file's type is kept."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        bits = int(text, 8)
        return lambda mode: stat.S_IFMT(mode) | bits
    clauses: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        match = _SYMBOLIC.match(clause)
        if match is None:
            raise Invalid(
                f'"{text[:80]}" is no mode', hint="Write an octal number such as 755, or u=rwX,go=rX."
            )
        clauses.append((match[1] or "a", match[2], match[3]))
    return lambda mode: _symbolic(mode, clauses)


def _symbolic(mode: int, clauses: list[tuple[str, str, str]]) -> int:
    for who, operator, permissions in clauses:
        people = "ugo" if "a" in who else who
        run = stat.S_ISDIR(mode) or mode & 0o111
        bits = 0
        for person in people:
            shift = {"u": 6, "g": 3, "o": 0}[person]
            for letter in permissions:
                if letter in "rwx" or (letter == "X" and run):
                    bits |= {"r": 4, "w": 2, "x": 1, "X": 1}[letter] << shift
                elif letter == "s" and person in "ug":
                    bits |= 0o4000 if person == "u" else 0o2000
                elif letter == "t":
                    bits |= 0o1000
        if operator == "+":
            mode |= bits
        elif operator == "-":
            mode &= ~bits
        else:
            whole = sum({"u": 0o4700, "g": 0o2070, "o": 0o0007}[person] for person in people)
            mode = mode & ~whole | bits
    return mode


class Root:
    """A root file system being written, by the descriptor of its root directory."""

    def __init__(self, fd: int, cancelled: Callable[[], None]) -> None:
        self.fd = fd
        self._check = cancelled

    def is_dir(self, path: str) -> bool:
        try:
            os.close(files.open_in_root(self.fd, path, os.O_PATH | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def directory(self, path: str, owner: tuple[int, int] | None, mode: int = 0o755) -> int:
        """A descriptor of the directory `path`; it and its missing parents are made. Close it."""
        try:
            return files.open_in_root(self.fd, path or ".", _DIR)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            raise Conflict(f"{path} is not a directory in the image") from None
        fd = os.dup(self.fd)
        done = ""
        try:
            for part in [p for p in path.split("/") if p]:
                done += "/" + part
                try:
                    below = files.open_in_root(self.fd, done, _DIR)
                except FileNotFoundError:
                    below = _make(fd, part, done, owner, mode)
                except NotADirectoryError:
                    raise Conflict(f"{done} is not a directory in the image") from None
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def copy(self, tree: Tree, source: Source, destination: str, how: Attributes) -> None:
        """Copy one source to exactly `destination`: a directory's content into it, a file as it."""
        if source.is_dir:
            self._copy_directory(tree, source, destination, how)
            return
        parent, name = posixpath.split(destination.rstrip("/"))
        if not name:
            raise Conflict(f"a file cannot take the place of {destination}")
        fd = self.directory(parent, how.owner)
        try:
            self._copy_entry(tree, source.entries[0], fd, name, how)
        finally:
            os.close(fd)

    def _copy_directory(self, tree: Tree, source: Source, destination: str, how: Attributes) -> None:
        top = source.entries[0]
        created = not self.is_dir(destination)
        fd = self.directory(destination, how.owner)
        # (relative path, descriptor, entry or None when the directory was there before)
        stack: list[tuple[str, int, Entry | None]] = [("", fd, top if created else None)]
        try:
            for entry in source.entries[1:]:
                parent = posixpath.dirname(entry.path)
                while stack[-1][0] != parent:
                    _leave(stack.pop(), tree, how)
                name = posixpath.basename(entry.path)
                if not entry.is_dir:
                    self._copy_entry(tree, entry, stack[-1][1], name, how)
                    continue
                stack.append((entry.path, *self._enter(stack[-1][1], name, entry, destination)))
            while stack:
                _leave(stack.pop(), tree, how)
        finally:
            for _, descriptor, _entry in stack:
                os.close(descriptor)

    def _enter(self, parent: int, name: str, entry: Entry, destination: str) -> tuple[int, Entry | None]:
        """Open or make a directory of a copied tree.

        A symlink to a directory in the image is followed, below the root: /lib is one in every merged-/usr
        system.
        """
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            try:
                return files.open_in_root(self.fd, f"{destination}/{entry.path}", _DIR), None
            except (NotADirectoryError, FileNotFoundError):
                raise Conflict(f'"{entry.path}" is a directory in the source and none in the image') from None
        return os.open(name, _DIR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent), entry

    def _copy_entry(self, tree: Tree, entry: Entry, parent: int, name: str, how: Attributes) -> None:
        """Anything but a directory; what has the name goes away first, unless it is a directory."""
        self._check()
        make = self._copy_file if stat.S_ISREG(entry.info.st_mode) else _copy_special
        try:
            make(tree, entry, parent, name, how)
        except FileExistsError:
            _clear(parent, name, tree.name)
            make(tree, entry, parent, name, how)

    def _copy_file(self, tree: Tree, entry: Entry, parent: int, name: str, how: Attributes) -> None:
        info = entry.info
        source = tree.open(entry)
        try:
            target = os.open(name, _NEW, 0o600, dir_fd=parent)
            try:
                files.copy_data(source, target)
                # The cache key speaks of the file as it was listed.
                if _stamp(os.fstat(source)) != _stamp(info):
                    raise Conflict(f'"{entry.at}" changed while it was copied', hint="Build again.")
                os.fchown(target, *_owner(tree, info, how))
                os.fchmod(target, stat.S_IMODE(how.mode(info.st_mode)))
                if tree.keeps_owner:
                    for key, value in xattrs(source).items():
                        os.setxattr(target, key, value)
                os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def write(self, path: str, data: bytes, owner: tuple[int, int], mode: int, mtime_ns: int) -> None:
        """A file with this content (a here-document of COPY)."""
        parent, name = posixpath.split(path)
        fd = self.directory(parent, owner)
        try:
            _clear(fd, name, "the Dockerfile")
            target = os.open(name, _NEW, 0o600, dir_fd=fd)
            with open(target, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchown(target, *owner)
                os.fchmod(target, mode)
                os.utime(target, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    def unpack(self, tree: Tree, entry: Entry, destination: str, owner: tuple[int, int] | None) -> None:
        """Unpack an archive below `destination`, which is made where it is missing."""
        fd = self.directory(destination, owner)
        try:
            source = tree.open(entry)
            with open(source, "rb") as stream:
                apply.apply(
                    fd, _Watched(archive.decompressed(stream), self._check), apply.Options(owner=owner)
                )
        finally:
            os.close(fd)


def _make(parent: int, name: str, path: str, owner: tuple[int, int] | None, mode: int) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        raise Conflict(f"{path} is a symlink to nothing in the image") from None
    os.chown(name, *(owner or (0, 0)), dir_fd=parent, follow_symlinks=False)
    os.chmod(name, mode, dir_fd=parent)  # mkdir(2) obeys the umask; a fresh directory is no symlink
    return os.open(name, _DIR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _copy_special(tree: Tree, entry: Entry, parent: int, name: str, how: Attributes) -> None:
    """A symlink, FIFO or device node."""
    info = entry.info
    link = stat.S_ISLNK(info.st_mode)
    if link:
        os.symlink(entry.link, name, dir_fd=parent)
    else:
        os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=parent)
    os.chown(name, *_owner(tree, info, how), dir_fd=parent, follow_symlinks=False)
    if not link:
        os.chmod(name, stat.S_IMODE(how.mode(info.st_mode)), dir_fd=parent)
    os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=parent, follow_symlinks=False)


def _clear(parent: int, name: str, source: str) -> None:
    """Make room for a file; a directory is not removed for it."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise Conflict(f'"{name}" is a directory in the image and a file in {source}') from None


def _stamp(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_size, info.st_mtime_ns, info.st_ino


def _leave(item: tuple[str, int, Entry | None], tree: Tree, how: Attributes) -> None:
    """Close a directory, giving one that was made its owner, mode and time after the last thing was put into
    it.
    """
    _, fd, entry = item
    try:
        if entry is not None:
            os.fchown(fd, *_owner(tree, entry.info, how))
            os.fchmod(fd, stat.S_IMODE(how.mode(entry.info.st_mode)))
            os.utime(fd, ns=(entry.info.st_mtime_ns, entry.info.st_mtime_ns))
    finally:
        os.close(fd)


def _owner(tree: Tree, info: os.stat_result, how: Attributes) -> tuple[int, int]:
    if how.owner is not None:
        return how.owner
    return (info.st_uid, info.st_gid) if tree.keeps_owner else (0, 0)


class _Watched:
    """A stream that stops when the build is cancelled."""

    def __init__(self, stream: Readable, check: Callable[[], None]) -> None:
        self._stream = stream
        self._check = check

    def read(self, size: int, /) -> bytes:
        self._check()
        return self._stream.read(size)


def is_archive(tree: Tree, entry: Entry) -> bool:
    """Whether ADD unpacks this file: a tar, plain or compressed with gzip, bzip2, xz or zstd, told by its
    content.
    """
    if not stat.S_ISREG(entry.info.st_mode):
        return False
    with open(tree.open(entry), "rb") as stream:
        if entry.info.st_size < 64:
            return False
        try:
            head = archive.decompressed(stream)
            block = b""
            while len(block) < 512 and (more := head.read(512 - len(block))):
                block += more
        except LadingError:
            return False
    return len(block) == 512 and _checksum(block)


def _checksum(block: bytes) -> bool:
    """Whether a tar header's checksum is right, in signed or unsigned arithmetic (pax(1), "ustar Interchange
    Format").
    """
    try:
        wanted = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return wanted in (sum(rest), sum(b - 256 if b > 127 else b for b in rest))


def full_disk(error: OSError, what: str) -> LadingError:
    """An OSError on the way into a layer, in the words of the house."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            what, why="The disk is full.", hint="Free space, for example with lading builder prune."
        )
    if error.errno == errno.ELOOP:
        return Invalid(what, why="A path in the image goes through too many symlinks.")
    if error.errno == errno.EINVAL and not identity.host_root():
        hint = "The owner may be past the ids of this user namespace: /etc/subuid and /etc/subgid give more."
        return Invalid(what, why=f"{error.strerror}.", hint=hint)
    return Invalid(what, why=f"{error.strerror or error}.")
