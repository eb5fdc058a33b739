"""NVIDIA GPUs and their driver as this machine has them. Owns asking NVML and the driver's files; makes no spec.

NVML is reached through nvidia-ml-py (an optional package, imported when it is needed) and let go of at once, so that the
engine holds no handle that would keep the driver busy. Sources: NVML API reference; the driver's
/proc/driver/nvidia/capabilities (MIG access files name a minor number below /dev/nvidia-caps).
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lading.base.errors import Unavailable

_CAPABILITIES = "/proc/driver/nvidia/capabilities"
_LINE = re.compile(r"\s*(\S+) \(([^)]*)\) => (\S+)")
_ARCHITECTURES = {"x86_64": "x86-64", "aarch64": "AArch64", "ppc64le": "64bit"}
_MORE_LIBRARIES = (
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
)
_TIMEOUT = 10.0


@dataclass(frozen=True)
class Mig:
    """One MIG device; `minors` are those of its access files below /dev/nvidia-caps."""

    name: str  # "GPU:DEVICE" by index, as nvidia-smi -L counts them
    uuid: str
    minors: tuple[int, ...]


@dataclass(frozen=True)
class Gpu:
    """One GPU; `minor` is its node's, which need not be its index."""

    index: int
    minor: int
    uuid: str
    bus_id: str = ""
    partitioned: bool = False
    migs: tuple[Mig, ...] = ()


@dataclass(frozen=True)
class Machine:
    """The driver's version, its GPUs and its 64-bit libraries as (names they are loaded by, real file)."""

    driver: str
    gpus: tuple[Gpu, ...]
    libraries: tuple[tuple[str, str], ...] = ()


def look(nvml: Any = None) -> Machine:
    """Ask the driver; Unavailable says what is missing and what to install."""
    nvml = nvml or _load()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as e:
        raise Unavailable(
            "NVIDIA's driver does not answer",
            why=f"NVML says: {e}.",
            hint="Install NVIDIA's driver on this machine and load it (nvidia-smi must work), "
            "or use `lading cdi generate generic` for other devices.",
        ) from e
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        count = nvml.nvmlDeviceGetCount()
        gpus = tuple(_gpu(nvml, index) for index in range(count))
    except nvml.NVMLError as e:
        raise Unavailable("NVIDIA's driver does not tell its GPUs", why=f"NVML says: {e}.") from e
    finally:
        nvml.nvmlShutdown()
    if not gpus:
        raise Unavailable("NVIDIA's driver has no GPU", hint="nvidia-smi -L lists what it has.")
    return Machine(driver, gpus, libraries(driver, cached_libraries()))


def present() -> bool:
    """Whether the driver is loaded, by its control node; costs one stat."""
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/proc/driver/nvidia/version")


def state() -> tuple[str, ...]:
    """What changes when the driver, a GPU or a MIG device comes or goes: the names of the nodes, and the version."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8", errors="replace") as file:
            version = file.read(4096)
    except OSError:
        version = ""
    return (version, *sorted(glob.glob("/dev/nvidia*")), *sorted(glob.glob("/dev/nvidia-caps/*")))


def _load() -> Any:
    try:
        import pynvml
    except ImportError as e:
        raise Unavailable(
            "NVIDIA's GPUs cannot be listed",
            why="The package nvidia-ml-py is not installed.",
            hint="pip install 'lading[gpu]', or pip install nvidia-ml-py into lading's environment.",
        ) from e
    return pynvml


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    minor = int(nvml.nvmlDeviceGetMinorNumber(handle))
    try:
        partitioned = nvml.nvmlDeviceGetMigMode(handle)[0] == 1
    except nvml.NVMLError:
        partitioned = False  # a GPU that cannot be partitioned does not know the question
    migs = tuple(_migs(nvml, handle, index, minor)) if partitioned else ()
    bus = _text(nvml.nvmlDeviceGetPciInfo(handle).busId).lower()
    return Gpu(index, minor, _text(nvml.nvmlDeviceGetUUID(handle)), bus, partitioned, migs)


def _migs(nvml: Any, handle: Any, index: int, minor: int) -> Iterable[Mig]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError:
            continue  # no device in this place
        gpu_instance = nvml.nvmlDeviceGetGpuInstanceId(device)
        compute = nvml.nvmlDeviceGetComputeInstanceId(device)
        root = f"{_CAPABILITIES}/gpu{minor}/mig/gi{gpu_instance}"
        minors = (access_minor(f"{root}/access"), access_minor(f"{root}/ci{compute}/access"))
        yield Mig(f"{index}:{number}", _text(nvml.nvmlDeviceGetUUID(device)), minors)


def access_minor(path: str) -> int:
    """DeviceFileMinor of a capability's access file."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(4096)
    except OSError as e:
        raise Unavailable(
            f"the driver's capability file {path} cannot be read", why=e.strerror or str(e)
        ) from e
    match = re.search(r"^DeviceFileMinor:\s*(\d+)\s*$", text, re.MULTILINE)
    if match is None:
        raise Unavailable(f"the driver's capability file {path} names no minor number")
    return int(match[1])


def cached_libraries() -> list[tuple[str, str]]:
    """(name, file) of the loader's cache for this architecture, and of places that are not in it (ldconfig(8) -p)."""
    found: list[tuple[str, str]] = []
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        if os.access(program, os.X_OK):
            try:
                # Fixed program, fixed arguments, no environment of ours: it only prints its cache.
                ran = subprocess.run(
                    [program, "-p"], env={}, capture_output=True, timeout=_TIMEOUT, check=False
                )
            except (OSError, subprocess.TimeoutExpired):
                break
            found = parse_cache(ran.stdout.decode(errors="replace"), os.uname().machine)
            break
    for directory in _MORE_LIBRARIES:
        found += [(os.path.basename(path), path) for path in sorted(glob.glob(f"{directory}/lib*.so*"))]
    return found


def parse_cache(text: str, machine: str) -> list[tuple[str, str]]:
    """(name, file) pairs of `ldconfig -p` that this machine's 64-bit programs can load."""
    wanted = _ARCHITECTURES.get(machine, machine)
    found = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match and wanted in re.split(r",\s*", match[2]):
            found.append((match[1], match[3]))
    return found


def libraries(driver: str, known: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The driver's own of the known libraries: their files carry its version. Each under every name it is loaded by."""
    found: dict[str, str] = {}
    for name, path in known:
        real = os.path.realpath(path)
        base = os.path.basename(real)
        if base.endswith(f".so.{driver}"):
            found.setdefault(name, real)
            found.setdefault(base, real)
            if base.startswith("libcuda.so."):
                found.setdefault("libcuda.so", real)  # what compilers for GPUs link and load
    return tuple(sorted(found.items()))
