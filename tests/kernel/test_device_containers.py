"""Containers with accelerators: stand-in character devices, specs that point to them, and what stays out of reach.

A machine without a GPU has other character devices that open. Two of the misc ones stand for two GPUs under names of
the test's own; whichever is not asked for must be neither seen nor opened, whatever the container tries.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_world import BUSYBOX, World, engine_at, eventually, leftovers, paths_below

from lading.base.errors import LadingError, NotFound, Unsupported
from lading.engine.model import Config, Device, DeviceRequest, Mount, Ulimit

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")

CANDIDATES = ("/dev/fuse", "/dev/loop-control", "/dev/net/tun", "/dev/btrfs-control", "/dev/cpu_dma_latency")


def openable() -> list[os.stat_result]:
    """Character devices of this machine that a privileged process opens without harm."""
    found = []
    for path in CANDIDATES:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            continue
        found.append(os.stat(path))
    return found


STAND_INS = openable()

needs_devices = pytest.mark.skipif(
    len(STAND_INS) < 2, reason="this machine has no two character devices to stand in"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("devices")
    paths = paths_below(directory)
    with engine_at(paths) as engine:
        os.makedirs(paths.cdi)
        yield World(engine, paths)


@pytest.fixture
def gpus(world: World, tmp_path: Path) -> Iterator[Path]:
    """Nodes nvidia0, nvidia1 and nvidiactl in a directory of their own, and the spec that names them."""
    for name, info in (("nvidia0", STAND_INS[0]), ("nvidia1", STAND_INS[1])):
        os.mknod(tmp_path / name, stat.S_IFCHR, info.st_rdev)
        os.chmod(tmp_path / name, 0o660)  # mknod(2) heeds the umask
    os.mknod(tmp_path / "nvidiactl", stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(tmp_path / "nvidiactl", 0o666)
    library = tmp_path / "libcuda.so.1"
    library.write_text("a driver's library\n")
    devices = [
        {
            "name": name,
            "containerEdits": {
                "deviceNodes": [
                    {
                        "path": f"/dev/nvidia{index}",
                        "hostPath": f"{tmp_path}/nvidia{index}",
                        "permissions": "rw",
                    }
                    for index in indexes
                ]
            },
        }
        for name, indexes in (("0", [0]), ("1", [1]), ("GPU-1", [1]), ("all", [0, 1]))
    ]
    common = {
        "env": ["LD_LIBRARY_PATH=/usr/local/nvidia/lib64", "NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": f"{tmp_path}/nvidiactl"}],
        "mounts": [
            {
                "hostPath": str(library),
                "containerPath": "/usr/local/nvidia/lib64/libcuda.so.1",
                "options": ["ro", "nosuid", "nodev", "rbind"],
            }
        ],
        "additionalGids": [4242],
    }
    with SpecFile(world, "nvidia", devices, common, "nvidia.com/gpu"):
        yield tmp_path


class SpecFile:
    """A spec in the engine's own directory, for as long as the block runs."""

    def __init__(
        self,
        world: World,
        name: str,
        devices: list[dict[str, Any]],
        common: dict[str, Any],
        kind: str = "acme.com/dev",
    ) -> None:
        self.path = Path(world.paths.cdi) / f"{name}.json"
        self.text = json.dumps(
            {"cdiVersion": "1.1.0", "kind": kind, "devices": devices, "containerEdits": common}
        )

    def __enter__(self) -> None:
        self.path.write_text(self.text)

    def __exit__(self, *_: object) -> None:
        self.path.unlink()


def cdi(*names: str) -> tuple[DeviceRequest, ...]:
    return (DeviceRequest("cdi", 0, names),)


def opening(path: str) -> str:
    """A shell line: "opened" or "refused"."""
    return f"if (exec 3<>{path}) 2>/dev/null; then echo opened; else echo refused; fi"


def numbers(index: int) -> str:
    device = STAND_INS[index].st_rdev
    return f"{os.major(device)} {os.minor(device)}"


