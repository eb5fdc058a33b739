"""Mount points that leave nothing in an image: one directory of empty files and folders, the bottom overlay layer.

Every container's overlay gets this directory below the image's own layers, so that /proc, /etc/hosts or the place of
the host's CA bundle exist in the merged tree without the runtime ever making them in the writable layer. What an
image has at these paths hides the stub. A plain-copy root has no lower layer: there the runtime makes the mount
points in the tree, and whoever must not keep them (the builder) takes them away by the list `PATHS`.
"""

from __future__ import annotations

import os

from lading.engine.trust_host import GUEST_BUNDLE
from lading.store.snapshots import Rootfs

_FOLDERS = ("dev", "proc", "sys", "etc", "run", "run/lading", "run/lading/trust")
_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf", GUEST_BUNDLE.lstrip("/"))

PATHS = tuple("/" + path for path in (*_FOLDERS, *_FILES))
"""Parents before children."""


def ensure(directory: str) -> str:
    """Make the stub layer at `directory`; idempotent, and safe against another engine doing the same."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    os.chmod(directory, 0o755)
    for folder in _FOLDERS:
        os.makedirs(f"{directory}/{folder}", mode=0o755, exist_ok=True)
    for file in _FILES:
        os.close(os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    return directory


def below(rootfs: Rootfs, directory: str) -> Rootfs:
    """`rootfs` with the stub layer as its lowest; a bind root is returned as it is.

    Layers are named relative to the base, where the stub layer lies too: a user namespace maps the base as a whole.
    """
    if rootfs.type != "overlay":
        return rootfs
    return rootfs._replace(lower=(*rootfs.lower, directory.removeprefix(f"{rootfs.base}/")))
