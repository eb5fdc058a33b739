"""Making a tree reproducible: what goes, what stays, which time stamps decide. On a small tree."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lading.build.bootstrap import recipes, scrub
from lading.build.bootstrap.sources import Source

SHIPPED = 1_600_000_000
SLIM = recipes.recipe("python:3.11-slim")


def plant(root: Path, name: str, text: str = "x", mtime: int | None = None) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, mtime in (("usr/bin/tool", SHIPPED), ("usr/bin/older", SHIPPED - 5)):
        plant(root, name, mtime=mtime)
    plant(root, "etc/shadow", "root:*:20778:0:99999:7:::\nsync:*:20778:0:99999:7:::\nopen:::0:99999:7:::\n")
    for name in (
        *("etc/shadow-", "etc/resolv.conf", "etc/hostname", "etc/machine-id", "etc/apt/sources.list"),
        *(
            "etc/apt/sources.list.d/0000x.sources",
            "etc/apt/apt.conf.d/99mmdebstrap",
            "var/log/apt/history.log",
        ),
        *("var/cache/ldconfig/aux-cache", "var/lib/apt/lists/m_dists", "tmp/x", "run/lock/y", "dev/zero"),
        *("usr/share/doc/bash/README", "usr/share/doc/bash/copyright", "usr/share/man/man1/bash.1.gz"),
        *(
            "usr/share/locale/pt_BR/LC_MESSAGES/x.mo",
            "usr/share/locale/locale.alias",
            "usr/share/zoneinfo/UTC",
        ),
        *("usr/lib/python3.11/EXTERNALLY-MANAGED", "usr/lib/python3.11/os.py", "var/lib/dpkg/status-old"),
    ):
        plant(root, name)
    return root


def test_what_stays_and_what_goes(tree: Path) -> None:
    epoch = scrub.scrub(str(tree), SLIM, (), time.time_ns() - 60_000_000_000)
    assert epoch == SHIPPED
    left = {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()}
    assert left == {
        *("usr/bin/tool", "usr/bin/older", "usr/sbin/policy-rc.d", "etc/shadow", "etc/machine-id"),
        *("usr/share/doc/bash/copyright", "usr/share/locale/locale.alias", "usr/share/zoneinfo/UTC"),
        *(
            "usr/lib/python3.11/os.py",
            "etc/apt/apt.conf.d/90lading-image",
            "etc/dpkg/dpkg.cfg.d/90lading-image",
        ),
        "etc/apt/sources.list.d/debian.sources",
    }
    assert (tree / "etc/machine-id").read_text() == ""
    assert not (tree / "usr/share/locale/pt_BR").exists()
    assert (tree / "usr/share/man").is_dir(), "packages expect the directory"
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_password_dates_are_the_epochs(tree: Path) -> None:
    (tree / "etc/shadow").chmod(0o640)
    scrub.scrub(str(tree), SLIM, (), time.time_ns() - 60_000_000_000)
    day = SHIPPED // 86400
    assert (tree / "etc/shadow").read_text() == (
        f"root:*:{day}:0:99999:7:::\nsync:*:{day}:0:99999:7:::\nopen:::0:99999:7:::\n"
    )
    assert (tree / "etc/shadow").stat().st_mode & 0o777 == 0o640


def test_a_full_image_keeps_its_documentation(tree: Path) -> None:
    scrub.scrub(str(tree), recipes.recipe("debian:bookworm"), (), time.time_ns() - 60_000_000_000)
    assert (tree / "usr/share/man/man1/bash.1.gz").exists()
    assert (tree / "usr/lib/python3.11/EXTERNALLY-MANAGED").exists()


def test_links_are_removed_never_followed(tree: Path, tmp_path: Path) -> None:
    outside = plant(tmp_path, "outside/precious")
    (tree / "etc/hostname").unlink()
    (tree / "etc/hostname").symlink_to(outside)
    (tree / "var/lib/apt/mirrors").symlink_to(outside.parent)
    (tree / "etc/machine-id").unlink()
    (tree / "etc/machine-id").symlink_to(outside)
    (tree / "usr/share/doc/elsewhere").symlink_to(outside.parent)
    scrub.scrub(str(tree), SLIM, (), time.time_ns() - 60_000_000_000)
    assert outside.read_text() == "x"
    assert not (tree / "etc/hostname").is_symlink()


def test_files_made_by_the_run_do_not_decide_the_epoch(tree: Path) -> None:
    started = time.time_ns() - 60_000_000_000
    before = scrub.newest_shipped(str(tree), started)
    plant(tree, "etc/made-now")
    assert scrub.newest_shipped(str(tree), started) == before == SHIPPED


def test_the_image_names_the_hosts_mirror_without_its_password(tree: Path) -> None:
    source = Source("https://u:pw@m.example/debian", "bookworm", ("main",), "/k.gpg")
    scrub.scrub(str(tree), SLIM, (source,), time.time_ns())
    text = (tree / "etc/apt/sources.list.d/debian.sources").read_text()
    assert "https://m.example/debian" in text and "pw" not in text
