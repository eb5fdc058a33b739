"""Unpacking a tar stream into a directory. Owns where members may land; never follows a path out of the
directory.

Every path is resolved by the kernel below the target directory's descriptor, as if that were the root
(openat2(2), RESOLVE_IN_ROOT), so neither `..`, an absolute name, nor a symlink made by an earlier member
leads outside. The last component is never followed. A later member of the same name replaces the earlier one,
as tar(1) does.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lading.base import errors
from lading.image.layer import header as headers
from lading.image.layer import reader, whiteout
from lading.image.layer.header import Header
from lading.linux import files

Whiteouts = Literal["overlay", "delete", "plain"]
"""`overlay`: into an upper directory, as overlayfs marks; `delete`: into a full tree, by deleting; `plain`:
no meaning."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_PARENTS = 128


@dataclass(frozen=True, slots=True)
class Options:
    """How to unpack. `owner` overrides every uid and gid; `keep_owner` False leaves new files to the
    caller."""

    whiteouts: Whiteouts = "plain"
    owner: tuple[int, int] | None = None
    keep_owner: bool = True
    devices: bool = False
    xattrs: bool = True
    limits: reader.Limits = reader.DEFAULT
    base: Callable[[], int] | None = None
    """Gives a descriptor of the tree below an upper directory, for members whose parents are only there."""


def apply(root: int, source: reader.Source, options: Options = Options()) -> int:
    """Unpack `source` into the directory `root`; gives the number of members.

    Raises Invalid for a hostile or damaged archive, Unavailable when the disk is full, Denied where the
    kernel forbids. What was unpacked before the error stays: the caller throws the directory away.
    """
    stream = reader.Reader(source, options.limits)
    applier = _Applier(root, stream, options)
    count = 0
    name = b""
    try:
        for header in stream:
            name = header.name
            applier.member(header)
            count += 1
        applier.finish()
        stream.drain()
    except OSError as error:
        raise _translate(error, name) from error
    finally:
        applier.close()
    return count


def _translate(error: OSError, name: bytes) -> errors.LadingError:
    what = f"archive member {os.fsdecode(name)[:200]!r} cannot be unpacked"
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.Unavailable(
            what, why=why, hint="Free disk space, for example with `lading system prune`."
        )
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return errors.Denied(what, why=why)
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM):
        return errors.Unavailable(what, why=why)
    return errors.Invalid(what, why=why)


