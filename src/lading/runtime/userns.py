"""The root file system and binds of a container with a user namespace: shown with its ids, unchanged on disk.

The layers' directory and the bind sources are mounted id-mapped (mount_setattr(2), Linux 5.12; overlayfs on them 5.19),
so that root inside owns what root owns in the image, while it is nobody outside. Runs in the seat, with the host's
privileges and in a mount namespace of its own, before init is born. System calls only.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, 3 ms
import errno
import os

from lading.linux import calls, process
from lading.linux import mount as m

if False:  # names for the type checker only; the zygote must not import typing
    from typing import Any


def prepare(plan: dict[str, Any]) -> None:
    """Enter a private mount namespace and mount what init may not; rewrites the plan's first steps to find it.

    The root is left as the working directory, which init inherits: it may not search every directory on the way there.

    Raises OSError: EINVAL or EPERM where the kernel or the file system cannot map ids.
    """
    process.unshare(process.CLONE_NEWNS)
    m.mount(None, b"/", None, m.MS_SLAVE | m.MS_REC)
    # A bundle's root file system has the container's ids on disk already; the engine's layers have the image's.
    namespace = _mapping(*plan["id_maps"]) if plan["userns"] and plan.get("map_root", True) else -1
    try:
        steps: list[tuple[Any, ...]] = []
        for step in plan["steps"]:
            if step[0] == "overlay":
                _, base, lower, upper, work, extra, readonly, target = step
                _cover(base, base, namespace)
                os.chdir(base)
                data = b"lowerdir=" + lower
                if upper:
                    data += b",upperdir=" + upper + b",workdir=" + work
                _as_container_root(plan["id_maps"])
                m.mount(b"overlay", target, b"overlay", m.MS_RDONLY if readonly else 0, data + extra)
                os.chdir(target)
                steps.append(("tree_root", readonly))
            elif step[0] == "bind_root" and plan["userns"]:
                _, source, readonly, recursive, target = step
                _cover(source, target, namespace, recursive)
                os.chdir(target)
                steps.append(("tree_root", readonly))
            elif step[0] == "bind" and plan["userns"]:
                steps.append(("bind_fd", _mapped(step[1], step[3], namespace), *step[1:]))
            elif step[0] == "bind_mapped":
                steps.append(("bind_fd", _mapped_apart(*step[1:]), *step[1:6]))
            else:
                steps.append(step)
        plan["steps"] = steps
    finally:
        if namespace >= 0:
            os.close(namespace)


def _as_container_root(id_maps: tuple[bytes, bytes]) -> None:
    """Take the file system identity of the container's root, keeping every capability.

    overlayfs writes to its upper layer with the credentials of whoever mounted it, and an id-mapped mount takes no
    writes from an id outside its map (EOVERFLOW). The seat ends soon after, so nothing is restored.
    """
    process.prctl(process.PR_SET_SECUREBITS, process.SECBIT_NO_SETUID_FIXUP)
    for call, text in ((calls.held.setfsuid, id_maps[0]), (calls.held.setfsgid, id_maps[1])):
        for line in text.splitlines():
            inside, outside, _ = line.split()
            if inside == b"0":
                call(int(outside))


def _mapping(uid_map: bytes, gid_map: bytes) -> int:
    """A descriptor of a user namespace that has these maps and no process; only its maps are used."""
    child = process.clone3(process.CLONE_NEWUSER)
    if child == 0:
        _signal.pause()
        os._exit(0)
    try:
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            fd = os.open(f"/proc/{child}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text)
            finally:
                os.close(fd)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, _signal.SIGKILL)
        os.waitpid(child, 0)


def _mapped(source: bytes, recursive: bool, namespace: int) -> int:
    """A detached, id-mapped copy of the mount at `source`; without the map where the file system cannot (EINVAL)."""
    deep = m.AT_RECURSIVE if recursive else 0
    fd = m.open_tree(-100, source, m.OPEN_TREE_CLONE | deep)
    if namespace < 0:
        return fd
    try:
        m.mount_setattr(fd, b"", m.AT_EMPTY_PATH | deep, m.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            os.close(fd)
            raise
    return fd


def _mapped_apart(
    source: bytes,
    target: bytes,
    recursive: bool,
    attributes: int,
    propagation: int,
    uid_map: bytes,
    gid_map: bytes,
    deep_map: bool,
) -> int:
    """A detached copy of the mount at `source` with a map of its own: asked for, so a refusal is an error."""
    namespace = _mapping(uid_map, gid_map)
    fd = m.open_tree(-100, source, m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0))
    try:
        deep = m.AT_RECURSIVE if deep_map else 0
        m.mount_setattr(fd, b"", m.AT_EMPTY_PATH | deep, m.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    except OSError:
        os.close(fd)
        raise
    finally:
        os.close(namespace)
    return fd


def _cover(source: bytes, target: bytes, namespace: int, recursive: bool = False) -> None:
    """Mount a copy of `source` over `target`, id-mapped if need be, in this mount namespace alone."""
    fd = m.open_tree(-100, source, m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0))
    try:
        if namespace >= 0:
            m.mount_setattr(fd, b"", m.AT_EMPTY_PATH, m.MOUNT_ATTR_IDMAP, userns_fd=namespace)
        holder = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            m.move_mount(fd, holder)
        finally:
            os.close(holder)
    finally:
        os.close(fd)
