"""The engines beside each other: how each is started with directories of its own, called, and stopped again.

Owns processes, sockets and directories of the peers; knows no row. A peer that cannot be used says why in `missing`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import Failed, descendants, run
from bench.unixhttp import Api

BUSYBOX = "bench-busybox:latest"
PYTHON = "python:3.11-slim"
# podman's defaults of a million files and processes need CAP_SYS_RESOURCE, which root in a sandbox may lack.
LIMITS = ("nofile=1024:1024", "nproc=4096:4096")
HYBRID = os.path.isdir("/sys/fs/cgroup/unified")


class Engine:
    """An engine with a command line and Docker's API."""

    name = ""
    program = ""

    def __init__(self, scratch: str) -> None:
        self.scratch = f"{scratch}/{self.name}"
        self.socket = f"{self.scratch}/api.sock"
        self.missing = "" if shutil.which(self.program) else f"{self.program} is not installed"
        self.env = dict(os.environ)
        self._daemon: subprocess.Popen[bytes] | None = None

    def cli(self, *words: str) -> list[str]:
        """The command line for `words`."""
        raise NotImplementedError

    def build(self, tag: str, context: str, *, cached: bool) -> list[str]:
        """The command line of a build."""
        fresh = [] if cached else ["--no-cache"]
        return self.cli("build", *fresh, "-t", tag, context)

    def start(self) -> None:
        """Bring the engine up; Failed where it does not come."""
        os.makedirs(self.scratch)

    def stop(self) -> None:
        """End every process and mount of it."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (place := line.split()[4]).startswith(self.scratch + "/"):
                subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def processes(self) -> set[int]:
        """The engine's own long-lived processes."""
        return descendants([self._daemon.pid]) if self._daemon else set()

    def version(self) -> str:
        return re.sub(r"\s+", " ", run([self.program, "--version"])).strip()

    def prepare(self, busybox_tar: str, python_archive: str) -> None:
        """Load the images the rows use, from the same files for every engine."""
        run(self.cli("import", busybox_tar, BUSYBOX), env=self.env)
        if python_archive:
            run(self.cli("load", "-i", python_archive), env=self.env)

    def _launch(self, *argv: str, ready: str) -> None:
        log = open(f"{self.scratch}/log", "wb")  # noqa: SIM115 - the child keeps it
        self._daemon = subprocess.Popen(
            argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._daemon.poll() is not None:
                break
            try:
                with Api(ready) as api:
                    api.call("GET", "/v1.41/info")
                return
            except (OSError, Failed):
                time.sleep(0.1)
        said = Path(f"{self.scratch}/log").read_text(errors="replace").strip().splitlines() or ["no message"]
        raise Failed(f"{argv[0]} does not start here: {said[-1][-160:]}")


class Lading(Engine):
    """This checkout, through the installed console script."""

    name = "lading"

    def __init__(self, scratch: str) -> None:
        self.program = str(Path(sys.executable).with_name("lading"))
        super().__init__(scratch)
        self.env |= {"LADING_ROOT": f"{self.scratch}/root", "LADING_RUN": f"{self.scratch}/run"}
        self.socket = f"{self.scratch}/run/lading.sock"

    def cli(self, *words: str) -> list[str]:
        return [self.program, *words]

    def start(self) -> None:
        super().start()
        self._launch(self.program, "daemon", ready=self.socket)

    def prepare(self, busybox_tar: str, python_archive: str) -> None:
        if python_archive and not os.path.exists(python_archive):
            # lading makes the base image that every peer then loads.
            run(self.cli("bootstrap", PYTHON), env=self.env)
            run(self.cli("save", "-o", python_archive, PYTHON), env=self.env)
        super().prepare(busybox_tar, "")


class Docker(Engine):
    """A private dockerd with a bridge of its own; no firewall rules, so that the machine's stay as they are."""

    name = "docker"
    program = "docker"
    bridge = "ldbench0"

    def __init__(self, scratch: str) -> None:
        super().__init__(scratch)
        if not self.missing and not shutil.which("dockerd"):
            self.missing = "dockerd is not installed"
        self.env |= {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}

    def cli(self, *words: str) -> list[str]:
        return [self.program, *words]

    def build(self, tag: str, context: str, *, cached: bool) -> list[str]:
        # Without firewall rules there is no address translation for builds: they use the host's network.
        argv = super().build(tag, context, cached=cached)
        return [*argv[:2], "--network=host", *argv[2:]]

    def version(self) -> str:
        server = run(self.cli("version", "--format", "{{.Server.Version}}"), env=self.env).strip()
        return f"{super().version()}; dockerd {server}"

    def start(self) -> None:
        super().start()
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)
        run(["ip", "link", "add", self.bridge, "type", "bridge"])
        run(["ip", "addr", "add", "10.213.0.1/24", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        s = self.scratch
        Path(f"{s}/none.json").write_text("{}\n")
        self._launch(
            *("dockerd", "--data-root", f"{s}/data", "--exec-root", f"{s}/exec", "--pidfile", f"{s}/pid"),
            *("--host", f"unix://{self.socket}", "--bridge", self.bridge, "--config-file", f"{s}/none.json"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            ready=self.socket,
        )

    def stop(self) -> None:
        super().stop()
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)


class Podman(Engine):
    """podman with its own storage; its API service is the "daemon" of the API rows."""

    name = "podman"
    program = "podman"

    def __init__(self, scratch: str) -> None:
        super().__init__(scratch)
        limits = ", ".join(f'"{limit}"' for limit in LIMITS)
        self._conf = f"[containers]\ndefault_ulimits = [{limits}]\n"
        self.env["CONTAINERS_CONF"] = f"{self.scratch}/containers.conf"

    def cli(self, *words: str) -> list[str]:
        s = self.scratch
        places = ["--root", f"{s}/data", "--runroot", f"{s}/run", "--tmpdir", f"{s}/tmp"]
        # crun refuses hybrid control groups; there podman uses runc.
        runtime = ["--runtime=runc"] if HYBRID and shutil.which("runc") else []
        return [self.program, *places, *runtime, "--cgroup-manager=cgroupfs", "--events-backend=file", *words]

    def start(self) -> None:
        super().start()
        self._before = set(os.listdir("/sys/class/net"))
        Path(self.env["CONTAINERS_CONF"]).write_text(self._conf)
        self._launch(*self.cli("system", "service", "--time=0", f"unix://{self.socket}"), ready=self.socket)

    def stop(self) -> None:
        subprocess.run(self.cli("rm", "-f", "-a", "-t", "0"), check=False, capture_output=True)
        super().stop()
        for name in set(os.listdir("/sys/class/net")) - self._before:
            if name.startswith(("podman", "cni-podman")):
                subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
        if shutil.which("iptables-save"):
            rules = run(["iptables-save"]).splitlines(keepends=True)
            kept = "".join(line for line in rules if "NETAVARK" not in line and "CNI-" not in line)
            subprocess.run(["iptables-restore"], input=kept.encode(), check=False, capture_output=True)

    def prepare(self, busybox_tar: str, python_archive: str) -> None:
        super().prepare(busybox_tar, python_archive)
        run(self.cli("tag", f"localhost/{BUSYBOX}", BUSYBOX), env=self.env)


class Buildah(Engine):
    """Builds only; no daemon, no API."""

    name = "buildah"
    program = "buildah"

    def cli(self, *words: str) -> list[str]:
        return [self.program, "--root", f"{self.scratch}/data", "--runroot", f"{self.scratch}/run", *words]

    def build(self, tag: str, context: str, *, cached: bool) -> list[str]:
        words = ["--layers" if cached else "--no-cache", *(f"--ulimit={limit}" for limit in LIMITS)]
        words += ["--runtime=runc"] if HYBRID and shutil.which("runc") else []
        return self.cli("build", *words, "-t", tag, context)

    def prepare(self, busybox_tar: str, python_archive: str) -> None:
        container = run(self.cli("from", "scratch"), env=self.env).strip()
        run(self.cli("add", container, busybox_tar, "/"), env=self.env)
        run(self.cli("commit", container, BUSYBOX), env=self.env)
        run(self.cli("rm", container), env=self.env)
        if python_archive:
            run(self.cli("pull", f"docker-archive:{python_archive}"), env=self.env)


def runtime_bundle(directory: str, rootfs: str, command: list[str]) -> None:
    """An OCI bundle for crun and runc alone: their own default spec, our rootfs, no terminal."""
    os.makedirs(directory)
    generator = shutil.which("runc") or shutil.which("crun")
    if generator is None:
        raise Failed("neither runc nor crun is installed")
    run([generator, "spec"], cwd=directory)
    path = Path(directory, "config.json")
    spec = json.loads(path.read_text())
    spec["process"] |= {"terminal": False, "args": command}
    spec["root"] = {"path": rootfs, "readonly": True}
    path.write_text(json.dumps(spec))