@needs_devices
@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("asked", [0, 1])
def test_the_device_asked_for_opens_and_no_other(world: World, asked: int) -> None:
    other = 1 - asked
    script = f"""
        ls /dev
        {opening(f"/dev/nvidia{asked}")}
        {opening("/dev/nvidiactl")}
        mknod /tmp/other c {numbers(other)} && echo made
        {opening("/tmp/other")}
        mknod /tmp/same c {numbers(asked)}
        {opening("/tmp/same")}
    """
    said = world.said(
        "sh", "-c", textwrap.dedent(script), device_requests=(DeviceRequest("nvidia", 0, (str(asked),)),)
    )
    *names, first, control, made, stranger, again = said.split()
    assert f"nvidia{asked}" in names and f"nvidia{other}" not in names and "nvidiactl" in names
    assert (first, control) == ("opened", "opened")
    assert (made, stranger) == ("made", "refused"), "a node alone opens nothing"
    assert again == "opened", "the control: the same act works with the number that was asked for"


@needs_devices
@pytest.mark.usefixtures("gpus")
def test_without_a_request_there_is_nothing(world: World) -> None:
    image_says = Config(env=("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all"))
    script = f"""
        ls /dev; mknod /tmp/x c {numbers(0)}; {opening("/tmp/x")}
        ls /usr/local/nvidia 2>&1; grep Groups /proc/self/status
    """
    said = world.said("sh", "-c", script, config=image_says)
    assert "nvidia0" not in said and "refused" in said and "opened" not in said
    assert "No such file" in said and "4242" not in said


@needs_devices
@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (DeviceRequest(count=-1, capabilities=(("gpu",),)), {"nvidia0", "nvidia1"}),
        (DeviceRequest(count=1, capabilities=(("compute", "utility", "gpu"),)), {"nvidia0"}),
        (DeviceRequest(device_ids=("GPU-1",)), {"nvidia1"}),
        (DeviceRequest("cdi", 0, ("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1")), {"nvidia0", "nvidia1"}),
    ],
)
def test_every_way_to_ask(world: World, request_: DeviceRequest, shown: set[str]) -> None:
    names = set(world.said("ls", "/dev", device_requests=(request_,)).split())
    assert names & {"nvidia0", "nvidia1"} == shown


@needs_devices
@pytest.mark.usefixtures("gpus")
def test_the_other_edits_reach_the_process_and_its_execs(world: World) -> None:
    config = Config(env=("LD_LIBRARY_PATH=/opt/mine", "NVIDIA_VISIBLE_DEVICES=all"))
    identifier = world.up(config=config, device_requests=cdi("nvidia.com/gpu=0"))
    try:
        look = "env; cat /proc/self/status /proc/self/limits /usr/local/nvidia/lib64/libcuda.so.1"
        code, said = world.exec(identifier, "sh", "-c", look)
        assert code == 0 and "LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/opt/mine" in said
        assert "NVIDIA_VISIBLE_DEVICES=void" in said and "a driver's library" in said and "4242" in said
        _, init = world.exec(
            identifier, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ; cat /proc/1/status /proc/1/limits"
        )
        assert "LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/opt/mine" in init and "4242" in init
        code, _ = world.exec(identifier, "sh", "-c", "echo x > /usr/local/nvidia/lib64/libcuda.so.1")
        assert code != 0, "the driver is mounted read-only"
        most = _locked(init)
        assert _locked(said) == most
        own = _locked(Path("/proc/self/limits").read_text())
        may_raise = int(_field("/proc/self/status", "CapEff:"), 16) >> 24 & 1
        assert most[3:5] == (["unlimited", "unlimited"] if may_raise else [own[4], own[4]])
    finally:
        world.engine.containers.remove(identifier, True, True)


def _locked(limits: str) -> list[str]:
    return next(line.split() for line in limits.splitlines() if line.startswith("Max locked memory"))


