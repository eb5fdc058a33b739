"""`RUN --mount`: the kinds lading makes (bind, cache, tmpfs, secret), and the empty mount points of a step.

Owns turning options into `StepMount` values and leaving no mount point behind in a layer; the executor
mounts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lading.base.errors import Invalid, NotFound, Unsupported
from lading.build.dockerfile import DockerfileError
from lading.build.dockerfile.instructions import RunMount
from lading.build.place import Attributes, Root, same_mode
from lading.build.ports import StepMount
from lading.build.tree import Tree
from lading.linux import files
from lading.store.snapshots import Snapshotter

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
}


@dataclass(frozen=True)
class Options:
    """One mount with its variables expanded."""

    type: str
    target: str
    values: dict[str, str]
    mount: RunMount

    def flag(self, name: str) -> bool:
        return self.values.get(name, "false").lower() in ("true", "1", "")

    @property
    def copied(self) -> bool:
        """A bind of files that are not the context's own, or that the step may change: it gets a copy."""
        return self.type == "bind" and (bool(self.values.get("from")) or self.flag("rw"))


def read(mount: RunMount, expand: Callable[[str], str], workdir: str) -> Options:
    """Expand and check one mount; Unsupported names what lading cannot do, with its place."""
    values = {key: expand(value) for key, value in mount.options}
    where = f"line {mount.position.line}, column {mount.position.column}"
    if mount.type == "ssh":
        raise Unsupported(
            f"RUN --mount=type=ssh is not supported ({where})",
            why="The agent's socket is not carried to the build.",
            hint="Give a deploy key or token with --mount=type=secret and --secret.",
        )
    if mount.type == "secret":
        _secret_target(values, mount)
    if mount.type == "cache" and values.get("from"):
        raise Unsupported(
            f"the option from of RUN --mount=type=cache is not supported ({where})",
            hint="Copy what the cache begins with in the step itself.",
        )
    if "$" in dict(mount.options).get("from", ""):  # which stage is needed is known before any value is
        raise DockerfileError(
            "the option from of --mount takes no variables",
            mount.position,
            text=dict(mount.options)["from"],
            hint="Write FROM IMAGE AS SOME_NAME first, and from=SOME_NAME here.",
        )
    if values.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise DockerfileError("sharing is shared, private or locked", mount.position, text=values["sharing"])
    target = posixpath.normpath(posixpath.join(workdir or "/", values["target"]))
    if target == "/":
        raise DockerfileError("a mount cannot take the place of the root directory", mount.position)
    return Options(mount.type, target, values, mount)


def _secret_target(values: dict[str, str], mount: RunMount) -> None:
    """The id of a secret is the last name of its target, and its target /run/secrets/ID, where one is not given."""
    if values.get("env"):
        raise Unsupported(
            f"a secret as an environment variable is not supported (line {mount.position.line})",
            why="A process hands its environment to all it starts.",
            hint=f'Leave env out, and read the file: {values["env"][:60]}="$(cat /run/secrets/ID)".',
        )
    name = values.get("id") or posixpath.basename(values.get("target", "").rstrip("/"))
    if not name or "/" in name or name in (".", ".."):
        raise DockerfileError(
            "a secret mount needs an id", mount.position, text=name, hint="Write --mount=type=secret,id=NAME."
        )
    values["id"] = name
    values["target"] = values.get("target") or f"/run/secrets/{name}"


def secret(options: Options, secrets: Mapping[str, bytes]) -> StepMount | None:
    """The secret as a file; None where it was not given and is not required."""
    name = options.values["id"]
    content = secrets.get(name)
    if content is None:
        if not options.flag("required"):
            return None
        raise NotFound(
            f'the step needs the secret "{name[:80]}", and the build was given none of that id',
            hint=f"Add --secret id={name[:80]},src=FILE to lading build.",
        )
    owner = (_number(options.values, "uid", 10), _number(options.values, "gid", 10))
    mode = _number(options.values, "mode", 8, 0o400)
    if mode > 0o777:
        raise Invalid(f'"{options.values["mode"][:40]}" is no mode of a secret', hint="Write mode=0400.")
    return StepMount("secret", options.target, read_only=True, content=content, owner=owner, mode=mode)


def size(text: str) -> int:
    """Bytes of `size=64m`; Invalid for anything else."""
    number = text.rstrip("bkmgBKMG")
    unit = text[len(number) :].lower()
    if not (number.isascii() and number.isdigit() and len(number) < 16) or unit not in _UNITS:
        raise Invalid(f'"{text[:40]}" is no size', hint="Write bytes, or a number with k, m or g.")
    return int(number) * _UNITS[unit]


