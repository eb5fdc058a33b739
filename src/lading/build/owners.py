"""Owners of files, by name: `--chown` and the owner of WORKDIR, from the tree's own /etc/passwd and
/etc/group.

Owns reading these two files as hostile input: regular files only, bounded, opened below the root; never asks
the host's name service, and never decides who a process runs as (the executor does).
"""

from __future__ import annotations

import os
import stat

from lading.base.errors import Invalid
from lading.linux import files

_MAX_SIZE = 1 << 20
_MAX_ID = (1 << 32) - 2  # the last value means "unchanged" to chown(2)


def numeric(text: str) -> tuple[int, int] | None:
    """The owner when `text` is in numbers, which needs no file system; None otherwise."""
    name, colon, group = text.partition(":")
    if not name or (colon and not group):
        raise Invalid(f'"{text[:80]}" is no owner', hint="Write USER or USER:GROUP.")
    uid, gid = _number(name), _number(group or name)
    return None if uid is None or gid is None else (uid, gid)


def resolve(root: int, text: str, *, primary: bool = False) -> tuple[int, int]:
    """The (uid, gid) of `text`, in numbers or names, in the tree whose root directory is the descriptor
    `root`.

    Without a group, `--chown` uses the number of the user (Dockerfile reference, "COPY --chown"); `primary`
    asks for the group that /etc/passwd gives, as a process of that user would have.
    """
    known = numeric(text)
    if known is not None and (":" in text or not primary):
        return known
    name, _, group = text.partition(":")
    uid, home_group = _user(root, name)
    if not group:
        return uid, home_group if primary else uid
    return uid, _group(root, group)


def _user(root: int, name: str) -> tuple[int, int]:
    number = _number(name)
    for fields in _records(root, "/etc/passwd", 7):
        uid, gid = _lenient(fields[2]), _lenient(fields[3])
        if uid is not None and gid is not None and (fields[0] == name or uid == number):
            return uid, gid
    if number is None:
        raise Invalid(
            f'the image has no user "{name[:80]}"',
            why="It is not in the image's /etc/passwd.",
            hint="Add it with RUN useradd before, or use a number.",
        )
    return number, 0


def _group(root: int, name: str) -> int:
    number = _number(name)
    if number is not None:
        return number
    for fields in _records(root, "/etc/group", 4):
        gid = _lenient(fields[2])
        if gid is not None and fields[0] == name:
            return gid
    raise Invalid(
        f'the image has no group "{name[:80]}"',
        why="It is not in the image's /etc/group.",
        hint="Add it with RUN groupadd before, or use a number.",
    )


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text) if len(text) <= 10 else _MAX_ID + 1
    if value > _MAX_ID:
        raise Invalid(f"the user or group number {text[:40]} is out of range")
    return value


def _lenient(text: str) -> int | None:
    """A number of the image's file; a nonsensical one is no record, not the user's mistake."""
    return (
        int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID else None
    )


def _records(root: int, path: str, width: int) -> list[list[str]]:
    lines = (line.split(":") for line in _read(root, path).splitlines())
    return [fields for fields in lines if len(fields) >= width and fields[0]]


def _read(root: int, path: str) -> str:
    """A small text file of the tree; "" when it is absent, Invalid when it is no regular file or too
    large.
    """
    try:
        fd = files.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise Invalid(f"the image's {path} cannot be read", why=f"{error.strerror}.") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Invalid(f"the image's {path} is not a regular file")
        with open(fd, "rb", closefd=False) as stream:
            data = stream.read(_MAX_SIZE + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_SIZE:
        raise Invalid(f"the image's {path} is larger than {_MAX_SIZE >> 20} MiB")
    return data.decode("utf-8", "replace")
