"""`RUN --mount`: the kinds lading makes (bind from the context, cache, tmpfs), and the empty mount points of
a step.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lading.base.errors import Invalid, NotFound, Unsupported
from lading.build.dockerfile import DockerfileError
from lading.build.dockerfile.instructions import RunMount
from lading.build.ports import StepMount
from lading.build.tree import Tree
from lading.linux import files

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


def read(mount: RunMount, expand: Callable[[str], str], workdir: str) -> Options:
    """Expand and check one mount; Unsupported names what lading cannot do, with its place."""
    values = {key: expand(value) for key, value in mount.options}
    where = f"line {mount.position.line}, column {mount.position.column}"
    if mount.type in ("secret", "ssh"):
        raise Unsupported(
            f"RUN --mount=type={mount.type} is not supported ({where})",
            hint="Use host trust for proxies and certificates, or a build argument for values that are no secret.",
        )
    if values.get("from"):
        raise Unsupported(
            f"the option from of RUN --mount=type={mount.type} is not supported ({where})",
            hint="Copy the files with COPY --from.",
        )
    if mount.type == "bind" and values.get("rw", "false").lower() in ("true", "1"):
        raise Unsupported(
            f"a writable bind mount is not supported ({where})", hint="Leave rw out, or use COPY."
        )
    if values.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise DockerfileError("sharing is shared, private or locked", mount.position, text=values["sharing"])
    target = posixpath.normpath(posixpath.join(workdir or "/", values["target"]))
    if target == "/":
        raise DockerfileError("a mount cannot take the place of the root directory", mount.position)
    return Options(mount.type, target, values, mount)


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


def step_mount(options: Options, source: str) -> StepMount:
    if options.type == "tmpfs":
        return StepMount("tmpfs", options.target, size=size(options.values.get("size") or "0"))
    read_only = options.type == "bind" or options.flag("ro")
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
