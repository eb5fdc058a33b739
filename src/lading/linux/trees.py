"""Whole trees by descriptor: copying one into another. Follows no symlink and keeps owners, modes, times,
hard links.

Removal is `files.remove_tree`; packing and unpacking are the image room's.
"""

from __future__ import annotations

import errno
import os
import stat

from lading.linux import files

MAX_DEPTH = 256
"""Directories inside one another that lading follows. A hostile container can make them deeper than any path
can say; real trees stay far below."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy(source: int, target: int, *, chown: bool) -> None:
    """Copy what is in the directory `source`, and its own attributes, into the empty directory `target`.

    Sockets are left out. `chown` False, for those who are not root, leaves new files to the caller.
    """
    _copy(source, target, chown, {}, target, "")


def check_depth(path: str | bytes) -> None:
    """OSError(ENAMETOOLONG) where `path`, relative to the tree, is deeper than MAX_DEPTH."""
    if (path.count("/") if isinstance(path, str) else path.count(b"/")) > MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, f"directories are nested deeper than {MAX_DEPTH} levels")


def _copy(
    source: int, target: int, chown: bool, links: dict[tuple[int, int], str], top: int, above: str
) -> None:
    check_depth(above)
    with os.scandir(source) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    for name, st in found:
        path = f"{above}{name}"
        if stat.S_ISDIR(st.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner = os.open(name, _DIR, dir_fd=source)
            try:
                outer = os.open(name, _DIR, dir_fd=target)
                try:
                    _copy(inner, outer, chown, links, top, f"{path}/")
                finally:
                    os.close(outer)
            finally:
                os.close(inner)
            continue
        if st.st_nlink > 1:
            first = links.setdefault((st.st_dev, st.st_ino), path)
            if first != path:
                os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
                continue
        _copy_one(source, target, name, st, chown)
    st = os.fstat(source)
    files.copy_attributes(source, target, st, chown=chown)
    os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))


def _copy_one(source: int, target: int, name: str, st: os.stat_result, chown: bool) -> None:
    mode = st.st_mode
    times = (st.st_atime_ns, st.st_mtime_ns)
    if stat.S_ISREG(mode):
        inner = os.open(name, _READ, dir_fd=source)
        try:
            outer = os.open(name, _NEW, 0o600, dir_fd=target)
            try:
                files.copy_data(inner, outer)
                files.copy_attributes(inner, outer, st, chown=chown)
                os.utime(outer, ns=times)
            finally:
                os.close(outer)
        finally:
            os.close(inner)
        return
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode):
        os.mknod(name, mode, st.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(mode), dir_fd=target)  # mknod(2) obeys the umask
    else:
        return
    if chown:
        os.chown(name, st.st_uid, st.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def usage(fd: int) -> tuple[int, int]:
    """Bytes on disk and inodes of the tree below `fd`, itself included; hard links count once.

    What lies deeper than MAX_DEPTH is not counted, and what vanishes meanwhile is passed over.
    """
    st = os.fstat(fd)
    size, inodes = _usage(fd, 0, set())
    return size + st.st_blocks * 512, inodes + 1


def _usage(fd: int, depth: int, seen: set[tuple[int, int]]) -> tuple[int, int]:
    size = inodes = 0
    with os.scandir(fd) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                if depth < MAX_DEPTH:
                    child = os.open(name, _DIR, dir_fd=fd)
                    try:
                        below = _usage(child, depth + 1, seen)
                    finally:
                        os.close(child)
                    size, inodes = size + below[0], inodes + below[1]
            elif st.st_nlink > 1:
                if (st.st_dev, st.st_ino) in seen:
                    continue
                seen.add((st.st_dev, st.st_ino))
        except (FileNotFoundError, NotADirectoryError):
            continue
        size += st.st_blocks * 512
        inodes += 1
    return size, inodes
