"""Whiteouts: how a layer says that a path below it is gone (OCI image-spec layer.md; kernel
Documentation/filesystems/overlayfs.rst).

Owns both spellings, the archive's and overlayfs', and nothing else.
"""

from __future__ import annotations

import os
import stat

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
RESERVED = b".wh..wh."
"""AUFS' own bookkeeping names; only the opaque marker among them means anything to a reader."""

OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
"""Overlayfs' private attributes: never written to a layer, never taken from one (they could redirect
lookups)."""

HOST_XATTRS = frozenset({b"security.selinux", b"security.ima", b"security.evm"})
"""Labels and measurements of one host's security modules, which mean nothing on another."""


def is_device(st: os.stat_result) -> bool:
    """Whether `st` is overlayfs' whiteout, a character device 0/0."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether the directory `fd` of an upper layer hides everything below it."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return False
    return any(name in names and os.getxattr(fd, name) == b"y" for name in OPAQUE_XATTRS)


def is_private(name: bytes) -> bool:
    """Whether the extended attribute belongs to overlayfs."""
    return name.startswith(OVERLAY_XATTRS)
