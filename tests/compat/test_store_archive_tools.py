"""Our archives in other people's tools, and theirs in ours: skopeo and podman, where the machine has them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.image import validate
from lading.image.config import History
from lading.image.layer.compress import write_layer
from lading.image.layer.header import END, REGULAR, Header, pack, padding
from lading.image.mutate import EMPTY, Draft, append
from lading.store import archive
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.images import Images
from lading.store.snapshots.copy import Copy

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_podman = pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    db = Database(f"{tmp_path}/db")
    made = Images(db, Blobs(f"{tmp_path}/blobs"), Copy(f"{tmp_path}/snapshots", db))
    data = pack(Header(b"hello", REGULAR, size=5)) + b"world" + padding(5) + END
    layer = write_layer(made.blobs, lambda write: write(data))
    made.store(
        append(Draft(EMPTY), layer, History(created="2026-01-01T00:00:00Z", created_by="test")),
        "lading-test/app:v1",
    )
    yield made
    db.close()


@pytest.fixture
def saved(images: Images, tmp_path: Path) -> Path:
    path = tmp_path / "saved.tar"
    with path.open("wb") as out:
        archive.save(images, ["lading-test/app:v1"], out.write)
    return path


def run(*command: str, cwd: Path) -> str:
    environ = os.environ | {"HOME": str(cwd), "XDG_RUNTIME_DIR": str(cwd)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_skopeo
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_skopeo_reads_both_layouts(saved: Path, images: Images, tmp_path: Path, transport: str) -> None:
    inspected = json.loads(run("skopeo", "inspect", "--config", f"{transport}:{saved}", cwd=tmp_path))
    assert inspected["rootfs"]["diff_ids"] == list(images.get("lading-test/app:v1").config.diff_ids)


@needs_skopeo
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("source", ["docker-archive", "oci-archive"])
def test_we_read_what_skopeo_writes(
    saved: Path, images: Images, tmp_path: Path, source: str, transport: str
) -> None:
    copy = tmp_path / "copy.tar"
    run(
        "skopeo",
        "--insecure-policy",
        "copy",
        "-q",
        f"{source}:{saved}",
        f"{transport}:{copy}:lading-test/copy:v2",
        cwd=tmp_path,
    )
    with copy.open("rb") as stream:
        assert archive.load(images.blobs, images, stream) == ["lading-test/copy:v2"]
    found = images.get("lading-test/copy:v2")
    assert found.config.diff_ids == images.get("lading-test/app:v1").config.diff_ids
    assert validate.image(images.blobs.open, found.manifest_digest) == []


@needs_podman
def test_podman_loads_and_saves(saved: Path, images: Images, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ld") as short:  # podman takes no long run root
        _loads_and_saves(saved, images, tmp_path, short)


def _loads_and_saves(saved: Path, images: Images, tmp_path: Path, short: str) -> None:
    podman = ["podman", "--root", f"{short}/p", "--runroot", f"{short}/r", "--storage-driver", "vfs"]
    loaded = run(*podman, "load", "-i", str(saved), cwd=tmp_path)
    assert "lading-test/app:v1" in loaded
    for layout in ("docker-archive", "oci-archive"):
        copy = tmp_path / f"{layout}.tar"
        run(*podman, "save", "--format", layout, "-o", str(copy), "lading-test/app:v1", cwd=tmp_path)
        data = copy.read_bytes()
        (name,) = archive.load(images.blobs, images, io.BytesIO(data))
        assert name.endswith("lading-test/app:v1")
        assert images.get(name).config.diff_ids == images.get("lading-test/app:v1").config.diff_ids
