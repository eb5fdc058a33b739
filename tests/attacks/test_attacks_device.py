"""At accelerators: devices nobody gave, requests an image makes for itself, hooks of device specs, which run as root."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attack_ground import NAIVE, PYTHON, Ground, Link, Without

Attack = Callable[..., None]

OPEN = "if [ -c /{0} ] && (exec 3<>/{0}) 2>/dev/null; then echo OPENED; else echo refused; fi"


def stand_in() -> os.stat_result:
    """A character device that opens without harm, in place of a GPU."""
    for path in ("/dev/fuse", "/dev/loop-control", "/dev/btrfs-control", "/dev/net/tun"):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            continue
        return os.stat(path)
    pytest.skip("this machine has no character device to stand in")


def specify(ground: Ground, kind: str, edits: dict[str, Any], mode: int = 0o644) -> Path:
    """One spec with the devices 0 and all, in the engine's own directory."""
    folder = ground.directory / "run/cdi"
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind.replace('/', '-')}.json"
    devices = [{"name": name, "containerEdits": edits} for name in ("0", "all")]
    path.write_text(json.dumps({"cdiVersion": "1.1.0", "kind": kind, "devices": devices}))
    path.chmod(mode)
    return path


def test_a_node_made_by_hand_opens_nothing(attack: Attack) -> None:
    """CAP_MKNOD is among the default capabilities: what a container may open is the control group's to say."""
    number = stand_in().st_rdev
    major, minor = os.major(number), os.minor(number)

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        script = f"mknod /gpu c {major} {minor} && echo made; {OPEN.format('gpu')}"
        said = ground.run(*flags, "--", "/bin/busybox", "sh", "-c", script)
        assert "made" in said.stdout, said.stdout + said.stderr
        return "OPENED" in said.stdout

    attack(strike, off=("--device-cgroup-rule", f"c {major}:{minor} rwm"))


def test_an_image_cannot_ask_for_devices(attack: Attack) -> None:
    """NVIDIA_VISIBLE_DEVICES in an image gave it every GPU of the host with runtimes that read it there."""
    number = stand_in().st_rdev

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        node = ground.directory / "gpu0"
        if not node.exists():
            os.mknod(node, stat.S_IFCHR | 0o666, number)
        edits = {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": str(node)}]}
        path = specify(ground, "nvidia.com/gpu", edits)
        wishes = ("ENV NVIDIA_VISIBLE_DEVICES=all", "ENV NVIDIA_DRIVER_CAPABILITIES=all")
        image = ground.image("wishes", {}, *wishes)
        said = ground.run(
            *flags,
            "--",
            "sh",
            "-c",
            f"echo $NVIDIA_VISIBLE_DEVICES; {OPEN.format('dev/nvidia0')}",
            image=image,
        )
        path.unlink()
        assert "all" in said.stdout, said.stdout + said.stderr
        return "OPENED" in said.stdout

    attack(strike, off=_READS_THE_IMAGE)


_READS_THE_IMAGE = Without(
    {
        "engine/start.py": """
def _granted(self, record):
    from lading.engine.model import DeviceRequest
    wanted = "NVIDIA_VISIBLE_DEVICES=all" in record.config.env
    return self._rooms.accelerators.grant((DeviceRequest("nvidia", -1),)) if wanted else None
Starter._granted = _granted
"""
    }
)


def test_an_image_s_variables_do_not_reach_a_hook(attack: Attack) -> None:
    """CVE-2025-23266: a hook of the host that inherits the container's environment loads the image's code, as root."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        root = ground.directory / "run/rootfs"  # where the image is mounted while the hook runs
        evil = f"open({str(ground.canary)!r}, 'a').write('reached')\ndef load(file): pass\n"
        image = ground.image("preload", {"evil": None, "evil/json.py": evil}, f"ENV PYTHONPATH={root}/evil")
        program = {
            "hookName": "createContainer",
            "path": PYTHON,
            "args": ["hook", "-c", "import json, sys; json.load(sys.stdin)"],
        }
        path = specify(ground, "acme.com/hook", {"hooks": [program]})
        said = ground.run(*flags, "--device", "acme.com/hook=0", "--", "echo", "ran", image=image)
        path.unlink()
        assert "ran" in said.stdout, said.stdout + said.stderr
        return ground.touched()

    attack(
        strike,
        off=Without(
            {
                "runtime/root.py": """
_held_do_hooks = Root.do_hooks
def _do_hooks(self):
    theirs = self.plan["process"]["env"]
    own = self.plan["hooks"]["createContainer"]
    self.plan["hooks"]["createContainer"] = [(p, words, {**theirs, **env}, s) for p, words, env, s in own]
    _held_do_hooks(self)
Root.do_hooks = _do_hooks
"""
            }
        ),
    )


def test_a_spec_that_others_may_write_runs_nothing(attack: Attack) -> None:
    """Who can write a spec can have any program run as root: such a file must not count."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        code = f"open({str(ground.canary)!r}, 'a').write('reached')"
        program = {"hookName": "createRuntime", "path": PYTHON, "args": ["hook", "-c", code]}
        path = specify(ground, "acme.com/open", {"hooks": [program]}, 0o666)
        said = ground.run(*flags, "--device", "acme.com/open=0", "--", "true")
        path.unlink()
        assert said.returncode == 0 or "others may write it" in said.stderr, said.stderr
        return ground.touched()

    attack(strike, off=Without({"device/catalog.py": "def _check_trust(info):\n    return None\n"}))


def test_a_device_s_mount_does_not_follow_an_image_s_link(attack: Attack) -> None:
    """The place of a driver's library may be a link in the image; what is made there must stay in the container."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        library = ground.directory / "libcuda.so.1"
        library.write_text("a library\n")
        image = ground.image("linked", {"usr": None, "usr/local": Link(str(ground.host))})
        mount = {
            "hostPath": str(library),
            "containerPath": "/usr/local/nvidia/libcuda.so.1",
            "options": ["ro"],
        }
        path = specify(ground, "acme.com/lib", {"mounts": [mount]})
        said = ground.run(
            *flags, "--device", "acme.com/lib=0", "--", "cat", "/usr/local/nvidia/libcuda.so.1", image=image
        )
        path.unlink()
        touched = ground.touched()
        assert touched or "No such file" in said.stderr, "the link leads to nothing within the image"
        return touched

    attack(strike, off=Without({"runtime/root.py": NAIVE}))
