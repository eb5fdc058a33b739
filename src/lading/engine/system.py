"""The engine about itself: info, version and disk usage in Docker's shapes. Owns the facts, measures nothing twice."""

from __future__ import annotations

import os
import platform
import socket
from typing import TYPE_CHECKING, Any

import lading
from lading.base import clock
from lading.base.errors import LadingError
from lading.engine import compose, stats, view, volumes

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class System:
    """Facts for /info, /version and /system/df."""

    def __init__(self, rooms: Rooms, *, warnings: tuple[str, ...] = ()) -> None:
        self._rooms = rooms
        self._warnings = warnings

    def version(self) -> dict[str, Any]:
        """Docker's SystemVersion; the API room adds the versions it speaks."""
        uname = os.uname()
        details = {
            "Arch": _ARCHITECTURES.get(uname.machine, uname.machine),
            "KernelVersion": uname.release,
            "Os": "linux",
        }
        return {
            "Platform": {"Name": "lading"},
            "Version": lading.__version__,
            "Os": "linux",
            "Arch": details["Arch"],
            "KernelVersion": uname.release,
            "GitCommit": "",
            "GoVersion": f"python{platform.python_version()}",
            "BuildTime": "",
            "Components": [{"Name": "Engine", "Version": lading.__version__, "Details": details}],
        }

    def info(self) -> dict[str, Any]:
        """Docker's SystemInfo, with Socket and HostTrust of our own."""
        rooms, uname = self._rooms, os.uname()
        counts = {"running": 0, "paused": 0, "stopped": 0}
        entries = rooms.roster.all()
        for entry in entries:
            status = view.state(rooms, entry).status
            counts[status if status in counts else ("running" if status == "restarting" else "stopped")] += 1
        layout = rooms.runtime.layout
        return {
            "ID": _machine_id(),
            "Name": uname.nodename,
            "ServerVersion": lading.__version__,
            "Containers": len(entries),
            "ContainersRunning": counts["running"],
            "ContainersPaused": counts["paused"],
            "ContainersStopped": counts["stopped"],
            "Images": len(rooms.images.list()),
            "Driver": rooms.snapshotter.name,
            "DriverStatus": [["Data root", rooms.paths.snapshots]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "local", "none"],
            },
            "MemoryLimit": layout.has("memory"),
            "SwapLimit": layout.has("memory"),
            "CpuCfsPeriod": layout.has("cpu"),
            "CpuCfsQuota": layout.has("cpu"),
            "CPUShares": layout.has("cpu"),
            "CPUSet": layout.has("cpuset"),
            "PidsLimit": layout.has("pids"),
            "OomKillDisable": "memory" in layout.v1,
            "IPv4Forwarding": True,
            "Debug": False,
            "NFd": _count("/proc/self/fd"),
            "NGoroutines": _count("/proc/self/task"),
            "SystemTime": clock.rfc3339(clock.now_ns()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "none" if layout.mode == "none" else "cgroupfs",
            "CgroupVersion": "2" if layout.mode == "v2" else "1",
            "CgroupMode": layout.mode,
            "NEventsListener": 0,
            "KernelVersion": uname.release,
            "OperatingSystem": _distribution().get("PRETTY_NAME", "Linux"),
            "OSVersion": _distribution().get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": uname.machine,
            "IndexServerAddress": "",
            "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": []},
            "NCPU": rooms.cpus,
            "MemTotal": stats.host_memory(),
            "GenericResources": None,
            "CDISpecDirs": list(rooms.accelerators.directories),
            "DiscoveredDevices": [
                {"Source": "cdi", "ID": name} for name in rooms.accelerators.known().names()
            ],
            "DockerRootDir": rooms.paths.root,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Labels": [],
            "ExperimentalBuild": False,
            "Runtimes": {"lading": {"path": "lading"}},
            "DefaultRuntime": "lading",
            "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False, "NodeID": "", "NodeAddr": ""},
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "lading",
            "SecurityOptions": [*_security(), *(["name=rootless"] if rooms.ordinary else [])],
            "Warnings": [*self._warnings, *self._obstacles()],
            "Socket": rooms.paths.socket,
            "HostTrust": rooms.trust.summary(),
        }

    def _obstacles(self) -> list[str]:
        """Only root's engine has to do with the host's firewall."""
        try:
            return [f"WARNING: {text}" for text in self._rooms.networks.warnings()]
        except LadingError:
            return []

    def disk_usage(self) -> dict[str, Any]:
        """What images and volumes take on disk; containers and the build cache are told by their own verbs."""
        rooms = self._rooms
        used = rooms.volumes.used()
        images = rooms.images.list()
        by_image: dict[str, int] = {}
        for entry in rooms.roster.all():
            by_image[entry.record.image_id] = by_image.get(entry.record.image_id, 0) + 1
        layers = {layer.digest: layer.size for image in images for layer in image.manifest.layers}
        return {
            "LayersSize": sum(layers.values()),
            "Images": [
                {
                    "Id": image.id,
                    "RepoTags": list(image.familiar),
                    "Created": image.created_ns // 1_000_000_000,
                    "Size": image.size,
                    "SharedSize": 0,
                    "Containers": by_image.get(image.id, 0),
                    "Labels": dict(image.config.config.labels),
                    "ParentId": "",
                    "RepoDigests": [],
                }
                for image in images
            ],
            "Volumes": [
                {
                    "Name": volume.name,
                    "Driver": volume.driver,
                    "Mountpoint": volume.mountpoint,
                    "CreatedAt": clock.rfc3339(volume.created_ns),
                    "Labels": dict(volume.labels),
                    "Options": None,
                    "Scope": volume.scope,
                    "UsageData": {
                        "Size": volumes.usage(volume.mountpoint),
                        "RefCount": len(used.get(volume.name, ())),
                    },
                }
                for volume in rooms.volumes.list()
            ],
        }


def _count(folder: str) -> int:
    return len(os.listdir(folder))


def _security() -> list[str]:
    """What is on in every container that nobody asked to be without."""
    found = ["name=apparmor"] if compose.has_apparmor() else []
    if compose.seccomp("", ()) is not None:
        found.append("name=seccomp,profile=builtin")
    found += ["name=cgroupns", "name=no-new-privileges"]
    return [*found, "name=timens"] if compose.has_time_namespaces() else found


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        return socket.gethostname()


def _distribution() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
