"""Where a user's data may lie: whose directory it is, and what kind of file system. Owns the look, changes nothing."""

from __future__ import annotations

import os
import stat

from lading.base.errors import Denied

SHARED = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "afs", "fuse.sshfs", "pvfs2"}
)
"""File systems that several machines write to, on which batch systems keep home directories."""


def make_run(path: str) -> None:
    """The run directory; a parent that is missing (in /tmp, say) is made for this user alone, whatever the umask."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    os.makedirs(path, mode=0o711, exist_ok=True)


def check_run(path: str, uid: int, gid: int) -> None:
    """Denied where somebody else could put another directory in the place of this one."""
    for directory in (path, os.path.dirname(path)):
        info = os.lstat(directory)
        # In a sticky directory (/tmp) nobody renames what is ours (inode(7)).
        others = info.st_mode & (0o002 if info.st_gid == gid else 0o022) and not info.st_mode & stat.S_ISVTX
        if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (uid, 0) or others:
            raise Denied(
                f"the run directory {path} cannot be trusted",
                why=f"{directory} is not yours alone to write to.",
                hint="Set LADING_RUN to a directory that only you can write to.",
            )


def file_system(path: str, mountinfo: str) -> str:
    """The type of the file system that holds `path`, by the text of /proc/self/mountinfo; "" when it is not told."""
    found, longest = "", -1
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two on one another the later one is seen
            found, longest = kind[0], len(point)
    return found


def warning(root: str) -> str:
    """What to say of a data root on a shared file system; "" for others."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            kind = file_system(os.path.realpath(root), file.read())
    except OSError:
        return ""
    if kind not in SHARED:
        return ""
    return (
        f"WARNING: the data root {root} is on a shared file system ({kind}), where layers are slow and the database "
        "is not safe: set LADING_ROOT to a directory on this machine's own disk"
    )
