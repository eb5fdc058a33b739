"""lading's client against Debian's docker-registry, with and without TLS and passwords, and images that skopeo made."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_docker_client import CLIENTS, rootfs

from lading.linux import crypt

pytestmark = [
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers are made by root"),
    pytest.mark.skipif(
        not any(map(os.path.exists, ("/bin/busybox", "/usr/bin/busybox"))), reason="no busybox program here"
    ),
]
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
PASSWORD = "s3cret word"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Peer:
    """One docker-registry process."""

    def __init__(self, root: Path, extra: str = "", http: str = "") -> None:
        root.mkdir()
        self.domain = f"127.0.0.1:{free_port()}"
        (root / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.domain}'{http}}}\n{extra}"
        )
        self.log = open(root / "log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(root / "config.yml")], stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 15
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", int(self.domain.partition(":")[2]))) == 0:
                    break
            assert self.process.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.05)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Lading:
    """The command line and a daemon on a root of their own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(base / "home"),
            "LADING_ROOT": str(base / "root"),
            "LADING_RUN": str(base / "run"),
        }
        (base / "home").mkdir()
        self.process = subprocess.Popen([sys.executable, "-m", "lading", "daemon"], env=self.env)
        deadline = time.monotonic() + 15
        while not (base / "run/lading.sock").exists():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "lading", *words],
            input=stdin,
            capture_output=True,
            env=self.env,
            timeout=60,
        )

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done
        return done.stdout.decode()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture(scope="module")
def lading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lading]:
    made = Lading(tmp_path_factory.mktemp("lading"))
    try:
        made("import", "-c", 'CMD ["echo","ran"]', "-", "bb", stdin=rootfs())
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("plain") / "registry")
    yield made
    made.end()


def test_push_remove_pull_run(lading: Lading, plain: Peer) -> None:
    name = f"{plain.domain}/team/bb:1"
    lading("tag", "bb", name)
    said = lading("push", name).splitlines()
    assert said[0] == f"The push refers to repository [{plain.domain}/team/bb]"
    assert said[-1].startswith("1: digest: sha256:")
    lading("rmi", name)
    said = lading("pull", name).splitlines()
    assert said[0] == "1: Pulling from team/bb" and said[-1] == f"Status: Downloaded newer image for {name}"
    assert lading("run", "--rm", "--network", "none", name) == "ran\n"
    lading("rmi", name)
    assert lading("run", "--rm", "--network", "none", "--pull", "always", "-q", name) == "ran\n"
    lading("rmi", name)
    done = lading.run("run", "--rm", "--pull", "never", name)
    assert done.returncode == 125 and b"no such image" in done.stderr


