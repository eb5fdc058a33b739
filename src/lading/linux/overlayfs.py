"""Overlayfs: which options this kernel needs, and mounts that no mount table shows. Owns no paths and no
policy.

A detached mount (fsopen, fsconfig, fsmount; Linux 5.2, `lowerdir+` since 6.5) exists only through its
descriptor and ends with it. Older kernels get the same from a thread with a mount namespace of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence

from lading.linux import calls

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_PARAMETER_LIMIT = 255  # fsconfig(2) takes strings below 256 bytes
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_RDONLY = 0x4000, 0x40000, 1
_MNT_DETACH = 2


@functools.cache
def options(trusted: bool) -> tuple[str, ...]:
    """Options that keep an upper directory complete in itself, so that a layer can be made by reading it.

    Redirects, metacopy and the index would keep parts of the truth in private attributes; a distribution may
    have switched them on by default, which the module's parameters tell. `userxattr` (Linux 5.11) is for
    those who may not use `trusted.*`, which are all but the host's root.
    """
    found = [] if trusted else ["userxattr"]
    for parameter in ("redirect_dir", "metacopy", "index"):
        try:
            with open(f"/sys/module/overlay/parameters/{parameter}", encoding="ascii") as stream:
                if stream.read().strip() == "Y":
                    found.append(f"{parameter}=off")
        except OSError:
            continue
    return tuple(found)


@functools.cache
def has_volatile() -> bool:
    """Whether overlayfs knows `volatile` (Linux 5.10): no sync, neither asked for by a process nor at
    unmount.

    Without it each unmount writes all dirty data of the file system below to disk (ovl_sync_fs).
    """
    numbers = os.uname().release.split(".")
    return numbers[0].isdigit() and numbers[1].isdigit() and (int(numbers[0]), int(numbers[1])) >= (5, 10)


def forget_volatile(work: str) -> None:
    """Take away the mark a volatile mount leaves in its work directory, with which the kernel refuses the
    next mount."""
    mark = f"{work}/work/incompat/volatile"
    with contextlib.suppress(OSError):  # usually there is none
        os.unlink(f"{mark}/dirty")
        os.rmdir(mark)


def mount_detached(base: str, lower: Sequence[str], upper: str, work: str, extra: Sequence[str] = ()) -> int:
    """A descriptor of a new overlay's top directory. Paths are relative to `base`; `upper` "" makes it
    read-only.

    Raises OSError. Closing the descriptor, and all opened through it, ends the mount.
    """
    if _has_lowerdir_plus():
        paths = [f"{base}/{path}" for path in (*lower, upper, work)]
        if max(map(len, paths)) <= _PARAMETER_LIMIT:
            return _by_fsmount(base, lower, upper, work, extra)
    return _by_thread(base, lower, upper, work, extra)


@functools.cache
def _has_lowerdir_plus() -> bool:
    """Whether overlayfs takes `lowerdir+` one by one; answered by the kernel, since distributions carry back
    features."""
    try:
        fs = calls.check(calls.syscall(calls.FSOPEN, b"overlay", _FSOPEN_CLOEXEC), "fsopen")
    except OSError:
        return False
    try:
        _configure(fs, "lowerdir+", "/")
        return True
    except OSError:
        return False
    finally:
        os.close(fs)


def _configure(fs: int, key: str, value: str | None) -> None:
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    raw = None if value is None else os.fsencode(value)
    calls.check(
        calls.syscall(calls.FSCONFIG, fs, command, key.encode(), raw, 0), "fsconfig", f"{key}={value}"
    )


def _by_fsmount(base: str, lower: Sequence[str], upper: str, work: str, extra: Sequence[str]) -> int:
    fs = calls.check(calls.syscall(calls.FSOPEN, b"overlay", _FSOPEN_CLOEXEC), "fsopen")
    try:
        for path in lower:
            _configure(fs, "lowerdir+", f"{base}/{path}")
        if upper:
            _configure(fs, "upperdir", f"{base}/{upper}")
            _configure(fs, "workdir", f"{base}/{work}")
        for option in extra:
            key, equals, value = option.partition("=")
            _configure(fs, key, value if equals else None)
        calls.check(calls.syscall(calls.FSCONFIG, fs, _FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig", base)
        attributes = 0 if upper else 1  # MOUNT_ATTR_RDONLY
        mount = calls.check(calls.syscall(calls.FSMOUNT, fs, _FSMOUNT_CLOEXEC, attributes), "fsmount", base)
    finally:
        os.close(fs)
    try:
        # fsmount gives an O_PATH descriptor; this one can be read as a directory.
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _by_thread(base: str, lower: Sequence[str], upper: str, work: str, extra: Sequence[str]) -> int:
    """The same by mount(2), in a thread whose mount namespace and working directory are its own (unshare(2)).

    The namespace ends with the thread; the descriptor keeps the mount alive, as after a lazy unmount.
    """
    data = ",".join(
        [f"lowerdir={':'.join(lower)}", *([f"upperdir={upper},workdir={work}"] if upper else []), *extra]
    )
    raw = data.encode()
    if len(raw) >= os.sysconf("SC_PAGE_SIZE"):
        raise OSError(errno.E2BIG, "too many layers for one page of mount options", base)
    result: list[int | OSError] = []

    def run() -> None:
        try:
            result.append(_mount_here(base, raw, 0 if upper else _MS_RDONLY))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=run, name="overlay-mount")
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def _mount_here(base: str, data: bytes, flags: int) -> int:
    libc = calls.libc
    calls.check(libc.unshare(_CLONE_NEWNS), "unshare")
    calls.check(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount", "/")
    os.chdir(base)
    target = tempfile.mkdtemp(prefix=".mount-", dir=base)
    try:
        raw = os.fsencode(target)
        calls.check(libc.mount(b"overlay", raw, b"overlay", ctypes.c_ulong(flags), data), "mount", base)
        try:
            return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            libc.umount2(raw, _MNT_DETACH)
    finally:
        os.rmdir(target)


def probe(root: str, extra: Sequence[str]) -> None:
    """Mount a small overlay below `root` and change something in it; OSError where that cannot work.

    Some file systems cannot hold an upper directory (no d_type, no extended attributes, or overlayfs itself),
    and the kernel says so only when it is tried.
    """
    base = tempfile.mkdtemp(prefix=".probe-", dir=root)
    try:
        for name in ("l", "u", "w"):
            os.mkdir(f"{base}/{name}")
        os.close(os.open(f"{base}/l/file", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        fd = mount_detached(base, ("l",), "u", "w", extra)
        try:
            os.unlink("file", dir_fd=fd)
        finally:
            os.close(fd)
        st = os.lstat(f"{base}/u/file")
        if st.st_rdev != 0:
            raise OSError(errno.EOPNOTSUPP, "whiteouts do not work", root)
    finally:
        shutil.rmtree(base, ignore_errors=True)
