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
from dataclasses import dataclass
from typing import Literal

from lading.base import errors
from lading.image.layer import header as headers
from lading.image.layer import reader, whiteout
from lading.image.layer.header import Header
from lading.image.layer.parents import Base, Parents
from lading.linux import files, identity

Whiteouts = Literal["overlay", "delete", "plain"]
"""`overlay`: into an upper directory, as overlayfs marks; `delete`: into a full tree, by deleting; `plain`:
no meaning."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    base: Base | None = None
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
    if error.errno == errno.EINVAL and not identity.host_root():
        hint = "Its owner may be past the ids of this user namespace: /etc/subuid and /etc/subgid give more."
        return errors.Invalid(what, why=why, hint=hint)
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
        self._times: dict[bytes, int] = {}
        self._made: set[bytes] = set()  # for opaque marks in a full tree: what this archive itself put there
        # Whoever is all the identities there are can give files to nobody: they stay their own.
        self._chown = options.keep_owner and os.geteuid() == 0 and not identity.single()
        self._owner = options.owner
        self._parents = Parents(root, options.base, self._times, chown=self._chown)
        self._tracking = options.whiteouts == "delete"

    def close(self) -> None:
        self._parents.close()

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

    # --- members by type ---

    def _file(self, parent: int, base: bytes, header: Header) -> None:
        try:
            fd = os.open(base, _NEW, header.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._parents.clear(parent, base)
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
                self._parents.clear(parent, base)
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
            self._parents.clear(parent, base)
            os.symlink(header.linkname, base, dir_fd=parent)
        self._bare_attributes(parent, base, header)

    def _link(self, parent: int, base: bytes, header: Header) -> None:
        """A hard link, to a file of this archive or, over a base tree, to a copy of the file there."""
        parts = components(header.linkname)
        if not parts:
            raise errors.Invalid(f"archive member {os.fsdecode(header.name)[:200]!r} links to nothing")
        target = parts.pop()
        directory = b"/".join(parts)
        other = self._parents.existing(directory)
        try:
            try:
                st = os.stat(target, dir_fd=other, follow_symlinks=False)
            except FileNotFoundError:
                self._parents.copy_up(other, target, b"/".join([*parts, target]))
                st = os.stat(target, dir_fd=other, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                raise errors.Invalid(
                    f"archive member {os.fsdecode(header.name)[:200]!r} is a hard link to a directory"
                )
            here = _lstat(parent, base)
            if here is not None and (here.st_dev, here.st_ino) == (st.st_dev, st.st_ino):
                return
            if here is not None:
                self._parents.clear(parent, base)
            os.link(target, base, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(other)

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
        self._parents.clear(parent, base)
        try:
            os.mknod(
                base, kind | (header.mode & 0o7777), os.makedev(header.major, header.minor), dir_fd=parent
            )
        except PermissionError:
            if identity.host_root():
                raise
            return  # no device can be made in a user namespace; containers get theirs from the runtime
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
        self._parents.clear(parent, name)
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
                self._parents.clear(parent, raw)

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
        self._parents.close()
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
