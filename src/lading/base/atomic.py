"""Files that appear whole or not at all (house rule 5: write aside, then rename)."""

from __future__ import annotations

import os


def write_file(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Replace `path` with `data` in one step; `durable` also fsyncs the file and its directory (rename(2), fsync(2))."""
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
    except BaseException:
        try:
            os.unlink(aside)
        except FileNotFoundError:
            pass
        raise
    if durable:
        sync_dir(os.path.dirname(path) or ".")


def sync_dir(path: str) -> None:
    """Make earlier renames in `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