def _field(path: str, name: str) -> str:
    return next(line.split()[1] for line in Path(path).read_text().splitlines() if line.startswith(name))


@needs_devices
@pytest.mark.usefixtures("gpus")
def test_a_user_owns_the_nodes_and_keeps_the_given_limits(world: World) -> None:
    said = world.said(
        "sh", "-c", f"stat -c '%u %g %a' /dev/nvidia0; ulimit -l; df /dev/shm | tail -1; {opening('/dev/nvidia0')}",
        config=Config(user="model"), device_requests=cdi("nvidia.com/gpu=0"), ulimits=(Ulimit("memlock", 4096, 4096),),
        shm_size=1 << 20,
    )  # fmt: skip
    lines = said.splitlines()
    assert (
        lines[0] == "1000 1001 660"
        and lines[1] == "4"
        and lines[2].split()[1] == "1024"
        and lines[3] == "opened"
    )


@needs_devices
@pytest.mark.usefixtures("gpus")
def test_shared_memory_grows_with_a_gpu(world: World) -> None:
    identifier = world.create("true", device_requests=(DeviceRequest(count=-1),))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    host = world.engine.containers.inspect(identifier).host
    assert abs(host.shm_size - memory // 2) < 8192
    world.engine.containers.remove(identifier, True, True)


@needs_devices
@pytest.mark.usefixtures("gpus")
def test_one_name_that_is_not_there_makes_nothing(world: World) -> None:
    before = {view.id for view in world.engine.containers.list(True)}
    with pytest.raises(NotFound) as caught:
        world.create("true", device_requests=cdi("nvidia.com/gpu=0", "nvidia.com/gpu=9"))
    assert "unresolvable CDI devices nvidia.com/gpu=9" in str(caught.value)
    assert "nvidia.com/gpu=0, nvidia.com/gpu=1, nvidia.com/gpu=GPU-1, nvidia.com/gpu=all" in str(caught.value)
    with pytest.raises(
        NotFound, match=r"3 devices of nvidia\.com/gpu were asked for, and this machine has 2"
    ):
        world.create("true", device_requests=(DeviceRequest(count=3),))
    assert {view.id for view in world.engine.containers.list(True)} == before


def test_a_device_that_goes_between_create_and_start(world: World, tmp_path: Path) -> None:
    node = tmp_path / "node"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    edits = {"deviceNodes": [{"path": "/dev/acme", "hostPath": str(node)}]}
    with SpecFile(world, "acme", [{"name": "0", "containerEdits": edits}], {}):
        identifier = world.create("true", device_requests=cdi("acme.com/dev=0"))
        node.unlink()
        with pytest.raises(NotFound, match="cannot be looked at"):
            world.engine.containers.start(identifier)
    with pytest.raises(NotFound, match="unresolvable"):
        world.engine.containers.start(identifier)
    world.engine.containers.remove(identifier, False, True)
    assert leftovers(world.paths, identifier) == []


def test_edits_that_cannot_be_made_are_refused(world: World) -> None:
    edits = {"netDevices": [{"name": "e0", "hostInterfaceName": "eth9"}], "env": ["A=1"]}
    with (
        SpecFile(world, "acme", [{"name": "0", "containerEdits": edits}], {}),
        pytest.raises(Unsupported, match="asks for netDevices"),
    ):
        world.create("true", device_requests=cdi("acme.com/dev=0"))


def test_a_devices_mount_takes_the_users_place(world: World, tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device/file").write_text("the device's\n")
    (tmp_path / "user").mkdir()
    (tmp_path / "user/file").write_text("the user's\n")
    mounts = [
        {"hostPath": f"{tmp_path}/device/file", "containerPath": "/m/deep/file", "options": ["ro"]},
        {"hostPath": "tmpfs", "containerPath": "/m", "type": "tmpfs", "options": ["size=64k", "mode=700"]},
        {"hostPath": f"{tmp_path}/device", "containerPath": "/same", "options": ["ro", "rbind"]},
    ]
    with SpecFile(world, "acme", [{"name": "0", "containerEdits": {"mounts": mounts}}], {}):
        said = world.said(
            "sh", "-c", "cat /m/deep/file /same/file; stat -c %a /m",
            mounts=(Mount("bind", "/same", f"{tmp_path}/user"),), device_requests=cdi("acme.com/dev=0"),
        )  # fmt: skip
    assert said == "the device's\nthe device's\n700\n"


@needs_devices
@pytest.mark.usefixtures("gpus")
def test_in_a_user_namespace_of_its_own(world: World) -> None:
    """The host's node is bound, since nobody makes nodes there; nvidiactl is open to all, as a GPU's nodes are."""
    script = f"stat -c '%t %T' /dev/nvidiactl; {opening('/dev/nvidiactl')}; ls /dev"
    said = world.said("sh", "-c", script, device_requests=cdi("nvidia.com/gpu=0"), userns_mode="private")
    assert said.splitlines()[:2] == ["1 3", "opened"] and "nvidia1" not in said


def test_a_full_shared_memory_is_told(world: World) -> None:
    script = "head -c 2000000 /dev/zero > /dev/shm/x; sh -c 'kill -BUS $$'; exit $?"
    identifier, ended = world.run("sh", "-c", script, shm_size=1 << 20)
    assert ended.code == 135 and not ended.error
    assert ended.hint.startswith("a bus error ended the container (SIGBUS): its /dev/shm of 1m is full.")
    assert "--shm-size 1g" in ended.hint
    assert world.engine.containers.inspect(identifier).state.error == ended.hint
    waited = world.engine.containers.wait(identifier, "not-running").result(1)
    assert (waited.code, waited.error, waited.hint) == (135, "", ended.hint), (
        "advice is no failure of the engine"
    )
    world.engine.containers.remove(identifier, False, True)


def test_the_kernel_s_own_bus_error_is_told(world: World) -> None:
    """What a data loader does: shared memory that no name leads to any more, more of it than there is room for."""
    folders = {os.path.realpath(path) for path in ("/usr", "/lib", "/lib64") if os.path.isdir(path)}
    folders |= set() if sys.base_prefix.startswith("/usr") else {sys.base_prefix}
    folders = {path for path in folders if not any(path.startswith(f"{other}/") for other in folders)}
    links = tuple(path for path in ("/lib", "/lib64") if os.path.islink(path))
    mounts = [Mount("bind", path, path, read_only=True) for path in folders]
    mounts += [Mount("bind", path, os.path.realpath(path), read_only=True) for path in links]
    code = """
import mmap, os
fd = os.open("/dev/shm/x", os.O_CREAT | os.O_RDWR)
os.unlink("/dev/shm/x")
os.ftruncate(fd, 8 << 20)
mmap.mmap(fd, 8 << 20).write(b"x" * (8 << 20))
"""
    config = Config(env=(f"PYTHONHOME={sys.base_prefix}",))
    program = os.path.realpath(sys.executable)
    identifier, ended = world.run(program, "-c", code, config=config, mounts=tuple(mounts), shm_size=1 << 20)
    said = world.output(identifier)
    world.engine.containers.remove(identifier, False, True)
    assert ended.code == 135, said
    assert "often its /dev/shm, of 1m here, had no room left" in ended.hint


def test_a_bus_error_with_room_left_is_told_with_less_certainty(world: World) -> None:
    identifier, ended = world.run("sh", "-c", "sh -c 'kill -BUS $$'; exit $?")
    assert ended.code == 135 and "often its /dev/shm, of 64m here" in ended.hint
    world.engine.containers.remove(identifier, False, True)
    identifier, ended = world.run("sh", "-c", "exit 134")
    assert ended.hint == ""
    world.engine.containers.remove(identifier, False, True)


def held() -> int:
    """How many descriptors this process has of shared memories of containers."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            fd = int(name)
            flags = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)
            found += bool(flags & os.O_PATH) and os.fstatvfs(fd).f_blocks * 4096 == 3 << 20
        except OSError:
            continue  # it was listing's own
    return found


def test_no_descriptor_is_kept_after_a_run(world: World) -> None:
    identifier = world.up(shm_size=3 << 20)
    assert held() == 1, "the control: while it runs there is one"
    world.engine.containers.remove(identifier, True, True)
    with pytest.raises(LadingError):
        world.run("/no/such/command", shm_size=3 << 20)
    assert held() == 0


def test_the_machine_is_told_its_devices(world: World) -> None:
    with SpecFile(world, "acme", [{"name": "0", "containerEdits": {"env": ["A=1"]}}], {}):
        info = world.engine.system.info()
    assert info["CDISpecDirs"] == ["/etc/cdi", "/var/run/cdi", world.paths.cdi]
    assert {"Source": "cdi", "ID": "acme.com/dev=0"} in info["DiscoveredDevices"]


def hook_spec(tmp_path: Path, world: World, script: str, *points: str, **more: Any) -> SpecFile:
    """A spec whose hooks run a script of the test's; its first word is the point, `$OUT` a file to write to."""
    program = tmp_path / "hook.sh"
    program.write_text(f"#!{BUSYBOX} sh\nOUT={tmp_path}/out\npoint=$1\n{script}\n")
    program.chmod(0o755)
    hooks = [{"hookName": point, "path": str(program), "args": ["hook", point], **more} for point in points]
    return SpecFile(world, "hooks", [{"name": "0", "containerEdits": {"hooks": hooks}}], {})


ALL_POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOOKED = cdi("acme.com/dev=0")


def test_hooks_run_at_their_turns_with_the_containers_state(world: World, tmp_path: Path) -> None:
    script = f"""
        if [ $point = startContainer ]; then cat > /started; exit; fi
        {BUSYBOX} cat > $OUT.$point
        echo $point >> $OUT
        {BUSYBOX} readlink /proc/self/ns/mnt > $OUT.ns.$point
    """
    with hook_spec(tmp_path, world, script, *(p for p in ALL_POINTS if p != "startContainer")):
        identifier, ended = world.run("sh", "-c", "echo ran", device_requests=HOOKED)
        assert ended.code == 0 and world.output(identifier) == "ran\n"
        eventually(lambda: "poststop" in (tmp_path / "out").read_text())
        world.engine.containers.remove(identifier, False, True)
    assert (tmp_path / "out").read_text().split() == [p for p in ALL_POINTS if p != "startContainer"]
    states = {p: json.loads((tmp_path / f"out.{p}").read_text()) for p in ALL_POINTS if p != "startContainer"}
    assert [state["status"] for state in states.values()] == ["creating"] * 3 + ["running", "stopped"]
    assert {state["id"] for state in states.values()} == {identifier}
    assert all(state["pid"] > 1 for point, state in states.items() if point != "poststop")
    assert states["prestart"]["bundle"] == world.paths.container_run(identifier)
    own = os.readlink("/proc/self/ns/mnt")
    spaces = {point: (tmp_path / f"out.ns.{point}").read_text().strip() for point in states}
    assert spaces["createContainer"] != own and spaces["createRuntime"] == spaces["poststop"] == own
    assert leftovers(world.paths, identifier) == []


def test_a_hook_finds_the_root_through_the_bundle(world: World, tmp_path: Path) -> None:
    """What vendors' hooks do: bundle's config.json, root.path, and a change of the container's own tree."""
    script = f"""
        bundle=$({BUSYBOX} sed 's/.*"bundle": "\\([^"]*\\)".*/\\1/')
        root=$({BUSYBOX} sed 's/.*"root": {{[^}}]*"path": "\\([^"]*\\)".*/\\1/' $bundle/config.json)
        echo "by the hook" > $root/tmp/note
    """
    with hook_spec(tmp_path, world, script, "createContainer"):
        assert world.said("cat", "/tmp/note", device_requests=HOOKED) == "by the hook\n"


def test_a_hook_of_the_container_runs_there(world: World) -> None:
    hooks = [{"hookName": "startContainer", "path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state"]}]
    with SpecFile(world, "hooks", [{"name": "0", "containerEdits": {"hooks": hooks}}], {}):
        state = json.loads(world.said("cat", "/tmp/state", device_requests=HOOKED))
    assert state["status"] == "created" and state["pid"] > 1


def test_no_variable_of_an_image_or_user_reaches_a_hook(world: World, tmp_path: Path) -> None:
    """CVE-2025-23266: a hook of the host that inherits the container's LD_PRELOAD loads the image's code as root."""
    config = Config(env=("LD_PRELOAD=/proc/self/cwd/evil.so", "NVIDIA_VISIBLE_DEVICES=all", "PATH=/evil"))
    with hook_spec(tmp_path, world, f"{BUSYBOX} env > $OUT.$point", *ALL_POINTS[:3], env=["OWN=1"]):
        seen = world.said("/bin/env", config=config, device_requests=HOOKED)
    assert "LD_PRELOAD=" in seen, "the control: the process has it"
    for point in ALL_POINTS[:3]:
        said = (tmp_path / f"out.{point}").read_text()
        names = {line.partition("=")[0] for line in said.splitlines()}
        assert "OWN" in names and not names & {"LD_PRELOAD", "NVIDIA_VISIBLE_DEVICES", "FROM_IMAGE"}
        assert "evil" not in said, "PATH is the shell's own"


@pytest.mark.parametrize("point", [p for p in ALL_POINTS if p not in ("startContainer", "poststop")])
def test_a_hook_that_fails_stops_the_start(world: World, tmp_path: Path, point: str) -> None:
    with hook_spec(tmp_path, world, "echo no such luck >&2; exit 3", point):
        identifier = world.create("sleep", "100", device_requests=HOOKED)
        with pytest.raises(LadingError, match=r"hook failed.*hook\.sh: ended with 3: no such luck"):
            world.engine.containers.start(identifier)
        assert world.status(identifier) in ("created", "exited")
        world.engine.containers.remove(identifier, False, True)
    assert leftovers(world.paths, identifier) == []


def test_a_hook_that_hangs_is_ended(world: World, tmp_path: Path) -> None:
    with hook_spec(tmp_path, world, f"{BUSYBOX} sleep 100", "createRuntime", timeout=1):
        identifier = world.create("true", device_requests=HOOKED)
        with pytest.raises(LadingError, match="still running after 1 seconds"):
            world.engine.containers.start(identifier)
        world.engine.containers.remove(identifier, False, True)
    assert leftovers(world.paths, identifier) == []


def test_a_missing_hook_is_named(world: World) -> None:
    hooks = [{"hookName": "createContainer", "path": "/no/such/hook"}]
    with SpecFile(world, "hooks", [{"name": "0", "containerEdits": {"hooks": hooks}}], {}):
        identifier = world.create("true", device_requests=HOOKED)
        with pytest.raises(LadingError, match="/no/such/hook"):
            world.engine.containers.start(identifier)
        world.engine.containers.remove(identifier, False, True)


@needs_devices
def test_a_plain_device_under_another_name_in_a_user_namespace(world: World, tmp_path: Path) -> None:
    """The node that was named is the one shown, though nobody makes nodes there."""
    node = tmp_path / "node"
    os.mknod(node, stat.S_IFCHR, os.makedev(1, 5))
    os.chmod(node, 0o666)
    script = "stat -c '%t %T' /dev/mine; head -c 3 /dev/mine | od -An -tx1"
    said = world.said("sh", "-c", script, devices=(Device(str(node), "/dev/mine"),), userns_mode="private")
    assert said.split() == ["1", "5", "00", "00", "00"]
