"""Mount options of the runtime specification, told apart: flags, propagation, recursive attributes, id maps, data. Pure.

Sources: runtime-spec 1.2 config-linux.md "Linux mount options", mount(8), mount_setattr(2).
"""

from __future__ import annotations

import os

from lading.base.errors import Invalid
from lading.linux import abi as m

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Iterable, Mapping
    from typing import Any

FLAGS = {
    "ro": m.MS_RDONLY, "nosuid": m.MS_NOSUID, "nodev": m.MS_NODEV, "noexec": m.MS_NOEXEC, "sync": m.MS_SYNCHRONOUS,
    "dirsync": m.MS_DIRSYNC, "noatime": m.MS_NOATIME, "nodiratime": m.MS_NODIRATIME, "relatime": m.MS_RELATIME,
    "strictatime": m.MS_STRICTATIME, "nosymfollow": m.MS_NOSYMFOLLOW, "silent": m.MS_SILENT, "remount": m.MS_REMOUNT,
    "mand": m.MS_MANDLOCK, "lazytime": m.MS_LAZYTIME,
}  # fmt: skip
CLEARED = {
    "rw": m.MS_RDONLY, "suid": m.MS_NOSUID, "dev": m.MS_NODEV, "exec": m.MS_NOEXEC, "async": m.MS_SYNCHRONOUS,
    "atime": m.MS_NOATIME, "diratime": m.MS_NODIRATIME, "norelatime": m.MS_RELATIME, "nostrictatime": m.MS_STRICTATIME,
    "symfollow": m.MS_NOSYMFOLLOW, "loud": m.MS_SILENT, "nomand": m.MS_MANDLOCK,
}  # fmt: skip
PROPAGATION = {
    "private": m.MS_PRIVATE, "rprivate": m.MS_PRIVATE | m.MS_REC, "slave": m.MS_SLAVE, "rslave": m.MS_SLAVE | m.MS_REC,
    "shared": m.MS_SHARED, "rshared": m.MS_SHARED | m.MS_REC, "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}  # fmt: skip
IGNORED = {"defaults", "tmpcopyup", "create=dir", "create=file", "copy"}
RECURSIVE = {
    "rro": (m.MOUNT_ATTR_RDONLY, 0), "rrw": (0, m.MOUNT_ATTR_RDONLY),
    "rnosuid": (m.MOUNT_ATTR_NOSUID, 0), "rsuid": (0, m.MOUNT_ATTR_NOSUID),
    "rnodev": (m.MOUNT_ATTR_NODEV, 0), "rdev": (0, m.MOUNT_ATTR_NODEV),
    "rnoexec": (m.MOUNT_ATTR_NOEXEC, 0), "rexec": (0, m.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (m.MOUNT_ATTR_NODIRATIME, 0), "rdiratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "rnoatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME), "ratime": (0, m.MOUNT_ATTR_NOATIME),
    "rrelatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME), "rnorelatime": (0, m.MOUNT_ATTR__ATIME),
    "rstrictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME), "rnostrictatime": (0, m.MOUNT_ATTR__ATIME),
    "rnosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0), "rsymfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
}  # fmt: skip
"""(attributes to set, to clear) for the mount and all below it; the access time ones are one field (mount_setattr(2))."""

IDMAP = ("idmap", "ridmap")


def mount_options(options: Iterable[str]) -> tuple[int, int, bytes]:
    """(mount flags, propagation flags, data) of an OCI mount's options; what is not a flag goes to the file system."""
    flags = propagation = 0
    data: list[str] = []
    for option in options:
        if option in FLAGS:
            flags |= FLAGS[option]
        elif option in CLEARED:
            flags &= ~CLEARED[option]
        elif option in PROPAGATION:
            propagation = PROPAGATION[option]
        elif option == "bind":
            flags |= m.MS_BIND
        elif option == "rbind":
            flags |= m.MS_BIND | m.MS_REC
        elif option not in IGNORED and option not in RECURSIVE and option not in IDMAP:
            data.append(option)
    return flags, propagation, os.fsencode(",".join(data))


def recursive_attributes(options: Iterable[str]) -> tuple[int, int]:
    """(set, clear) for mount_setattr with AT_RECURSIVE; (0, 0) when no option asks for it. The last one wins."""
    set_, clear = 0, 0
    for option in options:
        if option in RECURSIVE:
            more, less = RECURSIVE[option]
            set_, clear = set_ & ~less | more, clear & ~more | less
            if less & m.MOUNT_ATTR__ATIME:
                clear |= m.MOUNT_ATTR__ATIME  # EINVAL otherwise: the field is cleared whole
    return set_, clear


def known() -> list[str]:
    """Every option that is not file system data, for `features`."""
    return sorted({*FLAGS, *CLEARED, *PROPAGATION, *RECURSIVE, *IDMAP, *IGNORED, "bind", "rbind"})


def id_map(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """The text for /proc/PID/uid_map or gid_map (user_namespaces(7))."""
    return b"".join(
        b"%d %d %d\n" % (int(e["containerID"]), int(e["hostID"]), int(e["size"])) for e in entries
    )


def mount_maps(entry: Mapping[str, Any], container: tuple[bytes, bytes]) -> tuple[bytes, bytes, bool] | None:
    """(uid map, gid map, recursive) of an id-mapped mount, or None; the container's own maps are the default."""
    wanted = [option for option in entry.get("options") or () if option in IDMAP]
    own = tuple(id_map(entry.get(key) or ()) for key in ("uidMappings", "gidMappings"))
    if not wanted and not any(own):
        return None
    if bool(own[0]) != bool(own[1]):
        raise Invalid(
            f"mounts: {entry.get('destination')} needs both uidMappings and gidMappings, or neither"
        )
    maps = own if own[0] else container
    if not maps[0]:
        raise Invalid(
            f"mounts: {entry.get('destination')} is to be id-mapped without mappings",
            hint="Give the mount uidMappings and gidMappings, or the container a user namespace with them.",
        )
    return maps[0], maps[1], "ridmap" in wanted
