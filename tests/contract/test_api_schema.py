"""The answers against the Engine API's own definitions: every field known to them has the type they give it."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import jsonschema
import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "unit"))

from api_fake import FakeEngine, Network, Stored, Volume

from lading.api import parse
from lading.api.render import containers, events, images, networks, usage, volumes
from lading.engine.model import (
    Config,
    ContainerView,
    Device,
    Endpoint,
    EndpointState,
    Event,
    Health,
    HealthResult,
    HostConfig,
    Mount,
    MountPoint,
    PortBinding,
    Resources,
    Restart,
    State,
    ThrottleDevice,
    Ulimit,
)

_SPEC = pathlib.Path(__file__).parents[3] / "shared/specs/docker/engine-api-v1.56.yaml"

# Places where the reference engine itself sends null though the definition does not say so (seen in its answers).
_NULL_IN_PRACTICE = frozenset(
    (
        *(
            "Links",
            "Aliases",
            "DriverOpts",
            "DNSNames",
            "IPAMConfig",
            "ExecIDs",
            "Cmd",
            "Entrypoint",
            "Volumes",
        ),
        *("OnBuild", "Labels", "Binds", "CapAdd", "CapDrop", "VolumesFrom", "ExtraHosts", "GroupAdd", "Env"),
        *("SecurityOpt", "DeviceCgroupRules", "DeviceRequests", "MaskedPaths", "ReadonlyPaths", "Options"),
        *("SecondaryIPAddresses", "SecondaryIPv6Addresses", "Warnings", "MemorySwappiness", "PidsLimit"),
    )
)


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    if not _SPEC.exists():
        pytest.skip("the Engine API's definition is not beside this checkout")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(_SPEC.read_text(), Loader=loader)
    return {"definitions": _nullable(found["definitions"])}


def _nullable(node: Any, name: str = "") -> Any:
    """Swagger 2's x-nullable as JSON Schema; examples and formats are left out."""
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {
        key: {child: _nullable(value, child) for child, value in item.items()}
        if key in ("properties", "definitions") and isinstance(item, dict)
        else _nullable(item)
        for key, item in node.items()
        if key not in ("example", "format", "description", "x-go-name")
    }
    if node.get("x-nullable") or name in _NULL_IN_PRACTICE:
        return {"anyOf": [made, {"type": "null"}]}
    return made


def check(spec: dict[str, Any], definition: str, value: Any) -> None:
    jsonschema.validate(value, {**spec, "$ref": f"#/definitions/{definition}"})


def known(spec: dict[str, Any], definition: str) -> set[str]:
    """The names a definition knows, through its allOf."""
    found: set[str] = set()
    stack = [spec["definitions"][definition]]
    while stack:
        node = stack.pop()
        if "$ref" in node:
            stack.append(spec["definitions"][node["$ref"].rpartition("/")[2]])
        found |= set(node.get("properties", {}))
        stack.extend((*node.get("allOf", ()), *node.get("anyOf", ())))
    return found


FULL = ContainerView(
    id="a" * 64,
    name="one",
    created_ns=1767323045_120000000,
    image_id="sha256:" + "b" * 64,
    image_ref="busybox",
    command=("sh", "-c", "echo a b"),
    config=Config(
        image="busybox",
        cmd=("-c", "echo a b"),
        entrypoint=("sh",),
        env=("A=b",),
        labels={"k": "v"},
        exposed_ports=("80/tcp", "81/tcp"),
        volumes=("/data",),
        healthcheck=Health(("CMD", "true"), interval=1_000_000, retries=3),
        stop_signal="SIGINT",
        stop_timeout=3,
    ),
    host=HostConfig(
        binds=("/a:/b:ro",),
        mounts=(
            Mount(
                "bind",
                "/b",
                "/a",
                read_only=True,
                propagation="rslave",
                non_recursive=True,
                create_source=True,
            ),
            Mount("volume", "/c", "v", no_copy=True, labels={"a": "b"}, driver_options={"o": "p"}),
            Mount("tmpfs", "/d", tmpfs_size=4096, tmpfs_mode=0o700),
        ),
        tmpfs={"/t": "size=1m"},
        port_bindings=(PortBinding(80, "tcp", "127.0.0.1", "8080"),),
        restart=Restart("on-failure", 3),
        cap_add=("NET_ADMIN",),
        devices=(Device("/dev/null", "/dev/n", "rw"),),
        ulimits=(Ulimit("nofile", 10, 20),),
        sysctls={"net.ipv4.ip_forward": "1"},
        init=True,
        masked_paths=("/proc/kcore",),
        resources=Resources(
            memory=1 << 26,
            pids_limit=5,
            memory_swappiness=10,
            device_read_bps=(ThrottleDevice("/dev/sda", 5),),
        ),
        host_trust=True,
    ),
    state=State(
        "running",
        pid=5,
        started_ns=1767323045_000000000,
        health="healthy",
        health_log=(HealthResult(1767323045_000000000, 1767323046_000000000, 0, "ok"),),
    ),
    mounts=(
        MountPoint("bind", "", "/a", "/b", mode="ro", rw=False, propagation="rslave"),
        MountPoint("volume", "v", "/v/_data", "/c", driver="local"),
    ),
    networks=(
        EndpointState(
            *("bridge", "n" * 64, "e" * 64, "172.18.0.2", 16, "172.18.0.1"),
            mac="02:42:ac:12:00:02",
            aliases=("x",),
            requested=Endpoint(ipv4="172.18.0.2"),
        ),
    ),
    ports=(PortBinding(80, "tcp", "127.0.0.1", "8080"),),
    size_rw=1,
    size_root=2,
    exec_ids=("f" * 64,),
)
BARE = ContainerView(
    "a" * 64, "two", 1, "sha256:" + "b" * 64, "b", ("sh",), Config(), HostConfig(), State("created")
)


