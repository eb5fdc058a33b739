"""Secret files of build steps: written to a tmpfs, never to a disk, and gone from it once the step's mounts hold them.

Owns where they lie on the host. Never decides what a secret is, and never shows one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from lading.base.errors import Invalid, Unavailable

_SHARED = "/dev/shm"
"""POSIX shared memory, which is a tmpfs on every Linux system that has it (shm_overview(7))."""


def on_tmpfs(path: str) -> bool:
    """Whether a directory's files are in memory only, by the device numbers of /proc/self/mountinfo (proc(5))."""
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split(" ", 3)[2] == number:
            return rest.split(" ", 1)[0] in ("tmpfs", "ramfs")
    return False


def _prefix(run: str) -> str:
    """Of this engine's directories in the shared place: its run directory tells it from others."""
    return f"lading-secrets-{hashlib.sha256(run.encode()).hexdigest()[:16]}-"


class SecretFiles:
    """The secret files of one step, below a directory that only this user enters."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._count = 0

    def add(self, content: bytes, owner: tuple[int, int], mode: int) -> str:
        """Write one; its path."""
        self._count += 1
        path = f"{self._directory}/{self._count}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
        except OSError as error:
            raise Invalid(
                f"a secret's file cannot be made for {owner[0]}:{owner[1]}", why=f"{error.strerror}."
            ) from error
        finally:
            os.close(fd)
        return path


@contextmanager
def opened(run: str) -> Iterator[SecretFiles]:
    """A directory for one step's secrets; Unavailable where this host has no tmpfs to put it on."""
    place = next((one for one in (run, _SHARED) if on_tmpfs(one) and os.access(one, os.W_OK)), "")
    if not place:
        raise Unavailable(
            "there is no place for the secrets of a build step",
            why=f"Neither {run} nor {_SHARED} is a tmpfs, and secrets are never written to a disk.",
            hint="Put LADING_RUN on a tmpfs.",
        )
    directory = tempfile.mkdtemp(prefix=_prefix(run), dir=place)
    try:
        yield SecretFiles(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def forget(run: str) -> None:
    """Take away what a killed engine of this run directory left."""
    prefix = _prefix(run)
    for place in (run, _SHARED):
        try:
            names = [name for name in os.listdir(place) if name.startswith(prefix)]
        except OSError:
            continue
        for name in names:
            path = f"{place}/{name}"
            # The shared place is everybody's: a directory of that name that is not ours is left alone.
            if os.lstat(path).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
