"""Where lading keeps things. Owns every path below the data root and the run directory, so that no room spells one."""

from __future__ import annotations

import os

if False:  # the command line imports this file and pays for every import
    from collections.abc import Mapping


class Paths:
    """`root` survives a reboot (default /var/lib/lading), `run` does not (default /run/lading)."""

    __slots__ = ("root", "run")

    def __init__(self, root: str, run: str) -> None:
        self.root = root
        self.run = run

    @property
    def socket(self) -> str:
        """The API's unix socket."""
        return f"{self.run}/lading.sock"

    @property
    def names(self) -> str:
        """The resolver's control socket."""
        return f"{self.run}/names.sock"

    @property
    def network_trace(self) -> str:
        """Exists while the kernel may hold bridges or packet rules of ours."""
        return f"{self.run}/network"

    @property
    def blobs(self) -> str:
        return f"{self.root}/blobs"

    @property
    def database(self) -> str:
        return f"{self.root}/lading.db"

    @property
    def snapshots(self) -> str:
        return f"{self.root}/snapshots"

    @property
    def volumes(self) -> str:
        return f"{self.root}/volumes"

    @property
    def containers(self) -> str:
        """Per-container durable files: logs, hosts, resolv.conf, hostname."""
        return f"{self.root}/containers"

    @property
    def tmp(self) -> str:
        """Scratch on the same file system as the data root; emptied at start."""
        return f"{self.root}/tmp"

    @property
    def cdi(self) -> str:
        """Device specs of this engine's own; they win over the system's (CDI SPEC.md)."""
        return f"{self.run}/cdi"

    def container_run(self, container_id: str) -> str:
        """Live state of one container or exec: pid, exit file, control socket (the design's `run/c/<id>/`)."""
        return f"{self.run}/c/{container_id}"

    def container_dir(self, container_id: str) -> str:
        return f"{self.containers}/{container_id}"


def from_environment(environ: Mapping[str, str], uid: int) -> Paths:
    """Paths for this user: LADING_ROOT and LADING_RUN win; root uses /var/lib and /run, others the XDG directories."""
    if uid == 0:
        root, run = "/var/lib/lading", "/run/lading"
    else:
        home = environ.get("HOME", "/")
        root = os.path.join(environ.get("XDG_DATA_HOME") or f"{home}/.local/share", "lading")
        run = os.path.join(environ.get("XDG_RUNTIME_DIR") or f"/tmp/lading-{uid}", "lading")
    return Paths(environ.get("LADING_ROOT") or root, environ.get("LADING_RUN") or run)
