"""File system calls Python's os module lacks: openat2(2), renameat2(2), syncfs(2); trees and attributes by
descriptor.

Owns mechanics only: every function takes descriptors, and decides nothing about what is allowed where.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat

from lading.linux import calls

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` below `dirfd` as if `dirfd` were the root (openat2(2), Linux 5.6); returns a close-on-exec
    descriptor.

    Symlinks, absolute ones too, and `..` cannot leave `dirfd` under the default RESOLVE_IN_ROOT. The kernel
    may answer EAGAIN when a rename races with `..`; the call is repeated a bounded number of times.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    for attempt in range(64):
        fd = calls.syscall(calls.OPENAT2, dirfd, raw, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != 11 or attempt == 63:  # EAGAIN
            break
    return calls.check(fd, "openat2", path)


def renameat2(olddir: int, old: str | bytes, newdir: int, new: str | bytes, flags: int = 0) -> None:
    """renameat2(2): RENAME_NOREPLACE and RENAME_EXCHANGE."""
    calls.check(
        calls.libc.renameat2(olddir, os.fsencode(old), newdir, os.fsencode(new), flags), "renameat2", new
    )


def syncfs(fd: int) -> None:
    """Write the whole file system that holds `fd` to disk (syncfs(2))."""
    calls.check(calls.libc.syncfs(fd), "syncfs")


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range to disk without waiting (sync_file_range(2),
    SYNC_FILE_RANGE_WRITE).

    Only a hint for speed: file systems that do not know it are left alone.
    """
    calls.libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(2))


def open_in_root(root: int, path: str | bytes, flags: int) -> int:
    """Open `path` as if the directory `root` were `/`: by openat2(2), or component by component where that is
    missing."""
    return openat2(root, path, flags) if has_openat2() else walk_in_root(root, path, flags)


_openat2_works: bool | None = None


def has_openat2() -> bool:
    """Whether openat2(2) works: it needs Linux 5.6, and seccomp filters older than the call refuse it with
    EPERM. Asked once."""
    global _openat2_works
    if _openat2_works is None:
        try:
            os.close(openat2(-100, "/", os.O_PATH))  # AT_FDCWD
            _openat2_works = True
        except OSError:
            _openat2_works = False
    return _openat2_works


def walk_in_root(root: int, path: str | bytes, flags: int) -> int:
    """`open_in_root` by hand: each component opened without following, symlinks expanded against `root`, `..`
    by a stack.

    A rename racing with the walk can only lead to another directory that was below `root` at the time.
    """
    todo = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")][::-1]
    stack = [os.dup(root)]
    links = 0
    try:
        while todo:
            part = todo.pop()
            if part == b"..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            last = not todo
            st = None
            try:
                st = os.stat(part, dir_fd=stack[-1], follow_symlinks=False)
            except FileNotFoundError:
                if not (last and flags & os.O_CREAT):
                    raise
            if st is not None and stat.S_ISLNK(st.st_mode) and not (last and flags & os.O_NOFOLLOW):
                links += 1
                if links > 40:  # the kernel's own limit, path_resolution(7)
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.fsencode(os.readlink(part, dir_fd=stack[-1]))
                if target.startswith(b"/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                todo.extend(reversed([piece for piece in target.split(b"/") if piece not in (b"", b".")]))
                continue
            if last:
                return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=stack[-1])
            stack.append(
                os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
            )
        return os.open(b".", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


_REMOVE_DEPTH = 64


def remove_tree(parent: int, name: str | bytes) -> None:
    """Delete `name` in the directory `parent` and all below it, following nothing; absent is fine.

    Directories deeper than 64 levels are first renamed up to the top, so that a hostile depth costs neither
    descriptors nor recursion.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    try:
        top = os.open(name, _REMOVE, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        pending = _remove_below(top, top, 0)
        while pending:
            pending = _remove_below(top, top, 0)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


_REMOVE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _remove_below(fd: int, top: int, depth: int) -> bool:
    """Empty the directory `fd`; True when something was moved to `top` and is still to be deleted there."""
    moved = False
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in found:
        if not is_dir:
            os.unlink(name, dir_fd=fd)
            continue
        if depth >= _REMOVE_DEPTH:
            os.rename(name, f".removed-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top)
            moved = True
            continue
        try:
            child = os.open(name, _REMOVE, dir_fd=fd)
        except PermissionError:
            os.chmod(
                name, 0o700, dir_fd=fd
            )  # a directory without permissions, seen by its owner who is not root
            child = os.open(name, _REMOVE, dir_fd=fd)
        try:
            moved |= _remove_below(child, top, depth + 1)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=fd)
    return moved


def copy_data(source: int, target: int) -> None:
    """Copy a file's content, sharing blocks where the file system can (ioctl_ficlone(2),
    copy_file_range(2))."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        pass
    while True:
        try:
            done = os.copy_file_range(source, target, 1 << 30)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            break
        if done == 0:
            break
    while data := os.read(source, 1 << 20):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]


_FICLONE = 0x40049409


def copy_attributes(source: int, target: int, st: os.stat_result, *, chown: bool) -> None:
    """Give `target` the owner, mode and extended attributes of `source`; overlayfs' private ones are left
    behind."""
    if chown:
        os.fchown(target, st.st_uid, st.st_gid)
    os.fchmod(target, stat.S_IMODE(st.st_mode))
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if name == "security.capability" or error.errno not in (
                    errno.ENOTSUP,
                    errno.EPERM,
                    errno.ENODATA,
                ):
                    raise


def set_opaque(fd: int) -> None:
    """Mark a directory of an upper layer as hiding what is below it; user.* where trusted.* needs privileges
    we lack."""
    try:
        os.setxattr(fd, "trusted.overlay.opaque", b"y")
    except PermissionError:
        os.setxattr(fd, "user.overlay.opaque", b"y")
