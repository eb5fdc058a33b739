"""What every container starts with, item by item, asked of the kernel and not of the configuration (issue 3, section 2)."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, paths_below

from lading.base.errors import Invalid, LadingError, Unsupported
from lading.engine import caps, compose, spec
from lading.engine.model import Config, Mount
from lading.linux.syscall_numbers import NATIVE, numbers
from lading.runtime.cgroup import devices as program

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("defaults"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


def status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def in_run_and_exec(world: World, *cmd: str, **host: object) -> Iterator[str]:
    """What the command prints as a container's first process and as an exec."""
    yield world.said(*cmd, **host)
    box = world.up(**host)
    try:
        yield world.exec(box, *cmd)[1]
    finally:
        world.engine.containers.remove(box, True, True)


# -- privileges ----------------------------------------------------------------------------------------------------

FOURTEEN = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
"""


def test_capabilities(world: World) -> None:
    for text in in_run_and_exec(world, "cat", "/proc/self/status"):
        found = status(text)
        granted = caps.held(int(found["CapEff"], 16))
        assert granted <= {f"CAP_{name}" for name in FOURTEEN.split()}
        assert int(found["CapPrm"], 16) == int(found["CapBnd"], 16) == int(found["CapEff"], 16)
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
        assert found["NoNewPrivs"] == "1" and found["Seccomp"] == "2"
    for text in in_run_and_exec(world, "cat", "/proc/self/status", config=Config(user="1000")):
        assert int(status(text)["CapEff"], 16) == 0, "a plain user holds nothing"


def test_more_and_less_as_users_ask_for_it(world: World) -> None:
    def facts(**host: object) -> dict[str, str]:
        return status(world.said("cat", "/proc/self/status", **host))

    everything = compose.available()
    assert caps.held(int(facts(cap_add=("ALL",))["CapEff"], 16)) == everything
    assert int(facts(cap_drop=("ALL",))["CapEff"], 16) == 0
    assert caps.held(int(facts(cap_drop=("ALL",), cap_add=("KILL",))["CapEff"], 16)) == {"CAP_KILL"}
    privileged = facts(privileged=True)
    assert caps.held(int(privileged["CapEff"], 16)) == everything
    assert (privileged["Seccomp"], privileged["NoNewPrivs"]) == ("0", "0")
    assert facts(security_opt=("seccomp=unconfined",))["Seccomp"] == "0"
    assert facts(security_opt=("no-new-privileges=false",))["NoNewPrivs"] == "0"
    own = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
        }
    )
    assert "Operation not permitted" in world.said("mkdir", "/x", security_opt=(f"seccomp={own}",))
    with pytest.raises(Invalid):
        world.create("true", security_opt=("no-such-option=1",))


def test_labels_of_security_modules(world: World) -> None:
    assert world.said("echo", "runs", security_opt=("label=disable", "apparmor=unconfined")) == "runs\n"
    if not compose.has_apparmor():
        box = world.create("true", security_opt=("apparmor=strict",))
        with pytest.raises(Unsupported, match="AppArmor"):
            world.engine.containers.start(box)
        world.engine.containers.remove(box, True, True)


# -- system calls ----------------------------------------------------------------------------------------------------

_PROBE = """
import ctypes, errno, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
found = {}
for name, number, *arguments in json.loads(sys.argv[1]):
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    found[name] = 0 if result >= 0 else ctypes.get_errno()
print(json.dumps(found))
"""

# Every call with arguments that let the kernel itself answer something else than EPERM, or do no harm.
_REFUSED: dict[str, tuple[object, ...]] = {
    "AF_ALG": ("socket", 38, 5, 0),
    "AF_VSOCK": ("socket", 40, 1, 0),
    "clone in a user namespace": ("clone", 0x10000000 | 0x200, 0, 0, 0, 0),
    "unshare": ("unshare", 0),
    "setns": ("setns", -1, 0),
    "io_uring_setup": ("io_uring_setup", 1, 0),
    "io_uring_enter": ("io_uring_enter", -1, 0, 0, 0, 0),
    "userfaultfd": ("userfaultfd", 1 << 30),
    "add_key": ("add_key", 0, 0, 0, 0, 0),
    "request_key": ("request_key", 0, 0, 0, 0),
    "keyctl": ("keyctl", 0, 0, 0),
    "bpf": ("bpf", 9999, 0, 0),
    "perf_event_open": ("perf_event_open", 0, 0, 0, 0, 0),
    "ptrace attach": ("ptrace", 16, 0, 0, 0),
    "ptrace seize": ("ptrace", 0x4206, 0, 0, 0),
    "process_vm_readv": ("process_vm_readv", 0, 0, 0, 0, 0, 1),
    "process_vm_writev": ("process_vm_writev", 0, 0, 0, 0, 0, 1),
    "process_madvise": ("process_madvise", -1, 0, 0, 0, 0),
    "pidfd_getfd": ("pidfd_getfd", -1, 0, 0),
    "kcmp": ("kcmp", 0, 0, 99, 0, 0),
    "mount": ("mount", 0, 0, 0, 0, 0),
    "fsopen": ("fsopen", 0, 0),
    "open_tree": ("open_tree", -1, 0, 0),
    "move_mount": ("move_mount", -1, 0, -1, 0, 0),
    "open_by_handle_at": ("open_by_handle_at", -1, 0, 0),
    "kexec_load": ("kexec_load", 0, 0, 0, 99),
    "init_module": ("init_module", 0, 0, 0),
    "delete_module": ("delete_module", 0, 0),
    "swapon": ("swapon", 0, 0),
    "acct": ("acct", 1),
    "quotactl": ("quotactl", -1, 0, 0, 0),
    "lookup_dcookie": ("lookup_dcookie", 0, 0, 0),
    "fanotify_init": ("fanotify_init", -1, 0),
    "mbind": ("mbind", 1, 0, 99, 0, 0, 0),
    "no address randomisation": ("personality", 0x0040000),
}


def _python() -> tuple[list[str], tuple[Mount, ...]]:
    """The host's interpreter, bound read-only into a container."""
    wanted = ["/usr", "/lib", "/lib64"] + ([] if sys.base_prefix.startswith("/usr") else [sys.base_prefix])
    mounts = tuple(
        Mount(type="bind", source=os.path.realpath(path), target=path, read_only=True)
        for path in wanted
        if os.path.isdir(path)
    )
    return [os.path.realpath(sys.executable), "-I", "-S", "-c"], mounts


