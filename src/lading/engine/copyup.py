"""Copying a tree between two directory descriptors, as a new volume is filled from the image.

Owns the walk: descriptor-relative, never following a link in either tree, keeping owners, modes, times, extended
attributes, hard links and holes' content. Device nodes are not copied. Never crosses out of the given directories.
"""

from __future__ import annotations

import errno
import os
import stat

_CHUNK = 1 << 20
_DEPTH = 512


def is_empty(directory: int) -> bool:
    """Whether a directory holds nothing."""
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def copy_tree(source: int, target: int) -> None:
    """Copy what is in the directory `source` into `target`, and the owner and mode of `source` itself."""
    _copy_folder(source, target, {}, 0, target, "")


def _copy_folder(
    source: int, target: int, linked: dict[tuple[int, int], str], depth: int, top: int, prefix: str
) -> None:
    if depth > _DEPTH:
        raise OSError(errno.ELOOP, "the image's directories are nested too deeply", prefix)
    for name in os.listdir(source):
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind, path = stat.S_IFMT(info.st_mode), prefix + name
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=source)
            try:
                made = os.open(name, flags, dir_fd=target)
                try:
                    _copy_folder(inner, made, linked, depth + 1, top, path + "/")
                finally:
                    os.close(made)
            finally:
                os.close(inner)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
            _set_times(name, info, target)
        elif kind == stat.S_IFREG:
            key = (info.st_dev, info.st_ino)
            first = linked.get(key)
            if first is not None:
                os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
            else:
                _copy_file(source, target, name)
                if info.st_nlink > 1:
                    linked[key] = path
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, 0o600, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
    _copy_metadata(source, target)


def _copy_file(source: int, target: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    read = os.open(name, flags, dir_fd=source)
    try:
        write = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
        )
        try:
            while True:
                try:
                    moved = os.copy_file_range(read, write, _CHUNK)
                except OSError as e:
                    if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                        raise
                    moved = 0
                if moved == 0:
                    break
            _copy_rest(read, write)
            _copy_metadata(read, write)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _copy_rest(read: int, write: int) -> None:
    """What copy_file_range(2) did not take, by read and write."""
    while data := os.read(read, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(write, view) :]


def _copy_metadata(source: int, target: int) -> None:
    """Owner first, since chown clears set-id bits and capabilities; then attributes, mode and times."""
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    try:
        names = os.listxattr(source)
    except OSError:
        names = []
    for name in names:
        if name.startswith("trusted.overlay."):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA):
                raise
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _set_times(name: str, info: os.stat_result, target: int) -> None:
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
