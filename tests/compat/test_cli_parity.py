"""The same command line given to docker's own client and to ours, against the same daemon: same requests, same output.

Skipped where the machine has no `docker` client; no docker daemon is needed or used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from cli_daemon import Daemon, Request, lading

DOCKER = shutil.which("docker")
pytestmark = pytest.mark.skipif(DOCKER is None, reason="no docker client here to compare with")

NOW = 1_700_000_000
C1, C2 = "1a" * 32, "2b" * 32
CONTAINERS = [
    {
        "Id": C1,
        "Names": ["/api-modelo-ml"],
        "Image": "meu-modelo-ml:v1.0",
        "ImageID": "sha256:" + "3c" * 32,
        "Command": "gunicorn --bind 0.0.0.0:5000 app:app",
        "Created": NOW,
        "State": "running",
        "Status": "Up 3 seconds (healthy)",
        "Labels": {"a": "1"},
        "SizeRw": 12345,
        "SizeRootFs": 987654321,
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 5000, "PublicPort": 5000, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 5000, "PublicPort": 5000, "Type": "tcp"},
            {"PrivatePort": 8001, "Type": "tcp"},
            {"PrivatePort": 8000, "Type": "tcp"},
            {"PrivatePort": 53, "Type": "udp"},
        ],
        "Mounts": [
            {"Type": "volume", "Name": "v" * 64, "Driver": "local"},
            {"Type": "bind", "Source": "/srv/data"},
        ],
        "NetworkSettings": {"Networks": {"bridge": {}}},
    },
    {
        "Id": C2,
        "Names": ["/tidy_turing", "/other/link"],
        "Image": "sha256:" + "3c" * 32,
        "ImageID": "sha256:" + "3c" * 32,
        "Command": "sh -c 'echo \"hi\"'",
        "Created": NOW,
        "State": "exited",
        "Status": "Exited (0) 2 minutes ago",
        "Labels": {},
        "Ports": [],
        "Mounts": [],
        "NetworkSettings": {"Networks": {}},
    },
]
IMAGES = [
    {
        "Id": "sha256:" + "3c" * 32,
        "RepoTags": ["meu-modelo-ml:v1.0", "meu-modelo-ml:latest"],
        "RepoDigests": ["meu-modelo-ml@sha256:" + "4d" * 32],
        "Created": NOW,
        "Size": 412_345_678,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": None,
        "ParentId": "",
    },
    {
        "Id": "sha256:" + "5e" * 32,
        "RepoTags": [],
        "RepoDigests": [],
        "Created": NOW,
        "Size": 1234,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": {"x": "y"},
        "ParentId": "",
    },
]
HISTORY = [
    {
        "Id": "sha256:" + "3c" * 32,
        "Created": NOW,
        "CreatedBy": 'CMD ["gunicorn" "app:app"] ' + "x" * 60,
        "Size": 0,
        "Comment": "made",
        "Tags": ["a:b"],
    },
    {
        "Id": "<missing>",
        "Created": NOW,
        "CreatedBy": "RUN pip install",
        "Size": 305_000_000,
        "Comment": "",
        "Tags": None,
    },
]
INSPECTED = {
    "Id": C1,
    "Name": "/api-modelo-ml",
    "State": {"Running": True, "ExitCode": 0, "Health": None},
    "Config": {"Image": "x:1", "Env": ["A=1", "B=2"], "Labels": {"k": "v"}, "Tty": False},
    "NetworkSettings": {
        "Ports": {
            "5000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "5000"}, {"HostIp": "::", "HostPort": "5000"}],
            "53/udp": None,
        }
    },
    "Mounts": [],
}
NETWORKS = [
    {"Id": "6f" * 32, "Name": "host", "Driver": "host", "Scope": "local", "EnableIPv4": True, "Labels": {}},
    {
        "Id": "7a" * 32,
        "Name": "bridge",
        "Driver": "bridge",
        "Scope": "local",
        "EnableIPv4": True,
        "Labels": {"q": "r"},
    },
]
VOLUMES = {
    "Volumes": [
        {"Name": "data", "Driver": "local", "Scope": "local", "Mountpoint": "/m", "Labels": None},
        {"Name": "cache", "Driver": "local", "Scope": "local", "Mountpoint": "/n", "Labels": {"a": "b"}},
    ]
}
TOP = {
    "Titles": ["UID", "PID", "CMD"],
    "Processes": [["root", "1", "gunicorn --bind 0.0.0.0:5000 app:app"], ["1000", "22", "x"]],
}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(str(tmp_path / "d.sock"))
    served.on("GET", "/containers/json", lambda _: CONTAINERS)
    served.on("GET", "/images/json", lambda _: IMAGES)
    served.on("GET", "/images/.*/history", lambda _: HISTORY)
    served.on("GET", "/containers/[^/]*/json", lambda _: INSPECTED)
    served.on("GET", "/networks", lambda _: NETWORKS)
    served.on("GET", "/volumes", lambda _: VOLUMES)
    served.on("GET", "/containers/[^/]*/top", lambda _: TOP)
    served.on(
        "GET",
        "/containers/[^/]*/changes",
        lambda _: [{"Kind": 0, "Path": "/a"}, {"Kind": 1, "Path": "/b"}, {"Kind": 2, "Path": "/c"}],
    )
    served.on("GET", "/info", lambda _: {"OSType": "linux"})
    served.on("POST", "/containers/create", lambda _: (201, {"Id": C1, "Warnings": []}))
    served.on(
        "POST",
        "/containers/[^/]+/(start|stop|restart|kill|pause|unpause|rename|resize)",
        lambda _: (204, b""),
    )
    served.on("POST", "/containers/[^/]+/update", lambda _: {"Warnings": []})
    served.on("POST", "/containers/[^/]+/exec", lambda _: (201, {"Id": "e" * 64}))
    served.on("POST", "/exec/[^/]+/start", lambda _: (200, b""))
    served.on("DELETE", "/containers/[^/]+", lambda _: (204, b""))
    served.on("DELETE", "/(volumes|networks)/[^/]+", lambda _: (204, b""))
    served.on("DELETE", "/images/.*", lambda _: [{"Untagged": "a:b"}, {"Deleted": "sha256:" + "1" * 64}])
    served.on("POST", "/images/.*/tag", lambda _: (201, b""))
    served.on("POST", "/volumes/create", lambda r: (201, {"Name": (r.json or {}).get("Name") or "made"}))
    served.on("POST", "/networks/create", lambda _: (201, {"Id": "6f" * 32, "Warning": ""}))
    served.on("POST", "/networks/[^/]+/(dis)?connect", lambda _: (200, b""))
    served.on("GET", "/networks/[^/]+", lambda _: NETWORKS[1])
    served.on("POST", "/commit", lambda _: (201, {"Id": "sha256:" + "9" * 64}))
    served.on("POST", "/build/prune", lambda _: {"CachesDeleted": None, "SpaceReclaimed": 0})
    served.on("POST", "/containers/prune", lambda _: {"ContainersDeleted": [C1], "SpaceReclaimed": 12345})
    served.on("POST", "/volumes/prune", lambda _: {"VolumesDeleted": ["v"], "SpaceReclaimed": 5})
    served.on("POST", "/networks/prune", lambda _: {"NetworksDeleted": ["n"]})
    served.on(
        "POST",
        "/images/prune",
        lambda _: {
            "ImagesDeleted": [{"Untagged": "a:b"}, {"Deleted": "sha256:1"}],
            "SpaceReclaimed": 12_000_000,
        },
    )
    yield served
    served.close()


def docker(daemon: Daemon, *argv: str, cwd: str | None = None) -> subprocess.CompletedProcess[bytes]:
    assert DOCKER
    env = {
        **os.environ,
        "TZ": "UTC",
        "DOCKER_CONFIG": str(Path(daemon.path).parent),
        "DOCKER_CLI_HINTS": "false",
    }
    return subprocess.run(
        [DOCKER, "-H", daemon.host, *argv],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
        env=env,
        cwd=cwd,
        check=False,
    )


OUTPUT = [
    "ps",
    "ps -a --no-trunc",
    "ps -q",
    "ps -q --no-trunc",
    "ps -s",
    "container ls",
    "ps -n 3",
    "ps -l",
    "ps --format {{.Names}}",
    "ps --format json",
    "ps --format table",
    "ps --format raw{{.ID}}",
    "ps --format {{json.}}",
    "ps --format {{.ID}}|{{.Ports}}|{{.Status}}|{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}|{{.State}}",
    "ps --no-trunc --format {{.ID}}|{{.Image}}|{{.Command}}|{{.Names}}|{{.Mounts}}|{{.Labels}}|{{.CreatedAt}}",
    "ps --format table{{.Names}}",
    "ps --format {{.Size}}",
    'ps --format {{.Label"a"}}',
    "images",
    "images -q",
    "images --no-trunc",
    "images --digests",
    "image ls --format {{.Repository}}:{{.Tag}}",
    "images --format json",
    "images --format {{.ID}}{{.Size}}{{.CreatedAt}}{{.Digest}}",
    "history x",
    "history -q x",
    "history --no-trunc x",
    "history -H=false x",
    "history --format {{.ID}}{{.Comment}} x",
    "network ls",
    "network ls -q",
    "network ls --no-trunc",
    "network ls --format json",
    "volume ls",
    "volume ls -q",
    "volume ls --format {{.Name}}:{{.Mountpoint}}",
    "inspect --type container x",
    "inspect -f {{.Name}} x",
    "container inspect -f {{json.Config.Env}} x",
    "inspect -f {{range.Config.Env}}{{println.}}{{end}} x",
    'inspect -f {{index.Config.Labels"k"}} x',
    "inspect -f {{.State.Running}}{{.State.ExitCode}}{{.Mounts}}{{.Config.Labels}} x",
    "inspect -f {{len.Config.Env}}{{if.State.Running}}up{{else}}down{{end}} x",
    'inspect -f {{(index(index.NetworkSettings.Ports"5000/tcp")0).HostPort}} x',
    "inspect -f {{range$p,$c:=.NetworkSettings.Ports}}{{$p}}{{end}} x",
    'inspect -f {{upper.Name}}{{join.Config.Env"-"}} x',
    'inspect -f {{printf"%q-%5d-%s"(.Name)(3)(.Id)}} x',
    "inspect -f {{slice.Id(0)(12)}} x",
    "port x",
    "port x 5000",
    "port x 53/udp",
    "top x",
    "top x -ef",
    "diff x",
    "start a b",
    "stop a b",
    "restart a",
    "kill a",
    "pause a",
    "unpause a",
    "rm a b",
    "rename a b",
    "rmi a:b",
    "tag a b",
    "volume create v",
    "volume rm a b",
    "network create n",
    "network rm a",
    "commit x y:z",
    "container prune -f",
    "volume prune -f",
    "network prune -f",
    "image prune -f",
    "image prune -af",
    "system prune -f",
    "create img cmd",
    "run -d img",
]


def words(line: str) -> list[str]:
    """Arguments of a line. Inside braces the lines have no blanks, for reading; Go wants them."""
    out = []
    for word in line.split():
        for compact, spaced in (
            ("{{json.", "{{json ."),
            ("{{println.", "{{println ."),
            ("{{range.", "{{range ."),
            ("{{index.", "{{index ."),
            ("{{len.", "{{len ."),
            ("{{if.", "{{if ."),
            ("(index.", "(index ."),
            ('Ports"5', 'Ports "5'),
            (")0)", ") 0)"),
            ("{{(index(", "{{(index ("),
            ('Labels"', 'Labels "'),
            ("{{range$p,$c:=.", "{{range $p, $c := ."),
            ("{{upper.", "{{upper ."),
            ('{{join.Config.Env"', '{{join .Config.Env "'),
            ('{{printf"%q-%5d-%s"(.Name)(3)(.Id)', '{{printf "%q-%5d-%s" .Name 3 .Id'),
            ("{{slice.Id(0)(12)", "{{slice .Id 0 12"),
            ("table{{", "table {{"),
            ('.Label"', '.Label "'),
        ):
            word = word.replace(compact, spaced)
        out.append(word)
    return out


@pytest.mark.parametrize("line", OUTPUT)
def test_same_output(daemon: Daemon, line: str) -> None:
    theirs, ours = docker(daemon, *words(line)), lading(daemon, *words(line))
    assert shown(ours) == shown(theirs), (ours.stderr, theirs.stderr)
    assert ours.returncode == theirs.returncode, (ours.stderr, theirs.stderr)


def shown(ran: subprocess.CompletedProcess[bytes]) -> Any:
    """The output; JSON by its meaning, since Go escapes other characters than we do. (Platform is null in docker's.)"""
    text = ran.stdout.decode()
    if not text.startswith("{"):
        return text
    values = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in value.items() if k != "Platform"} for value in values]