def probe(world: World, calls: dict[str, tuple[object, ...]], **host: object) -> dict[str, int]:
    table = numbers(NATIVE[os.uname().machine])
    words = [
        [name, table[call[0]] if isinstance(call[0], str) else call[0], *call[1:]]
        for name, call in calls.items()
        if not isinstance(call[0], str) or call[0] in table
    ]
    python, mounts = _python()
    config = Config(env=(f"PYTHONHOME={sys.base_prefix}",))
    text = world.said(*python, _PROBE, json.dumps(words), mounts=mounts, config=config, **host)
    found = json.loads(text)
    assert len(found) >= len(words)
    return {str(name): int(value) for name, value in found.items()}


known = pytest.mark.skipif(os.uname().machine not in NATIVE, reason="lading has no filter for this machine")


@known
def test_system_calls_that_are_refused(world: World) -> None:
    found = probe(world, _REFUSED)
    assert {name for name, code in found.items() if code != errno.EPERM} == set()


@known
def test_without_the_filter_the_kernel_would_have_answered(world: World) -> None:
    """The control: most of these calls get another answer as soon as only capabilities guard them."""
    found = probe(world, _REFUSED, security_opt=("seccomp=unconfined",))
    assert sum(code != errno.EPERM for code in found.values()) > 20, found


@known
def test_system_calls_that_do_not_exist(world: World) -> None:
    """The C library falls back from clone3; what is newer than the profile is as absent as on an older kernel."""
    calls: dict[str, tuple[object, ...]] = {"clone3": ("clone3", 0, 0), "newer": (9999,)}
    assert set(probe(world, calls).values()) == {errno.ENOSYS}
    if os.uname().machine == "x86_64":
        x32 = probe(world, {"x32 getpid": (0x40000000 | 39,)})
        assert x32["x32 getpid"] in (errno.EPERM, errno.ENOSYS), "the x32 numbers would pass the list by"


