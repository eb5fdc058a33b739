"""Containers through the whole engine: lifecycle, exit codes, limits of verbs, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import BUSYBOX, World, engine_at, eventually, leftovers, paths_below

from lading.base.errors import Conflict, Invalid, LadingError, NotFound
from lading.engine.model import Config, ExecRequest, Mount, Resources, Ulimit

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("engine"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


def test_a_run_from_create_to_nothing(world: World) -> None:
    identifier = world.create("sh", "-c", "echo out; echo err >&2; exit 7", name="first")
    assert world.status(identifier) == "created"
    future = world.engine.containers.wait("first", "next-exit")
    gone = world.engine.containers.wait("first", "removed")
    assert world.engine.containers.start("first") is True
    assert future.result(30).code == 7
    state = world.engine.containers.inspect("first").state
    assert (state.status, state.exit_code, state.oom_killed) == ("exited", 7, False)
    assert 0 < state.started_ns <= state.finished_ns
    records = list(world.engine.containers.logs("first"))
    assert sorted((r.stream, r.text) for r in records) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    assert world.engine.containers.changes("first") == []
    world.engine.containers.remove("first", False, False)
    assert gone.result(5).code == 7
    with pytest.raises(NotFound):
        world.engine.containers.inspect("first")
    assert leftovers(world.paths, identifier) == []
    assert not world.engine._rooms.snapshotter.exists(identifier)


def test_the_defaults_of_a_process(world: World) -> None:
    text = world.said(
        "sh", "-c", "id; env; pwd; grep -E 'CapEff|CapInh|CapAmb|Seccomp:|NoNewPrivs' /proc/self/status"
    )
    assert "uid=0(root) gid=0(root)" in text
    assert "FROM_IMAGE=yes" in text and "HOME=/root" in text and "PATH=/usr/local/sbin" in text
    assert "CapEff:\t00000000a80425fb" in text
    assert "CapInh:\t0000000000000000" in text and "CapAmb:\t0000000000000000" in text
    assert "Seccomp:\t2" in text and "NoNewPrivs:\t1" in text


def test_users_environment_and_directory(world: World) -> None:
    config = Config(user="model", env=("A=1", "FROM_IMAGE"), working_dir="/made/here")
    text = world.said("sh", "-c", "id; echo $A.$FROM_IMAGE; pwd; echo $HOME", config=config)
    assert text.splitlines() == [
        "uid=1000(model) gid=1001(model) groups=100(users),1001(model)",
        "1.",
        "/made/here",
        "/home/model",
    ]
    with pytest.raises(Invalid, match="unable to find user nobody-here"):
        world.run("true", config=Config(user="nobody-here"))


@pytest.mark.parametrize(
    ("cmd", "code"),
    [(("no-such-program",), 127), (("/etc/passwd",), 126), (("/no/such",), 127), (("/etc",), 126)],
)
def test_a_command_that_cannot_run(world: World, cmd: tuple[str, ...], code: int) -> None:
    identifier = world.create(*cmd)
    with pytest.raises(LadingError) as caught:
        world.engine.containers.start(identifier)
    assert caught.value.exit_code == code
    state = world.engine.containers.inspect(identifier).state
    assert (state.status, state.exit_code) == ("created", code)
    assert state.error
    world.engine.containers.remove(identifier, False, False)
    assert leftovers(world.paths, identifier) == []


def test_stop_asks_then_kills(world: World) -> None:
    polite = world.up("sh", "-c", "trap 'exit 3' TERM; echo set; while true; do sleep 0.05; done")
    eventually(lambda: world.output(polite) == "set\n")
    assert world.engine.containers.stop(polite, 10) is True
    assert world.engine.containers.inspect(polite).state.exit_code == 3
    assert world.engine.containers.stop(polite, 10) is False
    deaf = world.up("sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 0.05; done")
    eventually(lambda: world.output(deaf) == "deaf\n")
    world.engine.containers.stop(deaf, 0)
    assert world.engine.containers.inspect(deaf).state.exit_code == 137
    world.engine.containers.start(deaf)
    world.engine.containers.kill(deaf, "KILL")
    assert world.engine.containers.wait(deaf, "not-running").result(10).code == 137
    with pytest.raises(Conflict, match="is not running"):
        world.engine.containers.kill(deaf, "KILL")


def test_starting_twice_and_removing_what_runs(world: World) -> None:
    identifier = world.up(name="running")
    assert world.engine.containers.start("running") is False
    with pytest.raises(Conflict, match="is running"):
        world.engine.containers.remove("running", False, False)
    with pytest.raises(Conflict, match="already in use"):
        world.create("true", name="running")
    world.engine.containers.remove("running", True, False)
    with pytest.raises(NotFound):
        world.engine.containers.inspect(identifier)


def test_pause_holds_and_stop_of_a_paused_one_works(world: World) -> None:
    identifier = world.up()
    world.engine.containers.pause(identifier)
    assert world.status(identifier) == "paused"
    with pytest.raises(Conflict, match="already paused"):
        world.engine.containers.pause(identifier)
    world.engine.containers.unpause(identifier)
    assert world.status(identifier) == "running"
    world.engine.containers.pause(identifier)
    world.engine.containers.stop(identifier, 0)
    assert world.status(identifier) == "exited"


def test_rename(world: World) -> None:
    identifier = world.create("true", name="before")
    world.create("true", name="other")
    world.engine.containers.rename("before", "after")
    assert world.engine.containers.inspect("after").id == identifier
    with pytest.raises(Conflict):
        world.engine.containers.rename("after", "other")
    with pytest.raises(Invalid):
        world.engine.containers.rename("after", "a/b")


def test_rm_on_exit(world: World) -> None:
    identifier = world.create("sh", "-c", "exit 4", auto_remove=True)
    future = world.engine.containers.wait(identifier, "removed")
    world.engine.containers.start(identifier)
    assert future.result(20).code == 4
    with pytest.raises(NotFound):
        world.engine.containers.inspect(identifier)
    broken = world.create("no-such-program", auto_remove=True)
    with pytest.raises(LadingError):
        world.engine.containers.start(broken)
    with pytest.raises(NotFound):
        world.engine.containers.inspect(broken)
    assert leftovers(world.paths, broken) == []


def test_list_and_its_filters(world: World) -> None:
    first = world.create("true", name="lister-1", config=Config(labels={"a": "b"}))
    second = world.up(name="lister-2")
    names = [view.name for view in world.engine.containers.list(False)]
    assert "lister-2" in names and "lister-1" not in names

    def ids(**filters: str) -> set[str]:
        found = world.engine.containers.list(True, 0, {key: (value,) for key, value in filters.items()})
        return {view.id for view in found}

    assert ids(label="a=b") == {first}
    assert ids(name="lister") == {first, second}
    assert ids(name="^/lister-1$") == {first}
    assert second in ids(status="running") and first in ids(status="created")
    assert ids(id=first[:20]) == {first}
    assert {first, second} <= ids(ancestor="tiny")
    with pytest.raises(Invalid, match="invalid filter 'nmae'"):
        ids(nmae="x")


def test_exec_in_a_running_container(world: World) -> None:
    identifier = world.up(config=Config(env=("A=1",)))
    assert world.exec(identifier, "sh", "-c", "echo $A $B; exit 5", env=("B=2",)) == (5, "1 2\n")
    assert world.exec(identifier, "id", "-u", user="model") == (0, "1000\n")
    assert "CapEff:\t00000000a80425fb" in world.exec(identifier, "grep", "CapEff", "/proc/self/status")[1]
    with pytest.raises(NotFound, match="not found"):
        world.exec(identifier, "no-such-program")
    stopped = world.create("true")
    with pytest.raises(Conflict, match="not running"):
        world.engine.execs.create(stopped, ExecRequest(("true",)))
    assert world.engine.containers.inspect(identifier).exec_ids == ()


def test_limits_are_the_kernels(world: World) -> None:
    limits = Resources(memory=64 << 20, pids_limit=20, nano_cpus=500_000_000)
    identifier = world.up(resources=limits, ulimits=(Ulimit("nofile", 77, 88),))
    assert world.exec(identifier, "sh", "-c", "ulimit -n; ulimit -Hn")[1] == "77\n88\n"
    raw = world.engine.containers.stats(identifier)
    assert raw["memory_stats"]["limit"] == 64 << 20
    assert raw["pids_stats"]["limit"] == 20
    assert raw["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    world.engine.containers.update(identifier, Resources(memory=128 << 20, memory_swap=256 << 20))
    assert world.engine.containers.stats(identifier)["memory_stats"]["limit"] == 128 << 20
    assert world.engine.containers.inspect(identifier).host.resources.pids_limit == 20


def test_running_out_of_memory_is_told(world: World) -> None:
    limits = Resources(memory=16 << 20, memory_swap=16 << 20)
    identifier, finished = world.run(
        "sh", "-c", "x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | cat -v)", resources=limits
    )
    state = world.engine.containers.inspect(identifier).state
    assert finished.code != 0 and state.oom_killed


def test_top_reads_the_host(world: World) -> None:
    identifier = world.up("sleep", "777")
    titles, rows = world.engine.containers.top(identifier, "-ef")
    assert titles[0] == "UID" and titles[-1] == "CMD"
    assert [row[-1] for row in rows] == ["sleep 777"]
    assert world.engine.containers.top(identifier, "-o pid,comm")[0] == ("PID", "COMMAND")
    with pytest.raises(Invalid):
        world.engine.containers.top(identifier, "--bad")


def test_read_only_root_and_tmpfs(world: World) -> None:
    text = world.said(
        "sh", "-c", "touch /x 2>/dev/null || echo closed; touch /t/x && echo open; stat -c %a /t",
        readonly_rootfs=True, tmpfs={"/t": "size=1m,mode=700"},
    )  # fmt: skip
    assert text.splitlines() == ["closed", "open", "700"]


def test_binds(world: World, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("hello")
    text = world.said(
        "sh", "-c", "cat /b/file; touch /b/x 2>/dev/null || echo ' ro'; touch /b/inner/y; ls /made",
        binds=(f"{tmp_path}:/b:ro", f"{tmp_path}/inner:/b/inner", f"{tmp_path}/new:/made"),
    )  # fmt: skip
    assert text == "hello ro\n"
    assert (tmp_path / "inner" / "y").exists() and (tmp_path / "new").is_dir()
    with pytest.raises(Invalid, match="does not exist"):
        world.run("true", mounts=(Mount("bind", "/b", source=str(tmp_path / "absent")),))


@pytest.mark.parametrize("net", ["none", "bridge", "host"])
def test_a_user_namespace_of_its_own(world: World, net: str) -> None:
    """Root inside is nobody outside, and still has its files, its /sys and its network."""
    script = "id -u; cat /proc/self/uid_map; touch /made; ls /sys/class >/dev/null && ip addr show lo | grep -c 'inet '"
    identifier, finished = world.run("sh", "-c", script, net=net, userns_mode="private")
    assert finished.code == 0
    words = world.output(identifier).split()
    assert words[0] == "0" and words[1] == "0" and int(words[2]) >= 100_000 and words[3:] == ["65536", "1"]
    if net == "bridge":
        identifier, _ = world.run("ip", "addr", "show", "eth0", net=net, userns_mode="private")
        assert "inet 172." in world.output(identifier) or "inet 10." in world.output(identifier)


def test_init_reaps_and_forwards(world: World) -> None:
    identifier = world.up(
        "sh", "-c", "trap 'exit 9' TERM; echo set; while true; do sleep 0.05; done", init=True
    )
    eventually(lambda: world.output(identifier) == "set\n")
    rows = world.engine.containers.top(identifier, "-o pid,args")[1]
    assert len(rows) >= 2
    world.engine.containers.stop(identifier, 10)
    assert world.engine.containers.inspect(identifier).state.exit_code == 9


def test_many_at_once(world: World) -> None:
    failures: list[BaseException] = []

    def one() -> None:
        try:
            for _ in range(3):
                identifier, finished = world.run("true")
                assert finished.code == 0
                world.engine.containers.remove(identifier, False, False)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_events_tell_the_story(world: World) -> None:
    seen: list[str] = []
    stop = threading.Event()
    found = world.engine.events.subscribe(0, 0, {"type": ("container",)}, stop)
    identifier, _ = world.run("true", name="storied")
    world.engine.containers.remove(identifier, False, False)
    for event in found:
        if event.actor == identifier:
            seen.append(event.action)
            if event.action == "destroy":
                break
    assert seen == ["create", "start", "die", "destroy"]


def test_bad_requests_leave_nothing(world: World) -> None:
    before = world.engine._rooms.snapshotter.keys()
    for bad in (
        {"cap_add": ("NOPE",)},
        {"binds": ("x",)},
        {"binds": ("/a:relative",)},
        {"resources": Resources(memory=1)},
        {"ulimits": (Ulimit("nope", 1, 1),)},
        {"security_opt": ("seccomp={",)},
        {"sysctls": {"kernel.panic": "1"}},
        {"pid_mode": "bogus"},
    ):
        with pytest.raises(Invalid):
            world.create("true", name="never", **bad)
    with pytest.raises(NotFound):
        world.create("true", name="never", net="no-such-network")
    with pytest.raises(NotFound):
        world.create("true", name="never", config=Config(image="absent"))
    assert world.engine._rooms.snapshotter.keys() == before
    world.create("true", name="never")  # the name is still free


def test_only_what_goes_with_its_run_is_mounted_volatile(world: World) -> None:
    for goes in (False, True):
        identifier = world.up(auto_remove=goes)
        assert world.engine.containers.inspect(identifier).driver == "overlay"
        options = world.exec(identifier, "head", "-1", "/proc/mounts")[1]
        assert options.startswith("overlay / ") and ("volatile" in options) == goes
        world.engine.containers.remove(identifier, True, True)


def test_a_joined_pid_namespace_is_the_other_container_s(world: World) -> None:
    first = world.up("sleep", "4321")
    said = world.said(
        "sh", "-c", "ps -o pid,args; echo $$; kill -9 1 && echo killed", pid_mode=f"container:{first}"
    )
    assert "1 sleep 4321" in said and "lading" not in said, said
    assert len(said.splitlines()) < 8, "no process of the host"
    world.engine.containers.remove(first, True, True)


def test_a_long_host_name_answers_to_its_first_part(world: World) -> None:
    said = world.said("cat", "/etc/hosts", net="bridge", config=Config(hostname="web.example.org"))
    assert said.splitlines()[-1].split()[1:] == ["web.example.org", "web"]
