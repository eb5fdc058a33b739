"""The build context: the directory a build may read, its Dockerfile and its ignore file; a context that came
as a tar.

Owns opening these safely (a context may be someone else's work: no path in it leads out of it). Never copies
into images.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lading.base.errors import Invalid, NotFound
from lading.build import archive
from lading.build.request import BuildRequest
from lading.image.layer import apply
from lading.image.layer.reader import Source
from lading.linux import files

if TYPE_CHECKING:
    from lading.build.ignore import Ignore
    from lading.build.tree import Tree

# The daemon imports this file at its start, for `received`; the rest of the room only at its first build.

NAME = "the build context"
_USUAL = ("Dockerfile", "dockerfile", "Containerfile")


class Context:
    """An open context. `tree` selects files; `dockerfile` is the text and the name errors call it by."""

    def __init__(self, tree: Tree | None, dockerfile: bytes, name: str) -> None:
        self.tree = tree
        self.dockerfile = dockerfile
        self.name = name


@contextlib.contextmanager
def opened(request: BuildRequest) -> Iterator[Context]:
    """Open what the request names; NotFound and Invalid say what is missing or wrong."""
    from lading.build.tree import Tree

    if not request.context_dir:
        if request.dockerfile_text is None:
            raise Invalid("the build has neither a context nor a Dockerfile")
        yield Context(None, request.dockerfile_text, request.dockerfile or "Dockerfile")
        return
    if not os.path.isabs(request.context_dir) or "\0" in request.context_dir:
        raise Invalid("the context is not an absolute path")
    try:
        root = os.open(request.context_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        kind = NotFound if isinstance(error, FileNotFoundError) else Invalid
        raise kind(
            f"the build context {request.context_dir[:300]} cannot be used", why=f"{error.strerror}."
        ) from None
    try:
        name = request.dockerfile or "Dockerfile"
        text = request.dockerfile_text
        if text is None:
            name, text = _dockerfile(root, request.dockerfile)
        yield Context(Tree(root, name=NAME, patterns=_patterns(root, name, request)), text, name)
    finally:
        os.close(root)


def _dockerfile(root: int, wanted: str) -> tuple[str, bytes]:
    from lading.build.dockerfile.errors import closest
    from lading.build.dockerfile.lexer import MAX_SIZE

    for name in (wanted,) if wanted else ("Dockerfile", "dockerfile"):
        data = _small(root, name, MAX_SIZE)
        if data is not None:
            return name, data
    name = wanted or "Dockerfile"
    there = [entry for entry in os.listdir(root) if entry in _USUAL or "ockerfile" in entry]
    near = closest(name, tuple(there)) or (sorted(there)[0] if there else "")
    raise NotFound(
        f"{name[:300]} is not in the build context",
        hint=f"There is {near}: name it with -f." if near else "Make one, or name it with -f.",
    )


def _patterns(root: int, dockerfile: str, request: BuildRequest) -> Ignore:
    """An ignore file of the Dockerfile's own (NAME.dockerignore, beside it) wins over the context's."""
    from lading.build import ignore

    if request.dockerignore_text is not None:
        return ignore.parse(request.dockerignore_text)
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        data = _small(root, name, ignore.MAX_SIZE)
        if data is not None:
            return ignore.parse(data, name)
    return ignore.NOTHING


def _small(root: int, path: str, limit: int) -> bytes | None:
    """A regular file of the context, None when it is not there."""
    if "\0" in path or len(path) > 4096:
        raise Invalid("the name of the Dockerfile is not a path")
    try:
        fd = files.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Invalid(f"{path[:300]} in the build context cannot be read", why=f"{error.strerror}.") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Invalid(f"{path[:300]} in the build context is not a regular file")
        with open(fd, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise Invalid(f"{path[:300]} in the build context is larger than {limit >> 20} MiB")
    return data


@contextlib.contextmanager
def received(stream: Source, scratch: str) -> Iterator[str]:
    """A context that came as a tar (plain, gzip, bzip2, xz or zstd), unpacked in a directory below `scratch`.

    The directory goes away at the end. Device nodes in the archive are refused; owners are not kept, since a
    build gives every file of a context to root.
    """
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="context-", dir=scratch, ignore_cleanup_errors=True) as directory:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            apply.apply(fd, archive.decompressed(stream), apply.Options(keep_owner=False, xattrs=False))
        finally:
            os.close(fd)
        yield directory