@known
def test_the_filter_follows_the_capabilities(world: World) -> None:
    calls: dict[str, tuple[object, ...]] = {
        "unshare": ("unshare", 0),
        "clone3": ("clone3", 0, 0),
        "kcmp": ("kcmp", 0, 0, 99, 0, 0),
    }
    admin = probe(world, calls, cap_add=("SYS_ADMIN",))
    assert admin["unshare"] == 0 and admin["clone3"] == errno.EINVAL and admin["kcmp"] == errno.EPERM
    assert probe(world, calls, cap_add=("SYS_PTRACE",))["kcmp"] != errno.EPERM


# -- /proc, /sys and /dev ----------------------------------------------------------------------------------------------

# What containerd, podman and dockerd publish, put together.
MASKED = """
/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats
/proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap
"""
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def test_the_lists_hold_what_the_trusted_engines_list() -> None:
    assert set(MASKED.split()) <= set(spec.MASKED)
    assert set(READ_ONLY.split()) <= set(spec.READ_ONLY)


def test_masked_paths_are_empty(world: World) -> None:
    present = [path for path in MASKED.split() if os.path.exists(path)]
    script = "; ".join(
        f"echo {path} $(ls {path}/ 2>/dev/null | wc -l) $(cat {path} 2>/dev/null | wc -c)" for path in present
    )
    for line in world.said("sh", "-c", script).splitlines():
        assert line.split()[1:] == ["0", "0"], line
    shown = world.said(
        "sh", "-c", "ls /proc/interrupts; wc -c < /proc/interrupts", security_opt=("systempaths=unconfined",)
    )
    assert not shown.endswith("\n0\n")


