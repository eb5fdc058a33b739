"""A directory as a layer tar, the same bytes every time. Owns order, owners and times; never what is in it.

OCI image layers are POSIX tars (image-spec layer.md); names are relative, owners numeric, hard links kept.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from typing import BinaryIO, cast

from lading.build.bootstrap.scrub import walk

_CAPABILITY = "security.capability"


class _Sink:
    """The write half of a file, which is all tarfile asks for in stream mode."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(data)
        return len(data)


def write_tar(root: str, write: Callable[[bytes], object], epoch: int) -> None:
    """Send the tree below `root` to `write`, no time later than `epoch` (the rule of SOURCE_DATE_EPOCH)."""
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(
        fileobj=cast(BinaryIO, _Sink(write)),  # stream mode calls nothing but write
        mode="w|",
        format=tarfile.PAX_FORMAT,
        bufsize=1 << 20,
    ) as out:
        for entry in walk(root):
            status = entry.stat(follow_symlinks=False)
            info = tarfile.TarInfo(entry.path[len(root) + 1 :])
            info.mode = stat.S_IMODE(status.st_mode)
            info.uid, info.gid = status.st_uid, status.st_gid
            info.mtime = min(int(status.st_mtime), epoch)
            _add(out, entry.path, info, status, links)


def _add(
    out: tarfile.TarFile,
    path: str,
    info: tarfile.TarInfo,
    status: os.stat_result,
    links: dict[tuple[int, int], str],
) -> None:
    kind = status.st_mode
    if stat.S_ISDIR(kind):
        info.type = tarfile.DIRTYPE
        out.addfile(info)
    elif stat.S_ISLNK(kind):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        out.addfile(info)
    elif stat.S_ISREG(kind):
        first = links.setdefault((status.st_dev, status.st_ino), info.name)
        if first != info.name:
            info.type, info.linkname = tarfile.LNKTYPE, first
            out.addfile(info)
            return
        info.size = status.st_size
        try:
            capability = os.getxattr(path, _CAPABILITY, follow_symlinks=False)
            text = capability.decode("utf-8", "surrogateescape")
            info.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": text}
        except OSError:
            pass  # none set, or a file system without extended attributes
        with open(path, "rb") as file:
            out.addfile(info, file)
    # Devices, sockets and fifos have no place in a base image: /dev is the runtime's.
