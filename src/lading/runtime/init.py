"""The container's first process, from clone to execve. Owns the performing of a plan; decides nothing.

Until the root is entered every path inside the image is resolved by the kernel below a root descriptor (openat2,
RESOLVE_IN_ROOT), so that the image's symlinks lead nowhere else, and mounts are made on descriptors, so that nothing can
be swapped between look and use. After `pivot` there are only system calls: no import, codec, NSS, locale or PATH lookup,
since the image would choose the code. Everything needed is loaded and encoded before.
"""

from __future__ import annotations

import _socket
import fcntl
import marshal
import os
import resource
import signal
import stat

from lading.linux import calls, files, process, seccomp
from lading.linux import mount as m
from lading.runtime import userns

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any

_ATTRIBUTES = (
    m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC | m.MS_NOATIME | m.MS_NODIRATIME | m.MS_NOSYMFOLLOW
)
_PATH = os.O_PATH | os.O_CLOEXEC
_ALL_SIGNALS = frozenset(range(1, 65)) - {9, 19, 32, 33}  # not KILL and STOP, nor the two glibc keeps


class StepFailed(Exception):
    """A step's name and the OSError that stopped it; `detail` is the path, in bytes."""

    def __init__(self, step: str, code: int, detail: bytes = b"") -> None:
        super().__init__(step, code, detail)
        self.step, self.code, self.detail = step, code, detail