class Caches:
    """The directories of cache mounts, below `root`, one for each id; they outlive builds."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def open(self, options: Options) -> Iterator[str]:
        """The directory for one step; `locked` and `private` ones are used by one step at a time."""
        if not self._root:
            raise Unsupported("RUN --mount=type=cache needs a place for caches", why="This engine has none.")
        values = options.values
        name = hashlib.sha256((values.get("id") or options.target).encode()).hexdigest()
        path = f"{self._root}/{name}"
        os.makedirs(path, mode=0o700, exist_ok=True)
        inner = f"{path}/d"
        with contextlib.suppress(FileExistsError):
            os.mkdir(inner)
            os.chown(inner, _number(values, "uid", 10), _number(values, "gid", 10))
            os.chmod(inner, _number(values, "mode", 8, 0o755))
        if values.get("sharing", "shared") == "shared":
            yield inner
            return
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            yield inner


def _number(values: dict[str, str], name: str, base: int, default: int = 0) -> int:
    text = values.get(name, "")
    if not text:
        return default
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 31:
        raise Invalid(f'"{text[:40]}" is no {name} of a mount')
    return value


def bind_source(tree: Tree | None, options: Options) -> str:
    """The absolute host path of a file or directory of the context, resolved inside it."""
    source = options.values.get("source", "")
    if tree is None:
        raise NotFound(f'"{source or "."}" cannot be mounted', why="The build has no context.")
    try:
        fd = files.open_in_root(tree.root, source or ".", os.O_PATH)
    except OSError as error:
        raise NotFound(f'"{source[:200]}" is not in {tree.name}', why=f"{error.strerror}.") from None
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def copied(
    tree: Tree | None,
    options: Options,
    snapshots: Snapshotter,
    scratch: str,
    check: Callable[[], None],
) -> str:
    """Copy a bind's files into the snapshot `scratch`, which is over nothing; their absolute host path.

    A bind mount needs a path that the container's maker can open, and a stage's tree, a stack of layers, has none.
    """
    source = options.values.get("source") or "."
    if tree is None:
        raise NotFound(f'"{source[:200]}" cannot be mounted', why="The build has no context.")
    if any(letter in source for letter in "*?["):
        raise Invalid(f'"{source[:200]}" is no path of a mount', hint="Name one file or directory.")
    with snapshots.mounted(scratch) as fd:
        for one in tree.select(source):
            Root(fd, check).copy(
                tree, one, "/source", Attributes(None if tree.keeps_owner else (0, 0), same_mode)
            )
    rootfs = snapshots.rootfs(scratch)
    top = rootfs.source if rootfs.type == "bind" else f"{rootfs.base}/{rootfs.upper}"
    return f"{top}/source"


def step_mount(options: Options, source: str) -> StepMount:
    if options.type == "tmpfs":
        return StepMount("tmpfs", options.target, size=size(options.values.get("size") or "0"))
    read_only = not options.flag("rw") if options.type == "bind" else options.flag("ro")
    return StepMount("bind", options.target, source, read_only)


class Stubs:
    """Mount points in a writable tree: made where missing, and taken away again as long as they are empty."""

    def __init__(self) -> None:
        self._absent: list[str] = []
        self._times: dict[str, tuple[int, int]] = {}

    def note(self, root: int, paths: Iterable[str]) -> None:
        """Remember which of `paths`, or directories above them, are not there, and the times of those around
        them.
        """
        for path in paths:
            parts = [part for part in path.split("/") if part]
            for count in range(1, len(parts) + 1):
                one = "/" + "/".join(parts[:count])
                if one in self._absent or self._exists(root, one):
                    continue
                self._absent.append(one)
                self._keep_time(root, posixpath.dirname(one))

    def make(self, root: int, target: str, directory: bool) -> None:
        """The mount point itself, with missing directories above it."""
        done = ""
        parts = [part for part in target.split("/") if part]
        for index, part in enumerate(parts):
            parent = files.open_in_root(root, done or ".", os.O_RDONLY | os.O_DIRECTORY)
            done += "/" + part
            try:
                if self._exists(root, done):
                    continue
                if index + 1 < len(parts) or directory:
                    os.mkdir(part, 0o755, dir_fd=parent)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(part, flags, 0o644, dir_fd=parent))
            finally:
                os.close(parent)

    def clear(self, root: int) -> None:
        """Remove what has appeared and is empty, children first; the directories around get their times
        back.
        """
        for path in reversed(self._absent):
            parent, name = posixpath.split(path)
            try:
                fd = files.open_in_root(root, parent, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.rmdir(name, dir_fd=fd)
                elif stat.S_ISREG(info.st_mode) and info.st_size == 0:
                    os.unlink(name, dir_fd=fd)
                else:
                    continue
                if parent in self._times:
                    os.utime(fd, ns=self._times[parent])
            except OSError:
                continue  # not there, or no longer empty: then it is the step's own
            finally:
                os.close(fd)

    def __bool__(self) -> bool:
        return bool(self._absent)

    @staticmethod
    def _exists(root: int, path: str) -> bool:
        try:
            os.close(files.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _keep_time(self, root: int, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = files.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                info = os.fstat(fd)
                self._times[path] = (info.st_atime_ns, info.st_mtime_ns)
            finally:
                os.close(fd)
