"""--gpus and DeviceRequests: their syntax, which devices they mean, and what goes with them."""

from __future__ import annotations

from typing import Any

import pytest

from lading.api import parse
from lading.api.render.hosts import host_config
from lading.base.errors import Invalid, LadingError, NotFound
from lading.cli.context import Context
from lading.cli.createbody import create_body
from lading.cli.flags import UsageError
from lading.cli.flags import parse as parse_flags
from lading.cli.run import RUN
from lading.device import document
from lading.device.catalog import Catalog
from lading.engine import accelerators
from lading.engine.accelerators import ALL
from lading.engine.model import DeviceRequest, HostConfig, Resources, Ulimit

GPU: dict[str, Any] = {"Capabilities": [["gpu"]]}


def requests(*words: str) -> Any:
    flags = parse_flags("run", RUN, [*words, "img"])
    return create_body(Context({}), flags, True)["HostConfig"].get("DeviceRequests")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("all", {**GPU, "Count": -1}),
        ("2", {**GPU, "Count": 2}),
        ("count=all", {**GPU, "Count": -1}),
        ("device=0", {**GPU, "DeviceIDs": ["0"]}),
        ("device=0,1", {**GPU, "DeviceIDs": ["0", "1"]}),
        ('"device=0,GPU-1"', {**GPU, "DeviceIDs": ["0", "GPU-1"]}),
        ("device=1:0", {**GPU, "DeviceIDs": ["1:0"]}),
        ("capabilities=compute,utility", {"Count": 1, "Capabilities": [["compute", "utility", "gpu"]]}),
        ('all,"capabilities=utility"', {"Count": -1, "Capabilities": [["utility", "gpu"]]}),
        ("driver=nvidia,count=1", {**GPU, "Driver": "nvidia", "Count": 1}),
        ('"options=a=b,c=d",2', {**GPU, "Options": {"a": "b", "c": "d"}, "Count": 2}),
    ],
)
def test_the_gpus_flag(value: str, wanted: dict[str, Any]) -> None:
    assert requests("--gpus", value) == [wanted]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "invalid count"),
        ("many", "invalid count"),
        ("-2", "invalid count"),
        ("count=1,count=2", "only once"),
        ("1,device=0", "both a count and devices"),
        ("device=", "names none"),
        ("what=1", "unexpected key 'what'"),
    ],
)
def test_the_gpus_flag_refuses(value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        requests("--gpus", value)


def test_both_flags_add_up() -> None:
    assert requests("--gpus", "1", "--device", "a.com/x=0", "--device", "/dev/null", "--gpus", "all") == [
        {"Driver": "cdi", "DeviceIDs": ["a.com/x=0"]},
        {**GPU, "Count": 1},
        {**GPU, "Count": -1},
    ]


def test_a_request_through_the_api_and_back() -> None:
    asked = [
        {
            "Driver": "nvidia",
            "Count": 0,
            "DeviceIDs": ["0"],
            "Capabilities": [["gpu", "compute"]],
            "Options": {"a": "b"},
        },
        {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}},
    ]
    found = parse.create({"Image": "i", "HostConfig": {"DeviceRequests": asked}}, "", "").host
    assert found.device_requests == (
        DeviceRequest("nvidia", 0, ("0",), (("gpu", "compute"),), {"a": "b"}),
        DeviceRequest("", -1, (), (("gpu",),), {}),
    )
    assert host_config(found)["DeviceRequests"] == asked
    assert host_config(HostConfig())["DeviceRequests"] is None


@pytest.mark.parametrize("bad", ["gpu", ["gpu"], [[1]], [None]])
def test_capabilities_have_a_shape(bad: Any) -> None:
    with pytest.raises(Invalid, match="Capabilities"):
        parse.create({"Image": "i", "HostConfig": {"DeviceRequests": [{"Capabilities": bad}]}}, "", "")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (DeviceRequest(count=1, device_ids=("0",)), "cannot set both Count and DeviceIDs"),
        (DeviceRequest(count=-2), "invalid device count"),
        (DeviceRequest("tpu"), r'could not select device driver "tpu" with capabilities: \[\[gpu\]\]'),
        (DeviceRequest("", 1, (), (("tpu",),)), "gpu is always one"),
        (DeviceRequest("", 1, (), (("gpu", "magic"),)), "gpu is always one"),
        (DeviceRequest("cdi", -1), "names its devices"),
        (DeviceRequest("cdi", 0, ("0",) * 2000), "too many"),
    ],
)
def test_requests_that_contradict_themselves(request_: DeviceRequest, said: str) -> None:
    with pytest.raises(LadingError, match=said):
        accelerators.check([request_])
    with pytest.raises(Invalid, match="too many"):
        accelerators.check([DeviceRequest(count=1)] * 100)


