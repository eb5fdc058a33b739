"""Real bootstraps: busybox, Debian from the host's mirror; equal bytes twice, nothing left after kill -9."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lading.base import errors
from lading.build.bootstrap import bootstrap
from lading.image import config as configs
from lading.image import manifest as manifests
from lading.store.blobs import Blobs

needs_busybox = pytest.mark.skipif(not shutil.which("busybox"), reason="busybox-static is not installed")
needs_mmdebstrap = pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap is not installed")


@dataclass
class Names:
    """The store's names, in memory."""

    given: dict[str, str] = field(default_factory=dict)

    def put(self, ref: str, manifest_digest: str) -> None:
        self.given[ref] = manifest_digest


class NoLeases:
    """Nothing sweeps this store."""

    def hold(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


@dataclass
class Store:
    """A blob store, names and a scratch directory below one path."""

    path: Path
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        (self.path / "tmp").mkdir(parents=True)
        self.blobs = Blobs(str(self.path / "blobs"))
        self.said: list[str] = []

    def bootstrap(self, name: str, cancelled: Callable[[], bool] = lambda: False) -> str:
        return bootstrap(
            name,
            images=self.names,
            blobs=self.blobs,
            leases=NoLeases(),
            tmp_dir=str(self.path / "tmp"),
            environ=os.environ,
            progress=self.said.append,
            cancelled=cancelled,
        )

    def image(self, name: str) -> tuple[manifests.Manifest, configs.ImageConfig]:
        manifest = manifests.parse(self.blobs.read(self.names.given[name]))
        assert isinstance(manifest, manifests.Manifest)
        return manifest, configs.parse(self.blobs.read(manifest.config.digest))

    def layer(self, name: str) -> tarfile.TarFile:
        (layer,) = self.image(name)[0].layers
        with self.blobs.open(layer.digest) as file:
            return tarfile.open(fileobj=io.BytesIO(gzip.decompress(file.read())))

    def scratch(self) -> list[str]:
        return os.listdir(self.path / "tmp")


class Spoken(list[str]):
    """Progress that another process can follow."""

    def append(self, line: str, /) -> None:
        print(line, flush=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture(scope="module")
def python_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("python"))
    made.bootstrap("docker.io/library/python:3.11-slim")
    yield made


@needs_busybox
def test_busybox_twice_is_the_same_image(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert first.bootstrap("busybox") == second.bootstrap("busybox:latest")
    assert first.names.given == second.names.given
    assert set(first.names.given) == {"busybox:latest"}
    assert first.scratch() == []


@needs_busybox
def test_busybox_has_its_applets_and_its_package(store: Store) -> None:
    identifier = store.bootstrap("busybox")
    manifest, config = store.image("busybox:latest")
    assert manifest.config.digest == identifier
    assert config.config.cmd == ("sh",)
    assert config.config.labels["io.lading.bootstrap"] == "local"
    with store.layer("busybox:latest") as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert members["bin/busybox"].mode == 0o755
        assert members["bin/sh"].linkname == "busybox"
        assert members["tmp"].mode == 0o1777
        assert not any(member.isdev() for member in members.values())
        assert len({member.mtime for member in members.values()}) == 1
        stanza = tar.extractfile("var/lib/dpkg/status.d/busybox-static")
        assert stanza is not None and b"Package: busybox-static\n" in stanza.read()


@needs_busybox
def test_the_busybox_in_the_image_runs(store: Store, tmp_path: Path) -> None:
    store.bootstrap("busybox")
    root = tmp_path / "root"
    with store.layer("busybox:latest") as tar:
        tar.extractall(root, filter="tar")
    done = subprocess.run(
        ["chroot", root, "/bin/sh", "-c", "echo $((6 * 7)); id -un; /usr/bin/env true && echo 1"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["42", "root", "1"]


@needs_mmdebstrap
def test_debian_twice_is_the_same_image(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    assert first.bootstrap("debian:bookworm-slim") == second.bootstrap("debian:bookworm-slim")
    assert first.names.given == second.names.given
    assert first.scratch() == second.scratch() == []


@needs_mmdebstrap
def test_python_image_is_what_dockerfiles_expect(python_image: Store, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with python_image.layer("python:3.11-slim") as tar:
        tar.extractall(root, filter="tar")
    os.makedirs(root / "wheel")
    script = (
        "set -e; python -V; python3 -c 'import ssl, sqlite3, venv, ctypes'; pip --version; "
        "cd /wheel; mkdir pkg; echo 'answer = 42' > pkg/__init__.py; "
        'printf \'[project]\\nname = "pkg"\\nversion = "1"\\n\' > pyproject.toml; '
        "printf '[tool.setuptools]\\npackages = [\"pkg\"]\\n' >> pyproject.toml; "
        "pip install --no-index --no-build-isolation --root-user-action=ignore . >/dev/null; "
        "cd /; python -c 'import pkg; print(pkg.answer, pkg.__file__)'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "chroot", root, "/bin/sh", "-c", script],
        env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Python 3.11.")
    assert lines[-1] == "42 /usr/local/lib/python3.11/dist-packages/pkg/__init__.py"


@needs_mmdebstrap
def test_python_image_holds_nothing_of_this_host(python_image: Store) -> None:
    _, config = python_image.image("python:3.11-slim")
    assert any(item.startswith("PYTHON_VERSION=3.11.") for item in config.config.env)
    with python_image.layer("python:3.11-slim") as tar:
        members = {member.name: member for member in tar.getmembers()}
        status = tar.extractfile("var/lib/dpkg/status")
        assert status is not None and b"Package: python3.11-minimal\n" in status.read()
    assert members["etc/machine-id"].size == 0
    for name in ("etc/resolv.conf", "etc/hostname", "etc/apt/apt.conf.d/99mmdebstrap", "var/log/dpkg.log"):
        assert name not in members
    for directory in ("dev", "proc", "run", "var/lib/apt/lists/partial", "var/log"):
        assert not [name for name in members if name.startswith(f"{directory}/")]
    newest = max(member.mtime for member in members.values())
    assert (
        json.dumps(config.created)
        .strip('"')
        .startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(newest)))
    )


@needs_mmdebstrap
def test_cancelling_leaves_nothing(store: Store) -> None:
    with pytest.raises(errors.Cancelled):
        store.bootstrap("debian:bookworm-slim", cancelled=lambda: len(store.said) > 2)
    assert store.scratch() == []
    assert store.names.given == {}
    assert _users_of(store.path) == []


@needs_mmdebstrap
def test_kill_9_leaves_a_scratch_directory_and_nothing_else(tmp_path: Path) -> None:
    """The children die with the program below; their mounts were never in this namespace."""
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import test_bootstrap_images as t\n"
        "s = t.Store(pathlib.Path(sys.argv[2])); s.said = t.Spoken()\n"
        "s.bootstrap('debian:bookworm-slim')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "installing essential" in line:
                break
        assert _users_of(tmp_path), "nothing runs that could be left behind"
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (left := _users_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert [name.partition("-")[0] for name in os.listdir(tmp_path / "s/tmp")] == ["bootstrap"]
    assert [p for p in (tmp_path / "s/blobs").rglob("*") if p.is_file()] == []
    shutil.rmtree(tmp_path / "s")


def _users_of(path: Path) -> list[str]:
    """Processes whose root, command line or working directory lies below `path`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            places = [os.readlink(f"/proc/{pid}/{name}") for name in ("root", "cwd")]
        except OSError:
            continue
        if int(pid) != os.getpid() and (
            str(path) in words or any(place.startswith(str(path)) for place in places)
        ):
            found.append(f"{pid} {words[:100]}")
    return found
