"""One container takes all it can get, and a neighbour must not notice; one process is taken for another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from attack_ground import PYTHON, PYTHON_FLAGS, SECRET, Ground, Without

Attack = Callable[..., None]

# Prints the longest pause it saw, in milliseconds, while it does a little work every 5 ms.
_NEIGHBOUR = """
import time, signal, sys
worst, last = 0.0, time.monotonic()
def tell(*_):
    print("WORST", round(worst * 1000, 1), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, tell)
while True:
    time.sleep(0.005)
    open("/tmp/x", "w").write("x" * 4096)
    now = time.monotonic()
    worst, last = max(worst, now - last), now
"""
_PATIENCE_MS = 2000.0
"""A neighbour's longest pause; generous, since the machine that runs the tests is shared."""


def _beside(ground: Ground, act: Callable[[], bool]) -> bool:
    """`act` beside a neighbour; also whether the neighbour was kept waiting or ended."""
    box = ground.up(*PYTHON_FLAGS, "--", PYTHON, "-c", _NEIGHBOUR)
    try:
        escaped = act()
        ground("stop", "-t", "5", box)
        said = ground("logs", box).stdout
        assert "WORST" in said, "the neighbour died"
        worst = float(said.split()[-1])
        return escaped or worst > _PATIENCE_MS
    finally:
        ground.down(box)


# Forks up to a bound of its own, so that a control without a limit does no harm here.
_BOMB = """
import os, time
made = 0
for _ in range(600):
    try:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
    except OSError:
        break
print("MADE", made)
"""


def test_a_fork_bomb_ends_at_the_limit(attack: Attack) -> None:
    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        def act() -> bool:
            said = ground.python(_BOMB, flags=flags or ("--pids-limit", "100"))
            return int(said.split("MADE")[1]) > 100

        return _beside(ground, act)

    attack(strike, off=("--pids-limit", "-1"))


_EAT = """
import mmap
held = mmap.mmap(-1, 160 << 20)
for at in range(0, len(held), 4096):
    held[at] = 1
print("ATE")
"""


def test_memory_ends_at_the_limit(attack: Attack) -> None:
    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        limited = flags or ("--memory", "64m", "--memory-swap", "64m")
        return _beside(ground, lambda: "ATE" in ground.python(_EAT, flags=limited))

    attack(strike, off=("--memory", "512m"))


@pytest.mark.parametrize("where", ["/dev/shm", "/dev", "/tmpfs"])
def test_memory_file_systems_are_bounded(attack: Attack, where: str) -> None:
    """What a container writes to a tmpfs is the host's memory: each is bounded, and charged to the container."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        asked = flags or (("--tmpfs", "/tmpfs:size=32m") if where == "/tmpfs" else ())
        fill = f"dd if=/dev/zero of={where}/x bs=1M count=200 2>/dev/null; wc -c < {where}/x"
        said = ground.run(*asked, "--", "sh", "-c", fill).stdout
        return int(said or 0) > 70 << 20

    off: tuple[str, ...] | Without = ("--shm-size", "256m")
    if where == "/dev":
        widened = """
_bounded = mounts
def mounts(plan):
    found = _bounded(plan)
    found[1]["options"].remove("size=65536k")
    return found
"""
        off = Without({"engine/spec.py": widened})
    elif where == "/tmpfs":
        off = ("--tmpfs", "/tmpfs")
    attack(strike, off=off)


_FDS = """
held = []
try:
    while len(held) < 700000:
        held.append(open("/dev/null"))
except OSError:
    pass
print("HELD", len(held))
"""


def test_descriptors_end_at_the_limit(attack: Attack) -> None:
    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        said = ground.python(_FDS, flags=flags)
        return int(said.split("HELD")[1]) > 1024

    attack(strike, off=("--ulimit", "nofile=4096:4096"))


def test_a_flood_of_output_does_not_fill_the_disk(attack: Attack) -> None:
    """Logs are rotated by default: three files of 10 MiB, whatever the container prints."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        name = "flood"
        command = ("sh", "-c", "yes " + "x" * 500 + " | head -c 60000000")
        plain = ground.image("plain")
        ground("run", "--name", name, "-d", "--network", "none", *flags, plain, *command)
        ground("wait", name, timeout=60)
        box = json.loads(ground("inspect", name).stdout)[0]["Id"]
        size = sum(
            path.stat().st_size
            for path in (ground.directory / "root/containers" / box).iterdir()
            if path.is_file()
        )
        ground.down(name)
        return size > 45 << 20

    attack(strike, off=("--log-opt", "max-size=-1"))


