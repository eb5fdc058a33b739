"""What the whole suite shares: kernel tests need root, and nobody leaves anything behind.

With LADING_TEST_LEFTOVERS=1 (make test sets it) the session fails when a mount, network interface, control
group or lading process exists at its end that did not at its start. Off by default: other suites may run
beside this one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="real namespaces, control groups and mounts need root")
    for item in items:
        if {"kernel", "compat", "attacks"} & set(item.path.parts):
            item.add_marker(needs_root)


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {f"mount {line.split()[4]}" for line in lines}


def _interfaces() -> set[str]:
    return {f"interface {name}" for name in os.listdir("/sys/class/net")}


def _cgroups() -> set[str]:
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        # An empty parent named lading may stay, for the next container; nothing in it may.
        found |= {f"cgroup {directory}/{name}" for name in names if "/lading" in directory}
    return found


def _processes() -> set[str]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "lading" in words.partition(" -m pytest")[0] and int(pid) not in (os.getpid(), os.getppid()):
            found.add(f"process {pid} {words[:120]}")
    return found


def _present() -> set[str]:
    return _mounts() | _interfaces() | _cgroups() | _processes()


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """See the file's docstring."""
    if os.environ.get("LADING_TEST_LEFTOVERS") != "1" or os.geteuid() != 0:
        yield
        return
    before = _present()
    yield
    deadline = time.monotonic() + 5  # an interface goes a moment after its namespace
    while (left := _present() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "left behind by the suite:\n" + "\n".join(sorted(left))
