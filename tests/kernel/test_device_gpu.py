"""The real thing: an NVIDIA GPU described from the machine and used in a container. Skips where there is none.

Needs the driver, nvidia-ml-py (`pip install 'lading[gpu]'`) and root. What machines without a GPU can show of the same path
is in test_device_containers.py (stand-in devices) and test_device_generate.py (NVML's answers played back).
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, paths_below

from lading.base.errors import LadingError
from lading.device import document, generate, inventory
from lading.device.inventory import Machine
from lading.engine.model import DeviceRequest, Mount

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")


@pytest.fixture(scope="module")
def machine() -> Machine:
    if not inventory.present():
        pytest.skip("this machine has no NVIDIA driver")
    try:
        return inventory.look()
    except LadingError as e:
        pytest.skip(f"the GPU cannot be asked: {e}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("gpu"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


def test_the_machine_is_described_whole(machine: Machine) -> None:
    made = document.read(generate.nvidia(machine))
    assert machine.gpus and "all" in made.devices
    for device in made.devices.values():
        assert all(os.path.exists(node.path) for node in device.edits.nodes), device.name
    names = {name for name, _ in machine.libraries}
    assert {"libcuda.so.1", "libnvidia-ml.so.1"} <= names, "without them no framework finds the GPU"


@pytest.mark.usefixtures("machine")
def test_all_gpus_and_the_driver_are_in_the_container(world: World) -> None:
    said = world.said("ls", "/dev", "/usr/local/nvidia/lib64", device_requests=(DeviceRequest(count=-1),))
    assert "nvidiactl" in said.split() and "libcuda.so.1" in said.split()


def test_without_a_request_the_gpu_cannot_be_opened(world: World, machine: Machine) -> None:
    node = os.stat(f"/dev/nvidia{machine.gpus[0].minor}").st_rdev
    script = (
        f"mknod /tmp/gpu c {os.major(node)} {os.minor(node)}; (exec 3<>/tmp/gpu) || echo refused; ls /dev"
    )
    said = world.said("sh", "-c", script)
    assert "refused" in said and "nvidia" not in said
    asked = world.said("sh", "-c", f"{script}; echo end", device_requests=(DeviceRequest(count=-1),))
    assert "refused" not in asked and "nvidia" in asked, "the control: it opens where it was asked for"


def test_the_driver_answers_inside(world: World, machine: Machine) -> None:
    """nvidia-smi with the host's C library shown beside it, as the test image has none of its own."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("this machine has no nvidia-smi")
    folders = [path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if Path(path).is_dir()]
    mounts = tuple(Mount("bind", path, os.path.realpath(path), read_only=True) for path in folders)
    said = world.said("nvidia-smi", "-L", mounts=mounts, device_requests=(DeviceRequest(count=-1),))
    assert machine.gpus[0].uuid in said, f"on {platform.machine()}: {said}"
