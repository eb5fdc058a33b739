"""The container's root file system, made step by step and entered. Owns the performing of a plan; decides nothing.

Until the root is entered every path inside the image is resolved by the kernel below a root descriptor (openat2,
RESOLVE_IN_ROOT), so that the image's symlinks lead nowhere else, and mounts are made on descriptors, so that nothing can
be swapped between look and use.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import stat

from lading.linux import files, process, trees
from lading.linux import mount as m
from lading.runtime import hooks, wire

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any

_ATTRIBUTES = (
    m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC | m.MS_NOATIME | m.MS_NODIRATIME | m.MS_NOSYMFOLLOW
)
_PATH = os.O_PATH | os.O_CLOEXEC
_NO_LINKS = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_SYMLINKS
_OURS = (b"/dev", b"/proc", b"/sys")


class StepFailed(Exception):
    """A step's name and the OSError that stopped it; `detail` is the path, in bytes."""

    def __init__(self, step: str, code: int, detail: bytes = b"") -> None:
        super().__init__(step, code, detail)
        self.step, self.code, self.detail = step, code, detail


class Root:
    """One performance of a plan's steps. `created` lists the mount points that had to be made in the image."""

    def __init__(self, plan: dict[str, Any], channel: _socket.socket) -> None:
        self.plan, self.channel = plan, channel
        self.root = -1
        self.shared = False
        self.created: list[bytes] = []

    def perform(self) -> None:
        """All steps in order; StepFailed names the one that could not be done."""
        for step in self.plan["steps"]:
            try:
                getattr(self, "do_" + step[0])(*step[1:])
            except OSError as error:
                paths = [part for part in step[1:] if isinstance(part, bytes) and part.startswith(b"/")]
                raise StepFailed(step[0], error.errno or 0, paths[0] if paths else b"") from None

    def do_propagate(self, flags: int) -> None:
        m.mount(None, b"/", None, flags)
        self.shared = bool(flags & m.MS_SHARED)

    def do_overlay(
        self,
        base: bytes,
        lower: bytes,
        upper: bytes,
        work: bytes,
        extra: bytes,
        readonly: bool,
        target: bytes,
    ) -> None:
        """Layers are named relative to `base`, so that 127 of them fit the one page mount(2) takes."""
        os.chdir(base)
        data = b"lowerdir=" + lower
        if upper:
            data += b",upperdir=" + upper + b",workdir=" + work
        m.mount(b"overlay", target, b"overlay", m.MS_RDONLY if readonly else 0, data + extra)
        self._enter_rootfs(target)

    def do_bind_root(self, source: bytes, readonly: bool, recursive: bool, target: bytes) -> None:
        m.mount(source, target, None, m.MS_BIND | (m.MS_REC if recursive else 0))
        if readonly:
            m.mount(None, target, None, m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY)
        self._enter_rootfs(target)

    def do_tree_root(self, readonly: bool) -> None:
        """The root is the working directory, mounted before (`userns`); a copy of it on top is a mount of our own."""
        tree = m.open_tree(-100, b".", m.OPEN_TREE_CLONE | m.AT_RECURSIVE)
        holder = os.open(b".", _PATH | os.O_DIRECTORY)
        m.move_mount(tree, holder)
        os.close(holder)
        m.mount(None, _proc(tree), None, m.MS_PRIVATE)
        if readonly:
            m.mount(None, _proc(tree), None, m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY)
        self.root = tree

    def _enter_rootfs(self, target: bytes) -> None:
        os.chdir(b"/")
        # pivot_root(2) refuses a shared parent mount and wants the new root to be a mount point.
        m.mount(None, target, None, m.MS_PRIVATE)
        self.root = os.open(target, _PATH | os.O_DIRECTORY)
        while self.shared and target != b"/":
            target = os.path.dirname(target)
            try:
                m.mount(None, target, None, m.MS_PRIVATE)
                break
            except OSError as error:
                if error.errno != 22:  # not a mount point: look further up
                    raise

    def _open(self, path: bytes, flags: int = _PATH) -> int:
        return files.openat2(self.root, path, flags)

    def _ensure_dir(self, path: bytes, mode: int = 0o755) -> int:
        """A descriptor of the directory `path` below the root, making what is missing one name at a time."""
        try:
            return self._open(path, _PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            pass
        parent_path, _, name = path.rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(22, "not a plain name", path)
        parent = self._ensure_dir(parent_path or b"/", mode)
        try:
            try:
                os.mkdir(name, mode, dir_fd=parent)
                self.created.append(path)
            except FileExistsError:
                pass
        finally:
            os.close(parent)
        return self._open(path, _PATH | os.O_DIRECTORY)

    def _plain_dir(self, path: bytes) -> int:
        """Like `_ensure_dir`, but a link of the image's on the way is refused (ELOOP).

        Devices, links and masks are put below /dev, /proc and /sys after the user's mounts, and would follow it there.
        """
        try:
            return files.openat2(self.root, path, _PATH | os.O_DIRECTORY, 0, _NO_LINKS)
        except FileNotFoundError:
            return self._ensure_dir(path)

    def _ensure_file(self, path: bytes) -> int:
        try:
            return self._open(path)
        except FileNotFoundError:
            pass
        parent_path, _, name = path.rpartition(b"/")
        parent = self._ensure_dir(parent_path or b"/")
        try:
            fd = os.open(
                name,
                os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o644,
                dir_fd=parent,
            )
            os.close(fd)
            self.created.append(path)
        finally:
            os.close(parent)
        return self._open(path)

    def do_copy_up(self, target: bytes, flags: int, data: bytes, propagation: int) -> None:
        """A tmpfs that begins with what the image has there ("tmpcopyup")."""
        below = os.open(_proc(self._ensure_dir(target)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.do_mount(b"tmpfs", b"tmpfs", target, flags & ~m.MS_RDONLY, data, propagation)
        top = self._open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            trees.copy(below, top, chown=True)
        finally:
            os.close(top)
            os.close(below)
        if flags & m.MS_RDONLY:
            self.do_remount(target, flags)

    def do_hooks(self) -> None:
        """The runtime's own hooks run while this waits; then those that belong here, before the root is entered."""
        wire.send(self.channel, ("hooks",))
        state = wire.go(self.channel)
        try:
            hooks.run(self.plan["hooks"]["createContainer"], state)
        except hooks.HookFailed as failure:
            raise StepFailed("createContainer", 0, failure.detail) from None
        os.close(state)

    def do_mkdir(self, path: bytes) -> None:
        os.close(self._ensure_dir(path))

    def do_mount(
        self, fstype: bytes, source: bytes, target: bytes, flags: int, data: bytes, propagation: int
    ) -> None:
        fd = self._plain_dir(target) if target in _OURS else self._ensure_dir(target)
        try:
            m.mount(source, _proc(fd), fstype, flags, data or None)
        finally:
            os.close(fd)
        if propagation:
            self._set_propagation(target, propagation)

    def do_bind(
        self, source: bytes, target: bytes, recursive: bool, attributes: int, propagation: int
    ) -> None:
        origin = os.open(source, _PATH)
        try:
            fd = self._ensure_like(origin, target)
            try:
                m.mount(_proc(origin), _proc(fd), None, m.MS_BIND | (m.MS_REC if recursive else 0))
            finally:
                os.close(fd)
        finally:
            os.close(origin)
        self._dress(target, attributes, propagation)

    def do_bind_fd(
        self, tree: int, source: bytes, target: bytes, recursive: bool, attributes: int, propagation: int
    ) -> None:
        """A bind whose source comes as a detached mount with its ids mapped (`userns`)."""
        fd = self._ensure_like(tree, target)
        try:
            m.move_mount(tree, fd)
        finally:
            os.close(fd)
        self._dress(target, attributes, propagation)

    def _ensure_like(self, origin: int, target: bytes) -> int:
        is_dir = stat.S_ISDIR(os.fstat(origin).st_mode)
        return self._ensure_dir(target) if is_dir else self._ensure_file(target)

    def _dress(self, target: bytes, attributes: int, propagation: int) -> None:
        if attributes:
            self.do_remount(target, attributes)
        self._set_propagation(target, propagation or m.MS_PRIVATE | m.MS_REC)

    def do_remount(self, target: bytes, attributes: int) -> None:
        """Attributes of a bind mount are set by a second call; those the source already has are kept (mount(2))."""
        fd = self._open(target)
        try:
            kept = os.fstatvfs(fd).f_flag
            flags = attributes & _ATTRIBUTES
            for name, bit in (("ST_RDONLY", m.MS_RDONLY), ("ST_NOSUID", m.MS_NOSUID), ("ST_NODEV", m.MS_NODEV),
                              ("ST_NOEXEC", m.MS_NOEXEC), ("ST_NOATIME", m.MS_NOATIME)):  # fmt: skip
                if kept & getattr(os, name):
                    flags |= bit
            m.mount(None, _proc(fd), None, m.MS_REMOUNT | m.MS_BIND | flags)
        finally:
            os.close(fd)

    def do_deep_readonly(self, target: bytes) -> None:
        """Also the mounts below, where the kernel can (mount_setattr, Linux 5.12); older ones leave those writable."""
        try:
            self.do_attributes(target, m.MOUNT_ATTR_RDONLY, 0)
        except OSError as error:
            if error.errno not in (38, 22, 1):
                raise

    def do_attributes(self, target: bytes, set_: int, clear: int) -> None:
        """Attributes of a mount and of every one below it ("rro" and its kin)."""
        fd = self._open(target)
        try:
            m.mount_setattr(fd, b"", m.AT_EMPTY_PATH | m.AT_RECURSIVE, set_, clear)
        finally:
            os.close(fd)

    def _set_propagation(self, target: bytes, flags: int) -> None:
        fd = self._open(target)
        try:
            m.mount(None, _proc(fd), None, flags)
        finally:
            os.close(fd)

    def do_device(self, path: bytes, mode: int, major: int, minor: int, uid: int, gid: int) -> None:
        """mknod below the root; in a user namespace, where mknod is refused, the host's node is bound instead."""
        parent_path, _, name = path.rpartition(b"/")
        parent = self._ensure_dir(parent_path or b"/")
        try:
            if self.plan["userns"]:
                self._bind_node(path, mode, major, minor)
                return
            try:
                os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent)
            except FileExistsError:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_IFMT(status.st_mode) == stat.S_IFMT(mode) and status.st_rdev == os.makedev(
                    major, minor
                ):
                    return  # bound there before
                os.unlink(name, dir_fd=parent)
                os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent)
            except PermissionError:  # root of a user namespace only, as an ordinary user's engine is
                self._bind_node(path, mode, major, minor)
                return
            # By descriptor: the umask applied to mknod, and fchmod refuses O_PATH, so go through /proc.
            fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=parent)
            try:
                os.chmod(_proc(fd), mode & 0o7777)
                os.chown(_proc(fd), uid, gid)
            finally:
                os.close(fd)
        finally:
            os.close(parent)

    def _bind_node(self, path: bytes, mode: int, major: int, minor: int) -> None:
        """The host's own node, if it is the one meant: the host's /dev may have another of that name."""
        status = os.stat(path)
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or status.st_rdev != os.makedev(major, minor):
            raise OSError(19, "another device", path)
        os.close(self._ensure_file(path))
        self.do_bind(path, path, False, 0, 0)

    def do_symlink(self, target: bytes, path: bytes) -> None:
        parent_path, _, name = path.rpartition(b"/")
        parent = self._ensure_dir(parent_path or b"/")
        try:
            os.symlink(target, name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)

    def do_sysctl(self, path: bytes, value: bytes) -> None:
        """Written through the host's /proc: the files there act on the writer's own namespaces (proc_sys(5))."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value)
        finally:
            os.close(fd)

    def do_masked_path(self, path: bytes) -> None:
        """Cover a file with /dev/null and a directory with an empty read-only tmpfs; absent paths need nothing."""
        try:
            fd = self._open(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                m.mount(b"tmpfs", _proc(fd), b"tmpfs", m.MS_RDONLY, b"size=0,nr_inodes=1")
            else:
                null = self._null()
                m.mount(_proc(null), _proc(fd), None, m.MS_BIND)
                os.close(null)
        finally:
            os.close(fd)

    def _null(self) -> int:
        """A descriptor of the real null device: the host's node, checked to be (1, 3)."""
        fd = os.open(b"/dev/null", _PATH)
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            os.close(fd)
            raise OSError(19, "/dev/null is not the null device", b"/dev/null")
        return fd

    def do_readonly_path(self, path: bytes) -> None:
        try:
            fd = self._open(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            m.mount(_proc(fd), _proc(fd), None, m.MS_BIND | m.MS_REC)
        finally:
            os.close(fd)
        self.do_remount(path, m.MS_RDONLY)
        self.do_deep_readonly(path)

    def do_console(self) -> None:
        """A terminal of the container's own devpts: its master goes to the monitor; the peer is opened by ioctl."""
        master = self._open(b"/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        peer = open_peer(master)
        self.plan["peer"] = peer
        target = self._ensure_file(b"/dev/console")
        m.mount(_proc(peer), _proc(target), None, m.MS_BIND)
        os.close(target)
        wire.send(self.channel, ("console",), master)
        os.close(master)

    def do_pivot(self) -> None:
        """Enter the new root; the old one, stacked under it, is detached (pivot_root(2), "pivot_root(".", ".")")."""
        os.fchdir(self.root)
        m.pivot_root(b".", b".")
        m.mount(None, b".", None, m.MS_SLAVE | m.MS_REC)
        m.umount2(b".", m.MNT_DETACH)
        os.chdir(b"/")

    def do_root_readonly(self) -> None:
        kept = os.statvfs(b"/").f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
        m.mount(None, b"/", None, m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY | kept)

    def do_root_propagation(self, flags: int) -> None:
        m.mount(None, b"/", None, flags)


def _proc(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd


def open_peer(master: int) -> int:
    """Unlock a terminal and open its other side without a path (ioctl_tty(2) TIOCGPTPEER, Linux 4.13)."""
    fcntl.ioctl(master, process.TIOCSPTLCK, b"\0\0\0\0")
    return process.ioctl(master, process.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
