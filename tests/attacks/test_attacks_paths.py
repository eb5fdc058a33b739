"""Paths the image or a neighbour chooses: links at mount points, in volumes, in `cp`, and races for each of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from attack_ground import NAIVE, PYTHON, PYTHON_FLAGS, SECRET, Ground, Link, Without

Attack = Callable[..., None]
ROUNDS = 200

NO_ROOT = Without({"runtime/root.py": NAIVE})
NO_ARCHIVE = Without({"engine/archive.py": NAIVE})


def _mounts(kind: str, ground: Ground, target: str) -> list[str]:
    """Flags that make the engine create something below `target`."""
    if kind == "bind":
        return ["-v", f"{ground.directory}/harmless:{target}/made"]
    if kind == "volume":
        return ["-v", f"harmless:{target}/made"]
    if kind == "tmpfs":
        return ["--tmpfs", f"{target}/made"]
    if kind == "device":
        return ["--device", f"/dev/zero:{target}/made"]
    return ["-w", f"{target}/made"]


KINDS = ["bind", "volume", "tmpfs", "device", "workdir"]


@pytest.mark.parametrize("kind", KINDS)
def test_mount_targets_that_are_links(attack: Attack, kind: str) -> None:
    """The image's links lead, absolutely and by many "..", to a directory of the host's."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        (ground.directory / "harmless").mkdir(exist_ok=True)
        host = str(ground.host)
        links = {"away": Link(host), "up": Link("../" * 20 + host[1:]), "hop": Link("away")}
        image = ground.image("links", links)
        for name in links:
            ground.run(*_mounts(kind, ground, f"/{name}"), "--", "true", image=image)
        return ground.touched()

    attack(strike, off=NO_ROOT)


# Swaps two names in a directory as fast as it can: renameat2(RENAME_EXCHANGE).
_SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chdir(sys.argv[1])
while True:
    libc.renameat2(-100, b"here", -100, b"there", 2)
"""


@contextmanager
def _swapping(ground: Ground) -> Iterator[str]:
    """A neighbour that shares a volume, in which it turns a directory into a link to the host's and back."""
    name = "shared"
    setup = f"mkdir -p /s/here; ln -s {ground.host} /s/there"
    ground.run("-v", f"{name}:/s", "--", "sh", "-c", setup)
    box = ground.up(*PYTHON_FLAGS, "-v", f"{name}:/s", "--", PYTHON, "-c", _SWAP, "/s")
    try:
        yield name
    finally:
        ground.down(box)
        ground("volume", "rm", "-f", name)


def _race(ground: Ground, rounds: int, act: Callable[[str], bool]) -> bool:
    """`act` over and over, until something outside is touched or it says so itself."""
    with _swapping(ground) as volume:
        return any(act(volume) or ground.touched() for _ in range(rounds))


def _mount_race(attack: Attack, kind: str, rounds: int) -> None:
    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        (ground.directory / "harmless").mkdir(exist_ok=True)

        def act(volume: str) -> bool:
            ground.run("-v", f"{volume}:/s", *_mounts(kind, ground, "/s/here"), "--", "true")
            return False

        return _race(ground, rounds, act)

    attack(strike, off=NO_ROOT)


@pytest.mark.parametrize("kind", ["bind", "tmpfs", "device", "workdir"])
def test_mount_targets_that_become_links(attack: Attack, kind: str) -> None:
    """CVE-2021-30465: a neighbour swaps a directory for a link between the look and the mount."""
    _mount_race(attack, kind, ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["bind", "tmpfs", "device", "workdir"])
def test_mount_targets_that_become_links_for_long(attack: Attack, kind: str) -> None:
    _mount_race(attack, kind, 2000)


def test_a_volume_is_filled_from_the_image_alone(attack: Attack) -> None:
    """Copy-up: the image has a link to the host's directory where a volume is mounted."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        links = {"data": Link(str(ground.host)), "up": Link("../" * 20 + str(ground.host)[1:])}
        image = ground.image("copyup", links)
        said = ""
        for name in links:
            ground.run("-v", f"fill{name}:/{name}", "--", "true", image=image)
            said += ground.run("-v", f"fill{name}:/v", "--", "cat", "/v/canary").stdout
            ground("volume", "rm", "-f", f"fill{name}")
        return SECRET in said

    attack(strike, off=Without({"engine/volumes.py": NAIVE}))


def test_copy_up_keeps_links_as_links(attack: Attack) -> None:
    """A link inside the copied directory stays a link; its target's content is not copied."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        entries = {"data": None, "data/leak": Link(str(ground.canary)), "data/dir": Link(str(ground.host))}
        image = ground.image("copylinks", entries)
        done = ground.run(
            "-v", "kept:/data", "--", "sh", "-c", "cat /data/leak /data/dir/canary; true", image=image
        )
        ground("volume", "rm", "-f", "kept")
        return SECRET in done.stdout

    following = """
_held_copy_one = _copy_one
def _copy_one(source, target, name, st, chown):
    if stat.S_ISLNK(st.st_mode):
        path = os.readlink(name, dir_fd=source)
        if os.path.isfile(path):
            with open(path, "rb") as old, os.fdopen(os.open(name, _NEW, 0o600, dir_fd=target), "wb") as new:
                new.write(old.read())
            return
    _held_copy_one(source, target, name, st, chown)
"""
    attack(strike, off=Without({"linux/trees.py": following}))


