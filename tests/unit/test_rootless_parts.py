"""The pure parts of an ordinary user's engine: id ranges, the fitted configuration, delegated groups, places."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.base.errors import Denied, Invalid, Unsupported
from lading.linux import identity, netns
from lading.network import links
from lading.rootless import groups, maps, outside, places
from lading.rootless.ports import Forward, Ports
from lading.runtime.cgroup.layout import Layout
from lading.runtime.confined import Confined

SINGLE = Confined(True, ((0, 1),), ((0, 1),), may_set_groups=False, counts_pids=False)
MANY = Confined(True, ((0, 1), (1, 65536)), ((0, 1), (1, 65536)), may_set_groups=True, counts_pids=True)
ROOT = Confined(False, ((0, 4294967295),), ((0, 4294967295),), may_set_groups=True, counts_pids=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("model:100000:65536\n", [(100000, 65536)]),
        ("1000:5:1\nother:7:9\nmodel:8:2", [(5, 1), (8, 2)]),
        ("", []),
        ("model:x:1\nmodel:1\nmodel:1:\n:1:2\nmodel:-1:5\nmodel:1:0\n#model:1:2\nmodel:٣:2x\n", []),
    ],
)
def test_subordinate_ids(text: str, found: list[tuple[int, int]]) -> None:
    assert maps.subordinate(text, "model", 1000) == found


def test_nobody_has_no_name_and_no_ids() -> None:
    assert maps.subordinate(":100:5\n", "", 1000) == []


def test_the_maps_follow_on_one_another() -> None:
    words = maps.arguments(1000, [(100000, 10), (300000, 5)])
    assert words == ["0", "1000", "1", "1", "100000", "10", "11", "300000", "5"]


def spec(*kinds: str, **process: object) -> dict[str, object]:
    return {
        "process": {"user": {"uid": 0, "gid": 0, "additionalGids": [0, 5, 100]}, **process},
        "mounts": [
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
            {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "gid=5"]},
            {"destination": "/tmp", "type": "tmpfs", "options": ["gid=5"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {"pids": {"limit": 4096}, "devices": [{"allow": False}], "memory": {"limit": 1}},
        },
    }


def test_a_single_identity_gets_what_it_can_have() -> None:
    fitted = SINGLE.fit(spec("mount", "pid"))
    sys, pts, tmp = fitted["mounts"]
    assert (sys["type"], sys["source"]) == ("bind", "/sys") and {"rbind", "ro"} <= set(sys["options"])
    assert pts["options"] == ["newinstance"] and tmp["options"] == ["gid=5"]
    assert fitted["process"]["user"]["additionalGids"] == []
    assert fitted["linux"]["resources"] == {"memory": {"limit": 1}}
    assert SINGLE.groups == {"keep_groups": True}


def test_subordinate_ids_keep_more() -> None:
    fitted = MANY.fit(spec("mount", "pid", "network"))
    assert [mount["type"] for mount in fitted["mounts"]] == ["sysfs", "devpts", "tmpfs"]
    assert fitted["mounts"][1]["options"] == ["newinstance", "gid=5"]
    assert fitted["process"]["user"]["additionalGids"] == [0, 5, 100]
    assert "pids" in fitted["linux"]["resources"] and MANY.groups == {}


def test_root_of_the_host_is_left_alone() -> None:
    asked = spec("mount", "user")
    assert ROOT.fit(asked) is asked and ROOT.fit_process(asked) is asked


@pytest.mark.parametrize("user", [{"uid": 1000}, {"gid": 7}, {"uid": 65537}])
def test_a_user_that_is_not_there_is_refused(user: dict[str, int]) -> None:
    confined = MANY if user.get("uid") == 65537 else SINGLE
    with pytest.raises(Invalid, match="does not exist in this engine's user namespace") as caught:
        confined.fit_process({"user": {"uid": 0, "gid": 0, **user}})
    assert "/etc/subuid" in caught.value.hint


def test_no_namespace_in_the_namespace() -> None:
    with pytest.raises(Unsupported, match="no further user namespace"):
        MANY.fit(spec("mount", "user"))


def test_delegated_groups_are_those_one_can_write(tmp_path: Path) -> None:
    memory, pids, unified = (tmp_path / name for name in ("memory", "pids", "unified"))
    for top in (memory, pids, unified):
        (top / "mine").mkdir(parents=True)
        (top / "mine" / "cgroup.procs").touch()
    (unified / "mine" / "cgroup.controllers").write_text("cpu io\n")
    (pids / "mine" / "cgroup.procs").unlink()  # nobody can be moved there
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(
        f"1 1 0:1 / {memory} rw - cgroup cgroup rw,memory\n2 1 0:1 / {pids} rw - cgroup cgroup rw,pids\n"
        f"3 1 0:1 / {unified} rw - cgroup2 cgroup rw\n"
    )
    (unified / "cgroup.controllers").touch()
    (proc / "cgroup").write_text("3:memory:/mine\n2:pids:/mine\n1:name=systemd:/\n0::/mine\n")
    found = groups.delegated(str(tmp_path / "proc"))
    assert found == Layout({"memory": f"{memory}/mine"}, f"{unified}/mine", frozenset({"cpu", "io"}))
    (proc / "cgroup").write_text(f"3:memory:/other\n0::/mine/{groups.ASIDE}\n")
    assert groups.delegated(str(tmp_path / "proc")) == Layout({}, f"{unified}/mine", frozenset({"cpu", "io"}))


def test_the_engine_steps_out_of_its_own_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    groups.step_aside(Layout({}, str(tmp_path), frozenset()))
    assert not (tmp_path / groups.ASIDE).exists()  # there is nothing to hand on
    layout = Layout({}, str(tmp_path), frozenset({"memory"}))
    groups.step_aside(layout)
    assert (tmp_path / groups.ASIDE / "cgroup.procs").read_text() == str(os.getpid())
    groups.leave(layout)
    assert (tmp_path / groups.ASIDE).exists()  # somebody is in it


def test_a_run_directory_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "open" / "run"
    old = os.umask(0o002)
    try:
        places.make_run(str(run))
    finally:
        os.umask(old)
    assert stat.S_IMODE(run.parent.stat().st_mode) == 0o700
    uid, gid = run.stat().st_uid, run.stat().st_gid
    places.check_run(str(run), uid, gid)
    run.parent.chmod(0o775)
    places.check_run(str(run), uid, gid)  # the user's own group
    for mode, group in ((0o777, gid), (0o775, gid + 1)):
        run.parent.chmod(mode)
        with pytest.raises(Denied, match="cannot be trusted"):
            places.check_run(str(run), uid, group)
    run.parent.chmod(stat.S_ISVTX | 0o777)
    places.check_run(str(run), uid, gid + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_run_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(Denied, match="cannot be trusted"):
        places.check_run(str(tmp_path), 54321, 54321)


def test_the_file_system_of_a_path() -> None:
    table = (
        "1 1 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /home rw - nfs4 server:/home rw\n"
        "3 1 0:3 / /home/with\\040space rw - xfs /dev/b rw\n4 1 0:4 / /homely rw - tmpfs t rw\nbroken\n"
    )
    for path, kind in (
        ("/home/model/x", "nfs4"), ("/home", "nfs4"), ("/homes", "ext4"), ("/home/with space/x", "xfs"),
        ("/homely/y", "tmpfs"),
    ):  # fmt: skip
        assert places.file_system(path, table) == kind


def test_the_programs_open_nothing_of_the_host() -> None:
    for program in ("/usr/bin/pasta", "/usr/bin/slirp4netns"):
        words = outside.command(program, "/proc/self/fd/3")
        assert {"--no-map-gw", "--disable-host-loopback"} & set(words)
        assert words[0] == program and "/proc/self/fd/3" in words
    assert outside.find({"LADING_ROOTLESS_NET": "none", "PATH": "/usr/bin"}) == []


def test_host_root_is_told_from_a_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for ranges, host, single in (
        ([(0, 0, 4294967295)], True, False), ([(0, 1000, 1)], False, True), ([(0, 1000, 1), (1, 9, 9)], False, False),
    ):  # fmt: skip
        monkeypatch.setattr(identity, "ranges", lambda kind, found=ranges: found)
        assert (identity.host_root(), identity.single()) == (host, single)


# -- ports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def inner() -> Iterator[int]:
    """A network namespace with lo up."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    fd = links.sandbox()
    yield fd
    os.close(fd)


