"""A create request over an image's config; capabilities, limits, security options, ports, signals, restarts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lading.base.errors import Conflict, Denied, Invalid, Unsupported
from lading.engine import caps, codec, devices, publish, request, resources, restart, security, signals
from lading.engine import filters as filtering
from lading.engine.model import (
    Config,
    CreateRequest,
    Endpoint,
    Health,
    HostConfig,
    Mount,
    PortBinding,
    Resources,
    Restart,
    Ulimit,
)
from lading.engine.record import Record
from lading.image.config import ContainerConfig, Healthcheck

IMAGE = ContainerConfig(
    user="model", env=("PATH=/bin", "A=image"), entrypoint=("/entry",), cmd=("serve",), volumes=("/data",),
    working_dir="/app", labels={"a": "image", "b": "image"}, exposed_ports=("5000/tcp",), stop_signal="SIGINT",
    healthcheck=Healthcheck(("CMD", "check"), interval=5),
)  # fmt: skip


def merged(config: Config) -> Config:
    return request.merge_config(config, IMAGE, "f" * 12)


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (Config(), ("/entry", "serve")),
        (Config(cmd=("x", "y")), ("/entry", "x", "y")),
        (Config(entrypoint=("/other",)), ("/other",)),
        (Config(entrypoint=("/other",), cmd=("x",)), ("/other", "x")),
        (Config(entrypoint=("",), cmd=("x",)), ("x",)),
    ],
)
def test_the_command(config: Config, command: tuple[str, ...]) -> None:
    result = merged(config)
    assert (*(result.entrypoint or ()), *(result.cmd or ())) == command


def test_the_rest_of_the_config() -> None:
    result = merged(Config(env=("A=mine", "B=2", "PATH"), labels={"b": "mine"}, exposed_ports=("80/tcp",)))
    assert result.env == ("A=mine", "B=2")
    assert dict(result.labels) == {"a": "image", "b": "mine"}
    assert result.exposed_ports == ("5000/tcp", "80/tcp")
    assert (result.user, result.working_dir, result.stop_signal) == ("model", "/app", "SIGINT")
    assert result.hostname == "f" * 12
    assert result.healthcheck == Health(("CMD", "check"), interval=5)
    assert merged(Config(healthcheck=Health(("NONE",)))).healthcheck == Health(("NONE",), interval=5)
    assert merged(Config(healthcheck=Health(retries=7))).healthcheck == Health(
        ("CMD", "check"), interval=5, retries=7
    )


@pytest.mark.parametrize(
    "config",
    [
        Config(entrypoint=("",)),
        Config(working_dir="relative"),
        Config(hostname="bad host"),
        Config(hostname="-x"),
        Config(cmd=("a\0b",)),
        Config(stop_signal="SIGNONE"),
        Config(env=("=x",)),
        Config(env=tuple(f"V{n}=x" for n in range(5000))),
        Config(cmd=("x" * (2 << 20),)),
        Config(healthcheck=Health(("CMD", "x"), interval=5)),
    ],
)
def test_configs_that_are_refused(config: Config) -> None:
    with pytest.raises(Invalid):
        merged(config)


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(restart=Restart("sometimes")),
        HostConfig(restart=Restart("always", 3)),
        HostConfig(restart=Restart("always"), auto_remove=True),
        HostConfig(pid_mode="container:"),
        HostConfig(ipc_mode="odd"),
        HostConfig(userns_mode="keep-id"),
        HostConfig(userns_mode="private", network_mode="container:x"),
        HostConfig(sysctls={"kernel.panic": "1"}),
        HostConfig(sysctls={"net.../x": "1"}),
        HostConfig(log_driver="syslog"),
        HostConfig(runtime="kata"),
        HostConfig(oom_score_adj=2000),
        HostConfig(port_bindings=(PortBinding(0),)),
        HostConfig(port_bindings=(PortBinding(80, "sctp"),)),
        HostConfig(port_bindings=(PortBinding(80, host_port="90-80"),)),
        HostConfig(port_bindings=(PortBinding(80, host_port="x"),)),
        HostConfig(ulimits=(Ulimit("nofile", 10, 5),)),
        HostConfig(cap_add=("EVERYTHING",)),
        HostConfig(security_opt=("bogus=1",)),
    ],
)
def test_host_configs_that_are_refused(host: HostConfig) -> None:
    with pytest.raises(Invalid):
        request.check_host(host, 4)


def test_what_cannot_be_done_yet_is_said() -> None:
    with pytest.raises(Unsupported, match="IPC"):
        request.check_host(HostConfig(ipc_mode="container:x"), 4)


@pytest.mark.parametrize("name", ["", "/", "a", "-ab", ".ab", "a b", "a/b", "é" * 3, "x" * 300])
def test_bad_names(name: str) -> None:
    with pytest.raises(Invalid):
        request.check_name(name)


def test_resolve_names_volumes_and_keeps_rows_readable() -> None:
    asked = CreateRequest(
        Config(image="img", cmd=("x",)),
        HostConfig(
            binds=("named:/n",), volumes_from=("other:ro",), restart=Restart("on-failure", 2), shm_size=5
        ),
        {"net": Endpoint(("alias",), ipv4="10.0.0.2")},
    )

    def inherited(ref: str) -> Iterable[Mount]:
        assert ref == "other"
        return [Mount("volume", "/o", "theirs")]

    record = request.resolve(
        asked, IMAGE, image_id="sha256:1", parent="p", name="n", now_ns=5, cpus=2, inherited=inherited,
        networks=asked.networks,
    )  # fmt: skip
    by_target = {mount.target: mount for mount in record.mounts}
    assert by_target["/n"].source == "named" and by_target["/o"].read_only
    assert record.anonymous == (by_target["/data"].source,) and len(record.anonymous[0]) == 64
    assert record.command == ("/entry", "x")
    text = codec.dump(record)
    assert codec.load(Record, text) == record
    assert '"privileged"' not in text  # defaults are left out


# -- capabilities, limits, security ----------------------------------------------------------------------------


def test_the_default_capabilities_are_the_fourteen() -> None:
    assert len(caps.DEFAULT) == 14 and len(caps.ALL) == 41
    assert "CAP_SYS_ADMIN" not in caps.DEFAULT and "CAP_NET_ADMIN" not in caps.DEFAULT


def test_adding_and_dropping() -> None:
    assert caps.resolve(drop=["all"]) == ()
    assert caps.resolve(["net_admin"], ["ALL"]) == ("CAP_NET_ADMIN",)
    assert caps.resolve(["ALL"], ["CAP_SYS_ADMIN"]) == tuple(c for c in caps.ALL if c != "CAP_SYS_ADMIN")
    assert caps.resolve(["sys_ptrace"], ["MKNOD"]) == tuple(
        c for c in caps.ALL if (c in caps.DEFAULT or c == "CAP_SYS_PTRACE") and c != "CAP_MKNOD"
    )


def test_nobody_grants_what_he_has_not() -> None:
    available = caps.held(0b1111)
    assert available == frozenset(caps.ALL[:4])
    assert set(caps.resolve(privileged=True, available=available)) == available
    with pytest.raises(Denied):
        caps.resolve(["SYS_ADMIN"], available=available)


@pytest.mark.parametrize(
    "limits",
    [
        Resources(memory=1 << 20),
        Resources(memory_swap=1 << 30),
        Resources(memory=1 << 30, memory_swap=1 << 20),
        Resources(nano_cpus=8_000_000_000),
        Resources(nano_cpus=1_000_000_000, cpu_quota=5000),
        Resources(cpu_shares=1),
        Resources(cpu_period=5),
        Resources(cpuset_cpus="0-"),
        Resources(cpuset_cpus="3-1"),
        Resources(cpuset_mems="a"),
        Resources(blkio_weight=5),
        Resources(memory_swappiness=101),
    ],
)
def test_limits_that_contradict(limits: Resources) -> None:
    with pytest.raises(Invalid):
        resources.check(limits, 4)


def test_limits_in_oci_words() -> None:
    composed = resources.compose(
        Resources(memory=64 << 20, nano_cpus=1_500_000_000, cpuset_cpus="0-2"), [{"allow": False}]
    )
    assert composed == {
        "devices": [{"allow": False}],
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "cpu": {"period": 100_000, "quota": 150_000, "cpus": "0-2"},
        "pids": {"limit": resources.DEFAULT_PIDS},
    }
    assert resources.compose(Resources(), [], initial=False) == {}
    assert resources.compose(Resources(pids_limit=-1), [])["pids"] == {"limit": -1}
    assert resources.compose(Resources(pids_limit=0), [])["pids"] == {"limit": -1}


def test_security_options() -> None:
    assert security.parse((), False) == security.Security()
    assert security.parse((), True) == security.Security("unconfined", False, "", False)
    assert security.parse(("no-new-privileges=false", "seccomp=unconfined"), False) == security.Security(
        "unconfined", False
    )
    assert security.parse(("no-new-privileges", "label=disable", "apparmor=x"), True).apparmor == "x"
    for bad in ("seccomp=nofile", "seccomp={}", "no-new-privileges=maybe", "x", "seccomp=" + "[" * 100000):
        with pytest.raises(Invalid):
            security.parse((bad,), False)


def test_a_profile_of_docker_is_lowered_for_what_is_granted() -> None:
    text = """{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [], "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["other"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}}]}"""

    def names(allowed: tuple[str, ...]) -> list[str]:
        return [name for rule in security.lower(text, allowed)["syscalls"] for name in rule["names"]]

    assert names(()) == ["read", "clone"]
    assert names(("CAP_SYS_ADMIN",)) == ["read", "mount"]


def test_device_rules_deny_first() -> None:
    rules = devices.rules((), ("c 13:* rwm",), False)
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[-1] == {"allow": True, "access": "rwm", "type": "c", "major": 13}
    assert devices.rules((), (), True) == [{"allow": True, "access": "rwm"}]
    for bad in ("c 13 rwm", "x 1:1 r", "c 1:1 x", ""):
        with pytest.raises(Invalid):
            devices.parse_rule(bad)


# -- ports ----------------------------------------------------------------------------------------------------


class Ports:
    """A host on which some ports are taken; descriptors are real, so that leaks show."""

    def __init__(self, *taken: int) -> None:
        self.taken = set(taken)

    def reserve(self, protocol: str, host_ip: str, port: int) -> int:
        import os

        if port in self.taken:
            raise Conflict(f"port {port} is taken")
        self.taken.add(port)
        return os.open("/dev/null", os.O_RDONLY)


def test_ranges_take_the_first_free_one_and_none_is_kept_on_failure() -> None:
    import os

    publisher, host = publish.Publisher(), Ports(8000, 8001)
    with publisher.reserve([PortBinding(80, host_port="8000-8003")], host.reserve) as held:
        assert [binding.host_port for binding in held.bindings] == ["8002"]
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Conflict):
        publisher.reserve([PortBinding(1, host_port="9000"), PortBinding(2, host_port="8000")], host.reserve)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(Conflict, match="no free host port"):
        publisher.reserve([PortBinding(1, host_port="8000-8001")], host.reserve)


