"""A directory tree as a tar stream: deterministic order, hard links, attributes, overlayfs marks as
whiteouts.

Owns walking and the choice of what is written. Works on directory descriptors and never follows a symlink,
since the tree may be changed by a hostile container at the same moment. Unix sockets are left out: tar cannot
hold them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping

from lading.image.layer import header as headers
from lading.image.layer import whiteout
from lading.image.layer.header import Header, pack, padding
from lading.linux import trees

Out = Callable[[bytes], object]

_BATCH = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_DIR = _OPEN | os.O_DIRECTORY


class Batch:
    """Gathers small writes into large ones, which the compressor and the hash like."""

    __slots__ = ("_have", "_out", "_parts")

    def __init__(self, out: Out) -> None:
        self._out = out
        self._parts: list[bytes] = []
        self._have = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._have += len(data)
        if self._have >= _BATCH:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            self._out(b"".join(self._parts) if len(self._parts) > 1 else self._parts[0])
            self._parts.clear()
            self._have = 0


class Writer:
    """Writes members to one archive; `close` ends it."""

    def __init__(self, out: Out, *, latest_ns: int | None = None) -> None:
        """`latest_ns` caps modification times (SOURCE_DATE_EPOCH, reproducible-builds.org)."""
        self._batch = Batch(out)
        self._latest = latest_ns
        self._links: dict[tuple[int, int], bytes] = {}

    def close(self) -> None:
        """Write the end marker and hand over what is gathered."""
        self._batch.write(headers.END)
        self._batch.flush()

    def member(self, header: Header, data: bytes = b"") -> None:
        """One member with its data at hand."""
        self._batch.write(pack(header._replace(size=len(data))))
        if data:
            self._batch.write(data)
            self._batch.write(padding(len(data)))

    def whiteout(self, name: bytes) -> None:
        """Say that `name` is gone."""
        directory, slash, base = name.rpartition(b"/")
        self.member(Header(directory + slash + whiteout.PREFIX + base, headers.REGULAR, mode=0))

    def opaque(self, name: bytes) -> None:
        """Say that the directory `name` hides all that lies below it in lower layers."""
        self.member(Header(name + b"/" + whiteout.OPAQUE, headers.REGULAR, mode=0))

    def file(self, name: bytes, parent: int, base: str, st: os.stat_result) -> None:
        """One non-directory, `base` in the directory `parent`, as `name`."""
        mode = st.st_mode
        if st.st_nlink > 1:
            first = self._links.setdefault((st.st_dev, st.st_ino), name)
            if first is not name:
                self._batch.write(pack(self._header(name, headers.HARD_LINK, st, linkname=first)))
                return
        if stat.S_ISREG(mode):
            self._regular(name, parent, base)
        elif stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(base, dir_fd=parent))
            self._batch.write(pack(self._header(name, headers.SYMLINK, st, linkname=target)))
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            kind = headers.CHARACTER if stat.S_ISCHR(mode) else headers.BLOCK_DEVICE
            major, minor = os.major(st.st_rdev), os.minor(st.st_rdev)
            self._batch.write(pack(self._header(name, kind, st)._replace(major=major, minor=minor)))
        elif stat.S_ISFIFO(mode):
            self._batch.write(pack(self._header(name, headers.FIFO, st)))

    def directory(self, name: bytes, fd: int) -> None:
        """The directory open as `fd`, without what is in it."""
        self._batch.write(pack(self._header(name, headers.DIRECTORY, os.fstat(fd), xattrs=xattrs_of(fd))))

    def _header(
        self,
        name: bytes,
        kind: bytes,
        st: os.stat_result,
        size: int = 0,
        linkname: bytes = b"",
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> Header:
        mtime = st.st_mtime_ns if self._latest is None else min(st.st_mtime_ns, self._latest)
        return Header(
            name,
            kind,
            stat.S_IMODE(st.st_mode),
            st.st_uid,
            st.st_gid,
            size,
            mtime,
            linkname,
            xattrs=xattrs or {},
        )

    def _regular(self, name: bytes, parent: int, base: str) -> None:
        try:
            fd = os.open(base, _OPEN, dir_fd=parent)
        except FileNotFoundError:
            return  # a running container removed it meanwhile
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                return
            size = st.st_size
            write = self._batch.write
            write(pack(self._header(name, headers.REGULAR, st, size, xattrs=xattrs_of(fd))))
            left = size
            while left:
                data = os.read(fd, min(left, _BATCH))
                if not data:
                    # The file shrank while it was read; the header has promised `size` bytes.
                    data = bytes(min(left, _BATCH))
                write(data)
                left -= len(data)
            write(padding(size))
        finally:
            os.close(fd)


def xattrs_of(fd: int) -> dict[bytes, bytes]:
    """Extended attributes that belong in an archive: all but overlayfs' own and what the host's security
    module added."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    if not names:
        return {}
    found: dict[bytes, bytes] = {}
    for name in names:
        raw = os.fsencode(name)
        if whiteout.is_private(raw) or raw in whiteout.HOST_XATTRS:
            continue
        try:
            found[raw] = os.getxattr(fd, name)
        except OSError:
            continue  # gone meanwhile, or not for us to read
    return found


def tree(
    fd: int,
    writer: Writer,
    prefix: bytes = b"",
    *,
    overlay: bool = False,
    keep: Callable[[bytes, os.stat_result], bool] | None = None,
) -> None:
    """Write everything in the directory `fd` (not itself) below `prefix`, names sorted by their bytes.

    `overlay` reads an upper directory: whiteout devices and opaque marks become `.wh.` members. `keep` may
    leave a path out, a directory with all that is in it. Trees deeper than `trees.MAX_DEPTH` raise OSError.
    """
    stack = [(fd, prefix, iter(_sorted(fd)))]
    try:
        while stack:
            directory, above, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
                if directory != fd:
                    os.close(directory)
                continue
            base, st = entry
            raw = os.fsencode(base)
            name = above + b"/" + raw if above else raw
            if (overlay and raw.startswith(whiteout.PREFIX)) or (keep is not None and not keep(name, st)):
                continue  # a layer cannot hold a real file whose name means a whiteout
            if not stat.S_ISDIR(st.st_mode):
                if overlay and stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                    writer.whiteout(name)
                else:
                    writer.file(name, directory, base, st)
                continue
            try:
                child = os.open(base, _OPEN_DIR, dir_fd=directory)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced meanwhile
            stack.append((child, name, iter(())))
            trees.check_depth(name)
            writer.directory(name, child)
            if overlay and whiteout.is_opaque(child):
                writer.opaque(name)
            stack[-1] = (child, name, iter(_sorted(child)))
    finally:
        for directory, _, _ in stack:
            if directory != fd:
                os.close(directory)


def _sorted(fd: int) -> list[tuple[str, os.stat_result]]:
    found = []
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                found.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
    found.sort(key=lambda item: os.fsencode(item[0]))
    return found
