"""skopeo and podman push to the registry and pull from it, as `lading registry serve` runs; and what kill -9 leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.image.layer.header import END, REGULAR, Header, pack, padding
from lading.linux import crypt
from registry_served import OCI_CONFIG, OCI_MANIFEST, Peer, descriptor

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_podman = pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")


class Registry:
    """One `lading registry serve` process."""

    def __init__(self, root: Path, *flags: str) -> None:
        self.errors = (root / "stderr").open("ab")
        environ = {
            "PATH": os.environ["PATH"],
            "LADING_ROOT": str(root / "lading"),
            "LADING_RUN": str(root / "run"),
        }
        command = [sys.executable, "-m", "lading", "registry", "serve", "--addr", "127.0.0.1:0", *flags]
        at = (root / "stderr").stat().st_size
        self.process = subprocess.Popen(command, stderr=self.errors, stdin=subprocess.DEVNULL, env=environ)
        deadline = time.monotonic() + 20
        while "/v2/" not in (said := (root / "stderr").read_text()[at:]):
            assert self.process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.02)
        self.port = int(said.partition("//127.0.0.1:")[2].partition("/")[0])
        self.peer = Peer(("127.0.0.1", self.port))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.errors.close()
        return code


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path)
    yield made
    if made.process.poll() is None:
        assert made.end() == 0


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An image as an OCI layout, with a layer of 3 MB."""
    root = tmp_path / "layout"
    (root / "blobs/sha256").mkdir(parents=True)

    def put(data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        (root / "blobs/sha256" / name).write_bytes(data)
        return f"sha256:{name}"

    content = os.urandom(3_000_000)
    layer = pack(Header(b"hello", REGULAR, size=len(content))) + content + padding(len(content)) + END
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [put(layer)]},
    }
    config_data = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, put(config_data), len(config_data)),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", put(layer), len(layer))],
    }
    data = json.dumps(manifest).encode()
    entry = descriptor(OCI_MANIFEST, put(data), len(data))
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return root


