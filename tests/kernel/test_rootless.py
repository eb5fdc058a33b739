"""An ordinary user's whole engine, by the real command line: with one identity, and with subordinate ones."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import engine_world
import network_world
import pytest
import rootless_world
from rootless_world import UID, User, missing, processes, settles

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not engine_world.BUSYBOX, reason="needs a static busybox"),
]

MAPPED = missing("newuidmap", "newgidmap")
KINDS = [
    "single",
    pytest.param("mapped", marks=pytest.mark.skipif(bool(MAPPED), reason=MAPPED)),
]
SERVER = "mkdir -p /www; echo hello >/www/index.html; echo started; exec httpd -f -p 80 -h /www"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    try:
        socket.create_server(("0.0.0.0", port)).close()
        return True
    except OSError:
        return False


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        data: bytes = answer.read()
    return data


def answers(port: int) -> bool:
    try:
        return fetch(port) == b"hello\n"
    except OSError:
        return False


def with_image(one: User) -> User:
    archive = one.home.parent / "tiny.tar"
    archive.write_bytes(engine_world.root_tar().getvalue())
    one("import", "--change", 'CMD ["sh"]', str(archive), "tiny")
    return one


@pytest.fixture
def single() -> Iterator[User]:
    """A user with one identity and no program for the network."""
    with rootless_world.user(LADING_ROOTLESS_NET="none") as one:
        yield with_image(one)


@pytest.fixture(params=KINDS)
def ordinary(request: pytest.FixtureRequest) -> Iterator[User]:
    with rootless_world.user(mapped=request.param == "mapped", LADING_ROOTLESS_NET="none") as one:
        yield with_image(one)


def test_a_container_lives_and_outlives_the_daemon(ordinary: User) -> None:
    """run, ps, exec, logs, volumes, a published port; then the daemon is killed, and all of it goes on."""
    port = free_port()
    ordinary("run", "-d", "--name", "web", "-p", f"{port}:80", "-v", "data:/kept", "tiny", "sh", "-c", SERVER)
    assert settles(lambda: answers(port))
    assert "web" in ordinary.said("ps", "--format", "{{.Names}} {{.Ports}}")
    assert str(port) in ordinary.said("ps", "--format", "{{.Names}} {{.Ports}}")
    assert ordinary.said("exec", "web", "id", "-u") == "0"
    ordinary("exec", "web", "sh", "-c", "echo kept >/kept/file")
    assert ordinary.said("logs", "web") == "started"
    assert "httpd" in ordinary.said("top", "web")
    before, keeper = ordinary.daemon, ordinary.keeper
    os.kill(before, signal.SIGKILL)
    assert settles(lambda: before not in processes())
    assert fetch(port) == b"hello\n"
    assert ordinary.said("exec", "web", "cat", "/www/index.html") == "hello"
    assert ordinary.keeper == keeper
    ordinary("rm", "-f", "web")
    assert settles(lambda: not answers(port))
    assert settles(lambda: is_free(port))
    assert ordinary.said("run", "--rm", "-v", "data:/kept", "tiny", "cat", "/kept/file") == "kept"


def test_root_inside_is_the_user_outside(ordinary: User) -> None:
    there = ordinary.home / "there"
    there.mkdir()
    os.chown(there, UID, UID)
    ordinary("run", "--rm", "-v", f"{there}:/there", "tiny", "touch", "/there/file")
    assert (there / "file").stat().st_uid == UID
    assert ordinary.said("run", "--rm", "tiny", "sh", "-c", "head -1 /proc/self/uid_map").split() == [
        "0", str(UID), "1",
    ]  # fmt: skip
    secret = ordinary.home.parent / "secret"
    secret.write_text("the host's root alone\n")
    secret.chmod(0o600)
    done = ordinary("run", "--rm", "--privileged", "-v", f"{secret}:/s", "tiny", "cat", "/s", code=None)
    assert done.returncode and b"alone" not in done.stdout


def test_a_build_runs_its_steps(ordinary: User) -> None:
    """COPY and RUN, over layers with whiteouts and an opaque directory, by the real snapshotter."""
    context = ordinary.home / "context"
    context.mkdir()
    (context / "file").write_text("copied\n")
    (context / "Dockerfile").write_text(
        "FROM tiny\nCOPY file /data/file\nRUN rm /data/link && cat /data/file >/made\n"
        "RUN rm -r /data/sub && mkdir /data/sub && touch /data/sub/new\nCMD cat /made\n"
    )
    ordinary("build", "-t", "built", str(context))
    assert ordinary.said("run", "--rm", "built") == "copied"
    assert ordinary.said("run", "--rm", "built", "sh", "-c", "ls /data /data/sub").split() == [
        "/data:", "file", "sub", "/data/sub:", "new",
    ]  # fmt: skip
    ordinary("save", "-o", str(ordinary.home / "built.tar"), "built")
    ordinary("rmi", "-f", "built")
    ordinary("load", "-i", str(ordinary.home / "built.tar"))
    assert ordinary.said("run", "--rm", "built", "ls", "/data/sub") == "new"


def test_limits_of_a_single_identity_are_said(single: User) -> None:
    done = single("run", "--rm", "-u", "1000", "tiny", "id", code=125)
    assert b"user 1000 does not exist" in done.stderr and b"/etc/subuid" in done.stderr
    assert single.said("run", "--rm", "tiny", "stat", "-c", "%u:%g", "/data/file") == "0:0"
    done = single("run", "--rm", "tiny", "sh", "-c", "stat -c %u /data/file; id -G", code=0)
    assert done.stdout.split() == [b"0", b"0"]
    told = single("info").stderr.decode() + single("info").stdout.decode()
    assert "rootless" in told and "single identity" in told
    done = single("run", "--rm", "--userns", "private", "tiny", "true", code=125)
    assert b"--userns" in done.stderr


@pytest.mark.skipif(bool(MAPPED), reason=MAPPED)
def test_subordinate_ids_are_the_images_owners() -> None:
    with rootless_world.user(mapped=True, LADING_ROOTLESS_NET="none") as one:
        one.supplementary = "4242"
        with_image(one)
        assert one.said("run", "--rm", "tiny", "id", "-G") == "0"  # the user's own groups stay outside
        assert one.said("run", "--rm", "tiny", "stat", "-c", "%u:%g", "/data/file") == "1000:1001"
        assert one.said("run", "--rm", "-u", "model", "tiny", "sh", "-c", "id -u; id -G").split() == [
            "1000", "1001", "100",
        ]  # fmt: skip
        assert "single identity" not in one("info").stderr.decode()


def test_a_start_that_fails_gives_its_port_back(single: User) -> None:
    port = free_port()
    for late in (("tiny", "/nothing"), ("-u", "1000", "tiny")):  # after the port was published, and before
        assert single("run", "--rm", "-p", f"{port}:80", *late, code=None).returncode in (125, 127)
        assert settles(lambda: is_free(port)), late
    single("run", "--rm", "-p", f"{port}:80", "-p", f"{port + 1}:81", "tiny", "true")


def test_what_cannot_be_had_is_refused_with_what_to_do(single: User) -> None:
    done = single("run", "--rm", "-p", "80:80", "tiny", "true", code=125)
    assert b"net.ipv4.ip_unprivileged_port_start" in done.stderr
    done = single("run", "--rm", "-m", "64m", "tiny", "true", code=125)
    assert b"memory cannot be limited" in done.stderr and b"Delegate=yes" in done.stderr
    single("run", "-d", "--name", "one", "tiny", "sleep", "100")
    for command in (("pause", "one"), ("update", "-m", "64m", "one")):
        assert b"Traceback" not in single(*command, code=1).stderr
    assert not single.said("ps", "-aq", "--filter", "name=true")


def test_without_a_program_the_default_network_is_the_hosts(single: User) -> None:
    done = single("run", "--rm", "tiny", "readlink", "/proc/self/ns/net")
    assert done.stdout.decode().strip() == os.readlink("/proc/self/ns/net")
    assert done.stderr.count(b"host's network") == 1
    inside = single.said("run", "--rm", "--network", "none", "tiny", "readlink", "/proc/self/ns/net")
    assert inside != os.readlink("/proc/self/ns/net")
    single("network", "create", "ours")
    single("run", "-d", "--name", "server", "--network", "ours", "tiny", "sh", "-c", SERVER)
    time.sleep(0.2)
    asked = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc server 80"
    assert "hello" in single.said("run", "--rm", "--network", "ours", "tiny", "sh", "-c", asked)


def test_devices_and_terminals(single: User) -> None:
    script = (
        "echo x >/dev/null; head -c 3 /dev/zero | wc -c; [ -c /dev/tty ] && ls /sys >/dev/null && echo whole"
    )
    assert single.said("run", "--rm", "tiny", "sh", "-c", script).split() == ["3", "whole"]
    done = single("run", "--rm", "tiny", "sh", "-c", "dd if=/dev/vda of=/tmp/x count=1", code=1)
    assert b"No such file" in done.stderr


def test_options_that_ask_for_the_host(single: User) -> None:
    script = "echo y >/dev/null && ls /proc/self >/dev/null && ls /sys >/dev/null && echo fine"
    for flags in (
        "--pid host", "--ipc host --uts host", "--privileged", "--device /dev/zero", "--device /dev/null:/dev/nothing",
        "--init", "--read-only --tmpfs /t", "--network none",
    ):  # fmt: skip
        assert single.said("run", "--rm", *flags.split(), "tiny", "sh", "-c", script) == "fine", flags


def test_a_commit_needs_no_freezer(single: User) -> None:
    single("run", "-d", "--name", "changed", "tiny", "sh", "-c", "echo new >/new; sleep 100")
    assert settles(lambda: b"new" in single("exec", "changed", "cat", "/new", code=None).stdout)
    single("commit", "changed", "changed")
    assert single.said("run", "--rm", "changed", "cat", "/new") == "new"


def test_here_needs_no_daemon_and_leaves_nothing(single: User) -> None:
    single.end()
    assert settles(lambda: not processes())
    done = single("--here", "run", "--rm", "tiny", "echo", "here")
    assert done.stdout == b"here\n"
    assert settles(lambda: not processes(), 5), processes()
    assert single("--here", "run", "--rm", "tiny", "sh", "-c", "exit 7", code=7)


def test_copies_where_the_kernel_refuses_an_overlay() -> None:
    """A data root that is itself on an overlay: layers are copied, and `info` says so."""
    with rootless_world.user(LADING_ROOTLESS_NET="none") as one:
        base = one.home.parent / "stack"
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir(parents=True)
        os.chown(base / "upper", UID, UID)
        layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        one.mounts.append(f"mount -t overlay overlay -o {layers} {base}/merged")
        one.environ["LADING_ROOT"] = f"{base}/merged/root"
        archive = one.home.parent / "tiny.tar"
        archive.write_bytes(engine_world.root_tar().getvalue())
        try:
            one("--here", "import", str(archive), "tiny")
            done = one("--here", "info")
            assert b"Storage Driver: copy" in done.stdout and b"images are copied" in done.stderr
            done = one(
                "--here",
                "run",
                "--name",
                "c1",
                "tiny",
                "sh",
                "-c",
                "rm /data/link; cat /data/file; echo >/new",
            )
            assert done.stdout == b"from the image\n"
            changes = one("--here", "diff", "c1").stdout.decode().splitlines()
            assert {"D /data/link", "A /new"} <= set(changes) and "C /data/file" not in changes
            one("--here", "rm", "c1")
        finally:
            del one.environ["LADING_ROOT"]
            one.mounts.clear()


def test_without_a_session_the_run_directory_is_ones_own_in_tmp(single: User) -> None:
    """A batch node: no XDG_RUNTIME_DIR, and a umask that would open directories to a group."""
    single.end()
    assert settles(lambda: not processes())
    single.environ["XDG_RUNTIME_DIR"] = ""
    shutil.rmtree(f"/tmp/lading-{UID}", ignore_errors=True)
    command = [sys.executable, "-P", "-m", "lading", "--here", "run", "--rm", "tiny", "echo", "batch"]
    try:
        done = single.run("sh", "-c", f"umask 002; {shlex.join(command)}; stat -c %a /tmp/lading-{UID}")
        assert done.stdout == b"batch\n700\n"
        assert settles(lambda: not processes()), processes()
    finally:
        single.environ.pop("XDG_RUNTIME_DIR")
        shutil.rmtree(f"/tmp/lading-{UID}", ignore_errors=True)


def test_a_killed_keeper_is_replaced(single: User) -> None:
    """Its containers lose their ports, and can still be ended; the next daemon makes a new one."""
    single("run", "-d", "--name", "one", "-p", f"{free_port()}:80", "tiny", "sh", "-c", SERVER)
    first = single.keeper
    os.kill(first, signal.SIGKILL)
    assert settles(lambda: first not in processes())
    single("rm", "-f", "one")
    single.end()
    assert settles(lambda: not processes()), processes()
    assert single.said("run", "--rm", "tiny", "echo", "again") == "again"
    assert single.keeper != first
    single("run", "-d", "--name", "two", "tiny", "sleep", "100")
    for pid in (single.daemon, single.keeper):  # the whole engine at once
        os.kill(pid, signal.SIGKILL)
    assert settles(lambda: not single.pids("rootless.keeper"))
    assert single.said("ps", "--format", "{{.Names}}") == "two"
    single("rm", "-f", "two")


def test_a_run_directory_of_somebody_elses_is_refused(single: User) -> None:
    single.end()
    assert settles(lambda: not processes())
    runtime = single.home / "runtime"
    os.chown(runtime, UID + 1, UID + 1)
    runtime.chmod(0o777)
    try:
        done = single("ps", code=1)
        assert b"cannot be trusted" in done.stderr
    finally:
        os.chown(runtime, UID, UID)
        runtime.chmod(0o700)


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_a_network_of_its_own_reaches_the_outside_and_not_the_host(program: str, tmp_path: Path) -> None:
    if reason := missing(program):
        pytest.skip(reason)
    if not Path("/dev/net/tun").exists():
        pytest.skip("this kernel has no /dev/net/tun")
    with network_world.world(str(tmp_path)) as world:
        cable = network_world.links.index_of("cable")
        way = socket.inet_pton(socket.AF_INET, network_world.OUTSIDE)
        world.netlink.request([network_world.route.add_default_route(cable, way)])
        world.serve(world.outside, "outside", 80)
        world.serve(world.host, "host", 81)
        with rootless_world.user(tun=True, LADING_ROOTLESS_NET=program) as one:
            with_image(one)
            done = one(
                "run",
                "--rm",
                "tiny",
                "sh",
                "-c",
                f"sleep 1 | busybox timeout 3 nc {network_world.OUTSIDE} 80; true",
            )
            assert done.stdout.split()[0] == b"outside" and not done.stderr
            asked = "for a in 127.0.0.1 10.0.2.2 203.0.113.2; do busybox timeout 2 nc $a 81 </dev/null; done; true"
            assert b"host" not in one("run", "--rm", "tiny", "sh", "-c", asked).stdout
            assert one.pids(program)


def test_limits_in_delegated_groups(tmp_path: Path) -> None:
    """Control groups that were given to the user hold the limits; a v1 or a v2 hierarchy, whichever the host has."""
    groups = [group for group in _delegate("lading-delegated-test") if group]
    if not groups:
        pytest.skip("this host has no memory or pids control group to give away")
    try:
        with rootless_world.user(LADING_ROOTLESS_NET="none") as one:
            one.groups = groups
            with_image(one)
            one("run", "-d", "--name", "held", "-m", "64m", "--pids-limit", "20", "tiny", "sleep", "100")
            limits = [
                path.read_text().strip()
                for group in groups
                for name in ("memory.limit_in_bytes", "memory.max")
                for path in Path(group).glob(f"lading/*/{name}")
                if path.parent.name == one.said("ps", "-q", "--no-trunc")
            ]
            assert limits == [str(64 << 20)]
            one("pause", "held")
            assert "Paused" in one.said("ps", "--format", "{{.Status}}")
            one("unpause", "held")
            assert one.said("top", "held").count("sleep") == 1
            bomb = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all"
            done = one("run", "--rm", "--pids-limit", "20", "tiny", "sh", "-c", bomb, code=None)
            assert b"all" not in done.stdout or b"fork" in done.stderr
    finally:
        for group in groups:
            assert settles(lambda group=group: _removed(group)), group


def _delegate(name: str) -> list[str]:
    """Groups named `name` that belong to the user, on each hierarchy that limits."""
    root, made = Path("/sys/fs/cgroup"), []
    tops = (
        [root]
        if (root / "cgroup.controllers").exists()
        else [root / "memory", root / "pids", root / "unified"]
    )
    for top in tops:
        if not (top / "cgroup.procs").exists():
            continue
        if top == root and "memory" not in (top / "cgroup.subtree_control").read_text():
            continue
        group = top / name
        group.mkdir(exist_ok=True)
        for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "tasks"):
            if path.exists():
                os.chown(path, UID, UID)
        made.append(str(group))
    return made


def _removed(group: str) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            return False
    return True