CREATE = [
    "img",
    "img cmd -a --flag",
    "-it img sh",
    "--name n -p 5000:5000 img",
    "-p 127.0.0.1:80:8080/udp -p 9000 -p 7000-7002:8000-8002 img",
    "-p 8000-8010:80 img",
    "-p [::1]:80:80 img",
    "-P --expose 80 --expose 90-92/udp img",
    "-v /a:/b:ro -v data:/c -v /anon img",
    "-v ./rel:/b img",
    "--mount type=bind,source=/a,target=/b,readonly img",
    "--mount type=volume,src=v,dst=/d,volume-nocopy img",
    "--mount type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770 img",
    "--tmpfs /run:size=1m,exec --tmpfs /x img",
    "-e A=1 -e B= -e HOME_OF_NOBODY img",
    "--env-file env img",
    "-w /app -u 1000:1000 --hostname h --domainname d img",
    "--entrypoint /bin/sh img -c x",
    "-m 512m --memory-swap -1 --memory-reservation 1.5g --cpus 0.5 -c 512 img",
    "--cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit 100 --cpu-period 50000 --cpu-quota 25000 img",
    "--device /dev/null --device /dev/zero:/dev/z:rw --device-cgroup-rule c_1:3_rwm img",
    "--device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:100 --blkio-weight 300 img",
    "--cap-add NET_ADMIN --cap-drop ALL --privileged --read-only img",
    "--shm-size 128m --ulimit nofile=1024:2048 --ulimit nproc=5 img",
    "--restart on-failure:3 --init img",
    "--restart always img",
    "--network none img",
    "--network n --network-alias a --ip 10.0.0.5 img",
    "--network name=n,alias=x,ip=10.0.0.9 --network m img",
    "--add-host a:1.2.3.4 --add-host b=::1 --dns 1.1.1.1 --dns-search x --dns-option ndots:1 img",
    "--label a=b --label c -l d=e img",
    "--health-cmd true --health-interval 5s --health-retries 2 --health-timeout 1m30s --health-start-period 10s img",
    "--no-healthcheck img",
    "--stop-signal SIGINT --stop-timeout 5 img",
    "--security-opt no-new-privileges --security-opt seccomp=unconfined img",
    "--security-opt systempaths=unconfined img",
    "--userns host --ipc host --pid host --uts host --cgroupns host img",
    "--volumes-from a:ro --group-add audio --sysctl net.ipv4.ip_forward=1 img",
    "--oom-score-adj -500 --oom-kill-disable img",
    "--log-driver json-file --log-opt max-size=10m img",
    "--runtime runc --rm img",
    "-a stdout -i img",
    "-it=false img",
    "--pull never img",
    "--annotation k=v --cgroup-parent /x --storage-opt size=1G --volume-driver local img",
    "-p target=80,published=8080,protocol=udp img",
    "--device vendor.com/gpu=0 img",
    "-h=x -p=1:2 -eA=b img",
    "--mac-address 92:d0:c6:0a:29:33 img",
]