def run(*command: str, cwd: Path) -> str:
    environ = os.environ | {"HOME": str(cwd), "XDG_RUNTIME_DIR": str(cwd)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blobs(layout: Path) -> set[str]:
    return set(os.listdir(layout / "blobs/sha256"))


@needs_skopeo
def test_skopeo_pushes_and_pulls(registry: Registry, layout: Path, tmp_path: Path) -> None:
    there = f"docker://127.0.0.1:{registry.port}/team/app"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--src-tls-verify=false"]
    same = [*copy, "--preserve-digests"]  # skopeo compresses layers otherwise, as it likes
    run(*same, f"oci:{layout}:v1", f"{there}:v1", cwd=tmp_path)
    run(*same, f"{there}:v1", f"oci:{tmp_path}/back:v1", cwd=tmp_path)
    assert blobs(tmp_path / "back") == blobs(layout)
    run(*copy, f"{there}:v1", f"{there}2:v2", cwd=tmp_path)  # to another repository: blobs are mounted
    run(
        *copy,
        "--dest-compress-format",
        "gzip",
        "--format",
        "v2s2",
        f"oci:{layout}:v1",
        f"{there}:docker",
        cwd=tmp_path,
    )
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", there, cwd=tmp_path))["Tags"]
    assert tags == ["docker", "v1"]
    assert json.loads(run("skopeo", "inspect", "--tls-verify=false", f"{there}:docker", cwd=tmp_path))[
        "Layers"
    ]
    run("skopeo", "delete", "--tls-verify=false", f"{there}:v1", cwd=tmp_path)
    assert registry.peer("GET", "/v2/team/app/manifests/v1").status == 404


@needs_skopeo
def test_skopeo_with_a_password(layout: Path, tmp_path: Path) -> None:
    hashed = crypt.crypt(b"word", b"$2y$05$abcdefghijklmnopqrstuu").decode()
    (tmp_path / "users").write_text(f"ann:{hashed}\n")
    registry = Registry(tmp_path, "--auth", f"htpasswd:{tmp_path}/users")
    try:
        there = f"docker://127.0.0.1:{registry.port}/app:v1"
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        refused = subprocess.run(
            [*copy, f"oci:{layout}:v1", there], capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode != 0 and "auth" in refused.stderr.lower()
        run(*copy, "--dest-creds", "ann:word", f"oci:{layout}:v1", there, cwd=tmp_path)
    finally:
        assert registry.end() == 0


@needs_podman
def test_podman_pushes_and_pulls(registry: Registry, layout: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ld") as short:  # podman takes no long run root
        cwd = Path(short)
        podman = ["podman", "--root", f"{short}/p", "--runroot", f"{short}/r", "--storage-driver", "vfs"]
        name = f"127.0.0.1:{registry.port}/team/podman:v1"
        pulled = run(*podman, "pull", "-q", f"oci:{layout}:v1", cwd=cwd).strip()
        run(*podman, "push", "-q", "--tls-verify=false", pulled, name, cwd=cwd)
        run(*podman, "rmi", "-f", pulled, cwd=cwd)
        assert run(*podman, "pull", "-q", "--tls-verify=false", name, cwd=cwd).strip() == pulled


@needs_skopeo
def test_a_mirror_serves_when_its_upstream_is_gone(registry: Registry, layout: Path, tmp_path: Path) -> None:
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests"]
    copy += ["--dest-tls-verify=false", "--src-tls-verify=false"]
    run(*copy, f"oci:{layout}:v1", f"docker://127.0.0.1:{registry.port}/team/app:v1", cwd=tmp_path)
    (tmp_path / "mirror").mkdir()
    mirror = Registry(tmp_path / "mirror", "--mirror", f"http://127.0.0.1:{registry.port}/team")
    try:
        there = f"docker://127.0.0.1:{mirror.port}/app:v1"
        run(*copy, there, f"oci:{tmp_path}/one:v1", cwd=tmp_path)
        assert registry.end() == 0
        run(*copy, there, f"oci:{tmp_path}/two:v1", cwd=tmp_path)
        assert blobs(tmp_path / "one") == blobs(tmp_path / "two") == blobs(layout)
    finally:
        assert mirror.end() == 0


def test_a_killed_registry_keeps_what_it_acknowledged_and_nothing_else(tmp_path: Path) -> None:
    store = tmp_path / "lading/registry/blobs/sha256"
    for turn in range(3):
        registry = Registry(tmp_path)
        digest = registry.peer.image("app", f"v{turn}", os.urandom(1000))
        location = registry.peer("POST", "/v2/app/blobs/uploads/", b"").location
        with socket.create_connection(("127.0.0.1", registry.port)) as sock:
            sock.sendall(f"PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n".encode())
            sock.sendall(os.urandom(2_000_000))
            while not any(path.name.startswith(".") and path.stat().st_size for path in store.iterdir()):
                time.sleep(0.01)
            registry.end(signal.SIGKILL)
        registry = Registry(tmp_path)
        try:
            assert not [name for name in os.listdir(store) if name.startswith(".")]
            assert registry.peer("PATCH", location, b"x").status == 404
            assert (
                registry.peer("GET", f"/v2/app/manifests/v{turn}").headers["docker-content-digest"] == digest
            )
        finally:
            assert registry.end() == 0


def test_gc_beside_a_registry_that_serves(registry: Registry, tmp_path: Path) -> None:
    registry.peer.image("app", "v1")
    loose = registry.peer.blob("app", b"loose")
    environ = {"PATH": os.environ["PATH"], "LADING_ROOT": str(tmp_path / "lading")}
    command = [sys.executable, "-m", "lading", "registry", "gc"]
    for flags, left in (((), 200), (("--age", "0"), 404)):
        done = subprocess.run(
            [*command, *flags], env=environ, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        assert registry.peer("GET", f"/v2/app/blobs/{loose}").status == left
    assert "1 blobs; reclaimed 5B" in done.stdout
    assert registry.peer("GET", "/v2/app/manifests/v1").status == 200
