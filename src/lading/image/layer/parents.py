"""The directories that members of an archive land in: opened, kept open, and made where the archive left them
out.

Owns every path resolution of unpacking; all of it happens below one descriptor. Over a base tree (the layers
below an upper directory) a missing parent is made as it is there, so that a layer without its parents neither
changes their attributes nor hides a symlink such as `/lib -> usr/lib`.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable

from lading.linux import files

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 128
_LINKS = 40  # path_resolution(7)

Base = Callable[[], int]
"""Gives a descriptor of the tree below an upper directory; called only when it is needed."""


class Parents:
    """Open directories below `root`, by the path the archive used. `times` collects what is to be set at the
    end."""

    def __init__(self, root: int, base: Base | None, times: dict[bytes, int], *, chown: bool) -> None:
        self._root = root
        self._base = base
        self._times = times
        self._chown = chown
        self._open: dict[bytes, int] = {}

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def get(self, directory: bytes) -> int:
        """A descriptor that stays this object's; kept, since siblings follow one another in archives."""
        known = self._open.get(directory)
        if known is not None:
            return known
        try:
            fd = self._resolve(directory)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make(directory, 0)
        if len(self._open) >= _KEPT:
            self.close()
        self._open[directory] = fd
        return fd

    def existing(self, directory: bytes) -> int:
        """A descriptor for the caller to close: of the target of a hard link, which must be there or in the
        base."""
        try:
            return self._resolve(directory)
        except FileNotFoundError:
            if self._base is None:
                raise
            return self._make(directory, 0)

    def _resolve(self, directory: bytes) -> int:
        return files.open_in_root(self._root, directory or b".", _DIR)

    def _make(self, directory: bytes, links: int) -> int:
        """Make what is missing of `directory`, or in the way, from the top down; gives a descriptor of the
        last."""
        fd = os.dup(self._root)
        try:
            path = b""
            for part in directory.split(b"/"):
                path = path + b"/" + part if path else part
                try:
                    below = self._resolve(path)
                except (FileNotFoundError, NotADirectoryError):
                    self.clear(fd, part)
                    below = self._make_one(fd, part, path, links)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _make_one(self, parent: int, part: bytes, path: bytes, links: int) -> int:
        """Make the directory, or the symlink to one that the base has in its place."""
        target = self._base_link(path) if links < _LINKS else None
        if target is not None:
            os.symlink(target, part, dir_fd=parent)
            real = posixpath.normpath(posixpath.join(b"/", posixpath.dirname(path), target)).lstrip(b"/")
            return self._make(real, links + 1) if real else self._resolve(b"")
        os.mkdir(part, 0o755, dir_fd=parent)
        fd = os.open(part, _DIR | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchmod(fd, 0o755)  # mkdir(2) obeys the umask
            self._adopt(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _base_link(self, path: bytes) -> bytes | None:
        """What the symlink at `path` in the base says, when it leads to a directory there."""
        if self._base is None:
            return None
        base = self._base()
        above, _, name = path.rpartition(b"/")
        try:
            os.close(files.open_in_root(base, path, _DIR))
            parent = files.open_in_root(base, above or b".", _DIR)
        except OSError:
            return None
        try:
            return os.readlink(name, dir_fd=parent)
        except OSError:
            return None
        finally:
            os.close(parent)

    def _adopt(self, fd: int, path: bytes) -> None:
        """Give a made directory the attributes it has in the base, if it is there."""
        if self._base is None:
            return
        try:
            below = files.open_in_root(self._base(), path, _DIR)
        except OSError:
            return
        try:
            st = os.fstat(below)
            files.copy_attributes(below, fd, st, chown=self._chown)
            self._times[path] = st.st_mtime_ns
        finally:
            os.close(below)

    def copy_up(self, parent: int, base: bytes, path: bytes) -> None:
        """Bring the regular file `path` of the base tree into `parent`, so that it can be linked to."""
        if self._base is None:
            raise FileNotFoundError(errno.ENOENT, "the link's target does not exist", path)
        source = files.open_in_root(self._base(), path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
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

    def clear(self, parent: int, base: bytes) -> None:
        """Remove whatever has the name `base` in `parent`, a directory with all that is in it."""
        try:
            os.unlink(base, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            files.remove_tree(parent, base)
        # Another kept directory may have been inside, or have been reached through the symlink that went
        # away.
        for directory, fd in list(self._open.items()):
            if fd != parent:
                os.close(fd)
                del self._open[directory]
