"""The Linux part of the runtime specification, property by property: what is configured is what is found."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oci_world import ALL, World, config

from lading.linux import mount as m


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("oci"))
    yield made
    made.close()


def test_every_namespace_is_new(world: World) -> None:
    kinds = {
        "pid": "pid",
        "network": "net",
        "mount": "mnt",
        "ipc": "ipc",
        "uts": "uts",
        "cgroup": "cgroup",
        "time": "time",
    }
    said = world.said(
        "sh",
        "-c",
        "for n in pid net mnt ipc uts cgroup time; do readlink /proc/self/ns/$n; done",
        namespaces=(*kinds,),
    )
    host = [os.readlink(f"/proc/self/ns/{name}") for name in kinds.values()]
    assert len(said.split()) == 7 and not set(said.split()) & set(host)


def test_namespaces_are_joined_by_path(world: World) -> None:
    holder = subprocess.Popen(["unshare", "-n", "-i", "-u", "sleep", "60"])
    try:
        paths = {
            kind: f"/proc/{holder.pid}/ns/{name}"
            for kind, name in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))
        }
        while os.readlink(paths["network"]) == os.readlink("/proc/self/ns/net"):
            pass
        spec = config("sh", "-c", "for n in net ipc uts; do readlink /proc/self/ns/$n; done")
        for entry in spec["linux"]["namespaces"]:
            if entry["type"] in paths:
                entry["path"] = paths[entry["type"]]
        said = world.run("run", "-b", str(world.bundle(spec)), world.name()).stdout.split()
        assert said == [os.readlink(path) for path in paths.values()]
    finally:
        holder.kill()
        holder.wait()


def test_time_offsets(world: World) -> None:
    said = world.said(
        "cat", "/proc/uptime", namespaces=(*ALL, "time"), timeOffsets={"boottime": {"secs": 1000000}}
    )
    assert float(said.split()[0]) > 1000000


def test_a_user_namespace_and_its_maps(world: World, tmp_path: Path) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 100005, 100005)
    said = world.said(
        "sh",
        "-c",
        "cat /proc/self/uid_map; id -u; stat -c %u:%g /tmp/mnt/file; ls -l /dev/null",
        namespaces=(*ALL, "user"),
        uidMappings=maps,
        gidMappings=maps,
        mounts=[{"destination": "/tmp/mnt", "source": str(tmp_path), "options": ["bind"]}],
    )
    assert said.split()[:5] == ["0", "100000", "1000", "0", "5:5"]


def test_id_mapped_mounts(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    maps = [{"containerID": 0, "hostID": 7000, "size": 100}]
    entry = {
        "destination": "/tmp/m",
        "source": str(tmp_path),
        "options": ["rbind", "idmap"],
        "uidMappings": maps,
        "gidMappings": maps,
    }
    said = world.said("stat", "-c", "%u:%g", "/tmp/m/file", mounts=[entry])
    assert said == "7000:7000\n"
    assert "without mappings" in world.refused(
        config("true", mounts=[{**entry, "uidMappings": [], "gidMappings": []}])
    )


def _attributes(text: str, point: str) -> set[str]:
    for line in text.splitlines():
        fields = line.split()
        if fields[4] == point:
            return set(fields[5].split(","))
    raise AssertionError(f"{point} is not mounted:\n{text}")


def test_mount_options_and_their_recursive_forms(world: World, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "sub").mkdir(parents=True)
    m.mount(b"tmpfs", os.fsencode(source / "sub"), b"tmpfs", 0)
    try:

        def entry(name: str, *options: str) -> dict[str, Any]:
            return {"destination": f"/tmp/{name}", "source": str(source), "options": ["rbind", *options]}

        said = world.said(
            "cat",
            "/proc/self/mountinfo",
            mounts=[
                entry("plain"),
                entry("ro", "ro", "nosuid"),
                entry("rro", "rro", "rnodev", "rnoexec"),
                entry("atime", "rnoatime", "rnosuid"),
                entry("sym", "rnosymfollow"),
            ],
        )
        assert "rw" in _attributes(said, "/tmp/plain") & _attributes(said, "/tmp/plain/sub")
        assert {"ro", "nosuid"} <= _attributes(said, "/tmp/ro") and "rw" in _attributes(said, "/tmp/ro/sub")
        for point in ("/tmp/rro", "/tmp/rro/sub"):
            assert {"ro", "nodev", "noexec"} <= _attributes(said, point)
        for point in ("/tmp/atime", "/tmp/atime/sub"):
            assert {"noatime", "nosuid"} <= _attributes(said, point)
        assert "nosymfollow" in _attributes(said, "/tmp/sym/sub")
    finally:
        m.umount2(os.fsencode(source / "sub"))


def test_tmpcopyup_begins_with_the_image_s_files(world: World) -> None:
    (world.rootfs / "etc/kept").write_text("kept")
    (world.rootfs / "etc/link").unlink(missing_ok=True)
    (world.rootfs / "etc/link").symlink_to("kept")
    entry = {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"]}
    said = world.said("sh", "-c", "cat /etc/link; echo x > /etc/new && readlink /etc/link", mounts=[entry])
    assert said == "keptkept\n" and not (world.rootfs / "etc/new").exists()


def test_masked_read_only_and_propagation(world: World) -> None:
    said = world.said(
        "sh",
        "-c",
        "cat /proc/uptime; echo masked; exec 2>&1; (echo 1 > /proc/sys/vm/swappiness); touch /x; cat /proc/self/mountinfo",
        maskedPaths=["/proc/uptime", "/nosuch"],
        readonlyPaths=["/proc/sys", "/nosuch"],
        rootfsPropagation="shared",
    )
    assert said.startswith("masked")
    assert said.count("Read-only file system") == 2 and "shared:" in said


def test_devices_default_and_asked_for(world: World) -> None:
    devices = [
        {"path": "/dev/foo", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]
    said = world.said(
        "sh",
        "-c",
        "stat -c '%n %F %a %u:%g' /dev/foo /dev/pipe /dev/null /dev/full; readlink /dev/fd",
        devices=devices,
    )
    assert said.splitlines() == [
        "/dev/foo character special file 640 3:4",
        "/dev/pipe fifo 600 0:0",
        "/dev/null character special file 666 0:0",
        "/dev/full character special file 666 0:0",
        "/proc/self/fd",
    ]


def test_a_bound_dev_stays_as_it_is(world: World, tmp_path: Path) -> None:
    entry = {"destination": "/dev", "source": str(tmp_path), "type": "bind", "options": ["bind"]}
    spec = config("true")
    spec["mounts"] = [spec["mounts"][0], entry]
    world.run("run", "-b", str(world.bundle(spec)), world.name())
    assert not list(tmp_path.iterdir())


def test_what_the_process_is(world: World) -> None:
    shell = "grep -E '^(Cap|Groups|NoNew|Umask|Seccomp:)' /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; "
    shell += "id -u; cat /proc/self/stat"
    said = world.said(
        "sh",
        "-c",
        shell,
        user={"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o27},
        oomScoreAdj=100,
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}],
        scheduler={"policy": "SCHED_OTHER", "nice": 5},
        capabilities={
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        },
    )
    lines = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    kill = f"{1 << 5:016x}"
    assert (
        lines["CapEff"] == lines["CapAmb"] == lines["CapPrm"] == kill
        and lines["CapBnd"] == f"{1 << 5 | 1:016x}"
    )
    assert lines["Groups"].split() == ["7", "8"] and lines["Umask"] == "0027" and lines["NoNewPrivs"] == "1"
    assert said.splitlines()[-4:-1] == ["100", "55", "5"]
    assert said.splitlines()[-1].split()[18] == "5"  # nice


def test_personality_and_io_priority(world: World) -> None:
    said = world.said("cat", "/proc/self/personality", personality={"domain": "LINUX32"})
    assert int(said, 16) == 8
    name = world.name()
    spec = config("sleep", "50", ioPriority={"class": "IOPRIO_CLASS_IDLE"})
    world.run("run", "-d", "-b", str(world.bundle(spec)), name)
    libc = ctypes.CDLL(None)
    assert libc.syscall(252, 1, world.state(name)["pid"]) >> 13 == 3  # ioprio_get
    world.run("delete", "--force", name)


def test_sysctls_act_in_the_container_alone(world: World) -> None:
    before = Path("/proc/sys/net/ipv4/ip_default_ttl").read_text()
    said = world.said(
        "cat",
        "/proc/sys/net/ipv4/ip_default_ttl",
        "/proc/sys/kernel/msgmax",
        sysctl={"net.ipv4.ip_default_ttl": "77", "kernel.msgmax": "9000"},
    )
    assert said.split() == ["77", "9000"] and Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() == before


def test_limits_land_in_the_group_of_cgroups_path(world: World) -> None:
    name = world.name()
    resources = {
        "memory": {"limit": 50 << 20, "reservation": 20 << 20},
        "pids": {"limit": 30},
        "cpu": {"shares": 300, "quota": 20000, "period": 50000, "cpus": "0"},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    spec = config(
        "sh", "-c", "echo ok > /dev/null; sleep 50", resources=resources, cgroupsPath=f"/lading/ocit/{name}"
    )
    world.run("run", "-d", "-b", str(world.bundle(spec)), name)
    try:
        pid = world.state(name)["pid"]
        found = {}
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":")
            found |= dict.fromkeys(controllers.split(","), path)
        v1 = Path("/sys/fs/cgroup/memory").is_dir()
        base = f"/lading/ocit/{name}"
        if v1:
            assert all(found[c] == base for c in ("memory", "pids", "cpu", "devices", "freezer", "cpuset"))
            read = {
                "memory/memory.limit_in_bytes": "52428800",
                "pids/pids.max": "30",
                "cpu/cpu.shares": "300",
                "cpu/cpu.cfs_quota_us": "20000",
                "cpuset/cpuset.cpus": "0",
            }
            for file, value in read.items():
                controller, _, rest = file.partition("/")
                assert Path(f"/sys/fs/cgroup/{controller}{base}/{rest}").read_text().strip() == value
            rules = Path(f"/sys/fs/cgroup/devices{base}/devices.list").read_text()
            assert "c 1:3 rwm" in rules and "a *:* rwm" not in rules
        else:
            assert Path(f"/sys/fs/cgroup{base}/memory.max").read_text().strip() == "52428800"
    finally:
        world.run("delete", "--force", name)
    assert not any(name in text for text in _cgroups())


def _cgroups() -> list[str]:
    return [directory for directory, _, _ in os.walk("/sys/fs/cgroup")]


def test_seccomp_actions_arguments_and_defaults(world: World) -> None:
    def filter_(*rules: dict[str, Any]) -> dict[str, Any]:
        return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)}

    errno = {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16}
    assert "busy" in world.said(
        "sh",
        "-c",
        "chmod 1 /tmp 2>&1 || echo 1 > /tmp/x; busybox chmod 1 /tmp/x 2>&1; true",
        seccomp=filter_(errno),
    )
    by_argument = {
        "names": ["kill"],
        "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}],
    }
    said = world.said("sh", "-c", "kill -12 1 2>&1; kill -0 1 && echo fine", seccomp=filter_(by_argument))
    assert "not permitted" in said and "fine" in said
    killed = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}
    made = world.bundle(config("busybox", "mkdir", "/tmp/d", seccomp=filter_(killed)))
    assert world.run("run", "-b", str(made), world.name(), check=False).returncode == 128 + 31


def test_the_seccomp_agent_gets_the_listener_and_the_state(world: World, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent"))
    listener.listen()
    listener.settimeout(20)
    heard: list[Any] = []

    def agent() -> None:
        connection, _ = listener.accept()
        data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        while more := connection.recv(65536):
            data += more
        heard.append(json.loads(data))
        note = ctypes.create_string_buffer(80)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.ioctl(fds[0], ctypes.c_ulong(0xC0502100), note) == 0  # SECCOMP_IOCTL_NOTIF_RECV
        answer = ctypes.create_string_buffer(
            struct.pack("=QqiI", struct.unpack_from("=Q", note)[0], 0, -17, 0), 24
        )
        assert libc.ioctl(fds[0], ctypes.c_ulong(0xC0182101), answer) == 0  # SECCOMP_IOCTL_NOTIF_SEND: EEXIST

    thread = threading.Thread(target=agent)
    thread.start()
    seccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(tmp_path / "agent"),
        "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    ran = world.run(
        "run",
        "-b",
        str(world.bundle(config("busybox", "mkdir", "/tmp/new", seccomp=seccomp))),
        world.name(),
        check=False,
    )
    thread.join(20)
    listener.close()
    assert "File exists" in ran.stderr
    assert heard[0]["metadata"] == "meta" and heard[0]["fds"] == ["seccompFd"]
    assert heard[0]["pid"] == heard[0]["state"]["pid"] > 0


def test_home_comes_from_the_image_s_passwd(world: World) -> None:
    (world.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nme:x:5:5::/home/me:/bin/sh\n")
    try:
        assert (
            world.said("sh", "-c", "echo $HOME", env=["PATH=/bin"], user={"uid": 5, "gid": 5}) == "/home/me\n"
        )
        (world.rootfs / "etc/passwd").unlink()
        os.mkfifo(world.rootfs / "etc/passwd")  # opened, never waited for
        assert world.said("sh", "-c", "echo $HOME", env=["PATH=/bin"]) == "/\n"
    finally:
        (world.rootfs / "etc/passwd").unlink()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ociVersion": "2.0.0"}, "ociVersion"),
    ({"ociVersion": 7}, "ociVersion"),
    ({"root": None}, "root"),
    ({"root": {"path": "nosuch"}}, "root.path"),
    ({"process": None}, "process"),
    ({"process": {"args": ["true"], "cwd": "tmp"}}, "process.cwd"),
    ({"process": {"args": [], "cwd": "/"}}, "process.args"),
    ({"process": {"args": ["a\0b"], "cwd": "/"}}, "process.args[0]"),
    ({"process": {"args": ["\ud800"], "cwd": "/"}}, "process.args[0]"),
    ({"user": {"uid": -1}}, "process.user.uid"),
    ({"user": {"uid": 4294967295}}, "process.user.uid"),
    ({"user": {"uid": True}}, "process.user.uid"),
    ({"user": {"uid": 1.5}}, "process.user.uid"),
    ({"rlimits": [{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]}, "process.rlimits"),
    ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}] * 2}, "process.rlimits"),
    ({"scheduler": {"policy": "SCHED_X"}}, "process.scheduler.policy"),
    ({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 9}}, "process.ioPriority.priority"),
    ({"apparmorProfile": "x"}, "process.apparmorProfile"),
    ({"selinuxLabel": "x"}, "process.selinuxLabel"),
    ({"mountLabel": "x"}, "linux.mountLabel"),
    ({"intelRdt": {"closID": "x"}}, "linux.intelRdt"),
    ({"namespaces": ("pid", "space", "mount")}, "linux.namespaces"),
    ({"namespaces": ("pid", "pid", "mount")}, "linux.namespaces"),
    ({"namespaces": ("pid",)}, "linux.namespaces"),
    ({"namespaces": ("mount", "user")}, "linux.uidMappings"),
    ({"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, "linux.uidMappings"),
    ({"timeOffsets": {"boottime": {"secs": 1}}}, "linux.timeOffsets"),
    ({"namespaces": ("mount",), "hostname": "x"}, "hostname"),
    ({"mounts": [{"destination": "/x", "source": "/nosuch", "options": ["bind"]}]}, "mounts"),
    ({"mounts": "x"}, "mounts"),
    ({"sysctl": {"kernel.panic": "1"}}, "sysctl"),
    ({"sysctl": {"net.core.somaxconn": "1"}, "namespaces": ("mount",)}, "linux.sysctl"),
    ({"sysctl": {"net/../kernel/panic": "1"}}, "sysctl"),
    ({"cgroupsPath": "/../x"}, "linux.cgroupsPath"),
    ({"resources": {"memory": {"limit": "1g"}}}, "linux.resources.memory.limit"),
    ({"resources": {"unified": {"memory.max/../x": "1"}}}, "linux.resources.unified"),
    ({"resources": {"devices": [{"allow": True, "type": "z"}]}}, "linux.resources.devices"),
    ({"devices": [{"path": "/dev/x", "type": "c"}]}, "linux.devices"),
    ({"rootfsPropagation": "sideways"}, "linux.rootfsPropagation"),
    ({"seccomp": {"defaultAction": "SCMP_ACT_MAYBE"}}, "SCMP_ACT_MAYBE"),
    (
        {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}},
        "linux.seccomp.architectures",
    ),
    ({"maskedPaths": ["proc"]}, "linux.maskedPaths"),
    ({"hooks": {"prestart": [{"path": "sh"}]}}, "hooks.prestart[0].path"),
    ({"hooks": {"poststop": [{"path": "/bin/sh", "timeout": 0}]}}, "hooks.poststop[0].timeout"),
    ({"annotations": {"a": 1}}, "annotations.a"),
]


@pytest.mark.parametrize(("changes", "field"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_is_refused_by_its_name(world: World, changes: dict[str, Any], field: str) -> None:
    before = _cgroups()
    assert field in world.refused(config("true", **changes))
    assert [path for path in _cgroups() if "lading/t" in path and path not in before] == []


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "7", "null", "[" * 100000, '{"a": NaN}', "\x00", '{"ociVersion": "1.0.0"']
)
def test_what_is_no_configuration_is_refused(world: World, text: str) -> None:
    world.refused(text)
