"""Who a process runs as: `--user` and USER against the image's own passwd and group files.

Owns the lookup, bounded in size and safe against links, FIFOs and devices planted in the image (openat2(2),
RESOLVE_IN_ROOT, O_NONBLOCK, regular files only); never asks the host's name service.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lading.base.errors import Invalid
from lading.linux import files
from lading.store.snapshots import Rootfs

_MAX_FILE = 1 << 20
_MAX_ID = (1 << 31) - 1  # what runc and the kernel's tools take; uid_t's last value means "no change"
_MAX_GROUPS = 1024


@dataclass(frozen=True)
class User:
    """Numbers for the kernel, and the home directory for HOME."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def read_database(root: int, path: str) -> str:
    """The text of a small regular file below the directory `root`; "" where there is none that can be trusted."""
    try:
        fd = files.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        parts, left = [], _MAX_FILE
        while left > 0 and (chunk := os.read(fd, min(left, 65536))):
            parts.append(chunk)
            left -= len(chunk)
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(fd)


def resolve(user: str, group_add: Iterable[str], passwd: str, group: str) -> User:
    """`user` is "", "name", "uid", "name:group", "uid:gid" and mixtures; names must exist, numbers need not."""
    if len(user) > 256 or "\0" in user:
        raise Invalid("the user's name is not valid", why="It is longer than 256 bytes or holds a NUL.")
    name, colon, group_name = user.partition(":")
    if colon and not group_name:
        raise Invalid(f'invalid user "{user}"', why="The group after the colon is missing.")
    found = _passwd_entry(name or "0", passwd)
    if found is None:
        number = _number(name, "user")
        if number is None:
            raise Invalid(
                f"unable to find user {name}",
                why="The image's /etc/passwd has no such name.",
                hint="Give a number, or add the user in the image.",
            )
        found = ("", number, 0, "/")
    login, uid, gid, home = found
    if group_name:
        gid = _group_id(group_name, group)
        groups: list[int] = []
    else:
        groups = [item_gid for _, item_gid, members in _groups(group) if login and login in members]
    for extra in group_add:
        groups.append(_group_id(extra, group))
    unique = tuple(dict.fromkeys([gid, *groups]))[:_MAX_GROUPS]
    return User(uid, gid, unique, home or "/")


def _passwd_entry(wanted: str, passwd: str) -> tuple[str, int, int, str] | None:
    """(login, uid, gid, home) of a login name, or of the first line with that uid; hostile lines are skipped."""
    by_number: tuple[str, int, int, str] | None = None
    for line in passwd.splitlines():
        field = line.split(":")
        if len(field) < 6 or not field[0]:
            continue
        uid, gid = _id(field[2]), _id(field[3])
        if uid is None or gid is None:
            continue
        home = field[5] if field[5].startswith("/") and "\0" not in field[5] and len(field[5]) < 4096 else "/"
        if field[0] == wanted:
            return field[0], uid, gid, home
        if by_number is None and field[2] == wanted:
            by_number = (field[0], uid, gid, home)
    if by_number is None and wanted == "0":
        return ("root", 0, 0, "/root" if passwd else "/")
    return by_number


def _groups(group: str) -> Iterator[tuple[str, int, frozenset[str]]]:
    for line in group.splitlines():
        field = line.split(":")
        if len(field) < 4 or not field[0]:
            continue
        gid = _id(field[2])
        if gid is not None:
            yield field[0], gid, frozenset(name for name in field[3].strip().split(",") if name)


def _group_id(name: str, group: str) -> int:
    for group_name, gid, _ in _groups(group):
        if group_name == name:
            return gid
    number = _number(name, "group")
    if number is None:
        raise Invalid(
            f"unable to find group {name}",
            why="The image's /etc/group has no such name.",
            hint="Give a number, or add the group in the image.",
        )
    return number


def _number(text: str, kind: str) -> int | None:
    """A decimal id, None for a name; Invalid for a number the kernel would wrap around."""
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text) if len(text) <= 10 else _MAX_ID + 1
    if value > _MAX_ID:
        raise Invalid(f"{kind} id {text[:20]} is out of range", why=f"The largest is {_MAX_ID}.")
    return value


def _id(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > _MAX_ID:
        return None
    return int(text)


def read_layers(rootfs: Rootfs, path: str) -> str:
    """Like `read_database`, from a root file system that is not mounted: its layers are searched from the top.

    Saves a mount on every start. A whiteout or an opaque directory on the way ends the search, as in overlayfs.
    """
    if rootfs.type != "overlay":
        return _read_below(rootfs.source, path)[0]
    layers = [layer for layer in (rootfs.upper, *rootfs.lower) if layer]
    for layer in layers:
        text, final = _read_below(os.path.join(rootfs.base, layer), path)
        if final:
            return text
    return ""


def _read_below(layer: str, path: str) -> tuple[str, bool]:
    """(text, whether lower layers are hidden here)."""
    folder, name = os.path.split(path)
    try:
        root = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return "", False
    try:
        parent = files.openat2(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return "", _opaque(parent)
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                return "", True
            return read_database(root, path), True
        finally:
            os.close(parent)
    except NotADirectoryError:
        return "", True
    except OSError:
        return "", False
    finally:
        os.close(root)


def _opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
