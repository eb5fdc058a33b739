"""Accelerators asked for by the real docker client and docker-py, with memory devices standing in for GPUs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_docker_client import BUSYBOX, Docker, daemon, docker, py  # noqa: F401  (fixtures)

pytestmark = [
    pytest.mark.skipif(not BUSYBOX, reason="no busybox program here (Debian: busybox-static)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers are made by root"),
]


@pytest.fixture
def gpus(daemon: str, tmp_path: Path) -> Iterator[None]:  # noqa: F811
    """Two GPUs, as a vendor's tool would have described them, in YAML."""
    import yaml

    for index in (0, 1):
        os.mknod(tmp_path / f"nvidia{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    devices = [
        {
            "name": name,
            "containerEdits": {
                "deviceNodes": [
                    {"path": f"/dev/nvidia{i}", "hostPath": f"{tmp_path}/nvidia{i}"} for i in indexes
                ]
            },
        }
        for name, indexes in (("0", (0,)), ("1", (1,)), ("all", (0, 1)))
    ]
    folder = Path(daemon.removeprefix("unix://")).parent / "cdi"
    folder.mkdir(exist_ok=True)
    path = folder / "nvidia.yaml"
    path.write_text(yaml.safe_dump({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}))
    yield
    path.unlink()


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        (("--gpus", "all"), {"nvidia0", "nvidia1"}),
        (("--gpus", "1"), {"nvidia0"}),
        (("--gpus", '"device=0,1"'), {"nvidia0", "nvidia1"}),
        (("--gpus", "device=1"), {"nvidia1"}),
        (("--gpus", 'all,"capabilities=compute,utility"'), {"nvidia0", "nvidia1"}),
        ((), set()),
    ],
)
def test_the_gpus_flag_of_the_docker_client(docker: Docker, flags: tuple[str, ...], seen: set[str]) -> None:  # noqa: F811
    names = docker("run", "--rm", "--net", "none", *flags, "bb", "ls", "/dev").split()
    assert {name for name in names if name.startswith("nvidia")} == seen


@pytest.mark.usefixtures("gpus")
def test_a_name_that_is_not_there(docker: Docker) -> None:  # noqa: F811
    done = docker.run("run", "--rm", "--gpus", "device=7", "bb", "true")
    assert done.returncode == 125 and b"unresolvable CDI devices nvidia.com/gpu=7" in done.stderr
    assert b"nvidia.com/gpu=0" in done.stderr and not docker("ps", "-aq")


@pytest.mark.usefixtures("gpus")
def test_qualified_names_and_what_inspect_shows(py: Any) -> None:  # noqa: F811
    import docker as module

    asked = [
        module.types.DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=1"]),
        module.types.DeviceRequest(count=1, capabilities=[["gpu"]]),
    ]
    container = py.containers.run(
        "bb", ["sleep", "100"], detach=True, network_mode="none", device_requests=asked
    )
    names = container.exec_run(["ls", "/dev"]).output.decode().split()
    assert {"nvidia0", "nvidia1"} <= set(names)
    shown = container.attrs["HostConfig"]["DeviceRequests"]
    assert [one["Driver"] for one in shown] == ["cdi", ""] and shown[0]["DeviceIDs"] == ["nvidia.com/gpu=1"]
    assert json.dumps(shown[1]["Capabilities"]) == '[["gpu"]]'
    assert {"Source": "cdi", "ID": "nvidia.com/gpu=all"} in py.info()["DiscoveredDevices"]
