"""What an image may hold or say: code the engine could load, files it could choke on, words it could believe."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attack_ground import File, Ground, Without

Attack = Callable[..., None]

# -- code of the image's -------------------------------------------------------------------------------------------

_IN_OPEN = 0x20


@contextmanager
def _watching(directories: list[Path]) -> Iterator[Callable[[], list[str]]]:
    """Names of files opened in these directories meanwhile, by anybody (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    names = {
        libc.inotify_add_watch(fd, os.fsencode(directory), _IN_OPEN): directory for directory in directories
    }

    def opened() -> list[str]:
        found = []
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                return found
            while data:
                watch, mask, _, size = struct.unpack_from("iIII", data)
                name = data[16 : 16 + size].rstrip(b"\0").decode()
                if not mask & 0x40000000:  # a directory being listed
                    found.append(f"{names[watch]}/{name}")
                data = data[16 + size :]

    try:
        yield opened
    finally:
        os.close(fd)


_STDLIB = f"{sys.base_prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
_PLANTED = {
    "/lib": ["libnss_files.so.2", "libnss_dns.so.2", "libpython3.so", "ld-linux-x86-64.so.2", "libc.so.6"],
    "/lib/x86_64-linux-gnu": ["libnss_files.so.2", "libnss_compat.so.2", "libc.so.6", "libgcc_s.so.1"],
    "/lib64": ["ld-linux-x86-64.so.2", "libnss_files.so.2"],
    "/usr/lib/locale": ["locale-archive"],
    "/usr/lib/x86_64-linux-gnu/gconv": ["gconv-modules", "gconv-modules.cache"],
    "/usr/bin": ["ps", "tar", "newuidmap", "python3", "lading", "nvidia-smi"],
    "/etc": ["nsswitch.conf", "ld.so.preload", "ld.so.cache", "localtime", "subuid", "subgid", "shells"],
    f"{_STDLIB}/encodings": ["idna.py", "utf_16.py", "cp1252.py"],
    _STDLIB: [
        "sitecustomize.py",
        "usercustomize.py",
        "stringprep.py",
        "pwd.py",
        "grp.py",
        "json.py",
        "tarfile.py",
    ],
}


def _plant(ground: Ground) -> tuple[list[str], list[Path]]:
    """(flags that show the planted directories, the directories on the host): nothing in the container uses them."""
    flags, directories = [], []
    for target, names in sorted(_PLANTED.items(), key=lambda item: item[0].count("/")):
        directory = ground.directory / ("planted" + target.replace("/", "_"))
        directory.mkdir(exist_ok=True)
        for name in names:
            (directory / name).write_text("raise SystemExit('the image chose this code')\n")
            (directory / name).chmod(0o755)
        directories.append(directory)
        if target != "/etc":
            flags += ["-v", f"{directory}:{target}"]
    for name in _PLANTED["/etc"]:  # one by one, so that passwd stays the image's
        flags += ["-v", f"{ground.directory}/planted_etc/{name}:/etc/{name}"]
    return flags, directories


def test_the_engine_loads_nothing_of_the_image(attack: Attack) -> None:
    """CVE-2019-14271: libraries, codecs, locales, name services and programs, in every verb that touches a container."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        planted, directories = _plant(ground)
        with _watching(directories) as opened:
            box = ground.up(*planted, "-u", "model", "-t", "--", "sleep", "100")
            ground("exec", "-u", "model", "-t", box, "true")
            ground("exec", "-w", "/tmp/ü", "-u", "model:model", box, "true")
            ground("top", box)
            ground("stats", "--no-stream", box)
            ground("cp", f"{box}:/etc/passwd", "-")
            ground("cp", "-", f"{box}:/tmp", stdin=b"\0" * 1024)
            ground("logs", box)
            ground("inspect", box)
            ground("diff", box)
            ground("export", box)
            ground.down(box)
            ground.run(*planted, "-u", "model", "-w", "/tmp/ü", "--", "true")
            found = [name for name in opened() if not name.endswith("/")]
        # export reads every file of the tree, but mounts are not part of it.
        return bool(found)

    lazy = """
_held_become = become
def become(whole, channel, labels):
    try:
        import stringprep
    except BaseException:
        pass
    _held_become(whole, channel, labels)
"""
    attack(strike, off=Without({"runtime/become.py": lazy}))


# -- passwd ----------------------------------------------------------------------------------------------------------

_BLOCKING = """
def read_database(root, path):
    try:
        fd = files.openat2(root, path, os.O_RDONLY)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(400 << 20).decode("utf-8", "replace")
"""


def _peak(pid: int) -> int:
    """The most memory a process ever held, KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _release(directory: str) -> None:
    """Give whoever waits for a writer of a FIFO here a moment of one, so that the engine can be closed."""
    for name in ("passwd", "group"):
        try:
            os.close(os.open(f"{directory}/etc/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW))
        except OSError:
            pass


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_passwd_is_a_fifo(attack: Attack, verb: str) -> None:
    """Opening a FIFO waits for a writer, who never comes."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        if verb == "run":
            fifo = File(kind=tarfile.FIFOTYPE)
            image = ground.image("fifo", {"etc/passwd": fifo, "etc/group": fifo})
            hung = ground.run("-u", "0:0", "--", "true", image=image, timeout=5).returncode == 124
            for _ in range(4):
                for layer in (ground.directory / "root/snapshots").glob("*/d"):
                    _release(str(layer))
                time.sleep(0.1)
            return hung
        box = ground.up("--", "sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd; sleep 100")
        time.sleep(0.2)
        hung = ground("exec", "-u", "0", box, "true", timeout=5).returncode == 124
        pid = json.loads((ground.directory / f"run/c/{box}/state").read_text())["pid"]
        _release(f"/proc/{pid}/root")
        ground.down(box)
        return hung

    attack(strike, off=Without({"engine/users.py": _BLOCKING}))


@pytest.mark.parametrize("kind", ["huge", "zero"])
def test_passwd_never_ends(attack: Attack, kind: str) -> None:
    """A sparse file of many GiB, or a link to /dev/zero: the engine reads a bounded part of a regular file."""
    make = {
        "huge": "rm /etc/passwd; dd if=/dev/zero of=/etc/passwd bs=1 count=0 seek=20G",
        "zero": "rm /etc/passwd; ln -s /dev/zero /etc/passwd",
    }[kind]

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        box = ground.up("--", "sh", "-c", f"{make} 2>/dev/null; sleep 100")
        time.sleep(0.2)
        Path(f"/proc/{ground.pid}/clear_refs").write_text("5")  # the peak is now (proc(5))
        before = _peak(ground.pid)
        ground("exec", "-u", "nobody", box, "true", timeout=20)
        ground.down(box)
        return _peak(ground.pid) - before > 200_000

    attack(strike, off=Without({"engine/users.py": _BLOCKING}))


# -- words -----------------------------------------------------------------------------------------------------------

_LABELS = {
    "io.lading.privileged": "true",
    "com.docker.privileged": "true",
    "com.docker.compose.project": "victim",
    "io.kubernetes.cri-o.userns-mode": "host",
    "io.kubernetes.cri.untrusted-workload": "false",
    "org.opencontainers.image.stopSignal": "SIGKILL",
    "org.systemd.property.DeviceAllow": "block-* rwm",
    "run.oci.keep_original_groups": "1",
    "run.oci.mount_context_type": "rootcontext",
    "run.oci.hooks.stdout": "/tmp/x",
    "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
    "container.apparmor.security.beta.kubernetes.io/x": "unconfined",
    "cdi.k8s.io/attack": "attack.test/dev=all",
    "com.nvidia.volumes.needed": "nvidia_driver",
}


def _facts(ground: Ground, image: str) -> tuple[str, str]:
    """What the container is allowed, by its own account and by inspect."""
    box = ground.up("--", "sleep", "30", image=image)
    kept = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp:", "Groups", "Uid")
    status = ground("exec", box, "cat", "/proc/self/status", "/proc/self/mountinfo").stdout.splitlines()
    inside = "\n".join(
        line if line.startswith(kept) else " ".join(line.split()[4:6])
        for line in status
        if line.startswith(kept) or " / /" in line or "proc" in line
    )
    host = json.dumps(json.loads(ground("inspect", box).stdout)[0]["HostConfig"], sort_keys=True)
    ground.down(box)
    return inside, host


def test_labels_are_only_words(attack: Attack) -> None:
    """Labels of an image that other tools take for orders change nothing. The control is an engine that takes one."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        image = ground.image("labels", {}, *(f'LABEL {key}="{value}"' for key, value in _LABELS.items()))
        return _facts(ground, image) != _facts(ground, ground.image("plain"))

    obeying = """
_held_plan = plan
def plan(record, rootfs, **more):
    from dataclasses import replace
    if record.config.labels.get("io.lading.privileged") == "true":
        record = replace(record, host=replace(record.host, privileged=True))
    return _held_plan(record, rootfs, **more)
"""
    attack(strike, off=Without({"engine/compose.py": obeying}))


def test_an_image_cannot_ask_for_a_device(attack: Attack) -> None:
    """A CDI device brings hooks that run on the host. An image's variables and labels name it; only a user may ask."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        folder = ground.directory / "run/cdi"
        folder.mkdir(exist_ok=True)
        hook = {"hookName": "createRuntime", "path": "/bin/touch", "args": ["touch", f"{ground.host}/hooked"]}
        edits = {"hooks": [hook], "env": ["GIVEN=yes"]}
        document = {
            "cdiVersion": "0.6.0",
            "kind": "attack.test/dev",
            "devices": [{"name": "all", "containerEdits": edits}],
        }
        (folder / "attack.json").write_text(json.dumps(document))
        image = ground.image(
            "asking",
            {},
            "ENV NVIDIA_VISIBLE_DEVICES=all CDI_DEVICES=attack.test/dev=all NVIDIA_DRIVER_CAPABILITIES=all",
            'LABEL cdi.k8s.io/attack="attack.test/dev=all"',
            "ENV OCI_HOOKS=/hooks LD_PRELOAD=/evil.so GCONV_PATH=/evil PYTHONPATH=/evil PYTHONSTARTUP=/evil",
        )
        ground.run(*flags, "--", "true", image=image)
        (folder / "attack.json").unlink()
        return ground.touched()

    attack(strike, off=("--device", "attack.test/dev=all"))


# -- /proc and /sys --------------------------------------------------------------------------------------------------


def test_masked_paths_tell_nothing(attack: Attack) -> None:
    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        said = ground.run(*flags, "--", "cat", "/proc/interrupts", "/proc/keys", "/proc/timer_list").stdout
        return bool(said)

    attack(strike, off=("--security-opt", "systempaths=unconfined"))


def test_masks_come_from_the_host_s_null_device(attack: Attack) -> None:
    """CVE-2025-31133: with /dev under the attacker's hands, /dev/null may be a link to the file that is to be masked."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        ground.run("-v", "devices:/d", "--", "sh", "-c", "rm -f /d/null; ln -s /proc/interrupts /d/null")
        said = ground.run("-v", "devices:/dev", "--", "cat", "/proc/interrupts").stdout
        ground("volume", "rm", "-f", "devices")
        return "CPU0" in said

    believing = """
def _null(self):
    return self._open(b"/dev/null")


Root._null = _null
"""
    attack(strike, off=Without({"runtime/root.py": believing}))


def test_host_wide_settings_are_read_only(attack: Attack) -> None:
    """core_pattern names a program that the host runs as root; the attack writes what is there already."""
    path = "/proc/sys/kernel/core_pattern"
    before = Path(path).read_text()

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        said = ground.run(
            *flags, "--", "sh", "-c", f"cat {path} > /tmp/x && cat /tmp/x > {path} && echo WROTE"
        )
        return "WROTE" in said.stdout

    attack(strike, off=("--security-opt", "systempaths=unconfined"))
    assert Path(path).read_text() == before


def test_settings_are_not_redirected(attack: Attack) -> None:
    """CVE-2019-16884 and its kin: a volume at /proc holds plain files that take what the engine writes to the kernel."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        entries = {"proc": None, "proc/sys": None, "proc/sys/net": None, "proc/sys/net/core": None}
        image = ground.image(
            "fakeproc", {**entries, "proc/sys/net/core/somaxconn": File(b"fake", 0o666)}, "VOLUME /proc"
        )
        words = ("--sysctl", "net.core.somaxconn=77", "-v", "fakeproc:/proc")
        ground.run(*words, "--", "true", image=image)
        said = ground.run("-v", "fakeproc:/p", "--", "cat", "/p/sys/net/core/somaxconn").stdout
        ground("volume", "rm", "-f", "fakeproc")
        return "77" in said

    inside = """
def _inside(self, path, value):
    fd = self._open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, value)
    os.close(fd)


Root.do_sysctl = _inside
"""
    attack(
        strike,
        off=Without({"runtime/root.py": inside, "engine/binds.py": "def not_procfs(clean, source=''): pass"}),
    )


# -- sockets -----------------------------------------------------------------------------------------------------------

_ABSTRACT = """
import socket
for line in open("/proc/net/unix").read().splitlines()[1:]:
    words = line.split()
    if len(words) < 8 or not words[7].startswith("@"):
        continue
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        s = socket.socket(socket.AF_UNIX, kind)
        s.settimeout(1)
        try:
            s.connect("\\0" + words[7][1:])
            print("CONNECTED", words[6], words[7], flush=True)
        except OSError:
            pass
"""


def _held_sockets(ground: Ground) -> set[str]:
    """Inodes of the sockets that the engine's processes hold: the daemon, zygote, monitors, those that wait."""
    found: set[str] = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            comm = Path(f"/proc/{name}/comm").read_text()
            if int(name) != ground.pid and not comm.startswith("lading"):
                continue
            links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
        except OSError:
            continue
        found |= {link[8:-1] for link in links if link.startswith("socket:[")}
    return found


def test_no_abstract_socket_of_the_engine(attack: Attack) -> None:
    """CVE-2020-15257: a container in the host's network reaches every abstract socket there."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        box = ground.up("--", "sleep", "100")
        said = ground.python(_ABSTRACT, net="host")
        held = _held_sockets(ground)
        ground.down(box)
        return any(line.split()[1] in held for line in said.splitlines() if line.startswith("CONNECTED"))

    abstract = """
def _listen(self):
    self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    self.listener.bind(b"\\0lading-ctl-%d" % os.getpid())
    self.listener.listen(16)
    self._watch(self.listener.fileno(), self._accept)


Monitor._listen = _listen
"""
    attack(strike, off=Without({"runtime/monitor.py": abstract}))
