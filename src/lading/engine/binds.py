"""From `-v`, `--mount`, `--tmpfs` and the image's VOLUME to one list of mounts. Owns the text forms and precedence.

Never touches the file system: whether a source exists is checked when the container starts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace

from lading.base.errors import Invalid
from lading.engine.model import Mount

_PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
_IGNORED = frozenset(("z", "Z", "cached", "delegated", "consistent"))  # SELinux labels and macOS cache hints
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse(text: str) -> Mount:
    """One `-v` value: "/host:/path[:opts]", "name:/path[:opts]" or "/path" (anonymous)."""
    parts = text.split(":")
    if len(parts) == 1:
        return Mount(type="volume", target=target(parts[0], text))
    if len(parts) > 3 or not all(parts[:2]):
        raise Invalid(
            f'invalid volume specification "{text}"', hint="Write SOURCE:TARGET or SOURCE:TARGET:OPTIONS."
        )
    source, destination = parts[0], target(parts[1], text)
    kind = "bind" if source.startswith("/") else "volume"
    if kind == "volume" and not volume_name(source):
        raise Invalid(
            f'invalid volume name "{source}" in "{text}"',
            why="A volume's name is letters, digits, '_', '.' and '-', at least two.",
            hint="A host path must be absolute.",
        )
    mount = Mount(
        type=kind,
        target=destination,
        source=posixpath.normpath(source) if kind == "bind" else source,
        create_source=kind == "bind",
    )
    return _options(mount, parts[2] if len(parts) == 3 else "", text)


def _options(mount: Mount, options: str, text: str) -> Mount:
    modes = 0
    for option in options.split(",") if options else ():
        if option in ("ro", "rw"):
            modes += 1
            mount = replace(mount, read_only=option == "ro")
        elif option == "nocopy" and mount.type == "volume":
            mount = replace(mount, no_copy=True)
        elif option in _PROPAGATION and mount.type == "bind" and not mount.propagation:
            mount = replace(mount, propagation=option)
        elif option not in _IGNORED:
            raise Invalid(
                f'invalid volume specification "{text}"', why=f'The option "{option}" is not valid here.'
            )
    if modes > 1:
        raise Invalid(f'invalid volume specification "{text}"', why="ro and rw are given more than once.")
    return mount


def target(path: str, text: str = "") -> str:
    """A clean absolute path inside the container, not its root."""
    if not path.startswith("/") or "\0" in path or len(path) > 4096:
        raise Invalid(f'invalid mount target "{path}"', why="The path in the container must be absolute.")
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if clean == "/":
        raise Invalid(
            f'invalid mount target "{text or path}"', why="Nothing can be mounted over the container's '/'."
        )
    return clean


_OVER_PROC = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
)
"""What lxcfs(1) shows with a container's own numbers."""


def not_procfs(path: str, source: str = "") -> None:
    """Nothing but procfs may lie at /proc: whoever reads or writes there trusts that the kernel answers
    (CVE-2019-16884, CVE-2019-19921)."""
    if path != "/proc" and not path.startswith("/proc/"):
        return
    if path not in _OVER_PROC and source != "/proc" and not source.startswith("/proc/"):
        raise Invalid(
            f'invalid mount target "{path}"',
            why="Inside /proc only the kernel's own files may be seen.",
            hint=f"Allowed there are binds of the host's /proc, and {', '.join(sorted(_OVER_PROC))}.",
        )


def volume_name(name: str) -> bool:
    """Docker's rule: a letter or digit, then letters, digits, '_', '.', '-'; two characters at least."""
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
    return 2 <= len(name) <= 255 and name.isascii() and plain.isalnum() and name[0].isalnum()


def tmpfs(path: str, options: str) -> Mount:
    """One `--tmpfs PATH[:OPTIONS]`; size and mode are taken out of the options, the rest goes to the kernel."""
    mount = Mount(type="tmpfs", target=target(path))
    rest = []
    for option in options.split(",") if options else ():
        key, _, value = option.partition("=")
        if key == "size":
            mount = replace(mount, tmpfs_size=size(value))
        elif key == "mode":
            try:
                mount = replace(mount, tmpfs_mode=int(value, 8))
            except ValueError:
                raise Invalid(f'invalid tmpfs mode "{value}"', hint="Write it in octal, as 1777.") from None
        elif key == "ro":
            mount = replace(mount, read_only=True)
        elif option in TMPFS_OPTIONS or key in ("uid", "gid", "nr_inodes", "nr_blocks"):
            rest.append(option)
        else:
            raise Invalid(f'invalid tmpfs option "{option}"')
    return replace(mount, tmpfs_options=",".join(rest))


TMPFS_OPTIONS = frozenset(("exec", "noexec", "suid", "nosuid", "dev", "nodev", "rw", "noatime", "nodiratime"))


def size(text: str) -> int:
    """ "64m", "1g", "65536" or "50%" is refused: bytes only."""
    digits = text.rstrip("bkmgBKMG")
    unit = text[len(digits) :].lower()
    unit = unit[0] if unit in ("kb", "mb", "gb") else unit
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS or len(digits) > 18:
        raise Invalid(f'invalid size "{text}"', hint="Write a number of bytes, or one with k, m or g.")
    return int(digits) * _UNITS[unit]


def merge(
    image_volumes: Iterable[str],
    inherited: Iterable[Mount],
    binds: Iterable[str],
    mounts: Iterable[Mount],
    tmpfs_map: Mapping[str, str],
) -> tuple[Mount, ...]:
    """Every mount of a container, parents before children. What is asked for wins over what is inherited."""
    asked: dict[str, Mount] = {}
    for mount in [*(parse(text) for text in binds), *(check(mount) for mount in mounts)]:
        if mount.target in asked:
            raise Invalid(f"duplicate mount point: {mount.target}")
        asked[mount.target] = mount
    for path, options in tmpfs_map.items():
        mount = tmpfs(path, options)
        if mount.target in asked:
            raise Invalid(f"duplicate mount point: {mount.target}")
        asked[mount.target] = mount
    for mount in inherited:
        asked.setdefault(mount.target, mount)
    for path in image_volumes:
        clean = target(path)
        asked.setdefault(clean, Mount(type="volume", target=clean))
    for mount in asked.values():
        not_procfs(mount.target, mount.source if mount.type == "bind" else "")
    return tuple(sorted(asked.values(), key=lambda mount: (mount.target.count("/"), mount.target)))


def check(mount: Mount) -> Mount:
    """A `--mount` as the API gave it, with its paths cleaned."""
    clean = replace(mount, target=target(mount.target))
    if mount.type == "bind":
        if not mount.source.startswith("/") or "\0" in mount.source:
            raise Invalid(
                f'invalid mount source "{mount.source}"',
                why="A bind mount's source must be an absolute path.",
            )
        if mount.propagation and mount.propagation not in _PROPAGATION:
            raise Invalid(f'invalid mount propagation "{mount.propagation}"')
        return replace(clean, source=posixpath.normpath(mount.source))
    if mount.type == "volume":
        if mount.source and not volume_name(mount.source):
            raise Invalid(f'invalid volume name "{mount.source}"')
        return clean
    if mount.type == "tmpfs":
        if mount.source:
            raise Invalid("a tmpfs mount has no source")
        return clean
    raise Invalid(f'invalid mount type "{mount.type}"', hint="The types are bind, volume and tmpfs.")