def pruned(value: Any) -> Any:
    """Without what says nothing: docker's client sends every field, ours only those that were asked for."""
    if isinstance(value, dict):
        out = {k: pruned(v) for k, v in value.items()}
        return {k: v for k, v in out.items() if v not in (None, "", [], {}, False, 0) or k in _SPEAKING}
    if isinstance(value, list):
        return [pruned(v) for v in value]
    return value


def ordered(body: dict[str, Any]) -> dict[str, Any]:
    """With lists whose order docker's client leaves to chance sorted."""
    return {k: sorted(v) if k in ("Env", "Binds", "Aliases") and v else v for k, v in body.items()}


_SPEAKING = {"MaskedPaths", "ReadonlyPaths"}
_OF_DOCKER_ONLY = {"ConsoleSize", "MemorySwappiness", "Shell"}


def normal(body: dict[str, Any]) -> Any:
    body = dict(body)
    caps = {
        k: [c.removeprefix("CAP_") for c in body["HostConfig"].get(k) or []] for k in ("CapAdd", "CapDrop")
    }
    body["HostConfig"] = {**body["HostConfig"], **caps}
    host = {k: v for k, v in body.pop("HostConfig").items() if k not in _OF_DOCKER_ONLY}
    networking = body.pop("NetworkingConfig", None) or {}
    host.setdefault("NetworkMode", "default")
    for key in ("MaskedPaths", "ReadonlyPaths"):
        if host.get(key, "absent") is None:
            del host[key]
    # An anonymous port keeps its key; its binding without a port or address says "any".
    exposed = sorted(body.pop("ExposedPorts", None) or {})
    volumes = sorted(body.pop("Volumes", None) or {})
    bindings = {k: [pruned(b) for b in v] for k, v in (host.pop("PortBindings", None) or {}).items()}
    tmpfs, sysctls = host.pop("Tmpfs", None) or {}, host.pop("Sysctls", None) or {}
    restart = host.pop("RestartPolicy", None) or {}
    policy = (restart.get("Name") or "no", restart.get("MaximumRetryCount") or 0)
    endpoints = {k: pruned(v or {}) for k, v in (networking.get("EndpointsConfig") or {}).items()}
    if endpoints == {host["NetworkMode"]: {}}:
        endpoints = {}
    return (
        pruned(ordered(body)),
        pruned(ordered(host)),
        exposed,
        volumes,
        bindings,
        tmpfs,
        sysctls,
        policy,
        endpoints,
    )