def test_a_build_fetches_its_base(lading: Lading, plain: Peer, tmp_path: Path) -> None:
    name = f"{plain.domain}/base/bb:1"
    lading("tag", "bb", name)
    lading("push", name)
    lading("rmi", name)
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nRUN echo made > /made\n")
    lading("build", "-t", "made", str(tmp_path))
    assert lading("run", "--rm", "--network", "none", "made", "cat", "/made") == "made\n"
    lading("build", "--pull", "-t", "made", str(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM 127.0.0.1:1/qqqqqqqq/wwwwwwwww/zzzzzzzz:9\n")
    done = lading.run("build", str(tmp_path))
    assert done.returncode == 1 and b"lading bootstrap" in done.stderr, done
    lading("rmi", "-f", name, "made")


def test_passwords_and_tls_of_a_private_ca(lading: Lading, tmp_path: Path) -> None:
    try:
        hashed = crypt.crypt(PASSWORD.encode(), b"$2b$04$" + b"a" * 22).decode()
    except OSError:
        pytest.skip("this libcrypt makes no bcrypt hashes")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1",
         "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl program here")
    (tmp_path / "htpasswd").write_text(f"ada:{hashed}\n")
    peer = Peer(
        tmp_path / "registry",
        f"auth: {{htpasswd: {{realm: test, path: '{tmp_path}/htpasswd'}}}}\n",
        f", tls: {{certificate: '{cert}', key: '{key}'}}",
    )
    try:
        certs = lading.base / f"home/.config/lading/certs.d/{peer.domain}"
        certs.mkdir(parents=True)
        shutil.copy(cert, certs / "ca.crt")
        name = f"{peer.domain}/private/bb:1"
        lading("tag", "bb", name)
        done = lading.run("push", name)
        assert done.returncode == 1 and b"lading login" in done.stderr, done
        assert (
            b"Succeeded"
            not in lading.run("login", "-u", "ada", "--password-stdin", peer.domain, stdin=b"no").stdout
        )
        said = lading("login", "-u", "ada", "--password-stdin", peer.domain, stdin=PASSWORD.encode() + b"\n")
        assert said == "Login Succeeded\n"
        kept = json.loads((lading.base / "home/.docker/config.json").read_text())
        assert base64.b64decode(kept["auths"][peer.domain]["auth"]).decode() == f"ada:{PASSWORD}"
        lading("push", name)
        lading("rmi", name)
        lading("pull", "-q", name)
        lading("rmi", name)
        lading("logout", peer.domain)
        assert lading.run("pull", name).returncode == 1
    finally:
        peer.end()


@needs_skopeo
@pytest.mark.parametrize(
    "flags", [("--format", "v2s2"), ("--format", "oci", "--dest-compress-format", "zstd")]
)
def test_images_that_skopeo_pushed(
    lading: Lading, plain: Peer, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    lading("save", "-o", str(tmp_path / "bb.tar"), "bb")
    name = f"{plain.domain}/skopeo/{flags[1]}:1"
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *flags,
         f"docker-archive:{tmp_path}/bb.tar", f"docker://{name}"],
        capture_output=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done
    lading("pull", name)
    assert lading("run", "--rm", "--network", "none", name) == "ran\n"
    lading("rmi", name)


@needs_skopeo
def test_skopeo_reads_what_lading_pushed(lading: Lading, plain: Peer, tmp_path: Path) -> None:
    name = f"{plain.domain}/for/skopeo:1"
    lading("tag", "bb", name)
    said = lading("push", name)
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/out"],
        capture_output=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done
    manifest = (tmp_path / "out/manifest.json").read_bytes()
    import hashlib

    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" in said
    lading("rmi", name)


@pytest.mark.skipif(not CLIENTS, reason="no docker client program here")
def test_the_docker_client_pulls_and_pushes_through_lading(
    lading: Lading, plain: Peer, tmp_path: Path
) -> None:
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "DOCKER_HOST": f"unix://{lading.base}/run/lading.sock",
    }

    def docker(*words: str) -> str:
        done = subprocess.run([CLIENTS[0], *words], capture_output=True, env=env, timeout=60)
        assert done.returncode == 0, done
        return done.stdout.decode()

    name = f"{plain.domain}/docker/bb:1"
    docker("tag", "bb", name)
    assert "digest: sha256:" in docker("push", name)
    docker("rmi", name)
    assert f"Status: Downloaded newer image for {name}" in docker("pull", name)
    digest = docker("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).strip().partition("@")[2]
    docker("rmi", name)
    assert f"Digest: {digest}" in docker("pull", f"{plain.domain}/docker/bb@{digest}")
    docker("rmi", f"{plain.domain}/docker/bb@{digest}")


def test_a_manifest_list_of_a_neighbour_s_images(lading: Lading, plain: Peer) -> None:
    one, two, listed = (f"{plain.domain}/{path}" for path in ("multi/one:1", "multi/two:1", "multi/all:1"))
    for name in (one, two):
        lading("tag", "bb", name)
        lading("push", name)
    lading("build", "-q", "-t", two, "-", stdin=f"FROM {one}\nLABEL two=2\n".encode())
    lading("push", two)
    lading("rmi", one, two)
    lading("manifest", "create", listed, one, two)
    assert lading.run("manifest", "create", listed, one).returncode != 0
    lading("manifest", "annotate", listed, two, "--arch", "arm64", "--variant", "v8")
    digest = lading("manifest", "push", "--purge", listed).strip()
    shown = json.loads(lading("manifest", "inspect", "-v", listed))
    assert shown["Descriptor"]["digest"] == digest
    platforms = [entry["platform"] for entry in shown["Manifest"]["manifests"]]
    assert [one["architecture"] for one in platforms] == ["amd64", "arm64"]
    assert f"Digest: {digest}" in lading("pull", listed)
    assert lading("run", "--rm", "--network", "none", listed) == "ran\n"
    lading("rmi", listed)
    assert lading.run("manifest", "rm", listed).returncode == 1
    done = lading.run("manifest", "create", listed, f"{plain.domain}/nosuch:1")
    assert done.returncode == 1 and b"manifest unknown" in done.stderr
