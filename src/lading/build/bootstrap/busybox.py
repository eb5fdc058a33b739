"""The busybox image: one static binary, its names, five small files. Owns that tree; never runs an installer.

The binary is the distribution's busybox-static: the installed one, else fetched and verified by apt.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping

from lading.base import errors
from lading.build.bootstrap.packages import FORMAT, Package, parse_query

_PACKAGE = "busybox-static"
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nnobody:x:65534:\n",
    "etc/shadow": "root:*:0:0:99999:7:::\ndaemon:*:0:0:99999:7:::\nnobody:*:0:0:99999:7:::\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/network/.keep": "",
}
_DIRECTORIES = {
    "root": 0o700,
    "tmp": 0o1777,
    "home": 0o755,
    "var/tmp": 0o1777,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
}


def make_tree(
    root: str, environ: Mapping[str, str], progress: Callable[[str], None]
) -> tuple[int, tuple[Package, ...]]:
    """Lay the image out in `root`; returns the epoch (the binary's own date) and the one package it holds."""
    scratch = f"{root}.deb"
    binary, package, stanza = _installed(environ) or _downloaded(scratch, environ, progress)
    progress(f"busybox-static {package.version} ({package.architecture})")
    epoch = int(os.stat(binary).st_mtime)
    os.makedirs(f"{root}/bin")
    shutil.copyfile(binary, f"{root}/bin/busybox")
    os.chmod(f"{root}/bin/busybox", 0o755)
    for applet in _applets(binary, environ):
        os.symlink("busybox", f"{root}/bin/{applet}")
    for name, mode in _DIRECTORIES.items():
        os.makedirs(f"{root}/{name}", exist_ok=True)
        os.chmod(f"{root}/{name}", mode)
    os.symlink("/bin/env", f"{root}/usr/bin/env")  # where scripts' first lines look for it
    # Scanners read one file per package here when an image has no dpkg of its own (distroless images' way).
    for name, text in {**_FILES, f"var/lib/dpkg/status.d/{_PACKAGE}": stanza}.items():
        os.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
        with open(f"{root}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(f"{root}/{name}", 0o640 if name == "etc/shadow" else 0o644)
    shutil.rmtree(scratch, ignore_errors=True)
    return epoch, (package,)


def _installed(environ: Mapping[str, str]) -> tuple[str, Package, str] | None:
    """The host's binary when it is the package's own, unchanged; None sends the caller to apt."""
    query = _run(["dpkg-query", "--show", f"--showformat=${{db:Status-Status}}\n{FORMAT}", _PACKAGE], environ)
    if query is None or not query.startswith("installed\n"):
        return None
    (package,) = parse_query(query.partition("\n")[2])
    sums = _read("/var/lib/dpkg/info/busybox-static.md5sums")
    match = re.search(r"^([0-9a-f]{32})  ((?:usr/)?bin/busybox)$", sums, re.MULTILINE)
    if match is None:
        return None
    path = f"/{match[2]}"
    with open(path, "rb") as file:
        # dpkg records nothing but MD5: it finds a damaged or replaced file; an attacker would be root anyway.
        if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != match[1]:
            return None
    stanza = _run(["dpkg-query", "--status", _PACKAGE], environ) or ""
    return path, package, stanza


def _downloaded(
    scratch: str, environ: Mapping[str, str], progress: Callable[[str], None]
) -> tuple[str, Package, str]:
    os.makedirs(scratch, mode=0o755, exist_ok=True)
    progress("busybox-static is not installed: asking apt for it")
    if _run(["apt-get", "download", "-qq", _PACKAGE], environ, cwd=scratch) is None:
        raise errors.Unsupported(
            "busybox cannot be bootstrapped",
            why="Package busybox-static is neither installed nor can apt download it.",
            hint="Run `apt-get update && apt-get install busybox-static`.",
        )
    (deb,) = [f"{scratch}/{name}" for name in os.listdir(scratch) if name.endswith(".deb")]
    stanza = _run(["dpkg-deb", "--field", deb], environ)
    listing = _run(["dpkg-deb", "--show", f"--showformat={FORMAT}", deb], environ)
    if (
        stanza is None
        or listing is None
        or _run(["dpkg-deb", "--extract", deb, f"{scratch}/x"], environ) is None
    ):
        raise errors.Unavailable(
            "the downloaded busybox-static package cannot be unpacked",
            hint="Check the free disk space, then try again.",
        )
    (package,) = parse_query(listing)
    for path in (f"{scratch}/x/bin/busybox", f"{scratch}/x/usr/bin/busybox"):
        if os.path.isfile(path):
            return path, package, "Status: install ok installed\n" + stanza
    raise errors.Unavailable(
        "the busybox-static package holds no busybox", hint="Install busybox-static, then try again."
    )


def _applets(binary: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    listing = _run([binary, "--list"], environ)
    names = {name for name in (listing or "").split() if re.fullmatch(r"[A-Za-z0-9._\[-]{1,32}", name)}
    if "sh" not in names:
        raise errors.Unsupported(
            f"{binary} does not tell its applets",
            why="Every busybox has at least `sh`.",
            hint="Reinstall the package busybox-static.",
        )
    return tuple(sorted(names - {"busybox"}))


def _run(argv: list[str], environ: Mapping[str, str], cwd: str | None = None) -> str | None:
    """Standard output of a short command, None when it is missing or fails."""
    try:
        done = subprocess.run(
            argv,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
