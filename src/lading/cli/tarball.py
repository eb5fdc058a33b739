"""Local files to a tar stream and back, for `cp`. Owns the safety of unpacking: a container's archive is hostile.

No entry lands outside the target: names are walked one component at a time from a directory descriptor, never through
a symbolic link, and `..` is refused. Memory does not grow with the files.
"""

from __future__ import annotations

import os
import stat
import tarfile

from lading.base.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PIECE = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Placed:
    """Where an archive is unpacked in a container, and what its first entry is called."""

    __slots__ = ("directory", "name")

    def __init__(self, directory: str, name: str) -> None:
        self.directory, self.name = directory, name


class pack:
    """Iterate over the tar of `path`, whose own entry is called `name`. `size` counts the files' bytes so far."""

    def __init__(self, path: str, name: str, *, follow: bool, keep_owner: bool) -> None:
        self.size = 0
        self._path, self._name = path, name
        self._follow, self._keep_owner = follow, keep_owner
        self._seen: dict[tuple[int, int], str] = {}

    def __iter__(self) -> Iterator[bytes]:
        start = os.path.realpath(self._path) if self._follow else self._path
        yield from self._entry(start, self._name)
        yield bytes(1024)

    def _entry(self, path: str, name: str) -> Iterator[bytes]:
        info = os.lstat(path)
        owner = (info.st_uid, info.st_gid) if self._keep_owner else (0, 0)
        if stat.S_ISREG(info.st_mode):
            first = self._seen.setdefault((info.st_dev, info.st_ino), name) if info.st_nlink > 1 else name
            if first == name:
                self.size += info.st_size
                yield from file_member(path, name, info, owner)
                return
            member = node_member(path, name, info, owner)
            member.type, member.linkname = tarfile.LNKTYPE, first
            yield head(member)
        elif not stat.S_ISSOCK(info.st_mode):  # tar has no sockets
            yield head(node_member(path, name, info, owner))
        if stat.S_ISDIR(info.st_mode):
            for child in sorted(os.listdir(path)):
                yield from self._entry(os.path.join(path, child), f"{name}/{child}")


_KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def node_member(
    path: str, name: str, info: os.stat_result, owner: tuple[int, int] = (0, 0)
) -> tarfile.TarInfo:
    """The header of anything without content, and the start of a regular file's."""
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(info.st_mode)
    member.mtime = int(info.st_mtime)
    member.uid, member.gid = owner
    member.type = _KINDS.get(stat.S_IFMT(info.st_mode), tarfile.REGTYPE)
    if stat.S_ISLNK(info.st_mode):
        member.linkname = os.readlink(path)
    elif member.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    return member


def file_member(
    path: str, name: str, info: os.stat_result, owner: tuple[int, int] = (0, 0)
) -> Iterator[bytes]:
    """A regular file: header, content, padding."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        member = node_member(path, name, info, owner)
        left = member.size = os.fstat(fd).st_size
        yield head(member)
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:  # it shrank while it was read: the header's promise is kept with zeros
                data = bytes(min(left, _PIECE))
            left -= len(data)
            yield data
        yield bytes(-member.size % 512)
    finally:
        os.close(fd)


def head(member: tarfile.TarInfo) -> bytes:
    """A member's header blocks; pax where a name or number needs it."""
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Reader:
    """A stream of pieces as the file that tarfile reads."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            if not self._rest:
                self._rest = next(self._pieces, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:left], self._rest[left:]
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def unpack(pieces: Iterable[bytes], root: str, *, keep_owner: bool, complain: Callable[[str], None]) -> int:
    """Unpack so that the archive's first entry becomes `root`; the bytes of its files."""
    total = 0
    parent = os.open(os.path.dirname(root) or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(fileobj=_Reader(pieces), mode="r|") as archive:  # type: ignore[call-overload]
            times: list[tuple[list[str], tarfile.TarInfo]] = []
            for member in archive:
                names = _names(member.name, os.path.basename(root))
                total += member.size if member.isreg() else 0
                _one(archive, member, parent, names, os.path.basename(root), keep_owner, complain)
                if member.isdir():
                    times.append((names, member))
            for names, member in reversed(times):  # children change a directory's time: last
                _finish_directory(parent, names, member)
    except tarfile.TarError as error:
        raise Invalid("the archive from the container is broken", why=f"{error}.") from None
    finally:
        os.close(parent)
    return total


def _names(name: str, root: str) -> list[str]:
    """The entry's path as components, its first one (the source's own name) replaced by `root`."""
    parts = [part for part in name.split("/") if part]
    inner = parts[1:] if parts else []
    inner = [part for part in inner if part != "."]
    if ".." in inner or any("\0" in part for part in inner):
        raise Invalid("the archive from the container names a path outside itself", why=f"{name!r}.")
    return [root, *inner] if root else inner


def _walk(parent: int, names: list[str]) -> int:
    """A descriptor of the directory `names` below `parent`; missing ones are made."""
    fd = os.dup(parent)
    try:
        for name in names:
            try:
                below = os.open(name, _DIRECTORY, dir_fd=fd)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=fd)
                below = os.open(name, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def _one(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    parent: int,
    names: list[str],
    root: str,
    keep_owner: bool,
    complain: Callable[[str], None],
) -> None:
    if not names:
        return
    base = names[-1]
    # The user's own target may be reached through a link; nothing below it may.
    home = os.dup(parent) if len(names) == 1 else _walk_root(parent, names[:-1])
    try:
        if member.isdir():
            _directory(home, base)
            return
        if not (member.isreg() or member.issym() or member.islnk() or member.isfifo()):
            complain(f"warning: {member.name} is a device and was left out")
            return
        try:
            os.unlink(base, dir_fd=home)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise Invalid(f"cannot overwrite directory {'/'.join(names)!r} with a file") from None
        if member.isreg():
            _regular(archive, member, home, base)
        elif member.issym():
            os.symlink(member.linkname, base, dir_fd=home)
        elif member.isfifo():
            os.mkfifo(base, member.mode & 0o777, dir_fd=home)
        else:
            target = _names(member.linkname, root)
            other = os.dup(parent) if len(target) == 1 else _walk_root(parent, target[:-1])
            try:
                os.link(target[-1], base, src_dir_fd=other, dst_dir_fd=home, follow_symlinks=False)
            finally:
                os.close(other)
        if keep_owner:
            os.chown(base, member.uid, member.gid, dir_fd=home, follow_symlinks=False)
    finally:
        os.close(home)


def _walk_root(parent: int, names: list[str]) -> int:
    first = os.open(names[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        return _walk(first, names[1:])
    finally:
        os.close(first)


def _directory(home: int, base: str) -> None:
    try:
        os.mkdir(base, 0o755, dir_fd=home)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(base, dir_fd=home, follow_symlinks=True).st_mode):
            raise Invalid(f"cannot overwrite {base!r} with a directory") from None


def _regular(archive: tarfile.TarFile, member: tarfile.TarInfo, home: int, base: str) -> None:
    fd = os.open(
        base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=home
    )
    try:
        source = archive.extractfile(member)
        while source is not None and (data := source.read(_PIECE)):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        # The set-id bits were the container's user's; here the file is somebody else's.
        os.fchmod(fd, member.mode & 0o777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)


def _finish_directory(parent: int, names: list[str], member: tarfile.TarInfo) -> None:
    if not names:
        return
    try:
        fd = _walk_root(parent, names)
    except OSError:
        return
    try:
        os.fchmod(fd, member.mode & 0o777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)