_INODES = """
made = 0
try:
    for made in range(30000):
        open("/few/%d" % made, "w").close()
except OSError:
    pass
print("MADE", made)
"""


def test_inodes_end_at_the_limit(attack: Attack) -> None:
    """Files without content cost memory as well; a tmpfs takes a bound on their number."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        said = ground.python(_INODES, flags=flags or ("--tmpfs", "/few:size=64m,nr_inodes=1000"))
        return int(said.split("MADE")[1]) > 1000

    attack(strike, off=("--tmpfs", "/few:size=64m"))


def test_processors_are_shared(attack: Attack) -> None:
    """Spinning processes of a container with a quota get no more than it: measured by the container's own group."""
    spin = "import time, os\nfor _ in range(3): os.fork()\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\n"
    spin += "print('USED', sum(os.times()[:2]), flush=True)"

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        used: list[float] = []

        def act() -> bool:
            said = ground.python(spin, flags=flags or ("--cpus", "0.2"))
            used.extend(float(word) for word in said.split() if word != "USED")
            return sum(used) > 1.0

        return _beside(ground, act)

    attack(strike, off=("--cpus", "2"))


# -- one process taken for another ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["kill", "stop", "rm", "exec"])
def test_a_recycled_pid_is_nobody_of_ours(attack: Attack, verb: str) -> None:
    """The state file's pid belongs to another process by now: the engine must neither signal nor enter it."""

    def strike(ground: Ground, flags: tuple[str, ...]) -> bool:
        box = ground.up("--", "sleep", "300")
        other = (
            ground.up("--", "sh", "-c", f"echo {SECRET} > /tmp/secret; sleep 300") if verb == "exec" else ""
        )
        state = ground.directory / f"run/c/{box}/state"
        known = json.loads(state.read_text())
        victim = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.DEVNULL
        )
        pid = victim.pid
        if other:
            pid = json.loads((ground.directory / f"run/c/{other}/state").read_text())["pid"]
        try:
            ground.kill_daemon()
            for ended in (known["monitor"], known["pid"]):
                os.kill(ended, signal.SIGKILL)
            time.sleep(0.1)
            # As if the kernel had given the dead one's pid to the victim.
            state.write_text(json.dumps({**known, "pid": pid}))
            ground.start()
            if verb == "exec":
                return SECRET in ground("exec", box, "cat", "/tmp/secret", timeout=5).stdout
            words = {"kill": ("kill",), "stop": ("stop", "-t", "1"), "rm": ("rm", "-f")}[verb]
            ground(*words, box, timeout=4)
            time.sleep(0.1)
            return victim.poll() is not None
        finally:
            victim.kill()
            victim.wait()
            ground.kill_daemon()
            if other:
                os.kill(pid, signal.SIGKILL)  # an engine that watches nothing would wait for its end
            state.unlink(missing_ok=True)
            ground.start()
            ground.down(box, *filter(None, [other]))

    # The pid alone is believed, and a monitor that does not answer is no sign of an end.
    believing = """
_held_start_time = start_time
def start_time(pid):
    _held_start_time(pid)
    return 1
"""
    unwatched = """
_held_watch = Runtime.watch
def _watch(self, identifier, callback):
    if os.path.exists(self.run_dir(identifier) + "/ctl") and self._state.living(identifier) is None:
        _held_watch(self, identifier, callback)


Runtime.watch = _watch
"""
    attack(strike, off=Without({"linux/process.py": believing, "runtime/runtime.py": unwatched}))


def test_the_worst_pause_is_measured() -> None:
    """The neighbour's own measure notices a pause: it is stopped for a moment."""
    neighbour = subprocess.Popen(
        [sys.executable, "-c", _NEIGHBOUR.replace("/tmp/x", os.devnull)], stdout=subprocess.PIPE
    )
    time.sleep(0.5)
    neighbour.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    neighbour.send_signal(signal.SIGCONT)
    time.sleep(0.1)
    neighbour.terminate()
    out, _ = neighbour.communicate(timeout=10)
    assert float(out.split()[-1]) > 200
