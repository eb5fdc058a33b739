"""From a freshly installed Debian tree to an always equal one. Owns what is removed, written and dated.

Never follows a link out of the tree: it works on names the distribution ships as plain directories and files.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase

from lading.build.bootstrap.recipes import Recipe
from lading.build.bootstrap.sources import Source, official, render

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

SLIM_EXCLUDES = tuple(
    f"/usr/share/{name}/*" for name in ("doc", "groff", "info", "linda", "lintian", "locale", "man")
)
SLIM_INCLUDES = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
# Debian marks its Python as managed by apt alone (PEP 668). An image is one application's: pip may install
# into it, under /usr/local, and dpkg must not bring the mark back with an upgrade.
PYTHON_EXCLUDES = ("/usr/lib/python3*/EXTERNALLY-MANAGED",)

_EMPTY_DIRS = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/log",
    "var/tmp",
    "var/cache/apt",
    "var/cache/ldconfig",
)
_ONE_RUN_ONLY = (
    "var/lib/apt/lists",
    "var/lib/apt/mirrors",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/hosts",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "debootstrap",
)
_BACKUPS = (
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/available",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
)
_APT_CONF = """\
// An image layer wants neither downloaded packages nor translations of package descriptions.
APT::Install-Suggests "false";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
# invoke-rc.d asks this script; 101 is "start no service" (Debian's policy-rc.d): a build has no init.
_POLICY_RC_D = "#!/bin/sh\nexit 101\n"


def excludes(recipe: Recipe) -> tuple[str, ...]:
    """dpkg's path-exclude patterns for this image (dpkg(1))."""
    return (SLIM_EXCLUDES if recipe.slim else ()) + (PYTHON_EXCLUDES if recipe.python else ())


def dpkg_options(recipe: Recipe) -> tuple[str, ...]:
    """Lines for dpkg.cfg.d: what later installs in the image leave out too, and no fsync per file."""
    lines = ["force-unsafe-io", *(f"path-exclude={pattern}" for pattern in excludes(recipe))]
    if recipe.slim:
        lines += [f"path-include={pattern}" for pattern in SLIM_INCLUDES]
    return tuple(lines)


def scrub(root: str, recipe: Recipe, sources: tuple[Source, ...], started_ns: int) -> int:
    """Make `root` reproducible; returns the epoch (seconds) that every younger timestamp is set back to."""
    epoch = newest_shipped(root, started_ns)
    for name in (*_ONE_RUN_ONLY, *_BACKUPS):
        _remove(f"{root}/{name}")
    for name in _EMPTY_DIRS:
        _empty(f"{root}/{name}")
    _drop_excluded(root, recipe)
    _settle_shadow(f"{root}/etc/shadow", epoch)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("var/lib/apt/lists/partial", 0o755)):
        os.makedirs(f"{root}/{name}", exist_ok=True)
        os.chmod(f"{root}/{name}", mode)
    os.makedirs(f"{root}/var/cache/apt/archives/partial", exist_ok=True)
    _write(f"{root}/etc/machine-id", "")
    _write(f"{root}/etc/apt/apt.conf.d/90lading-image", _APT_CONF)
    _write(f"{root}/etc/dpkg/dpkg.cfg.d/90lading-image", "\n".join(dpkg_options(recipe)) + "\n")
    _write(f"{root}/usr/sbin/policy-rc.d", _POLICY_RC_D, 0o755)
    _remove(f"{root}/etc/apt/sources.list")
    _empty(f"{root}/etc/apt/sources.list.d")
    shown = sources or official(recipe.suite, KEYRING)
    _write(f"{root}/etc/apt/sources.list.d/debian.sources", render(shown, public=True))
    return epoch


def newest_shipped(root: str, started_ns: int) -> int:
    """Newest time that came with a package, in seconds: what this run made is younger than `started_ns`.

    A function of the package set alone: two runs agree even when the mirror's Release files were renewed.
    """
    newest = 0
    for entry in walk(root):
        if entry.is_file(follow_symlinks=False):
            mtime = entry.stat(follow_symlinks=False).st_mtime_ns
            if newest < mtime < started_ns:
                newest = mtime
    return newest // 1_000_000_000


def walk(root: str) -> Iterator[os.DirEntry[str]]:
    """Every entry below `root`, parents first, sorted by name in each directory; never through a symlink."""
    with os.scandir(root) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)


def _drop_excluded(root: str, recipe: Recipe) -> None:
    patterns = excludes(recipe)
    kept = SLIM_INCLUDES if recipe.slim else ()
    tops = {f"{root}/usr/share/{name}" for name in os.listdir(f"{root}/usr/share")} if recipe.slim else set()
    for entry in [e for e in walk(f"{root}/usr") if not e.is_dir(follow_symlinks=False)]:
        path = entry.path[len(root) :]
        if any(fnmatchcase(path, p) for p in patterns) and not any(fnmatchcase(path, k) for k in kept):
            os.unlink(entry.path)
    for entry in reversed([e for e in walk(f"{root}/usr/share") if e.is_dir(follow_symlinks=False)]):
        path = entry.path[len(root) :]
        if (
            entry.path not in tops
            and any(fnmatchcase(path, p) for p in patterns)
            and not os.listdir(entry.path)
        ):
            os.rmdir(entry.path)


def _settle_shadow(path: str, epoch: int) -> None:
    """Third field of shadow(5) is the day of the last password change: the day of installation, else."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    mode = os.stat(path)
    fixed = re.sub(r"^([^:\n]*:[^:\n]*):\d+:", rf"\g<1>:{epoch // 86400}:", text, flags=re.MULTILINE)
    _write(path, fixed, mode.st_mode & 0o7777)
    os.chown(path, mode.st_uid, mode.st_gid)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _remove(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(fd, mode)


def _empty(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            _remove(f"{path}/{name}")


def _remove(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
    else:
        shutil.rmtree(path)
