"""The runtime spec of containers, compared whole with what was reviewed once, and with the OCI schema's rules.

LADING_GOLDEN=write writes the files anew; look at the difference before committing it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lading.base.errors import Invalid
from lading.engine import caps, devices, resources, spec
from lading.engine.model import Mount, Resources, Ulimit
from lading.engine.users import User

GOLDEN = Path(__file__).with_name("specs")
ROOT = User(0, 0, (0,), "/root")
SPACES = {"mount": "", "pid": "", "ipc": "", "uts": "", "network": "", "cgroup": ""}

PLANS = {
    "default": spec.Plan(
        id="0" * 64,
        args=("gunicorn", "--bind", "0.0.0.0:5000", "app:app"),
        env=("PATH=/usr/bin", "LANG=C.UTF-8"),
        user=User(1000, 1001, (1001, 44), "/home/model"),
        cwd="/app",
        hostname="abc",
        caps=caps.DEFAULT,
        etc=(spec.Bind("/c/hosts", "/etc/hosts"), spec.Bind("/c/resolv.conf", "/etc/resolv.conf")),
        namespaces=SPACES,
        resources=resources.compose(Resources(memory=1 << 30), list(devices.DEFAULT_RULES)),
    ),
    "much": spec.Plan(
        id="1" * 64,
        args=("sh",),
        env=("TERM=dumb", "EMPTY="),
        user=ROOT,
        tty=True,
        hostname="h",
        domainname="d.example",
        no_new_privileges=False,
        ulimits=(Ulimit("memlock", -1, -1), Ulimit("nofile", 5, 6)),
        oom_score_adj=-5,
        read_only=True,
        shm_size=1 << 30,
        mounts=(
            spec.Bind("/host", "/data", True, "rslave"),
            Mount("tmpfs", "/data/t", tmpfs_size=4096, tmpfs_options="exec"),
            spec.Bind("/dev/shm2", "/dev/shm"),
        ),
        trust_env=(("SSL_CERT_FILE", "/ca"),),
        namespaces={**SPACES, "network": "/proc/7/ns/net", "user": ""},
        sysctls={"net.core.somaxconn": "1"},
        id_mappings=((0, 100000, 65536),),
    ),
    "privileged": spec.Plan(
        id="2" * 64, args=("sh",), env=(), user=ROOT, caps=caps.ALL, privileged=True, system_paths=False,
        no_new_privileges=False, namespaces={"mount": "", "ipc": "", "uts": ""},
        resources={"devices": list(devices.ALL_RULES)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PLANS))
def test_spec(name: str) -> None:
    composed = spec.compose(PLANS[name])
    text = json.dumps(composed, indent=2, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("LADING_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def destinations(plan: spec.Plan) -> list[str]:
    return [mount["destination"] for mount in spec.compose(plan)["mounts"]]


@pytest.mark.parametrize("name", sorted(PLANS))
def test_what_holds_for_every_container(name: str) -> None:
    composed: dict[str, Any] = spec.compose(PLANS[name])
    places = destinations(PLANS[name])
    assert len(places) == len(set(places))
    for index, place in enumerate(places):  # a parent mounted after its child would hide it
        assert not any(later != place and place.startswith(later + "/") for later in places[index + 1 :])
    process = composed["process"]
    assert "inheritable" not in process["capabilities"] and "ambient" not in process["capabilities"]
    assert any(item.startswith("PATH=") for item in process["env"])
    keys = [item.partition("=")[0] for item in process["env"]]
    assert len(keys) == len(set(keys))


def test_privileged_hides_nothing() -> None:
    linux = spec.compose(PLANS["privileged"])["linux"]
    assert "maskedPaths" not in linux and "readonlyPaths" not in linux and "seccomp" not in linux


def test_unknown_limits_are_refused() -> None:
    for limit in (Ulimit("nope", 1, 1), Ulimit("core", 5, 2), Ulimit("core", -2, 5)):
        with pytest.raises(Invalid):
            spec.rlimits([limit])