# -- cp ----------------------------------------------------------------------------------------------------------


def _tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("way", ["out", "in"])
def test_cp_through_links(attack: Attack, way: str, running: bool) -> None:
    """CVE-2018-15664: links of the container's lead `cp` to the host's files, both ways."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        links = {
            "away": Link(str(ground.host)),
            "file": Link(str(ground.canary)),
            "up": Link("../" * 20 + str(ground.host)[1:]),
        }
        image = ground.image("cplinks", links)
        box = ground.up("--", "sleep", "60", image=image)
        if not running:
            ground("kill", box)
        said = ""
        if way == "out":
            for path in ("away/canary", "up/canary", "file", "away/.", "up/."):
                said += ground("cp", "-L", f"{box}:/{path}", "-").stdout
                said += ground("cp", f"{box}:/{path}", "-").stdout
        else:
            for path in ("away", "away/", "away/.", "up/.", "file"):
                ground("cp", "-", f"{box}:/{path}", stdin=_tar("canary", b"changed"))
        ground.down(box)
        return SECRET in said or ground.touched()

    attack(strike, off=NO_ARCHIVE)


def _cp_race(attack: Attack, way: str, rounds: int) -> None:
    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        with _swapping(ground) as volume:
            box = ground.up("-v", f"{volume}:/s", "--", "sleep", "1000")
            try:
                for _ in range(rounds):
                    if way == "out":
                        if SECRET in ground("cp", f"{box}:/s/here/canary", "-").stdout:
                            return True
                        if SECRET in ground("cp", f"{box}:/s/here/.", "-").stdout:
                            return True
                    else:
                        ground("cp", "-", f"{box}:/s/here", stdin=_tar("planted", b"changed"))
                        if ground.touched():
                            return True
                return False
            finally:
                ground.down(box)

    attack(strike, off=NO_ARCHIVE)


@pytest.mark.parametrize("way", ["out", "in"])
def test_cp_while_the_container_swaps_links(attack: Attack, way: str) -> None:
    _cp_race(attack, way, ROUNDS // (2 if way == "out" else 1))


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["out", "in"])
def test_cp_while_the_container_swaps_links_for_long(attack: Attack, way: str) -> None:
    _cp_race(attack, way, 2000)


# -- an image whose own directories are links ----------------------------------------------------------------------


def test_an_image_whose_etc_is_a_link(attack: Attack) -> None:
    """hosts, hostname and resolv.conf are made and mounted below /etc, users looked up there."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        image = ground.image("linketc", {"etc": Link(str(ground.host))})
        ground.run("--", "true", image=image)
        return ground.touched()

    attack(strike, off=NO_ROOT)


# Links on the way to /dev, /proc and /sys are followed, below the image's root.
_LINKS_ALLOWED = "Root._plain_dir = Root._ensure_dir"


def test_an_image_whose_dev_is_a_link(attack: Attack) -> None:
    """Nodes would be made, and files of their names removed, in a directory of the host's that the user may not write."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        image = ground.image("linkdev", {"data": None, "dev": Link("/data")})
        ground.run("-u", "1000", "-v", f"{ground.host}:/data", "--", "true", image=image)
        return ground.touched()

    attack(strike, off=Without({"runtime/root.py": _LINKS_ALLOWED}))


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_an_image_whose_proc_or_sys_is_a_link(attack: Attack, name: str) -> None:
    """Masks must cover what is mounted. Without the rule, and with masks that follow no link, the kernel's files show."""
    secret = {"proc": "interrupts", "sys": "canary"}[name]

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        image = ground.image(f"link{name}", {"data": None, name: Link("/data")})
        if name == "proc":
            return "CPU0" in ground.run("--", "cat", f"/data/{secret}", image=image).stdout
        return "kernel" in ground.run("--", "ls", "/data", image=image).stdout

    literal = """
_held_masked = Root.do_masked_path
def _literal(self, path):
    try:
        os.close(files.openat2(self.root, path, _PATH, 0, files.RESOLVE_IN_ROOT | files.RESOLVE_NO_SYMLINKS))
    except OSError:
        return
    _held_masked(self, path)


Root.do_masked_path = _literal
"""
    attack(strike, off=Without({"runtime/root.py": _LINKS_ALLOWED + literal}))