def echo_stream(server: socket.socket) -> None:
    """Everything back, and then the end."""
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        with peer:
            while data := peer.recv(1 << 16):
                peer.sendall(data)


def echo_datagrams(server: socket.socket) -> None:
    while True:
        data, address = server.recvfrom(65535)
        if data == b"end":
            return
        server.sendto(data, address)


def bound(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind(("127.0.0.1", 0))
    return made


def test_tcp_passes_whole_both_ways_and_ends(inner: int) -> None:
    server = netns.inside(inner, lambda: socket.create_server(("127.0.0.1", 80)))
    thread = threading.Thread(target=echo_stream, args=(server,), daemon=True)
    thread.start()
    ports, outer = Ports(inner), bound(socket.SOCK_STREAM)
    place = outer.getsockname()
    ports.publish("one", [(Forward("tcp", "127.0.0.1", 80), outer)])
    payload = os.urandom(5 << 20)
    with socket.create_connection(place, timeout=10) as client:
        sender = threading.Thread(target=lambda: (client.sendall(payload), client.shutdown(socket.SHUT_WR)))
        sender.start()
        back = bytearray()
        while data := client.recv(1 << 16):
            back += data
        sender.join()
    assert bytes(back) == payload
    with socket.create_connection(place, timeout=10) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        ports.withdraw("one")
        assert client.recv(1) == b""  # it ends with the port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=10)
    socket.create_server(place).close()  # nothing of it keeps the port
    assert ports.ids() == []
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_udp_answers_find_their_way_back(inner: int) -> None:
    server = netns.inside(inner, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 53))
    thread = threading.Thread(target=echo_datagrams, args=(server,), daemon=True)
    thread.start()
    ports, outer = Ports(inner), bound(socket.SOCK_DGRAM)
    place = outer.getsockname()
    ports.publish("one", [(Forward("udp", "127.0.0.1", 53), outer)])
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for number, client in enumerate(clients):
        client.settimeout(10)
        client.connect(place)
        client.send(b"from %d" % number)
    for number, client in enumerate(clients):
        assert client.recv(100) == b"from %d" % number
    clients[0].send(b"end")
    thread.join(10)
    ports.withdraw("one")
    for client in clients:
        client.close()
    server.close()


def test_a_server_that_is_not_there_ends_the_connection(inner: int) -> None:
    ports, outer = Ports(inner), bound(socket.SOCK_STREAM)
    place = outer.getsockname()
    ports.publish("one", [(Forward("tcp", "127.0.0.1", 81), outer)])
    with socket.create_connection(place, timeout=10) as client:
        assert client.recv(1) == b""
    ports.withdraw("one")
