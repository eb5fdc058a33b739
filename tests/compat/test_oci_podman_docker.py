"""podman, and dockerd with containerd, using lading-runtime in place of runc. Skipped where the packages are absent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bin/lading-runtime"
APPLETS = "sh true echo cat id sleep env hostname touch ls tty grep"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An executable that starts the checkout's runtime with this interpreter."""
    path = tmp_path_factory.mktemp("bin") / "lading-runtime"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {SCRIPT} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs the busybox-static package")
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(busybox, "bin/busybox")
        for name in ("tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for applet in APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return str(path)


def _caller(argv: list[str], env: dict[str, str]) -> Run:
    def run(*words: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        ran = subprocess.run([*argv, *words], env=env, input=text, capture_output=True, text=True, timeout=60)
        if check:
            assert ran.returncode == 0, ran.stderr
        return ran

    return run


def _unmount_below(place: str) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (point := line.split()[4]).startswith(place + "/"):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, runtime: str, image: str) -> Iterator[Run]:
    if not shutil.which("podman") or not shutil.which("conmon"):
        pytest.skip("needs the podman package")
    s = tmp_path_factory.mktemp("podman")
    # Its default limits need CAP_SYS_RESOURCE, which root in a sandbox may lack.
    (s / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
    )
    argv = [
        "podman", "--root", f"{s}/data", "--runroot", f"{s}/run", "--tmpdir", f"{s}/tmp", "--runtime", runtime,
        "--cgroup-manager=cgroupfs", "--events-backend=file",
    ]  # fmt: skip
    run = _caller(argv, dict(os.environ) | {"CONTAINERS_CONF": f"{s}/containers.conf"})
    made = run("import", image, "bb", check=False)
    if made.returncode:
        pytest.skip(f"podman does not work here: {made.stderr.strip()[-120:]}")
    yield run
    run("rm", "-f", "-a", "-t", "0", check=False)
    _unmount_below(str(s))


def test_podman_runs_tells_and_cleans_up(podman: Run) -> None:
    none = ("run", "--rm", "--network", "none")
    assert podman(*none, "bb", "echo", "hello").stdout == "hello\n"
    assert podman(*none, "-i", "bb", "cat", text="through").stdout == "through"
    assert podman(*none, "bb", "sh", "-c", "exit 5", check=False).returncode == 5
    assert podman(*none, "bb", "nosuch", check=False).returncode == 127
    assert podman(*none, "bb", "/etc", check=False).returncode == 126
    assert podman(*none, "--user", "33:44", "bb", "id").stdout.startswith("uid=33 gid=44")
    assert podman(*none, "-t", "bb", "tty").stdout.strip() == "/dev/pts/0"
    mapped = podman(
        *none, "--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000", "bb", "cat", "/proc/self/uid_map"
    )
    assert mapped.stdout.split() == ["0", "100000", "1000"]
    assert podman("ps", "-aq").stdout == ""


def test_podman_execs_pauses_and_stops(podman: Run) -> None:
    identifier = podman("run", "-d", "--network", "none", "-m", "50m", "bb", "sleep", "100").stdout.strip()
    assert podman("exec", identifier, "echo", "inside").stdout == "inside\n"
    assert podman("exec", "-t", identifier, "tty").stdout.strip().startswith("/dev/pts/")
    assert podman("exec", identifier, "sh", "-c", "exit 3", check=False).returncode == 3
    podman("pause", identifier)
    assert json.loads(podman("inspect", identifier).stdout)[0]["State"]["Status"] == "paused"
    podman("unpause", identifier)
    assert "sleep 100" in podman("top", identifier).stdout
    podman("kill", identifier)
    podman("wait", identifier)
    assert json.loads(podman("inspect", identifier).stdout)[0]["State"]["ExitCode"] == 137
    podman("rm", identifier)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, runtime: str, image: str) -> Iterator[Run]:
    for program in ("dockerd", "containerd", "docker"):
        if not shutil.which(program):
            pytest.skip("needs the docker.io package")
    s = tmp_path_factory.mktemp("d")
    (s / "none.json").write_text("{}\n")
    argv = [
        "dockerd", "--data-root", f"{s}/data", "--exec-root", f"{s}/exec", "--pidfile", f"{s}/pid", "--bridge", "none",
        "--host", f"unix://{s}/sock", "--config-file", f"{s}/none.json", "--iptables=false", "--ip6tables=false",
        "--ip-forward=false", "--ip-masq=false", "--add-runtime", f"lading={runtime}",
    ]  # fmt: skip
    with open(s / "log", "wb") as log:
        daemon = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    run = _caller(["docker"], dict(os.environ) | {"DOCKER_HOST": f"unix://{s}/sock"})
    deadline = time.monotonic() + 40
    while run("version", check=False).returncode and daemon.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    try:
        if run("import", image, "bb", check=False).returncode:
            pytest.skip(f"dockerd does not start here: {(s / 'log').read_text()[-160:]}")
        yield run
        left = run("ps", "-aq").stdout.split()
        if left:
            run("rm", "-f", *left)
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        _unmount_below(str(s))


def test_dockerd_uses_it_as_an_added_runtime(docker: Run) -> None:
    run = ("run", "--rm", "--runtime", "lading")
    assert docker(*run, "bb", "echo", "hello").stdout == "hello\n"
    assert docker(*run, "-i", "bb", "cat", text="through").stdout == "through"
    assert docker(*run, "bb", "sh", "-c", "exit 5", check=False).returncode == 5
    missing = docker(*run, "bb", "nosuch", check=False)
    assert missing.returncode == 127 and "executable file not found in $PATH" in missing.stderr
    assert docker(*run, "-t", "bb", "tty").stdout.strip() == "/dev/pts/0"
    identifier = docker("run", "-d", "--runtime", "lading", "-m", "50m", "bb", "sleep", "100").stdout.strip()
    assert docker("exec", identifier, "echo", "inside").stdout == "inside\n"
    assert docker("exec", "-i", identifier, "cat", text="in").stdout == "in"
    docker("pause", identifier)
    assert docker("inspect", "-f", "{{.State.Status}}", identifier).stdout == "paused\n"
    docker("unpause", identifier)
    docker("update", "-m", "60m", "--memory-swap", "-1", identifier)
    docker("kill", identifier)
    assert docker("wait", identifier).stdout == "137\n"
    docker("rm", identifier)
