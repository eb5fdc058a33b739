"""lading-runtime as containerd, conmon and people call it: the life of a container, exec, terminals, hooks, failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oci_world import SCRIPT, World, config, eventually


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("oci"))
    yield made
    made.close()


def groups(path: str) -> list[str]:
    found = []
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        if directory.endswith(path):
            found.append(directory)
    return found


def test_a_life_from_create_to_delete(world: World, tmp_path: Path) -> None:
    name, pid_file = world.name(), tmp_path / "pid"
    spec = config("sleep", "100", annotations={"who": "me"}, cgroupsPath=f"/lading/oci/{name}")
    made = world.bundle(spec)
    world.run("create", "--bundle", str(made), "--pid-file", str(pid_file), name)
    state = world.state(name)
    assert state["status"] == "created" and state["annotations"] == {"who": "me"}
    assert state["pid"] == int(pid_file.read_text()) and state["bundle"] == str(made)
    assert Path(f"/proc/{state['pid']}/comm").read_text().strip() == "lading-init"
    assert groups(f"/lading/oci/{name}")
    world.run("start", name)
    assert world.state(name)["status"] == "running"
    assert Path(f"/proc/{state['pid']}/comm").read_text().strip() == "sleep"
    assert "running" in world.run("start", name, check=False).stderr  # a second start is refused
    assert "not stopped" in world.run("delete", name, check=False).stderr
    assert world.run("create", "--bundle", str(made), name, check=False).returncode == 1  # the id is taken
    assert json.loads(world.run("ps", "--format", "json", name).stdout) == [state["pid"]]
    assert name in world.run("list").stdout and name in world.run("list", "-q").stdout.split()
    world.run("kill", name, "KILL")
    eventually(lambda: world.state(name)["status"] == "stopped")
    assert "not running" in world.run("kill", name, "TERM", check=False).stderr
    world.run("delete", name)
    assert "does not exist" in world.run("state", name, check=False).stderr
    assert not groups(f"/lading/oci/{name}") and not (world.root / name).exists()


def test_run_gives_the_command_s_exit_code_and_leaves_nothing(world: World) -> None:
    name = world.name()
    made = world.bundle(config("sh", "-c", "echo out; echo err >&2; exit 7"))
    ran = world.run("run", "--bundle", str(made), name, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "out\n", "err\n")
    assert not (world.root / name).exists() and not groups(name)
    killed = world.bundle(config("sh", "-c", "kill -9 $$", namespaces=("mount",)))
    assert world.run("run", "--bundle", str(killed), world.name(), check=False).returncode == 137


def test_signals_reach_the_command_in_the_foreground(world: World) -> None:
    script = "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    made = world.bundle(config("sh", "-c", script))
    argv = [
        sys.executable,
        "-I",
        "-S",
        SCRIPT,
        "--root",
        str(world.root),
        "run",
        "-b",
        str(made),
        world.name(),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got\n"
        assert process.wait(10) == 3


@pytest.fixture
def running(world: World) -> Iterator[str]:
    name = world.name()
    world.run("run", "-d", "--bundle", str(world.bundle(config("sleep", "100"))), name)
    yield name
    world.run("delete", "--force", name)


def test_exec(world: World, running: str, tmp_path: Path) -> None:
    ran = world.run(
        "exec", "--env", "A=b", "--cwd", "/tmp", running, "sh", "-c", "echo $A; pwd; exit 4", check=False
    )
    assert (ran.returncode, ran.stdout) == (4, "b\n/tmp\n")
    ran = world.run("exec", "-u", "7:8", "-g", "9", running, "id")
    assert ran.stdout.startswith("uid=7 gid=8") and "9" in ran.stdout
    ran = world.run("exec", running, "nosuch", check=False)
    assert ran.returncode == 127 and "executable file not found in $PATH" in ran.stderr
    process = {"args": ["cat", "/proc/self/cgroup"], "cwd": "/", "env": ["PATH=/bin"]}
    (tmp_path / "p.json").write_text(json.dumps(process))
    inside = world.run("exec", "--process", str(tmp_path / "p.json"), running).stdout
    assert running not in inside  # its group is the root of its cgroup namespace
    pid_file = tmp_path / "pid"
    world.run("exec", "-d", "--pid-file", str(pid_file), running, "sleep", "50")
    pid = int(pid_file.read_text())
    assert sorted(json.loads(world.run("ps", "-f", "json", running).stdout))[-1] == pid
    assert os.readlink(f"/proc/{pid}/exe").endswith("/bin/busybox")


def test_pause_update_and_events(world: World, running: str) -> None:
    world.run("pause", running)
    assert world.state(running)["status"] == "paused"
    assert "paused" in world.run("exec", running, "true", check=False).stderr
    world.run("resume", running)
    assert world.state(running)["status"] == "running"
    world.run("update", "--memory", "64m", "--pids-limit", "33", running)
    stats = json.loads(world.run("events", "--stats", running).stdout)
    assert stats["type"] == "stats" and stats["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert stats["data"]["pids"] == {"current": 1, "limit": 33}
    world.run("update", "-r", "-", running, given=json.dumps({"pids": {"limit": 44}}))
    assert json.loads(world.run("events", "--stats", running).stdout)["data"]["pids"]["limit"] == 44
    refused = world.run("update", "-r", "-", running, given='{"pids":{"limit":"x"}}', check=False)
    assert "resources.pids.limit" in refused.stderr


class ConsoleSocket:
    """The caller's side of --console-socket: takes one terminal's master."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)

    def take(self) -> int:
        connection, _ = self._listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        self._listener.close()
        return fds[0]