def components(name: bytes) -> list[bytes]:
    """The parts of a member's name below the target; Invalid when one is `..`."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise errors.Invalid(f"archive member {os.fsdecode(name)[:200]!r} leads out of the directory")
    return parts


class _Applier:
    """The state of one unpacking: open parents, directory times still to be set."""

    def __init__(self, root: int, stream: reader.Reader, options: Options) -> None:
        self._root = root
        self._stream = stream
        self._options = options
        self._parents: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        self._made: set[bytes] = set()  # for opaque marks in a full tree: what this archive itself put there
        self._chown = options.keep_owner and os.geteuid() == 0
        self._owner = options.owner
        self._tracking = options.whiteouts == "delete"

    def close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def member(self, header: Header) -> None:
        parts = components(header.name)
        if not parts:
            if header.type == headers.DIRECTORY:
                self._attributes(self._root, header)
                self._times[b""] = header.mtime_ns
            return
        base = parts.pop()
        directory = b"/".join(parts)
        parent = self._parents.get(directory)
        if parent is None:
            parent = self._parent(directory)
        if self._options.whiteouts != "plain" and base.startswith(whiteout.PREFIX):
            self._whiteout(parent, directory, base)
            return
        path = directory + b"/" + base if directory else base
        if self._tracking:
            self._made.add(path)
        kind = header.type
        if kind == headers.REGULAR:
            self._file(parent, base, header)
        elif kind == headers.DIRECTORY:
            self._directory(parent, base, path, header)
        elif kind == headers.SYMLINK:
            self._symlink(parent, base, header)
        elif kind == headers.HARD_LINK:
            self._link(parent, base, header)
        else:
            self._node(parent, base, header)

    # --- where a member lands ---

    def _parent(self, directory: bytes) -> int:
        """A descriptor of the parent, made where missing; kept open, since siblings follow one another in
        archives."""
        try:
            fd = files.open_in_root(self._root, directory or b".", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            fd = self._make_parents(directory)
        except NotADirectoryError:
            fd = self._make_parents(directory, replace=True)
        if len(self._parents) >= _OPEN_PARENTS:
            self._forget()
        self._parents[directory] = fd
        return fd

    def _make_parents(self, directory: bytes, *, replace: bool = False) -> int:
        """Make what is missing of a path the archive did not list, with the attributes the tree below gives
        it."""
        fd = os.dup(self._root)
        try:
            done: list[bytes] = []
            for part in directory.split(b"/"):
                done.append(part)
                path = b"/".join(done)
                try:
                    below = files.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
                except (FileNotFoundError, NotADirectoryError) as error:
                    if isinstance(error, NotADirectoryError) and not replace:
                        raise
                    self._clear(fd, part)
                    below = self._adopt(fd, part, path)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _adopt(self, parent: int, part: bytes, path: bytes) -> int:
        """Make one missing directory. Over a base tree it copies that directory's owner, mode and time."""
        os.mkdir(part, 0o755, dir_fd=parent)
        fd = os.open(part, _DIR, dir_fd=parent)
        os.fchmod(fd, 0o755)
        below = self._below(path)
        if below is not None:
            try:
                st = os.fstat(below)
                files.copy_attributes(below, fd, st, chown=self._chown)
                self._times[path] = st.st_mtime_ns
            finally:
                os.close(below)
        return fd

    def _below(self, path: bytes) -> int | None:
        if self._options.base is None:
            return None
        try:
            return files.open_in_root(self._options.base(), path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None

    def _clear(self, parent: int, base: bytes) -> None:
        """Remove whatever has the name, a directory with all that is in it."""
        try:
            os.unlink(base, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            files.remove_tree(parent, base)
        # A cached parent may have been inside, or may have been reached through the symlink that went away.
        self._forget_below(parent)

    def _forget_below(self, keep: int) -> None:
        """Close the cached parents except `keep`, which is in use."""
        for directory, fd in list(self._parents.items()):
            if fd != keep:
                os.close(fd)
                del self._parents[directory]

    # --- members by type ---

    def _file(self, parent: int, base: bytes, header: Header) -> None:
        try:
            fd = os.open(base, _NEW, header.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, base)
            fd = os.open(base, _NEW, header.mode & 0o777, dir_fd=parent)
        try:
            self._stream.copy_to(fd)
            self._attributes(fd, header)
            os.utime(fd, ns=(header.mtime_ns, header.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, parent: int, base: bytes, path: bytes, header: Header) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            if not _is_dir(parent, base):
                self._clear(parent, base)
                os.mkdir(base, 0o700, dir_fd=parent)
        fd = os.open(base, _DIR, dir_fd=parent)
        try:
            self._attributes(fd, header)
        finally:
            os.close(fd)
        self._times[path] = header.mtime_ns

    def _symlink(self, parent: int, base: bytes, header: Header) -> None:
        if not header.linkname:
            raise errors.Invalid(f"archive member {os.fsdecode(header.name)[:200]!r} is a symlink to nothing")
        try:
            os.symlink(header.linkname, base, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, base)
            os.symlink(header.linkname, base, dir_fd=parent)
        self._bare_attributes(parent, base, header)

    def _link(self, parent: int, base: bytes, header: Header) -> None:
        """A hard link, to a file of this archive or, over a base tree, to a copy of the file there."""
        parts = components(header.linkname)
        if not parts:
            raise errors.Invalid(f"archive member {os.fsdecode(header.name)[:200]!r} links to nothing")
        target = parts.pop()
        directory = b"/".join(parts)
        other = self._parent_for_link(directory)
        try:
            try:
                st = os.stat(target, dir_fd=other, follow_symlinks=False)
            except FileNotFoundError:
                self._copy_up(other, target, b"/".join([*parts, target]))
                st = os.stat(target, dir_fd=other, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                raise errors.Invalid(
                    f"archive member {os.fsdecode(header.name)[:200]!r} is a hard link to a directory"
                )
            here = _lstat(parent, base)
            if here is not None and (here.st_dev, here.st_ino) == (st.st_dev, st.st_ino):
                return
            if here is not None:
                self._clear(parent, base)
            os.link(target, base, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(other)

    def _parent_for_link(self, directory: bytes) -> int:
        try:
            return files.open_in_root(self._root, directory or b".", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if self._options.base is None:
                raise
            return self._make_parents(directory)

    def _copy_up(self, parent: int, base: bytes, path: bytes) -> None:
        """Bring a regular file of the base tree into the upper directory, so that it can be linked to."""
        if self._options.base is None:
            raise FileNotFoundError(errno.ENOENT, "the link's target does not exist", path)
        source = files.open_in_root(self._options.base(), path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            st = os.fstat(source)
            if not stat.S_ISREG(st.st_mode):
                raise FileNotFoundError(errno.ENOENT, "the link's target is no regular file", path)
            copy = os.open(base, _NEW, 0o600, dir_fd=parent)
            try:
                files.copy_data(source, copy)
                files.copy_attributes(source, copy, st, chown=self._chown)
                os.utime(copy, ns=(st.st_atime_ns, st.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def _node(self, parent: int, base: bytes, header: Header) -> None:
        kinds = {
            headers.CHARACTER: stat.S_IFCHR,
            headers.BLOCK_DEVICE: stat.S_IFBLK,
            headers.FIFO: stat.S_IFIFO,
        }
        kind = kinds[header.type]
        if kind != stat.S_IFIFO:
            if not self._options.devices:
                raise errors.Denied(f"archive member {os.fsdecode(header.name)[:200]!r} is a device node")
            if header.major >= 1 << 12 or header.minor >= 1 << 20:
                raise errors.Invalid(
                    f"archive member {os.fsdecode(header.name)[:200]!r} has an impossible device number"
                )
            if kind == stat.S_IFCHR and header.major == header.minor == 0:
                raise errors.Invalid(
                    f"archive member {os.fsdecode(header.name)[:200]!r} is a raw overlayfs whiteout"
                )
        self._clear(parent, base)
        os.mknod(base, kind | (header.mode & 0o7777), os.makedev(header.major, header.minor), dir_fd=parent)
        self._bare_attributes(parent, base, header)
        os.chmod(base, header.mode, dir_fd=parent)  # mknod(2) obeys the umask; a fresh node is no symlink

    def _whiteout(self, parent: int, directory: bytes, base: bytes) -> None:
        if base == whiteout.OPAQUE:
            if self._options.whiteouts == "overlay":
                files.set_opaque(parent)
            else:
                self._empty(parent, directory)
            return
        if base.startswith(whiteout.RESERVED):
            return
        name = base[len(whiteout.PREFIX) :]
        if name in (b"", b".", b".."):
            raise errors.Invalid(f"archive holds the senseless whiteout {os.fsdecode(base)!r}")
        self._clear(parent, name)
        if self._options.whiteouts == "overlay":
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _empty(self, parent: int, directory: bytes) -> None:
        """Delete what lower layers put into a directory; what this archive put there stays, wherever the mark
        comes."""
        prefix = directory + b"/" if directory else b""
        for name in os.listdir(parent):
            raw = os.fsencode(name)
            path = prefix + raw
            if path not in self._made and not any(made.startswith(path + b"/") for made in self._made):
                self._clear(parent, raw)

    # --- attributes ---

    def _attributes(self, fd: int, header: Header) -> None:
        """Owner first, since chown(2) clears set-user-ID and file capabilities; then mode, then extended
        attributes."""
        if self._chown:
            uid, gid = self._owner or (header.uid, header.gid)
            os.fchown(fd, uid, gid)
        os.fchmod(fd, header.mode)
        if header.xattrs and self._options.xattrs:
            for name, value in header.xattrs.items():
                self._xattr(fd, name, value)

    def _xattr(self, fd: int, name: bytes, value: bytes) -> None:
        if whiteout.is_private(name) or b"\0" in name or name in whiteout.HOST_XATTRS:
            return
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            # A file system without extended attributes, or a name it does not allow, stops no other engine
            # either; a capability that root cannot set would change what the program may do, so that is
            # reported.
            lost = name == b"security.capability" and self._chown and error.errno != errno.ENOTSUP
            if lost or error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise

    def _bare_attributes(self, parent: int, base: bytes, header: Header) -> None:
        """Owner and time of something that cannot be opened: a symlink or a node."""
        if self._chown:
            uid, gid = self._owner or (header.uid, header.gid)
            os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
        os.utime(base, ns=(header.mtime_ns, header.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def finish(self) -> None:
        """Set the times of directories, which making things in them has changed."""
        self._forget()
        for path, ns in self._times.items():
            try:
                fd = files.open_in_root(self._root, path or b".", _DIR)
            except OSError:
                continue  # replaced or deleted by a later member
            try:
                os.utime(fd, ns=(ns, ns))
            finally:
                os.close(fd)


def _lstat(parent: int, base: bytes) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_dir(parent: int, base: bytes) -> bool:
    st = _lstat(parent, base)
    return st is not None and stat.S_ISDIR(st.st_mode)
