"""Which identities a user namespace of this user can have: its own alone, or also those of subuid(5) and subgid(5).

Owns reading those files and running newuidmap(1) and newgidmap(1); never guesses a range.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

_LIMIT = 1 << 20
_TIMEOUT = 20


def subordinate(text: str, user: str, uid: int) -> list[tuple[int, int]]:
    """(first, count) of every range of this user in the text of /etc/subuid or /etc/subgid, by name or by number."""
    found = []
    for line in text.splitlines():
        name, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if name and name in (user, str(uid)) and first.isdecimal() and count.isdecimal() and int(count):
            found.append((int(first), int(count)))
    return found


def arguments(own: int, ranges: list[tuple[int, int]]) -> list[str]:
    """What newuidmap and newgidmap are told: root inside is `own`, the subordinate ids follow from 1 on."""
    words, inside = ["0", str(own), "1"], 1
    for first, count in ranges:
        words += [str(inside), str(first), str(count)]
        inside += count
    return words


class Identities:
    """The plan for one user: the two programs with their arguments, or the reason why there is one identity only."""

    __slots__ = ("gid_words", "programs", "reason", "uid_words")

    def __init__(self, environ: Mapping[str, str], uid: int, gid: int, user: str) -> None:
        self.programs = (_program("newuidmap", environ), _program("newgidmap", environ))
        ids = subordinate(_read("/etc/subuid"), user, uid)
        groups = subordinate(_read("/etc/subgid"), user, uid)
        self.uid_words, self.gid_words = arguments(uid, ids), arguments(gid, groups)
        self.reason = ""
        if not all(self.programs):
            self.reason = "newuidmap and newgidmap are not installed (package uidmap)"
        elif not ids or not groups:
            self.reason = f"/etc/subuid and /etc/subgid give {user or uid} no further ids"

    def write(self, pid: int) -> str:
        """Give the namespace of `pid` its maps; the reason when that failed. Runs outside of the namespace."""
        for program, words in zip(self.programs, (self.uid_words, self.gid_words), strict=True):
            try:
                done = subprocess.run(
                    [program, str(pid), *words], capture_output=True, timeout=_TIMEOUT, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"{os.path.basename(program)}: {error}"
            if done.returncode:
                said = done.stderr.decode("utf-8", "replace").strip()[:300]
                return said or f"{os.path.basename(program)} failed"
        return ""


def write_single(uid: int, gid: int) -> None:
    """The map that needs nobody's help: root inside is this user, and there is nobody else (user_namespaces(7))."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _program(name: str, environ: Mapping[str, str]) -> str:
    for folder in (*(environ.get("PATH") or "").split(":"), "/usr/bin", "/usr/local/bin"):
        path = f"{folder}/{name}"
        if folder.startswith("/") and os.access(path, os.X_OK):
            return path
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:
        return ""