def read_all(master: int) -> bytes:
    data = b""
    while True:
        try:
            more = os.read(master, 4096)
        except OSError:  # EIO: the other side is closed
            return data
        if not more:
            return data
        data += more


def test_a_terminal_goes_through_the_console_socket(world: World, tmp_path: Path) -> None:
    console, name = ConsoleSocket(tmp_path / "c"), world.name()
    spec = config(
        "sh", "-c", "tty; ls -l /dev/console", terminal=True, consoleSize={"height": 30, "width": 90}
    )
    world.run("create", "-b", str(world.bundle(spec)), "--console-socket", str(console.path), name)
    master = console.take()
    world.run("start", name)
    said = read_all(master)
    assert said.startswith(b"/dev/pts/0\r\n") and b"/dev/console" in said
    os.close(master)
    world.run("delete", "--force", name)
    assert "--console-socket" in world.refused(spec)
    assert (
        "terminal"
        in world.run(
            "create", "-b", str(world.bundle(config("true"))), "--console-socket", "/x", "a", check=False
        ).stderr
    )


def test_run_relays_its_own_terminal(world: World) -> None:
    made = world.bundle(config("sh", "-c", "read line; echo got $line; tty", terminal=True))
    argv = [
        sys.executable,
        "-I",
        "-S",
        SCRIPT,
        "--root",
        str(world.root),
        "run",
        "-b",
        str(made),
        world.name(),
    ]
    master, slave = os.openpty()
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        os.write(master, b"hello\n")
        said = read_all(master)
        assert process.wait(10) == 0
    os.close(master)
    assert b"got hello\r\n/dev/pts/0\r\n" in said


