"""CDI documents made from the machine itself. Owns what belongs into one; looks at device nodes and well-known paths.

NVIDIA's user-space driver must be the kernel driver's version, so it comes from the host: each library is mounted into
one directory of its own, and LD_LIBRARY_PATH names it. No hook runs ldconfig in the container, because whatever runs
there before the container's own command would run with rights the container must not have (CVE-2024-0132,
CVE-2025-23266); the price is that set-user-id programs, which ignore that variable, do not find the driver.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lading.base.errors import Invalid, NotFound
from lading.device import document, model
from lading.device.inventory import Gpu, Machine

LIBRARY_DIRECTORY = "/usr/local/nvidia/lib64"
"""Where images made for NVIDIA's GPUs look already."""

VERSION = "0.5.0"
"""The lowest CDI that has all that is used, so that older engines can read the files too."""

NVIDIA = "nvidia.com/gpu"
GENERIC_VENDOR, GENERIC_CLASS = "lading.host", "device"

_CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
_SOCKETS = ("/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket")
_PROGRAMS = ("nvidia-smi", "nvidia-debugdump")
_PROGRAM_PLACES = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/opt/bin",
    "/usr/local/nvidia/bin",
    "/usr/lib/wsl/lib",
)
_DATA = (
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/etc/vulkan/icd.d/nvidia_icd.json",
)
_BIND = ["rbind", "ro", "nosuid", "nodev", "rprivate"]
_SOCKET_BIND = ["rbind", "rw", "nosuid", "nodev", "noexec", "rprivate"]

Exists = Callable[[str], bool]


def nvidia(machine: Machine, exists: Exists = os.path.exists) -> dict[str, Any]:
    """The spec of NVIDIA's GPUs and MIG devices: by index, by UUID, and all of them as one."""
    devices: list[dict[str, Any]] = []
    every: list[dict[str, Any]] = []
    for gpu in machine.gpus:
        whole = _gpu_nodes(gpu, exists)
        if not gpu.partitioned:
            devices += _named((str(gpu.index), gpu.uuid), whole)
            every += whole
        for mig in gpu.migs:
            nodes = [*whole, *({"path": f"/dev/nvidia-caps/nvidia-cap{minor}"} for minor in mig.minors)]
            devices += _named((mig.name, mig.uuid), nodes)
            every += nodes
    if not devices:
        raise NotFound(
            "no GPU of this machine can be given to a container",
            why="MIG is on, and there is no MIG device.",
            hint="Make one with nvidia-smi mig -cgi, or turn MIG off.",
        )
    devices += _named(("all",), _unique(every))
    common = {
        "env": ["NVIDIA_VISIBLE_DEVICES=void", f"LD_LIBRARY_PATH={LIBRARY_DIRECTORY}"],
        "deviceNodes": [{"path": path} for path in _CONTROL if exists(path)],
        "mounts": list(_driver_mounts(machine, exists)),
    }
    return _document(NVIDIA, devices, common)


def _gpu_nodes(gpu: Gpu, exists: Exists) -> list[dict[str, Any]]:
    found = [{"path": f"/dev/nvidia{gpu.minor}"}]
    if gpu.bus_id:
        # NVML writes the PCI domain with eight digits, the kernel's links with four.
        domain, _, rest = gpu.bus_id.partition(":")
        link = f"/dev/dri/by-path/pci-{domain[-4:]}:{rest}-render"
        if exists(link):
            found.append({"path": os.path.realpath(link)})
    return found


def _driver_mounts(machine: Machine, exists: Exists) -> Iterable[dict[str, Any]]:
    for name, real in machine.libraries:
        yield _bind(real, f"{LIBRARY_DIRECTORY}/{name}")
    for program in _PROGRAMS:
        place = next((p for p in (f"{folder}/{program}" for folder in _PROGRAM_PLACES) if exists(p)), "")
        if place:
            yield _bind(os.path.realpath(place), f"/usr/bin/{program}")
    for path in _DATA:
        if exists(path):
            yield _bind(path, path)
    for firmware in sorted(glob.glob(f"/lib/firmware/nvidia/{machine.driver}/gsp*.bin")):
        yield _bind(os.path.realpath(firmware), firmware)
    for path in _SOCKETS:
        if exists(path):
            yield {"hostPath": path, "containerPath": path, "options": list(_SOCKET_BIND)}


def _bind(host: str, guest: str) -> dict[str, Any]:
    return {"hostPath": host, "containerPath": guest, "options": list(_BIND)}


def _named(names: Iterable[str], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "containerEdits": {"deviceNodes": nodes}} for name in names]


def _unique(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({node["path"]: node for node in nodes}.values())


def _document(kind: str, devices: list[dict[str, Any]], common: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"cdiVersion": VERSION, "kind": kind, "devices": devices}
    edits = {key: value for key, value in common.items() if value}
    if edits:
        found["containerEdits"] = edits
    document.read(found)  # what is written can be read
    return found


def generic(
    paths: Sequence[str], vendor: str = "", class_: str = "", common: Sequence[str] = ()
) -> dict[str, Any]:
    """A spec of any device nodes: each by number and by its file's name, and all as one; `common` goes with every one.

    A directory stands for the nodes in it. AMD's GPUs, for one: common /dev/kfd, paths /dev/dri/renderD*.
    """
    kind = f"{vendor or GENERIC_VENDOR}/{class_ or GENERIC_CLASS}"
    if not model.is_kind(kind):
        raise Invalid(f'"{kind[:120]}" is no kind of device', hint="Write --vendor amd.com --class gpu.")
    nodes = list(dict.fromkeys(node for path in paths for node in _nodes_at(path)))
    shared = list(dict.fromkeys(node for path in common for node in _nodes_at(path)))
    devices: list[dict[str, Any]] = []
    names = {"all"}
    for index, node in enumerate(nodes):
        own = [name for name in (str(index), _file_name(node)) if name and name not in names]
        names.update(own)
        devices += _named(own, [{"path": node}])
    devices += _named(("all",), [{"path": node} for node in nodes])
    return _document(kind, devices, {"deviceNodes": [{"path": node} for node in shared]})


def _file_name(path: str) -> str:
    name = os.path.basename(path)
    return name if model.is_device_name(name) else ""


def _nodes_at(path: str) -> list[str]:
    """The device nodes that `path` stands for, as absolute paths; links are kept as they were named."""
    given = os.path.abspath(path)
    if os.path.isdir(given):
        inside = sorted((entry.path for entry in os.scandir(given) if not entry.is_symlink()), key=_natural)
        found = [item for item in inside if _is_node(item)]
    else:
        found = [given] if _is_node(given) else []
    if not found:
        raise NotFound(
            f"{path} is no device node" if os.path.exists(given) else f"{path} does not exist",
            hint="Name nodes such as /dev/dri/renderD128, or a directory that holds some.",
        )
    return found


def _natural(path: str) -> tuple[str, int]:
    stem = path.rstrip("0123456789")
    return stem, int(path[len(stem) :] or 0)


def _is_node(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