def test_thermal_counters_are_masked(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(compose, "_throttles", lambda: ("/sys/devices/system/cpu/cpu0/thermal_throttle",))
    box = world.create("true")
    shown = world.engine.containers.inspect(box).host
    assert (
        shown.masked_paths is not None
        and "/sys/devices/system/cpu/cpu0/thermal_throttle" in shown.masked_paths
    )
    assert shown.readonly_paths == spec.READ_ONLY
    world.engine.containers.remove(box, True, True)
    bare = world.create("true", privileged=True)
    assert world.engine.containers.inspect(bare).host.masked_paths == ()
    world.engine.containers.remove(bare, True, True)


def test_read_only_paths(world: World) -> None:
    mounts = world.said("cat", "/proc/self/mountinfo").splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
    for path in READ_ONLY.split():
        if os.path.exists(path):
            assert "ro" in options[path], path
    assert "ro" in options["/sys"] and "nosuid" in options["/sys"]
    assert {"nosuid", "noexec", "nodev"} <= set(options["/proc"])
    assert "nosuid" in options["/dev"] and "noexec" in options["/dev/shm"]
    assert {"ro", "nosuid", "noexec", "nodev"} <= set(options["/sys/fs/cgroup"])


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_an_image_whose_kernel_directories_are_links_is_refused(world: World, name: str) -> None:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, "/data"
        tar.addfile(link)
    out.seek(0)
    world.engine.images.import_(out, f"link{name}", ('CMD ["sh"]',))
    box = world.create("true", config=Config(image=f"link{name}"))
    with pytest.raises(LadingError, match=f"/{name}"):
        world.engine.containers.start(box)
    world.engine.containers.remove(box, True, True)


@pytest.mark.parametrize(
    "target", ["/proc", "/proc/sys", "/proc/self/attr", "/proc//keys/", "/proc/../proc/1"]
)
def test_nothing_is_mounted_over_procfs(world: World, target: str) -> None:
    for asked in (
        {"binds": (f"some:{target}",)},
        {"tmpfs": {target: ""}},
        {"config": Config(volumes=(target,))},
    ):
        with pytest.raises(Invalid, match="/proc"):
            world.create("true", **asked)  # type: ignore[arg-type]
    world.engine.containers.remove(
        world.create("true", binds=("/proc/cpuinfo:/proc/cpuinfo:ro",)), True, True
    )


NODES = {"null", "zero", "full", "random", "urandom", "tty"}


def test_devices(world: World) -> None:
    names = set(world.said("ls", "/dev").split())
    assert names == NODES | {"core", "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm", "mqueue"} - (
        {"core"} if "core" not in names else set()
    )
    rules = world.said("sh", "-c", "cat /sys/fs/cgroup/devices/devices.list 2>/dev/null")
    if rules:
        allowed = {tuple(line.split()) for line in rules.splitlines()}
        open_to = {(kind, number) for kind, number, access in allowed if access != "m"}
        short = {"1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*"}
        assert open_to == {("c", number) for number in short}, "deny all, then the short list"


def test_device_rules_by_ebpf(tmp_path: Path) -> None:
    """The program of the same rules, in a v2 group: null opens, another device does not."""
    from lading.engine.devices import DEFAULT_RULES
    from lading.runtime.cgroup.layout import discover

    mount = discover().unified
    if not mount:
        pytest.skip("this machine has no v2 control groups")
    victim = "/dev/loop-control" if os.path.exists("/dev/loop-control") else "/dev/kmsg"
    group = f"{mount}/lading-defaults-{os.getpid()}"
    os.mkdir(group)
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        program.attach(fd, program.compile_rules(DEFAULT_RULES))
        os.close(fd)
        answers = []
        for inside in (False, True):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                if inside:
                    Path(f"{group}/cgroup.procs").write_text("0")
                said = []
                for path in ("/dev/null", victim):
                    try:
                        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                        said.append("open")
                    except OSError as error:
                        said.append(errno.errorcode[error.errno or 0])
                os.write(writer, " ".join(said).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            os.close(writer)
            answers.append(os.read(reader, 100).decode())
            os.close(reader)
        assert answers == ["open open", "open EPERM"], "outside of the group, and in it"
    finally:
        os.rmdir(group)


# -- namespaces, limits, files -------------------------------------------------------------------------------------------


def test_namespaces_of_its_own(world: World) -> None:
    box = world.up()
    pid = world.engine.containers.inspect(box).state.pid
    try:
        for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
            if os.path.exists(f"/proc/self/ns/{kind}"):
                assert os.stat(f"/proc/{pid}/ns/{kind}").st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino, (
                    kind
                )
        inside = world.exec(
            box, "sh", "-c", "readlink /proc/1/ns/time; readlink /proc/self/ns/time; cat /proc/self/cgroup"
        )[1]
        first, second, *groups = inside.splitlines()
        assert first == second, "an exec is in the container's own"
        assert {line.rpartition(":")[2] for line in groups if "systemd" not in line} <= {"/"}, groups
    finally:
        world.engine.containers.remove(box, True, True)


def test_the_default_limit_on_processes(world: World) -> None:
    box = world.up()
    try:
        assert world.engine.containers.inspect(box).host.resources.pids_limit in (None, 0, 4096)
        group = world.engine._rooms.runtime.group(box)
        directory = group.v1.get("pids") or group.unified
        assert Path(f"{directory}/pids.max").read_text().strip() == "4096"
    finally:
        world.engine.containers.remove(box, True, True)


def test_limits_and_memory(world: World) -> None:
    soft, hard = world.said("sh", "-c", "ulimit -Sn; ulimit -Hn").split()
    assert (int(soft), int(hard)) == compose.nofile() <= (1024, 524288)
    assert (
        world.said("cat", "/proc/self/oom_score_adj").strip()
        == Path("/proc/self/oom_score_adj").read_text().strip()
    )


def test_directories_are_closed_to_others(world: World) -> None:
    for path in (world.paths.root, world.paths.run):
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o066 == 0, path
    closed = [world.paths.snapshots, f"{world.paths.blobs}/sha256", f"{world.paths.run}/c"]
    for path in closed:
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(os.stat(world.paths.database).st_mode) == 0o600


def test_info_tells_what_is_on(world: World) -> None:
    options = world.engine.system.info()["SecurityOptions"]
    assert {"name=cgroupns", "name=no-new-privileges"} <= set(options)
    assert ("name=seccomp,profile=builtin" in options) == (os.uname().machine in NATIVE)
    assert ("name=timens" in options) == os.path.exists("/proc/self/ns/time")