def test_descriptors_are_kept_as_asked_and_no_others(world: World, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    gaps = world.run(
        "run", "--preserve-fds", "5", "-b", str(world.bundle(config("ls", "/proc/self/fd"))), world.name()
    )
    assert gaps.stdout.split() == ["0", "1", "2", "3"]  # 3 is ls's own: what was not open is not made up
    made = world.bundle(config("sh", "-c", "cat <&3; ls /proc/self/fd"))
    argv = [
        sys.executable,
        "-I",
        "-S",
        SCRIPT,
        "--root",
        str(world.root),
        "run",
        "--preserve-fds",
        "1",
        "-b",
        str(made),
    ]
    shell = f'exec 3<{tmp_path}/kept 5<{tmp_path}/kept; exec "$@"'
    ran = subprocess.run(
        ["sh", "-c", shell, "sh", *argv, world.name()],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert ran.stdout == "kept0\n1\n2\n3\n4\n", ran.stderr  # 4 is ls's own


def test_hooks_run_in_order_each_in_its_place(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    inside = world.rootfs / "hook-log"
    inside.touch()

    def hook(point: str, shell: str = "/bin/sh") -> dict[str, Any]:
        script = f'read state; echo "{point} $state" >> {log}; hostname >> {log}.names'
        return {"path": shell, "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 10}

    hooks = {
        point: [hook(point)]
        for point in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    hooks["startContainer"] = [
        {
            "path": "/bin/sh",
            "args": ["sh", "-c", "read state; echo startContainer $state >> /mnt/log"],
            "env": ["PATH=/bin"],
        }
    ]
    spec = config(
        "true",
        hooks=hooks,
        hostname="inside",
        mounts=[{"destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["bind", "rw"]}],
    )
    (world.rootfs / "mnt").mkdir(exist_ok=True)
    name = world.name()
    made = world.bundle(spec)
    world.run("create", "-b", str(made), name)
    at = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [point for point, _ in at] == ["prestart", "createRuntime", "createContainer"]
    for _, text in at:
        state = json.loads(text)
        assert (
            state["id"] == name
            and state["pid"] > 0
            and state["bundle"] == str(made)
            and state["status"] == "creating"
        )
    names = Path(f"{log}.names").read_text().split()
    assert names[2] == "inside" and names[0] == names[1] != "inside"
    world.run("start", name)
    eventually(lambda: world.state(name)["status"] == "stopped")
    world.run("delete", name)
    points = [line.split(" ", 1)[0] for line in log.read_text().splitlines()]
    assert points[3:] == ["startContainer", "poststart", "poststop"]
    assert json.loads(log.read_text().splitlines()[-1].split(" ", 1)[1])["status"] == "stopped"
    inside.unlink()


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"path": "/bin/sh", "args": ["sh", "-c", "echo sorry; exit 3"]}, "sorry"),
        ({"path": "/nosuch"}, "/nosuch"),
        ({"path": "/bin/sleep", "args": ["sleep", "9"], "timeout": 1}, "still running after 1 seconds"),
    ],
)
def test_a_failing_hook_undoes_the_container(
    world: World, point: str, entry: dict[str, Any], word: str
) -> None:
    said = world.refused(config("true", hooks={point: [entry]}))
    assert point in said and word in said


def test_a_failing_poststart_hook_stops_the_container(world: World) -> None:
    name = world.name()
    spec = config("sleep", "100", hooks={"poststart": [{"path": "/bin/false"}]})
    world.run("create", "-b", str(world.bundle(spec)), name)
    ran = world.run("start", name, check=False)
    assert ran.returncode == 1 and "poststart" in ran.stderr
    eventually(lambda: world.state(name)["status"] == "stopped")
    world.run("delete", name)


def test_errors_are_told_as_callers_read_them(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    ran = world.run("--log", str(log), "--log-format", "json", "start", "nobody", check=False)
    record = json.loads(log.read_text())
    assert (
        record["level"] == "error" and record["msg"] == "container 'nobody' does not exist" and record["time"]
    )
    assert ran.returncode == 1 and "does not exist" in ran.stderr
    for words, part in (
        (("checkpoint", "x"), "not supported"),
        (("restore", "--image-path", "x", "y"), "not supported"),
        (("create", "--no-pivot", "x"), "--no-pivot"),
        (("create", "../x"), "not allowed"),
        (("frob",), "frob"),
        (("kill", "--nope", "x"), "nope"),
        (("list", "--format", "xml"), "xml"),
    ):
        refused = world.run(*words, check=False)
        assert refused.returncode == 1 and part in refused.stderr and "Traceback" not in refused.stderr
    assert "spec: 1.2.0" in world.run("--version").stdout
    assert world.run("delete", "--force", "nobody").returncode == 0


def test_a_missing_command_is_told_at_create(world: World) -> None:
    ran = world.run("create", "-b", str(world.bundle(config("nosuch"))), world.name(), check=False)
    assert 'exec: \\"nosuch\\": executable file not found in $PATH' in ran.stderr  # logrus quotes its text
    ran = world.run("run", "-b", str(world.bundle(config("/etc"))), world.name(), check=False)
    assert ran.returncode == 126 and "permission denied" in ran.stderr


def test_the_executable_inside_is_sealed(world: World) -> None:
    """What /proc/PID/exe of a created container leads to takes no byte: nothing of the host's can be overwritten."""
    name = world.name()
    world.run("create", "-b", str(world.bundle(config("true"))), name)
    exe = f"/proc/{world.state(name)['pid']}/exe"
    assert "memfd:lading-runtime" in os.readlink(exe)
    with pytest.raises(OSError):
        os.write(os.open(exe, os.O_RDWR), b"x")
    world.run("delete", "--force", name)


def test_a_creator_that_is_killed_leaves_no_process(world: World, tmp_path: Path) -> None:
    name = world.name()
    spec = config("true", hooks={"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "2"]}]})
    argv = [
        sys.executable,
        "-I",
        "-S",
        SCRIPT,
        "--root",
        str(world.root),
        "create",
        "-b",
        str(world.bundle(spec)),
        name,
    ]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    eventually(lambda: bool(groups(f"/lading/{name}")))
    time.sleep(0.3)
    process.kill()
    process.wait()

    def processes() -> list[str]:
        return [
            pid
            for path in groups(f"/lading/{name}")
            for pid in Path(f"{path}/cgroup.procs").read_text().split()
        ]

    eventually(lambda: not processes())
    world.run("delete", "--force", name)
    for path in groups(f"/lading/{name}"):  # no state was written that names them
        os.rmdir(path)


def test_spec_makes_a_bundle_that_runs(world: World, tmp_path: Path) -> None:
    world.run("spec", "-b", str(tmp_path))
    assert "exists" in world.run("spec", "-b", str(tmp_path), check=False).stderr
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/bin/hostname"]}
    assert world.run("run", "-b", str(world.bundle(spec)), world.name()).stdout == "lading\n"


def test_state_and_features_follow_the_schemas(world: World, running: str) -> None:
    schemas = Path(__file__).parents[3] / "shared/specs/oci-runtime"
    if not schemas.is_dir():
        pytest.skip("the specification's schemas are not beside the checkout")
    import jsonschema
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT4

    registry: Any = Registry().with_resources(
        (path.name, Resource.from_contents(json.loads(path.read_text()), default_specification=DRAFT4))
        for path in schemas.glob("*.json")
    )

    def check(name: str, value: Any) -> None:
        schema = json.loads((schemas / name).read_text())
        jsonschema.Draft4Validator(schema, registry=registry).validate(value)

    check("state-schema.json", world.state(running))
    features = json.loads(world.run("features").stdout)
    check("features-schema.json", features)
    assert features["linux"]["seccomp"]["enabled"] and "rro" in features["mountOptions"]


def test_the_installed_script_finds_its_interpreter(tmp_path: Path) -> None:
    """The script beside an interpreter, and through a link elsewhere."""
    python = shutil.which("python3")
    assert python
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "bin/lading-runtime")
    (tmp_path / "src").symlink_to(Path(SCRIPT).parents[1] / "src")
    (tmp_path / "bin/python").symlink_to(sys.executable)
    (tmp_path / "link").symlink_to(tmp_path / "bin/lading-runtime")
    for way in ("bin/lading-runtime", "link"):
        ran = subprocess.run([str(tmp_path / way), "--version"], capture_output=True, text=True, timeout=20)
        assert ran.stdout.startswith("lading-runtime version"), ran.stderr


def _interpreter_for_all() -> str:
    """An interpreter that nobody may start; the one of these tests may lie in somebody's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [
            python,
            "-I",
            "-S",
            "-c",
            f"import sys; open({SCRIPT!r}); sys.exit(sys.version_info < (3, 11))",
        ]
        try:
            if (
                subprocess.run(probe, user=65534, group=65534, capture_output=True, timeout=20).returncode
                == 0
            ):
                return python
        except OSError:
            continue
    pytest.skip(
        "no interpreter of Python 3.11 that an ordinary user may start, or the checkout is closed to it"
    )


def test_an_ordinary_user_runs_a_bundle(world: World, tmp_path: Path) -> None:
    """One identity, no control group, no privilege: what `spec --rootless` describes."""
    python = _interpreter_for_all()
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(parent.stat().st_mode | 0o055)
    bundle = tmp_path / "b"
    shutil.copytree(world.rootfs, bundle / "rootfs", symlinks=True)
    for name in ("home", "st"):
        (tmp_path / name).mkdir()
    subprocess.run(["chown", "-R", "65534:65534", str(tmp_path)], check=True)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [python, "-I", "-S", SCRIPT, "--root", str(tmp_path / "st"), *words]
        how: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": 30,
        }
        return subprocess.run(argv, user=65534, group=65534, extra_groups=[], **how)

    made = run("spec", "--rootless", "-b", str(bundle))
    assert made.returncode == 0, made.stderr
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["cat", "/proc/self/uid_map"]}
    (bundle / "config.json").write_text(json.dumps(spec))
    ran = run("run", "-b", str(bundle), "mine")
    assert ran.stdout.split() == ["0", "65534", "1"], ran.stderr
    spec["linux"]["resources"] = {"memory": {"limit": 1 << 26}}
    (bundle / "config.json").write_text(json.dumps(spec))
    refused = run("run", "-b", str(bundle), "mine")  # a limit that cannot be kept is not passed over
    assert refused.returncode == 1 and not os.listdir(tmp_path / "st")