@pytest.mark.parametrize("view", [FULL, BARE])
@pytest.mark.parametrize("version", [41, 54])
def test_container_inspect(spec: dict[str, Any], view: ContainerView, version: int) -> None:
    found = containers.inspect(view, version)
    check(spec, "ContainerInspectResponse", found)
    check(spec, "HostConfig", found["HostConfig"])
    check(spec, "ContainerConfig", found["Config"])
    assert set(found) <= known(spec, "ContainerInspectResponse")
    assert set(found["HostConfig"]) - {"HostTrust"} <= known(spec, "HostConfig") | {"Cgroup", "Links"}
    assert set(found["State"]) <= known(spec, "ContainerState")
    if version >= 52:
        assert set(found["NetworkSettings"]) <= known(spec, "NetworkSettings")


@pytest.mark.parametrize("view", [FULL, BARE])
def test_container_summary(spec: dict[str, Any], view: ContainerView) -> None:
    found = containers.summary(view, 1767323050_000000000)
    check(spec, "ContainerSummary", found)
    assert set(found) <= known(spec, "ContainerSummary")


@pytest.mark.parametrize("view", [FULL, BARE])
def test_what_was_created_is_what_inspect_shows(view: ContainerView) -> None:
    """parse and render are inverse: an inspected container, created again, is the same container."""
    shown = containers.inspect(view, 54)
    again = parse.create({**shown["Config"], "HostConfig": shown["HostConfig"]}, "", "")
    assert again.config == view.config
    defaults = {
        "log_driver": "json-file",
        "cgroupns_mode": "private",
        "ipc_mode": "private",
        "runtime": "lading",
        "shm_size": 64 << 20,
    }
    expected = {**vars(view.host), **defaults}
    assert vars(again.host) == expected


def test_image(spec: dict[str, Any]) -> None:
    image = Stored()
    check(spec, "ImageSummary", images.summary(image))
    assert set(images.summary(image)) <= known(spec, "ImageSummary")
    found = images.inspect(image, 54)
    check(spec, "ImageInspect", found)
    assert set(found["Config"]) <= known(spec, "ImageConfig")
    assert (
        images.inspect(image, 49)["Config"]["Tty"] is False
    )  # older clients read the container's fields too
    assert set(found) <= known(spec, "ImageInspect") | {"Parent", "VirtualSize"}
    check(spec, "ImageConfig", found["Config"])


def test_volume_and_network(spec: dict[str, Any]) -> None:
    check(spec, "Volume", volumes.volume(Volume("v", labels={"a": "b"})))
    network = Network("n" * 64, "bridge", subnet6="fd00::/64")
    members = {"a" * 64: FULL.networks[0]}
    check(spec, "Network", networks.network(network))
    check(spec, "NetworkInspect", networks.network(network, members, {"a" * 64: "one"}))


@pytest.mark.parametrize("version", [51, 52])
def test_event(spec: dict[str, Any], version: int) -> None:
    value = Event("container", "start", "a" * 64, {"image": "b"}, 1767323045_000000001)
    check(spec, "EventMessage", events.event(value, version))


def test_build_cache_record(spec: dict[str, Any], tmp_path: pathlib.Path) -> None:
    (row,) = FakeEngine(str(tmp_path)).builder.usage()
    found = usage.cache_record(row)
    check(spec, "BuildCache", found)
    assert set(found) <= known(spec, "BuildCache")


def test_the_fake_engine_keeps_the_protocol(tmp_path: pathlib.Path) -> None:
    from lading.api.ports import Engine

    engine: Engine = FakeEngine(str(tmp_path))
    assert engine.idle()
