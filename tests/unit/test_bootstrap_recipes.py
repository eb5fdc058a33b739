"""Names, recipes, command lines and the image's config: everything about a bootstrap that runs nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, cast

import pytest

from lading.base import errors
from lading.build.bootstrap import debian, make, names, packages, recipes, scrub
from lading.build.bootstrap.make import describe
from lading.build.bootstrap.packages import Package
from lading.build.bootstrap.sources import Source
from lading.image.descriptor import OCI_LAYER_GZIP, Descriptor
from lading.image.mutate import Layer

STATUS = """\
Package: python3.11-minimal
Status: install ok installed
Architecture: amd64
Source: python3.11
Version: 3.11.2-6+deb12u6
Description: a minimal Python
 Package: not-a-field
 .

Package: python3-minimal
Status: install ok installed
Architecture: amd64
Source: python3-defaults (3.11.2-1)
Version: 3.11.2-1+b1

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2024b-0+deb12u1
"""


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("python:3.11-slim", "python:3.11-slim"),
        ("docker.io/library/python:3.11-slim", "python:3.11-slim"),
        ("index.docker.io/library/debian:12-slim", "debian:bookworm-slim"),
        ("python:3.11-slim-bookworm", "python:3.11-slim"),
        ("python:3-slim", "python:3.11-slim"),
        ("python:3.13-slim-trixie", "python:3.13-slim"),
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:latest"),
    ],
)
def test_a_name_finds_its_recipe(written: str, canonical: str) -> None:
    assert recipes.recipe(written).name == canonical


def test_an_unknown_name_says_what_can_be_made_and_what_was_meant() -> None:
    with pytest.raises(errors.NotFound) as caught:
        recipes.recipe("pyton:3.11-slim")
    assert "Did you mean python:3.11-slim?" in str(caught.value)
    assert all(name in str(caught.value) for name in names())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pyton", "python:"),
        ("python:3.11-slm", "python:3.11-slim"),
        ("debian:bookwrm", "debian:bookworm"),
        ("zzz", ""),
    ],
)
def test_the_guess_is_a_near_repository_first(written: str, meant: str) -> None:
    with pytest.raises(errors.NotFound) as caught:
        recipes.recipe(written)
    assert (f"Did you mean {meant}" in str(caught.value)) is bool(meant)


@pytest.mark.parametrize(
    "written",
    ["", "UPPER", "a b", "python:3.11-slim; rm -rf /", "$(id)", "python@sha256:" + "0" * 64, "x" * 400],
)
def test_malformed_names_are_invalid(written: str) -> None:
    with pytest.raises(errors.Invalid):
        recipes.recipe(written)


@pytest.mark.parametrize(
    "written", ["quay.io/library/python:3.11-slim", "someone/python:3.11-slim", "debian", "python:2.7"]
)
def test_other_peoples_names_are_not_found(written: str) -> None:
    with pytest.raises(errors.NotFound):
        recipes.recipe(written)


def test_every_name_is_its_own_familiar_form() -> None:
    assert [recipes.familiar(name) for name in names()] == list(names())


SECURITY = Source("http://m/debian-security", "bookworm-security", ("main",), "/k.gpg")
MAIN = Source("http://m/debian", "bookworm", ("main",), "/k.gpg")


def test_mmdebstrap_runs_in_a_namespace_that_dies_with_us() -> None:
    plan = debian.plan("mmdebstrap", recipes.recipe("python:3.11-slim"), "/t", (MAIN, SECURITY), "/s", "/o")
    at = plan.argv.index("mmdebstrap")
    assert plan.argv[:at] == (
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL"),
        *("--mount", "--propagation", "private", "--mount-proc"),
    )
    assert plan.argv[-3:] == ("bookworm", "/t", "/s")
    assert "--aptopt=/o" in plan.argv
    assert "--dpkgopt=path-exclude=/usr/lib/python3*/EXTERNALLY-MANAGED" in plan.argv
    assert any(word.startswith("--include=python3,python3-pip,") for word in plan.argv)
    assert not any("unauthenticated" in word.lower() or "trusted" in word for word in plan.argv)


def test_without_host_sources_the_tools_own_default_is_used() -> None:
    chosen = recipes.recipe("debian:bookworm-slim")
    assert debian.plan("mmdebstrap", chosen, "/t", (), "/s", "").argv[-2:] == ("bookworm", "/t")
    assert debian.plan("debootstrap", chosen, "/t", (), "/s", "").argv[-2:] == ("bookworm", "/t")


def test_debootstrap_checks_signatures_with_the_sources_key() -> None:
    chosen = recipes.recipe("python:3.11-slim")
    argv = debian.plan("debootstrap", chosen, "/t", (SECURITY, MAIN), "/s", "/o").argv
    assert argv[-3:] == ("bookworm", "/t", "http://m/debian")
    assert "--keyring=/k.gpg" in argv


def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(errors.Unsupported, match="apt-get install mmdebstrap"):
        debian.find_tool(lambda name: None)
    with pytest.raises(errors.Unsupported, match="util-linux"):
        debian.find_tool(lambda name: name if name == "debootstrap" else None)
    assert debian.find_tool(lambda name: name) == "mmdebstrap"
    assert debian.find_tool(lambda name: None if name == "mmdebstrap" else name) == "debootstrap"


def test_the_childs_environment_is_chosen() -> None:
    env = debian.environment(
        {"http_proxy": "http://p", "LD_PRELOAD": "/evil.so", "SECRET": "x", "PATH": "/evil"}
    )
    assert env["http_proxy"] == "http://p"
    assert not {"LD_PRELOAD", "SECRET"} & set(env)
    assert "/evil" not in env["PATH"]


def test_the_package_list_is_read_from_dpkgs_status() -> None:
    assert packages.parse_status(STATUS) == (
        Package("python3-minimal", "3.11.2-1+b1", "amd64", "python3-defaults", "3.11.2-1"),
        Package("python3.11-minimal", "3.11.2-6+deb12u6", "amd64", "python3.11", "3.11.2-6+deb12u6"),
        Package("tzdata", "2024b-0+deb12u1", "all", "tzdata", "2024b-0+deb12u1"),
    )
    assert packages.parse_status("") == packages.parse_status("\n\n:\n") == ()


def test_the_digest_of_a_list_depends_on_versions_not_on_order() -> None:
    a, b = Package("a", "1", "all", "a", "1"), Package("b", "1", "all", "b", "1")
    newer = Package("b", "2", "all", "b", "2")
    assert packages.list_digest([a, b]) == packages.list_digest([b, a]) != packages.list_digest([a, newer])


def test_the_images_config() -> None:
    layer = Layer(Descriptor(OCI_LAYER_GZIP, "sha256:" + "1" * 64, 5), "sha256:" + "2" * 64)
    chosen = recipes.recipe("python:3.11-slim")
    draft = describe(chosen, layer, "mmdebstrap", 1_700_000_000, packages.parse_status(STATUS))
    config = draft.config.config
    assert config.labels["io.lading.bootstrap"] == "local"
    assert config.labels["io.lading.bootstrap.packages"].startswith("sha256:")
    assert "PYTHON_VERSION=3.11.2" in config.env and "LANG=C.UTF-8" in config.env
    assert config.cmd == ("python3",)
    assert draft.config.created == "2023-11-14T22:13:20.000000000Z"
    assert draft.config.diff_ids == (layer.diff_id,)
    assert [entry.empty_layer for entry in draft.config.history] == [False]


def test_slim_images_keep_copyrights() -> None:
    lines = scrub.dpkg_options(recipes.recipe("debian:bookworm-slim"))
    assert lines.index("path-exclude=/usr/share/doc/*") < lines.index(
        "path-include=/usr/share/doc/*/copyright"
    )
    assert not any("doc" in line for line in scrub.dpkg_options(recipes.recipe("debian:bookworm")))


def test_a_full_disk_is_told_and_leaves_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/root/bin/busybox")

    monkeypatch.setattr(make, "_make_tree", full)
    nothing = cast(Any, None)
    with pytest.raises(errors.Unavailable, match="No space left on device: /root/bin/busybox"):
        make.bootstrap(
            "busybox", images=nothing, blobs=nothing, leases=nothing, tmp_dir=str(tmp_path), environ={},
            progress=lambda _: None,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
