"""Real containers through the runtime room alone: isolation, streams, ends, execs, survival of the daemon."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lading.base.errors import Conflict, Invalid, LadingError, NotFound
from lading.runtime.model import Attachment, ExecLaunch, Exit, Launch
from lading.runtime.runtime import Runtime
from lading.runtime.seccomp.profile import default_profile

CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
    ]
]
ALL = ("pid", "network", "mount", "ipc", "uts", "cgroup")
APPLETS = """
sh true echo cat ls ps id sleep env mount hostname touch kill pwd stat grep head wc seq dd tty printf mkdir rm
mknod
"""


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs the busybox-static package")
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)
    for parent in root.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (root / name).mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    return root


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    made = Runtime(str(tmp_path_factory.mktemp("run") / "r"))
    yield made
    made.close()


def spec(*argv: str, tty: bool = False, namespaces: tuple[str, ...] = ALL, **linux: Any) -> dict[str, Any]:
    nosuid = ["nosuid", "noexec", "nodev"]
    return {
        "process": {
            "terminal": tty,
            "args": list(argv),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        },
        "hostname": "inside",
        "root": {"path": "unused"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": nosuid},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=64k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*nosuid, "ro"]},
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": [*nosuid, "ro"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": nosuid},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
            "seccomp": default_profile(CAPABILITIES, os.uname().machine),
            "resources": {
                "pids": {"limit": 64},
                "memory": {"limit": 64 << 20},
                "devices": [
                    {"allow": False, "access": "rwm"},
                    *(
                        {"allow": True, "type": "c", "major": 1, "minor": n, "access": "rwm"}
                        for n in (3, 5, 7, 8, 9)
                    ),
                    {"allow": True, "type": "c", "major": 5, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
                ],
            },
            **linux,
        },
    }


class Box:
    """One container under test."""

    def __init__(
        self, runtime: Runtime, root: SimpleNamespace, configuration: dict[str, Any], **options: Any
    ) -> None:
        self.runtime, self.id = runtime, os.urandom(32).hex()
        tty = configuration["process"]["terminal"]
        self.ours, theirs = socket.socketpair()
        attachment = Attachment(theirs.fileno(), stdin=bool(options.get("open_stdin")), framed=not tty)
        try:
            runtime.create(Launch(self.id, configuration, root, attachments=[attachment], **options))
        finally:
            theirs.close()
        self.tty = tty

    def start(self) -> Box:
        self.runtime.start(self.id)
        return self

    def output(self) -> dict[int, bytes]:
        return demultiplexed(self.ours, self.tty)

    def end(self, timeout: float = 20) -> Exit:
        ended: list[Exit] = []
        event = threading.Event()
        self.runtime.watch(self.id, lambda how: (ended.append(how), event.set()))
        assert event.wait(timeout), "the container did not end"
        return ended[0]

    def close(self) -> None:
        self.ours.close()
        self.runtime.kill_all(self.id)
        deadline = time.monotonic() + 10
        while self.runtime.live(self.id) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.runtime.delete(self.id)


def demultiplexed(stream: socket.socket, tty: bool) -> dict[int, bytes]:
    data = b""
    while piece := stream.recv(1 << 20):
        data += piece
    if tty:
        return {1: data, 2: b""}
    found = {1: b"", 2: b""}
    while data:
        length = int.from_bytes(data[4:8], "big")
        found[data[0]] += data[8 : 8 + length]
        data = data[8 + length :]
    return found


@pytest.fixture
def launch(runtime: Runtime, rootfs: Path, tmp_path: Path) -> Iterator[Any]:
    boxes: list[Box] = []

    def make(
        *argv: str, tty: bool = False, configuration: dict[str, Any] | None = None, **options: Any
    ) -> Box:
        layer = tmp_path / f"layer{len(boxes)}"
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True)
        shutil.copytree(rootfs, layer / "lower", symlinks=True)
        for directory in (tmp_path, layer, layer / "lower", layer / "upper"):
            directory.chmod(0o755)
        root = options.pop("root", None) or SimpleNamespace(
            type="overlay",
            base=str(layer),
            lower=("lower",),
            upper="upper",
            work="work",
            source="",
            readonly=False,
        )
        box = Box(runtime, root, configuration or spec(*argv, tty=tty), **options)
        box.layer = layer  # type: ignore[attr-defined]
        boxes.append(box)
        return box

    yield make
    for box in boxes:
        box.close()


def run(launch: Any, *argv: str, **options: Any) -> tuple[str, str, int]:
    box = launch(*argv, **options).start()
    found = box.output()
    return found[1].decode(), found[2].decode(), box.end().code


def test_a_command_runs_alone(launch: Any) -> None:
    script = "hostname; echo $$; ls /; cat /proc/self/cgroup; id; echo err >&2; exit 7"
    out, err, code = run(launch, "sh", "-c", script)
    lines = out.splitlines()
    assert lines[0] == "inside"
    assert lines[1] == "1"
    assert {"bin", "dev", "proc", "sys"} <= set(lines)
    assert all(line.endswith(":/") for line in lines if line.count(":") == 2), (
        "the cgroup namespace hides the path"
    )
    assert err == "err\n"
    assert code == 7


def test_privileges_are_those_of_the_configuration(launch: Any) -> None:
    out, _, _ = run(launch, "cat", "/proc/self/status")
    status = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == int(status["CapPrm"], 16)
    assert int(status["CapEff"], 16).bit_count() == len(CAPABILITIES)
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_only_the_standard_descriptors_are_open(launch: Any) -> None:
    out, _, _ = run(launch, "sh", "-c", "echo /proc/self/fd/*")
    assert [name for name in out.split() if int(name.rpartition("/")[2]) > 2] in ([], ["/proc/self/fd/3"])


def test_paths_are_masked_and_read_only(launch: Any) -> None:
    script = (
        "cat /proc/keys | wc -c; ls -A /sys/firmware | wc -l; echo x > /proc/sys/kernel/domainname; mount"
    )
    out, err, _ = run(launch, "sh", "-c", script)
    assert out.splitlines()[:2] == ["0", "0"]
    assert "ead-only file system" in err
    assert "/proc/sys type proc (ro," in out


def test_other_devices_are_refused(launch: Any) -> None:
    configuration = spec(
        "sh",
        "-c",
        "mknod /tmp/sda b 8 0; mknod /tmp/kmsg c 1 11; echo > /dev/null; head -c1 /dev/zero | wc -c",
    )
    for kind in ("bounding", "effective", "permitted"):
        configuration["process"]["capabilities"][kind] = [*CAPABILITIES, "CAP_MKNOD"]
    out, err, _ = run(launch, configuration=configuration)
    assert "ot permitted" in err
    assert out.strip() == "1"


@pytest.mark.parametrize(
    ("argv", "kind", "code", "words"),
    [
        (("nope",), NotFound, 127, "not found in $PATH"),
        (("/nope",), NotFound, 127, "no such file"),
        (("/tmp",), Invalid, 126, "permission denied"),
        (("/etc/text",), Invalid, 126, "exec format error"),
    ],
)
def test_a_command_that_cannot_run_says_why(
    launch: Any,
    runtime: Runtime,
    rootfs: Path,
    argv: tuple[str, ...],
    kind: type[LadingError],
    code: int,
    words: str,
) -> None:
    (rootfs / "etc/text").write_text("just text")
    (rootfs / "etc/text").chmod(0o755)
    box = launch(*argv)
    with pytest.raises(kind) as caught:
        box.start()
    assert caught.value.exit_code == code
    assert words in str(caught.value)
    assert not os.path.exists(runtime.run_dir(box.id))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mounts": [{"destination": "/x", "type": "bind", "source": "/does/not/exist"}]}, "bind mount"),
        ({"mounts": [{"destination": "/x", "type": "nosuchfs", "source": "none"}]}, "mount"),
    ],
)
def test_a_failed_step_leaves_nothing(
    runtime: Runtime, launch: Any, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    before = set(os.listdir(f"{runtime._run_root}/c"))
    made: list[str] = []
    monkeypatch.setattr(
        os, "urandom", lambda size, real=os.urandom: made.append(real(size).hex()) or bytes.fromhex(made[-1])
    )
    with pytest.raises(LadingError) as caught:
        launch(configuration={**spec("true"), **change})
    monkeypatch.undo()
    assert words in str(caught.value)
    assert set(os.listdir(f"{runtime._run_root}/c")) == before
    assert made
    assert not {path for path in _groups(runtime) if os.path.basename(path) in made}


def _groups(runtime: Runtime) -> set[str]:
    found = set()
    for mount in {*runtime.layout.v1.values(), runtime.layout.unified} - {""}:
        parent = f"{mount}/lading"
        if os.path.isdir(parent):
            found |= {
                f"{parent}/{name}"
                for name in os.listdir(parent)
                if os.path.isdir(f"{parent}/{name}") and not name.startswith("seat-")
            }
    return found


def test_an_images_symlinks_lead_nowhere(launch: Any, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    evil = tmp_path / "evil"
    (evil / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", evil / "bin/busybox")
    (evil / "bin/sh").symlink_to("busybox")
    for name in ("proc", "sys", "dev", "data"):
        (evil / name).symlink_to(canary)
    root = SimpleNamespace(
        type="bind", base="", lower=(), upper="", work="", source=str(evil), readonly=False
    )
    configuration = spec("sh", "-c", "echo ran")
    configuration["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs"})
    with pytest.raises(LadingError):
        box = launch(configuration=configuration, root=root)
        box.start()
    assert list(canary.iterdir()) == []


def test_standard_input_goes_in_and_ends(launch: Any) -> None:
    box = launch("wc", "-c", open_stdin=True, stdin_once=True).start()
    box.ours.sendall(b"x" * 3_000_000)
    box.ours.shutdown(socket.SHUT_WR)
    assert box.output()[1].strip() == b"3000000"
    assert box.end().code == 0


def test_a_terminal_is_the_containers_own(launch: Any) -> None:
    out, _, code = run(launch, "sh", "-c", "tty; stat -c %t:%T /dev/console; exit 3", tty=True)
    assert out.splitlines() == ["/dev/pts/0", "88:0"]
    assert code == 3


def test_a_terminal_has_the_size_it_was_given(launch: Any, runtime: Runtime) -> None:
    box = launch("sh", "-c", "read x; busybox stty size", tty=True, open_stdin=True).start()
    runtime.resize(box.id, 33, 99)
    box.ours.sendall(b"\n")
    assert b"33 99" in box.output()[1]


def test_signals_and_exit_codes(launch: Any, runtime: Runtime) -> None:
    box = launch("sleep", "60").start()
    live = runtime.live(box.id)
    assert live is not None
    runtime.kill(box.id, signal.SIGKILL)
    ended = box.end()
    assert (ended.code, ended.signal) == (137, 9)
    assert runtime.live(box.id) is None
    assert runtime.exit(box.id) == ended
    with pytest.raises(Conflict):
        runtime.kill(box.id, signal.SIGTERM)


def test_an_init_reaps_and_passes_signals_on(launch: Any, runtime: Runtime) -> None:
    script = "trap 'echo got; exit 9' TERM; (sleep 0.01 &); echo ready; while :; do sleep 0.05; done"
    box = launch("sh", "-c", script, reaper=True).start()
    assert box.ours.recv(100).endswith(b"ready\n")
    time.sleep(0.2)
    names = [Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in runtime.pids(box.id)]
    assert "Z" not in names
    first = min(runtime.pids(box.id))
    assert Path(f"/proc/{first}/cmdline").read_bytes() == b"lading\0", "no path of the host in the container"
    runtime.kill(box.id, signal.SIGTERM)
    assert box.output()[1] == b"got\n"
    assert box.end().code == 9


def test_out_of_memory_is_seen(launch: Any) -> None:
    box = launch("sh", "-c", "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x$x; done", reaper=True).start()
    ended = box.end(60)
    assert ended.oom
    assert ended.code == 137


def test_processes_are_limited(launch: Any) -> None:
    _, err, _ = run(launch, "sh", "-c", "for i in $(seq 200); do sleep 5 & done")
    assert "fork" in err


def test_pause_stops_and_resume_goes_on(launch: Any, runtime: Runtime) -> None:
    box = launch("sh", "-c", "while :; do echo tick; sleep 0.01; done").start()
    box.ours.recv(16)
    runtime.pause(box.id)
    assert runtime.live(box.id).paused  # type: ignore[union-attr]
    box.ours.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while True:
            box.ours.recv(1 << 16)
    runtime.resume(box.id)
    assert box.ours.recv(16)


def test_a_paused_container_can_be_killed(launch: Any, runtime: Runtime) -> None:
    box = launch("sleep", "60").start()
    runtime.pause(box.id)
    runtime.kill(box.id, signal.SIGKILL)
    assert box.end().code == 137


def test_counters_and_limits_of_a_running_container(launch: Any, runtime: Runtime) -> None:
    box = launch("sleep", "60").start()
    counters = runtime.stats(box.id)
    assert counters["memory"]["limit"] == 64 << 20
    assert counters["pids"] == {"current": 1, "limit": 64}
    runtime.update(box.id, {"memory": {"limit": 32 << 20}, "pids": {"limit": 7}})
    counters = runtime.stats(box.id)
    assert counters["memory"]["limit"] == 32 << 20
    assert counters["pids"]["limit"] == 7


# -- execs --------------------------------------------------------------------------------------------------------


def execute(
    runtime: Runtime, box: Box, *argv: str, stdin: bytes | None = None, **process: Any
) -> tuple[bytes, bytes, int]:
    configuration = spec(*argv)
    identifier = os.urandom(32).hex()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        attachment = Attachment(theirs.fileno(), stdin=stdin is not None)
        runtime.exec(
            ExecLaunch(
                identifier,
                box.id,
                {**configuration["process"], **process},
                configuration["linux"]["seccomp"],
                open_stdin=stdin is not None,
                attachments=[attachment],
            )
        )
        theirs.close()
        if stdin is not None:
            ours.sendall(stdin)
            ours.shutdown(socket.SHUT_WR)
        found = demultiplexed(ours, False)
    event, ended = threading.Event(), list[Exit]()
    runtime.watch(identifier, lambda how: (ended.append(how), event.set()))
    assert event.wait(10)
    runtime.delete(identifier)
    return found[1], found[2], ended[0].code


def test_an_exec_joins_every_namespace_and_group(launch: Any, runtime: Runtime) -> None:
    box = launch("sleep", "60").start()
    script = "for n in mnt uts ipc pid net cgroup; do stat -L -c %i /proc/1/ns/$n /proc/self/ns/$n; done; hostname; exit 5"
    out, err, code = execute(runtime, box, "sh", "-c", script)
    words = out.decode().split()
    assert (err, code, words.pop()) == (b"", 5, "inside")
    assert words[0::2] == words[1::2]
    out, _, _ = execute(runtime, box, "cat", "/proc/self/status")
    assert b"NoNewPrivs:\t1" in out
    assert b"Seccomp:\t2" in out
    assert execute(runtime, box, "cat", stdin=b"hello")[0] == b"hello"


def test_an_exec_that_cannot_run_says_why(launch: Any, runtime: Runtime) -> None:
    box = launch("sleep", "60").start()
    before = set(runtime.known())
    with pytest.raises(NotFound) as caught:
        execute(runtime, box, "nope")
    assert caught.value.exit_code == 127
    with pytest.raises(LadingError):
        execute(runtime, box, "true", cwd="/missing")
    assert set(runtime.known()) == before
    runtime.kill(box.id, signal.SIGKILL)
    box.end()
    with pytest.raises(Conflict):
        execute(runtime, box, "true")


# -- user namespaces ----------------------------------------------------------------------------------------------


def test_root_in_a_user_namespace_is_nobody_outside(launch: Any, runtime: Runtime, tmp_path: Path) -> None:
    maps = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    volume = tmp_path / "volume"
    volume.mkdir()
    configuration = spec(
        "sh", "-c", "id -u; touch /made /vol/made; stat -c %u /bin/busybox; echo ready; sleep 60",
        namespaces=(*ALL, "user"), uidMappings=maps, gidMappings=maps,
    )  # fmt: skip
    configuration["mounts"].append(
        {"destination": "/vol", "type": "bind", "source": str(volume), "options": ["rbind"]}
    )
    box = launch(configuration=configuration).start()
    text = b""
    while b"ready" not in text:
        text += box.ours.recv(4096)
    live = runtime.live(box.id)
    assert live is not None
    status = Path(f"/proc/{live.pid}/status").read_text()
    assert "Uid:\t200000\t200000" in status
    assert (box.layer / "upper/made").stat().st_uid == 0, "on disk ids are as in the image"
    assert (volume / "made").stat().st_uid == 0
    out, _, code = execute(runtime, box, "id")
    assert (out, code) == (b"uid=0 gid=0\n", 0)


# -- the log, and life without the daemon -------------------------------------------------------------------------


def test_output_is_logged_line_by_line(launch: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    run(launch, "sh", "-c", "echo one; printf two; sleep 0.1; echo three >&2", log_path=str(path))
    records = [line.split(" ", 3)[1:] for line in path.read_text().splitlines()]
    assert records == [["stdout", "F", "one"], ["stdout", "P", "two"], ["stderr", "F", "three"]]


def test_a_log_is_rotated(launch: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    run(launch, "sh", "-c", "seq 1 60000", log_path=str(path), log_max_size=100_000, log_max_files=3)
    assert {p.name for p in tmp_path.glob("log*")} == {"log", "log.1", "log.2"}
    assert sum(p.stat().st_size for p in tmp_path.glob("log*")) <= 3 * 100_000
    assert path.read_text().endswith(" F 60000\n") or (tmp_path / "log.1").read_text().endswith(" F 60000\n")


def test_an_endless_line_needs_no_memory(launch: Any, runtime: Runtime, tmp_path: Path) -> None:
    box = launch(
        "sh",
        "-c",
        "head -c 100000000 /dev/zero; sleep 60",
        log_path=str(tmp_path / "log"),
        log_max_size=1 << 20,
    ).start()
    total = 0
    while total < 100_000_000:
        total += len(box.ours.recv(1 << 20))
    state = (Path(runtime.run_dir(box.id)) / "state").read_text()
    monitor = int(state.partition('"monitor":')[2].partition(",")[0])
    high = next(
        line for line in Path(f"/proc/{monitor}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    assert int(high.split()[1]) < 40_000


def test_containers_outlive_their_daemon(rootfs: Path, tmp_path: Path) -> None:
    """A process that holds a Runtime is killed with SIGKILL; another finds its container, log and exit code."""
    run_root, log = str(tmp_path / "run"), str(tmp_path / "log")
    configuration = spec(
        "sh", "-c", "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 42"
    )
    identifier = "ab" * 32
    holder = (
        "import os, sys, time, types\n"
        "from lading.runtime.runtime import Runtime\n"
        "from lading.runtime.model import Launch\n"
        "root = types.SimpleNamespace(type='bind', base='', lower=(), upper='', work='', "
        f"source={str(rootfs)!r}, readonly=False)\n"
        f"r = Runtime({run_root!r})\n"
        f"r.create(Launch({identifier!r}, {configuration!r}, root, log_path={log!r}))\n"
        f"r.start({identifier!r})\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.kill()
    process.wait()
    process.stdout.close()
    second = Runtime(run_root)
    try:
        assert second.known() == [identifier]
        assert second.live(identifier) is not None
        event, ended = threading.Event(), list[Exit]()
        second.watch(identifier, lambda how: (ended.append(how), event.set()))
        assert event.wait(20)
        assert ended[0].code == 42
        lines = [line.rpartition(" ")[2] for line in Path(log).read_text().splitlines()]
        assert lines == [str(n) for n in range(1, 41)]
        second.delete(identifier)
    finally:
        second.close()


def test_a_killed_monitor_takes_its_container_along(launch: Any, runtime: Runtime) -> None:
    box = launch("sleep", "60").start()
    state = (Path(runtime.run_dir(box.id)) / "state").read_text()
    live = runtime.live(box.id)
    assert live is not None
    os.kill(int(state.partition('"monitor":')[2].partition(",")[0]), signal.SIGKILL)
    ended = box.end()
    assert ended.lost
    assert ended.code == 137
    deadline = time.monotonic() + 5
    while runtime.live(box.id) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert runtime.live(box.id) is None


def test_the_interpreter_cannot_be_overwritten(runtime: Runtime) -> None:
    """The zygote's executable is a sealed copy: even root of the host gets EPERM or ETXTBSY on writing it."""
    runtime.warm()
    executable = f"/proc/{runtime._starter.pid()}/exe"
    assert os.readlink(executable).startswith("/memfd:lading-zygote")
    with pytest.raises(OSError), open(executable, "r+b") as file:
        file.write(b"x")


def test_two_hundred_containers_leave_nothing(runtime: Runtime, rootfs: Path) -> None:
    root = SimpleNamespace(
        type="bind", base="", lower=(), upper="", work="", source=str(rootfs), readonly=True
    )

    made: set[str] = set()

    def cycle() -> None:
        box = Box(runtime, root, spec("true", namespaces=("pid", "mount", "ipc", "uts", "cgroup")))
        made.add(box.id)
        box.start()
        box.end()
        box.close()

    cycle()
    descriptors = len(os.listdir("/proc/self/fd"))
    mounts = Path("/proc/self/mountinfo").read_text().count("\n")
    for _ in range(200):
        cycle()
    time.sleep(0.2)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # a seat may be in the making
    assert not {path for path in _groups(runtime) if os.path.basename(path) in made}
    assert Path("/proc/self/mountinfo").read_text().count("\n") == mounts
    assert runtime.known() == []
