"""A build's directory as a tar stream, for a daemon that cannot read it itself. Honours .dockerignore; keeps owners out."""

from __future__ import annotations

import os
import stat
import tarfile

from lading.build.ignore import MAX_SIZE, Ignore, parse
from lading.cli.tarball import file_member, head, node_member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def archive(directory: str, dockerfile: str, text: bytes | None) -> Iterator[bytes]:
    """The tar; `text` is put in as `dockerfile` when the Dockerfile is not one of the directory's files."""
    ignore = _ignore(directory, dockerfile)
    # The daemon needs these two even where they are ignored.
    kept = {".dockerignore", dockerfile or "Dockerfile"}
    yield from _walk(directory, "", ignore, kept)
    if text is not None:
        member = tarfile.TarInfo(dockerfile)
        member.size = len(text)
        yield head(member) + text + bytes(-len(text) % 512)
    yield bytes(1024)


def _ignore(directory: str, dockerfile: str) -> Ignore:
    for name in (f"{dockerfile or 'Dockerfile'}.dockerignore", ".dockerignore"):
        try:
            with open(os.path.join(directory, name), "rb") as file:
                return parse(file.read(MAX_SIZE + 1), name)
        except FileNotFoundError:
            continue
    return parse(b"")


def _walk(root: str, below: str, ignore: Ignore, kept: set[str]) -> Iterator[bytes]:
    for name in sorted(os.listdir(os.path.join(root, below))):
        inner = f"{below}/{name}" if below else name
        path = os.path.join(root, inner)
        info = os.lstat(path)
        ignored = ignore.matches(inner) and inner not in kept
        if stat.S_ISDIR(info.st_mode):
            needed = any(keep.startswith(inner + "/") for keep in kept)
            if not ignored:
                yield head(node_member(path, inner, info))
            if not ignored or needed or not ignore.prunes(inner):
                yield from _walk(root, inner, ignore, kept)
        elif not ignored:
            if stat.S_ISREG(info.st_mode):
                yield from file_member(path, inner, info)
            elif not stat.S_ISSOCK(info.st_mode):
                yield head(node_member(path, inner, info))