class Init:
    """One performance of a plan. `created` lists the mount points that had to be made in the image."""

    def __init__(self, plan: dict[str, Any], channel: _socket.socket, fds: list[int]) -> None:
        self.plan, self.channel, self.fds = plan, channel, fds
        self.root = -1
        self.created: list[bytes] = []

    # -- the mount plan, before the root is entered ------------------------------------------------------------

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

    def do_mkdir(self, path: bytes) -> None:
        os.close(self._ensure_dir(path))

    def do_mount(
        self, fstype: bytes, source: bytes, target: bytes, flags: int, data: bytes, propagation: int
    ) -> None:
        fd = self._ensure_dir(target)
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
            if attributes & m.MS_RDONLY:
                _recursive_readonly(fd)
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
                os.close(self._ensure_file(path))
                self.do_bind(path, path, False, 0, 0)
                return
            try:
                os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent)
            except FileExistsError:
                os.unlink(name, dir_fd=parent)
                os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent)
            # By descriptor: the umask applied to mknod, and fchmod refuses O_PATH, so go through /proc.
            fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=parent)
            try:
                os.chmod(_proc(fd), mode & 0o7777)
                os.chown(_proc(fd), uid, gid)
            finally:
                os.close(fd)
        finally:
            os.close(parent)

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

    def do_console(self) -> None:
        """A terminal of the container's own devpts: its master goes to the monitor; the peer is opened by ioctl."""
        master = self._open(b"/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        peer = open_peer(master)
        self.plan["peer"] = peer
        target = self._ensure_file(b"/dev/console")
        m.mount(_proc(peer), _proc(target), None, m.MS_BIND)
        os.close(target)
        send(self.channel, ("console",), master)
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

    # -- the process, after the root is entered: system calls only ---------------------------------------------

    def become(self) -> None:
        """Identity, limits and privileges, then the command; returns only by raising StepFailed."""
        plan = self.plan["process"]
        name = "cwd"
        try:
            self._change_dir(plan)
            name = "rlimits"
            for kind, soft, hard in plan["rlimits"]:
                resource.setrlimit(kind, (soft, hard))
            if plan["umask"] >= 0:
                os.umask(plan["umask"])
            name = "user"
            filter_, filter_flags = self.plan["seccomp"]
            capabilities = plan["capabilities"]
            if filter_ and not plan["no_new_privileges"]:
                name = "seccomp"
                seccomp.load(filter_, filter_flags)  # while CAP_SYS_ADMIN is still held (seccomp(2))
                name = "user"
            self._change_user(plan, capabilities)
            name = "cwd"
            self._check_dir(plan)
            if plan["no_new_privileges"]:
                name = "no_new_privileges"
                process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
                if filter_:
                    name = "seccomp"
                    seccomp.load(filter_, filter_flags)
        except ValueError:
            raise StepFailed(name, 22) from None
        except OSError as error:
            raise StepFailed(name, error.errno or 0, plan["cwd"] if name == "cwd" else b"") from None

    def _change_dir(self, plan: dict[str, Any]) -> None:
        try:
            os.chdir(plan["cwd"])
        except PermissionError:
            if plan["uid"] == 0:
                raise
        # A root that may not pass (root squash) is tried again as the user, in _check_dir.

    def _check_dir(self, plan: dict[str, Any]) -> None:
        """It must lie inside the root: a leaked descriptor could have put it outside (CVE-2024-21626)."""
        os.chdir(plan["cwd"])
        if not os.getcwdb().startswith(b"/"):
            raise OSError(2, "the working directory is outside the container")

    def _change_user(self, plan: dict[str, Any], capabilities: dict[str, int]) -> None:
        uid, gid = plan["uid"], plan["gid"]
        for fd in (0, 1, 2):
            _give(fd, uid)
        for number in range(64):
            if not capabilities["bounding"] >> number & 1:
                try:
                    process.prctl(process.PR_CAPBSET_DROP, number)
                except OSError as error:
                    if error.errno == 22:  # past the kernel's last capability
                        break
                    raise
        if self.plan["setgroups"]:
            os.setgroups(plan["groups"])
        process.prctl(process.PR_SET_KEEPCAPS, 1)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        process.prctl(process.PR_SET_KEEPCAPS, 0)
        process.ambient_clear()
        permitted = capabilities["permitted"]
        process.capset(capabilities["effective"], permitted, capabilities["inheritable"])
        for number in range(64):
            if capabilities["ambient"] >> number & 1:
                process.ambient_raise(number)
        process.prctl(
            process.PR_SET_PDEATHSIG, process.SIGKILL
        )  # a change of credentials cleared it (prctl(2))

    def execute(self) -> None:
        """execve of the first candidate that is there; StepFailed("exec") with the most telling errno of those tried."""
        plan = self.plan["process"]
        if self.plan["reaper"]:
            self._reap(plan)
        code = 2
        for path in plan["candidates"]:
            try:
                os.execve(path, plan["argv"], plan["env"])
            except OSError as error:
                if error.errno == 13:
                    code = 13
                elif error.errno not in (2, 20):
                    raise StepFailed("exec", error.errno or 0, plan["argv"][0]) from None
        raise StepFailed("exec", code, plan["argv"][0])

    def _reap(self, plan: dict[str, Any]) -> None:
        """Stay as process 1: fork the command, pass signals on, reap orphans, end as the command ended (`--init`)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            try:
                os.tcsetpgrp(0, os.getpid())
            except OSError:
                pass  # no terminal
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            return
        process.close_range(3)
        while True:
            number = signal.sigwait(_ALL_SIGNALS)
            if number != signal.SIGCHLD:
                if number != signal.SIGTTOU:
                    try:
                        os.kill(child, number)
                    except OSError:
                        pass
                continue
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                if pid == child:
                    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _recursive_readonly(fd: int) -> None:
    """Also the mounts below, where the kernel can (mount_setattr, Linux 5.12); older ones leave those writable."""
    try:
        m.mount_setattr(fd, b"", m.AT_EMPTY_PATH | m.AT_RECURSIVE, m.MOUNT_ATTR_RDONLY)
    except OSError as error:
        if error.errno not in (38, 22, 1):
            raise


def _give(fd: int, uid: int) -> None:
    """Let the user reopen its own stdio through /proc/self/fd: pipes and terminals belong to whoever made them."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)):
            os.fchown(fd, uid, -1)
    except OSError:
        pass


def _proc(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd


def open_peer(master: int) -> int:
    """Unlock a terminal and open its other side without a path (ioctl_tty(2) TIOCGPTPEER, Linux 4.13)."""
    fcntl.ioctl(master, process.TIOCSPTLCK, b"\0\0\0\0")
    return process.ioctl(master, process.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)


def send(channel: _socket.socket, message: tuple[Any, ...], fd: int = -1) -> None:
    """One record to the monitor, with a descriptor when `fd` is one (unix(7), SCM_RIGHTS)."""
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
    channel.sendmsg([marshal.dumps(message)], ancillary)


def take_terminal(peer: int) -> None:
    """Make `peer` the controlling terminal and the three standard descriptors."""
    process.ioctl(peer, process.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(peer, fd)


def reset_signals() -> None:
    """Default dispositions and an empty mask: execve(2) keeps ignored signals, and Python ignores SIGPIPE."""
    for number in range(1, 65):
        if number not in (9, 19, 32, 33):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def container_main(
    plan: dict[str, Any], channel: _socket.socket, fds: list[int], stdio: tuple[int, int, int]
) -> None:
    """Body of init in a new container. Never returns."""
    try:
        reset_signals()
        process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)
        os.setsid()
        process.set_name(b"lading-init")
        if plan["userns"]:
            _await(channel)  # the monitor has written the id maps
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)
            process.prctl(
                process.PR_SET_DUMPABLE, 1
            )  # else /proc/self belongs to a root that this one is not
        _oom_score(plan["process"]["oom_score_adj"])
        process.prctl(
            process.PR_SET_DUMPABLE, 0
        )  # no neighbour may look into this process before it is the command
        if not plan["process"]["tty"]:
            _use_stdio(stdio)
        _join(plan["join"], fds)
        if plan["hostname"]:
            process.sethostname(plan["hostname"])
        if plan["domainname"]:
            process.setdomainname(plan["domainname"])
        init = Init(plan, channel, fds)
        init.perform()
        if plan["process"]["tty"]:
            take_terminal(plan["peer"])
        send(channel, ("ready", init.created))
        _await(channel)  # in its control groups, and told to go
        if plan["unshare_cgroup"]:
            process.unshare(process.CLONE_NEWCGROUP)
        _finish(init)
    except StepFailed as failure:
        _fail(channel, failure.step, failure.code, failure.detail)
    except OSError as error:
        _fail(channel, "setup", error.errno or 0, b"")
    finally:
        os._exit(70)


def seat_main(channel: _socket.socket) -> None:
    """Body of the process that waits in the container's control groups; init, its sibling, is born into them.

    The record holds the plan's descriptors and, last, the three of standard input, output and error. Never returns.
    """
    plan: dict[str, Any] = {"userns": False}
    try:
        data, ancillary, _, _ = channel.recvmsg(64, _socket.CMSG_SPACE(4 * 132), _socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        payload = b"".join(part for _, _, part in ancillary)
        fds = [int.from_bytes(payload[at : at + 4], "little") for at in range(0, len(payload) - 3, 4)]
        stdio = (fds[-3], fds[-2], fds[-1])
        plan = marshal.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        cgroup = fds[plan["cgroup_fd"]] if plan["cgroup_fd"] >= 0 else -1
        if plan["userns"]:
            userns.prepare(plan)
        pid = process.clone3(plan["clone_flags"] | process.CLONE_PARENT, cgroup_fd=cgroup)
        if pid == 0:
            container_main(plan, channel, fds, stdio)
        send(channel, ("pid", pid))
        os._exit(0)
    except OSError as error:
        _fail(channel, "userns" if plan["userns"] else "setup", error.errno or 0, b"clone")
    finally:
        os._exit(70)


def exec_main(
    plan: dict[str, Any], channel: _socket.socket, fds: list[int], stdio: tuple[int, int, int]
) -> None:
    """Body of a process that joins a running container. Never returns.

    A process enters a pid namespace only at birth, so this one joins and makes a sibling of itself (CLONE_PARENT,
    clone(2)), whose parent is the monitor; then it leaves.
    """
    try:
        reset_signals()
        process.set_name(b"lading-exec")
        _await(channel)  # in the container's control groups
        process.prctl(process.PR_SET_DUMPABLE, 0)
        _oom_score(plan["process"]["oom_score_adj"])
        process.setns(fds[plan["pidfd"]], plan["join_flags"])
        if plan["userns"]:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        pid = process.clone3(process.CLONE_PARENT)
        if pid:
            send(channel, ("pid", pid))
            os._exit(0)
        process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)
        os.setsid()
        if plan["process"]["tty"]:
            take_terminal(_container_terminal(channel))
        else:
            _use_stdio(stdio)
        init = Init(plan, channel, fds)
        send(channel, ("ready", []))
        _await(channel)
        _finish(init)
    except StepFailed as failure:
        _fail(channel, failure.step, failure.code, failure.detail)
    except OSError as error:
        _fail(channel, "setup", error.errno or 0, b"")
    finally:
        os._exit(70)


def _container_terminal(channel: _socket.socket) -> int:
    """A new terminal of the container's devpts; what the image may have put at that path instead is refused."""
    root = os.open(b"/", _PATH | os.O_DIRECTORY)
    master = files.openat2(root, b"dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, 0, files.RESOLVE_NO_SYMLINKS)
    os.close(root)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(5, 2):
        raise StepFailed("console", 19, b"/dev/pts/ptmx")
    peer = open_peer(master)
    send(channel, ("console",), master)
    os.close(master)
    return peer


def _await(channel: _socket.socket) -> None:
    """Wait for the monitor's word; when the monitor is gone, so is this process."""
    if not channel.recv(64):
        os._exit(70)


def _own_keyring() -> None:
    """Leave the daemon's session keyring for an empty one (keyctl(2)); kernels without keyrings need nothing."""
    calls.syscall_held(calls.number("keyctl"), 1, None)


def _use_stdio(stdio: tuple[int, int, int]) -> None:
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)


def _oom_score(value: int | None) -> None:
    """Raise or lower oom_score_adj; lowering needs CAP_SYS_RESOURCE and is passed over without it, as engines do."""
    if value is None:
        return
    fd = os.open(b"/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    except PermissionError:
        pass
    finally:
        os.close(fd)


def _join(entries: list[tuple[int, int]], fds: list[int]) -> None:
    for flag, index in entries:
        process.setns(fds[index], flag)


def _finish(init: Init) -> None:
    process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
    _own_keyring()
    init.become()
    init.execute()


def _fail(channel: _socket.socket, step: str, code: int, detail: bytes) -> None:
    try:
        send(channel, ("error", step, code, detail))
    except OSError:
        pass
