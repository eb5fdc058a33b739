"""`lading cp`: which side is the container, and what the copy is called at its destination (docker's rules, as `cp -a`'s).

Owns the names; `tarball` moves the files.
"""

from __future__ import annotations

import os

from lading.base.errors import Invalid, LadingError, NotFound
from lading.cli.archive import TAR, read_pieces, write_stream
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.images import path_name
from lading.cli.tarball import Placed, pack, unpack
from lading.client.wire import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context

_MODE_DIR = 1 << 31
_MODE_SYMLINK = 1 << 27


def split(argument: str) -> tuple[str, str]:
    """(container, path); container is "" for a local path: one that begins with / or . or has no colon."""
    if argument.startswith(("/", ".")):
        return "", argument
    container, mark, path = argument.partition(":")
    return (container, path) if mark and container else ("", argument)


def _cp(context: Context, flags: Flags) -> int:
    source, target = (split(argument) for argument in flags.args)
    if source[0] and target[0]:
        raise UsageError(
            "copying between containers is not supported", hint="Copy by way of this host.", code=1
        )
    if not source[0] and not target[0]:
        raise UsageError("must specify at least one container source", hint="Write CONTAINER:PATH.", code=1)
    if not (source[1] if source[0] else target[1]):
        raise UsageError("the path in the container is empty", code=1)
    if source[0]:
        size = _from_container(context, flags, source[0], source[1], target[1])
    else:
        size = _to_container(context, flags, source[1], target[0], target[1])
    if size >= 0 and not flags.on("quiet") and context.err.is_terminal():
        from lading.cli.human import size3

        context.err.line(f"Successfully copied {size3(size)} to {flags.args[1]}")
    return 0


def stat(context: Context, container: str, path: str) -> dict[str, Any]:
    """What `path` is in the container: Docker's ContainerPathStat (name, size, mode as Go's FileMode, linkTarget)."""
    response = context.client.open("HEAD", f"/containers/{path_name(container)}/archive", {"path": path})
    response.connection.close()
    import binascii

    try:
        found = loads(binascii.a2b_base64(response.headers.get("x-docker-container-path-stat", "")))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid("the daemon did not say what the path is")
    return found


def _lookup(context: Context, container: str, path: str) -> dict[str, Any] | None:
    try:
        return stat(context, container, path)
    except LadingError as error:
        if getattr(error, "status", 0) == 404 and _container_exists(context, container):
            return None
        if getattr(error, "status", 0) == 404:
            raise NotFound(f"no such container: {container}") from None
        raise


def _container_exists(context: Context, container: str) -> bool:
    try:
        context.client.call("GET", f"/containers/{path_name(container)}/json")
    except LadingError:
        return False
    return True


def _resolved(context: Context, container: str, path: str) -> tuple[str, dict[str, Any] | None]:
    """`path` with a symbolic link at its end followed, and what is there."""
    for _ in range(40):
        found = _lookup(context, container, path)
        if found is None or not int(found.get("mode", 0)) & _MODE_SYMLINK or not found.get("linkTarget"):
            return path, found
        path = os.path.join(os.path.dirname(path.rstrip("/")), str(found["linkTarget"]))
    raise Invalid(f"too many levels of symbolic links: {path}")


def _from_container(context: Context, flags: Flags, container: str, path: str, target: str) -> int:
    if flags.on("follow-link"):
        path = _resolved(context, container, path)[0]
    found = _lookup(context, container, path)
    if found is None:
        raise NotFound(f"could not find the file {path} in container {container}")
    response = context.client.open("GET", f"/containers/{path_name(container)}/archive", {"path": path})
    if target == "-":
        write_stream(context, response, "")
        return -1
    try:
        directory = bool(int(found.get("mode", 0)) & _MODE_DIR)
        root = local_target(context.absolute(target), target, path, str(found.get("name", "")), directory)
        return unpack(response.chunks(), root, keep_owner=flags.on("archive"), complain=context.complain)
    finally:
        response.connection.close()


def only_contents(path: str) -> bool:
    """`dir/.` means what is in it."""
    return path.endswith("/.") or path == "."


def local_target(absolute: str, given: str, source: str, name: str, directory: bool) -> str:
    """The path that the source's own entry gets here."""
    if os.path.isdir(absolute):
        if (directory and only_contents(source)) or name in ("", "/", "."):
            return absolute
        return os.path.join(absolute, os.path.basename(name))
    if os.path.lexists(absolute):
        if directory:
            raise Invalid(f"cannot copy a directory to {given!r}", why="It is a file.")
        if given.endswith("/"):
            raise Invalid(f"{given!r} is not a directory")
        return absolute
    if not os.path.isdir(os.path.dirname(absolute)):
        raise Invalid(f"invalid output path: directory {os.path.dirname(absolute)!r} does not exist")
    if given.endswith("/") and not directory:
        raise Invalid(f"no such directory: {given!r}")
    return absolute


def _to_container(context: Context, flags: Flags, source: str, container: str, target: str) -> int:
    there, found = _resolved(context, container, target)
    if found is not None and not int(found.get("mode", 0)) & _MODE_DIR and target.endswith("/"):
        raise Invalid(f"{target!r} is not a directory in the container")
    is_directory = found is not None and bool(int(found.get("mode", 0)) & _MODE_DIR)
    query: dict[str, Any] = {"noOverwriteDirNonDir": "true"}
    if flags.on("archive"):
        query["copyUIDGID"] = "true"
    address = f"/containers/{path_name(container)}/archive"
    if source == "-":
        if not is_directory:
            raise Invalid(f"destination {container}:{target!r} must be a directory")
        context.client.open(
            "PUT", address, {**query, "path": there}, read_pieces(context.stdin), TAR
        ).connection.close()
        return -1
    placed = remote_target(context.absolute(source), source, there, found is not None, is_directory)
    archive = pack(
        context.absolute(source),
        placed.name,
        follow=flags.on("follow-link"),
        keep_owner=flags.on("archive"),
    )
    context.client.open("PUT", address, {**query, "path": placed.directory}, archive, TAR).connection.close()
    return archive.size


def remote_target(local: str, source: str, there: str, exists: bool, is_directory: bool) -> Placed:
    """The directory to unpack in, and the name that the source's own entry gets in it ("." for its contents alone)."""
    if not os.path.lexists(local):
        raise NotFound(f"{source!r} does not exist")
    if os.path.isdir(local) and only_contents(source):
        if exists and not is_directory:
            raise Invalid(f"cannot copy a directory to {there!r}", why="It is a file in the container.")
        if is_directory:
            return Placed(there, ".")
    elif is_directory:
        return Placed(there, os.path.basename(local) or ".")
    if exists and os.path.isdir(local):
        raise Invalid(f"cannot copy a directory to {there!r}", why="It is a file in the container.")
    if there.endswith("/") and not os.path.isdir(local):
        raise Invalid(f"no such directory in the container: {there!r}")
    trimmed = there.rstrip("/") or "/"
    return Placed(os.path.dirname(trimmed) or "/", os.path.basename(trimmed) or ".")


CP = Verb(
    "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tlading cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    (
        ("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
        ("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
        ("quiet", "q", "bool", "Suppress progress output during copy"),
    ),
    _cp,
    least=2,
    most=2,
    notes="Use '-' as the source to read a tar archive from stdin and extract it to a directory in a container.\n"
    "Use '-' as the destination to stream a tar archive of a container source to stdout.",
)