def known(*names: str, kind: str = "nvidia.com/gpu") -> Catalog:
    found = Catalog(["/nowhere"])
    devices = [{"name": name, "containerEdits": {"env": ["A=1"]}} for name in names]
    if names:
        found.add(document.read({"cdiVersion": "1.0.0", "kind": kind, "devices": devices}))
    return found


@pytest.mark.parametrize(
    ("names", "request_", "wanted"),
    [
        (("0", "1", "all"), DeviceRequest(count=ALL), ["all"]),
        (("1", "0"), DeviceRequest(count=ALL), ["0", "1"]),
        (("10", "2", "GPU-a", "all"), DeviceRequest(count=1), ["2"]),
        (("0", "GPU-a", "1", "GPU-b", "all"), DeviceRequest(count=2), ["0", "1"]),
        (("0:0", "MIG-a", "0:1", "MIG-b"), DeviceRequest(count=2), ["0:0", "0:1"]),
        (("0", "1:0", "1:1", "MIG-b"), DeviceRequest(count=3), ["0", "1:0", "1:1"]),
        (("GPU-a", "GPU-b"), DeviceRequest(count=1), ["GPU-a"]),
        (("0", "1"), DeviceRequest(), ["0"]),
        (("0", "1"), DeviceRequest("nvidia", 0, ("1", "1")), ["1"]),
    ],
)
def test_which_devices_a_request_means(
    names: tuple[str, ...], request_: DeviceRequest, wanted: list[str]
) -> None:
    assert accelerators.names([request_], known(*names)) == [f"nvidia.com/gpu={name}" for name in wanted]


def test_other_vendors_answer_where_nobody_is_asked_for() -> None:
    amd = known("0", kind="amd.com/gpu")
    assert accelerators.names([DeviceRequest(count=ALL)], amd) == ["amd.com/gpu=0"]
    assert accelerators.names([DeviceRequest("cdi", 0, ("x.com/y=z",))], amd) == ["x.com/y=z"]
    with pytest.raises(NotFound, match=r"the driver is away\. This machine has amd\.com/gpu=0"):
        accelerators.names([DeviceRequest("nvidia", 1)], amd, "the driver is away.")
    with pytest.raises(NotFound, match=r"is of kind nvidia\.com/gpu or amd\.com/gpu or intel\.com/gpu"):
        accelerators.names([DeviceRequest(count=1)], known())


def test_more_than_there_are() -> None:
    with pytest.raises(
        NotFound, match=r"3 devices of nvidia\.com/gpu were asked for, and this machine has 2"
    ):
        accelerators.names([DeviceRequest(count=3)], known("0", "1", "all"))


def test_shared_memory_for_data_loaders() -> None:
    gpu = HostConfig(device_requests=(DeviceRequest(count=1),))

    def size(**more: Any) -> int:
        from dataclasses import replace

        return accelerators.with_defaults(replace(gpu, **more), 64 << 30).shm_size

    assert size() == 32 << 30
    assert size(resources=Resources(memory=8 << 30)) == 4 << 30
    assert size(resources=Resources(memory=8 << 20)) == 64 << 20
    assert size(shm_size=1 << 20) == 1 << 20
    assert size(ipc_mode="host") == 0
    assert accelerators.with_defaults(HostConfig(), 64 << 30).shm_size == 0


def test_locked_memory_goes_as_far_as_the_host_lets_it() -> None:
    gpu = HostConfig(device_requests=(DeviceRequest(count=1),))
    assert accelerators.ulimits(gpu, 8192, True) == (Ulimit("memlock", -1, -1),)
    assert accelerators.ulimits(gpu, 8192, False) == (Ulimit("memlock", 8192, 8192),)
    own = (Ulimit("memlock", 1, 2),)
    assert accelerators.ulimits(HostConfig(device_requests=gpu.device_requests, ulimits=own), -1, True) == own
    assert accelerators.ulimits(HostConfig(), -1, True) == ()