def test_ephemeral_ports_go_round() -> None:
    publisher, host = publish.Publisher(), Ports()
    ports = []
    for _ in range(3):
        with publisher.reserve([PortBinding(80)], host.reserve) as held:
            ports.append(int(held.bindings[0].host_port))
    assert len(set(ports)) == 3 and min(ports) >= 32768


def test_publish_all_takes_exposed_ports_that_are_not_bound() -> None:
    bound = (PortBinding(80, host_port="8080"),)
    assert publish.wanted(bound, ("80/tcp", "53/udp", "90-91"), True) == [
        *bound, PortBinding(53, "udp"), PortBinding(90), PortBinding(91),
    ]  # fmt: skip
    assert publish.wanted(bound, ("53/udp",), False) == [*bound]


# -- small things ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("kill", 9), ("2", 2), ("RTMIN+3", 37), ("SIGRTMAX", 64)]
)
def test_signals(text: str, number: int) -> None:
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIG", "SIGNOPE", "RTMIN+99", "SIG_DFL", "-9", "RTMIN+x"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(Invalid):
        signals.parse(text)


def test_restart_policies() -> None:
    assert restart.again(Restart("always"), 0, 99, True)
    assert not restart.again(Restart("always"), 0, 0, False)
    assert restart.again(Restart("on-failure", 2), 1, 1, True) and not restart.again(
        Restart("on-failure", 2), 1, 2, True
    )
    assert not restart.again(Restart("on-failure"), 0, 0, True) and not restart.again(
        Restart("no"), 1, 0, True
    )
    delays, last = [], 0.0
    for _ in range(12):
        last = restart.delay(last, 0)
        delays.append(last)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8] and delays[-1] == 60.0
    assert restart.delay(60.0, restart.STEADY_NS) == 0.1


def test_filters() -> None:
    with pytest.raises(Invalid, match="Did you mean 'name'"):
        filtering.known({"nmae": ("x",)}, ("name", "id"))
    assert filtering.labels({"a": "1"}, ("a", "a=1")) and not filtering.labels({"a": "1"}, ("a=2",))
    assert filtering.truth({"x": ("true",)}, "x") is True and filtering.truth({}, "x") is None
    assert filtering.moment("12.5") == 12_500_000_000
    assert filtering.moment("1970-01-01T00:00:01Z") == 1_000_000_000
    for bad in ("", "m", "soon", "1h2x"):
        with pytest.raises(Invalid):
            filtering.moment(bad)