@pytest.mark.parametrize("line", CREATE)
def test_same_create_request(daemon: Daemon, line: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=1\n\n  B=two words\nNOT_SET_ANYWHERE\nC=\n")
    argv = [word.replace("_1:3_", " 1:3 ") for word in line.split()]
    theirs = docker(daemon, "create", *argv, cwd=str(tmp_path))
    assert theirs.returncode == 0, theirs.stderr
    wanted = daemon.last("POST", "/containers/create")
    ours = lading(daemon, "create", *argv, cwd=str(tmp_path))
    assert ours.returncode == 0, ours.stderr
    got = daemon.last("POST", "/containers/create")
    assert got is not wanted
    assert normal(got.json) == normal(wanted.json)
    assert got.query.get("name") == wanted.query.get("name")


REFUSED = [
    "create --memory abc img",
    "create -p 99999:80 img",
    "create -p a:b:c:d:e img",
    "create --nonsense img",
    "create -Z img",
    "create --mount nonsense img",
    "create --ulimit nofile img",
    "create --device a:b:c:d img",
    "create -a nothing img",
    "create --env-file /nonexistent img",
    "create --no-healthcheck --health-cmd x img",
    "create --security-opt seccomp=/nonexistent img",
    "create --tty=perhaps img",
    "run --rm --restart always img",
    "run -d -a stdout img",
    "create --pids-limit x img",
    "create --add-host nothing img",
    "create --health-interval 5 img",
    "create -m",
    "create --cpus x img",
    "run --pull sometimes img",
    "create --expose 1:2 img",
    "create --sysctl novalue img",
    "ps --nonsense",
    "ps -f nothing",
    "nonsense",
    "ps extra",
    "rm",
    "run",
    "rename a",
    "inspect --type nonsense x",
    "volume nonsense",
    "stop -t x a",
    "logs -n x a",
    "exec a",
    "start -a x y",
]


@pytest.mark.parametrize("line", REFUSED)
def test_both_refuse_with_the_same_status(daemon: Daemon, line: str, tmp_path: Path) -> None:
    theirs, ours = docker(daemon, *line.split()), lading(daemon, *line.split())
    assert theirs.returncode != 0, "docker takes it: this line belongs elsewhere"
    assert ours.returncode == theirs.returncode, (ours.stderr, theirs.stderr)
    assert not ours.stdout and ours.stderr.startswith(b"lading: ") and b"Traceback" not in ours.stderr
    assert not [r for r in daemon.requests if r.method == "POST" and "create" in r.path]


REQUESTS = [
    ("ps -a -f status=running -f label=a=b -n 2 -s", "GET", "/containers/json"),
    ("ps -af status=exited", "GET", "/containers/json"),
    ("images -a -f dangling=true repo", "GET", "/images/json"),
    ("stop -t 5 -s INT a", "POST", "/containers/a/stop"),
    ("restart -t 0 a", "POST", "/containers/a/restart"),
    ("kill -s HUP a", "POST", "/containers/a/kill"),
    ("rm -fv a", "DELETE", "/containers/a"),
    ("rmi -f a/b:c", "DELETE", "/images/a/b:c"),
    ("tag a b/c:d", "POST", "/images/a/tag"),
    ("rename a b", "POST", "/containers/a/rename"),
    ("commit -m msg -a me -c ENV_A=1 x repo:tag", "POST", "/commit"),
    ("volume create -d local -o type=tmpfs --label a=b v", "POST", "/volumes/create"),
    ("volume rm -f v", "DELETE", "/volumes/v"),
    ("volume prune -af", "POST", "/volumes/prune"),
    (
        "network create --internal --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.2.0/24 -o a=b --label c=d n",
        "POST",
        "/networks/create",
    ),
    ("network connect --ip 10.1.0.9 --alias z n c", "POST", "/networks/n/connect"),
    ("network disconnect -f n c", "POST", "/networks/n/disconnect"),
    ("update -m 1g --cpus 2 --restart no a", "POST", "/containers/a/update"),
    ("exec -d -e A=1 -w /x -u me --privileged a cmd --flag", "POST", "/containers/a/exec"),
    ("image prune -f --filter until=24h", "POST", "/images/prune"),
    ("top a aux", "GET", "/containers/a/top"),
]


@pytest.mark.parametrize(("line", "method", "path"), REQUESTS, ids=[row[0] for row in REQUESTS])
def test_same_request(daemon: Daemon, line: str, method: str, path: str) -> None:
    argv = [word.replace("ENV_A", "ENV A") for word in line.split()]
    assert docker(daemon, *argv).returncode == 0
    wanted = daemon.last(method, path)
    assert lading(daemon, *argv).returncode == 0
    got = daemon.last(method, path)
    assert got is not wanted
    assert said(got) == said(wanted)


def said(request: Request) -> Any:
    """A request's meaning: the query without what is empty or zero, and the body without what says nothing."""
    query = {k: v for k, v in request.query.items() if v not in ([""], ["0"], ["false"]) or k == "t"}
    query = {k: ["1"] if v == ["true"] else v for k, v in query.items()}
    if "filters" in query:
        query["filters"] = json.loads(query["filters"][0])
    if "repo" in query:  # docker's client writes the name out, ours leaves that to the daemon
        query["repo"] = [query["repo"][0].removeprefix("docker.io/").removeprefix("library/")]
    body = pruned(request.json) if request.body else None
    if request.path == "/commit":
        body = None
        query.setdefault("pause", ["1"])
    if isinstance(body, dict):
        body.pop("EnableIPv4", None)
        (body.get("IPAM") or {}).pop("Driver", None)
    return query, body
