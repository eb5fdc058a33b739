"""One function per row of the table: what is done, with which peers. Owns the work measured; starts no engine."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.measure import Failed, in_this_pid_namespace, memory, pids, run, seconds
from bench.peers import BUSYBOX, HYBRID, Engine, runtime_bundle
from bench.unixhttp import Api

Figure = float | str
"""Seconds or bytes; a text is the reason why there is none."""


@dataclass
class Bench:
    """What the rows share: engines that run, files, how often to repeat."""

    engines: dict[str, Engine]
    builders: dict[str, Engine]
    scratch: str
    rootfs: str
    example: str
    quick: bool
    refused: dict[str, str] = field(default_factory=dict)
    pip: Callable[[], float] = lambda: 0.0
    pip_taken: list[float] = field(default_factory=list)
    idle: dict[str, Figure] = field(default_factory=dict)

    def times(self, many: int) -> int:
        return max(1, many // 5) if self.quick else many

    def each(self, engines: dict[str, Engine], work: Callable[[Engine], float]) -> dict[str, Figure]:
        """`work` for every engine; a failure becomes that engine's figure."""
        figures: dict[str, Figure] = {name: why for name, why in self.refused.items() if name in engines}
        for name, engine in engines.items():
            if name not in figures:
                figures[name] = attempt(partial(work, engine))
        return figures


@dataclass(frozen=True)
class Row:
    """A line of the table; `must` and `aim` are lading's own goals, in the row's unit."""

    key: str
    title: str
    unit: str
    must: float
    aim: float
    work: Callable[[Bench], dict[str, Figure]]


def attempt(work: Callable[[], float]) -> Figure:
    try:
        return work()
    except Failed as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}"


def run_rm(bench: Bench) -> dict[str, Figure]:
    """The command line, bridge network, default security."""

    def work(engine: Engine) -> float:
        argv = engine.cli("run", "--rm", BUSYBOX, "true")
        return seconds(lambda: run(argv, env=engine.env), bench.times(20), warm=2)

    figures = bench.each(bench.engines, work)
    for runtime in ("crun", "runc"):
        figures[runtime] = attempt(partial(_runtime_alone, bench, runtime))
    return figures


def _runtime_alone(bench: Bench, runtime: str) -> float:
    if not shutil.which(runtime):
        raise Failed(f"{runtime} is not installed")
    bundle = f"{bench.scratch}/bundle-{runtime}-true"
    runtime_bundle(bundle, bench.rootfs, ["/bin/true"])
    state = f"{bench.scratch}/{runtime}"
    return alone([runtime, "--root", state, "run", "--bundle", bundle, "bench-true"], bench.times(20))


def alone(argv: list[str], times: int) -> float:
    """Median of a bare runtime's command. crun refuses hybrid control groups: it is shown the v1 half alone."""
    if not HYBRID:
        return seconds(lambda: run(argv), times, warm=2)
    loop = 'umount /sys/fs/cgroup/unified; exec "$@"'
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", loop, "-"]
    return float(run([*inside, sys.executable, "-m", "bench.loop", str(times), *argv]))


def lifecycle(network: str) -> Callable[[Bench], dict[str, Figure]]:
    """create, start, wait, remove over one kept-alive connection."""

    def row(bench: Bench) -> dict[str, Figure]:
        def work(engine: Engine) -> float:
            with Api(engine.socket) as api:

                def once() -> None:
                    container = api.create(BUSYBOX, ["true"], network)
                    api.start(container)
                    api.wait(container)
                    api.remove(container)

                return seconds(once, bench.times(20), warm=2)

        figures = bench.each(bench.engines, work)
        if network == "none":
            figures["bwrap"] = attempt(lambda: _bwrap(bench))
        return figures

    return row


def _bwrap(bench: Bench) -> float:
    if not shutil.which("bwrap"):
        raise Failed("bwrap is not installed")
    argv = [
        "bwrap",
        "--unshare-all",
        "--ro-bind",
        bench.rootfs,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "/bin/true",
    ]
    return seconds(lambda: run(argv), bench.times(20), warm=2)


@contextmanager
def sleeping(engine: Engine, count: int = 1, network: str = "bridge") -> Iterator[list[str]]:
    """`count` idle containers."""
    made: list[str] = []
    with Api(engine.socket) as api:
        try:
            for _ in range(count):
                made.append(api.create(BUSYBOX, ["sleep", "1000"], network))
                api.start(made[-1])
            yield made
        finally:
            for container in made:
                api.remove(container)


def exec_true(bench: Bench) -> dict[str, Figure]:
    """The command line into a running container."""

    def work(engine: Engine) -> float:
        with sleeping(engine) as (container,):
            argv = engine.cli("exec", container, "true")
            return seconds(lambda: run(argv, env=engine.env), bench.times(20), warm=2)

    figures = bench.each(bench.engines, work)
    for runtime in ("crun", "runc"):
        figures[runtime] = attempt(partial(_exec_alone, bench, runtime))
    return figures


def _exec_alone(bench: Bench, runtime: str) -> float:
    """A bare runtime's exec into a container of its own."""
    if not shutil.which(runtime):
        raise Failed(f"{runtime} is not installed")
    bundle, state = f"{bench.scratch}/bundle-{runtime}-sleep", f"{bench.scratch}/{runtime}-exec"
    runtime_bundle(bundle, bench.rootfs, ["/bin/sleep", "1000"])
    hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "-"]
    command = [runtime, "--root", state]
    with subprocess.Popen(
        [*inside, *command, "run", "--bundle", bundle, "bench-sleep"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as child:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                listing = subprocess.run(
                    [*inside, *command, "state", "bench-sleep"], capture_output=True, check=False
                )
                if b'"running"' in listing.stdout:
                    break
                time.sleep(0.05)
            return alone([*command, "exec", "bench-sleep", "/bin/true"], bench.times(20))
        finally:
            delete = [*inside, *command, "delete", "--force", "bench-sleep"]
            subprocess.run(delete, check=False, capture_output=True)
            child.wait()


def fifty(phase: str) -> Callable[[Bench], dict[str, Figure]]:
    """Fifty containers on the bridge, eight at a time over the API; `phase` is start or remove."""

    def row(bench: Bench) -> dict[str, Figure]:
        count = 16 if bench.quick else 50

        def work(engine: Engine) -> float:
            made: list[str] = []

            def start(_: int) -> None:
                with Api(engine.socket) as api:
                    container = api.create(BUSYBOX, ["sleep", "1000"], "bridge")
                    made.append(container)
                    api.start(container)

            def remove(container: str) -> None:
                with Api(engine.socket) as api:
                    api.remove(container)

            with ThreadPoolExecutor(8) as pool:
                started = time.perf_counter()
                try:
                    list(pool.map(start, range(count)))
                finally:
                    middle = time.perf_counter()
                    list(pool.map(remove, made))
                ended = time.perf_counter()
            taken = middle - started if phase == "start" else ended - middle
            return taken * 50 / count

        return bench.each(bench.engines, work)

    return row


def helper_pss(bench: Bench) -> dict[str, Figure]:
    """What an idle container costs beside its own processes: the memory of new host processes, shared by ten."""
    count = 10

    def work(engine: Engine) -> float:
        with sleeping(engine, 1):
            pass  # what is started once for all is there now
        before = pids()
        with sleeping(engine, count):
            time.sleep(1)
            new = [pid for pid in pids() - before if in_this_pid_namespace(pid) and pid != os.getpid()]
            return sum(memory(pid, "Pss") for pid in new) / count

    return bench.each(bench.engines, work)


def idle_daemon(bench: Bench) -> dict[str, Figure]:
    """Taken right after each engine came up and ran one container."""
    return {**bench.idle, **{name: why for name, why in bench.refused.items() if name in bench.engines}}


def take_idle(engine: Engine) -> float:
    """PSS of the engine's processes, one container after its start."""
    with sleeping(engine):
        pass
    time.sleep(1)
    return float(sum(memory(pid, "Pss") for pid in engine.processes() if in_this_pid_namespace(pid)))


def cached_rebuild(bench: Bench) -> dict[str, Figure]:
    """The example once more, nothing changed."""

    def work(engine: Engine) -> float:
        argv = engine.build("bench-iris:latest", bench.example, cached=True)
        return seconds(lambda: run(argv, env=engine.env), bench.times(10), warm=1)

    return bench.each({**bench.engines, **bench.builders}, work)


def cold_build(bench: Bench) -> dict[str, Figure]:
    """The example without a cache, less what pip takes by itself right before: mirrors have moods."""

    def work(engine: Engine) -> float:
        argv = engine.build("bench-iris:latest", bench.example, cached=False)
        beyond = []
        for _ in range(bench.times(3)):
            bench.pip_taken.append(bench.pip())
            beyond.append(seconds(lambda: run(argv, env=engine.env), 1, warm=0) - bench.pip_taken[-1])
        return statistics.median(beyond)

    return bench.each({**bench.engines, **bench.builders}, work)


def thirty_steps(bench: Bench) -> dict[str, Figure]:
    """Fifteen times RUN true and COPY of a small file, without a cache."""
    context = f"{bench.scratch}/thirty"
    os.makedirs(context, exist_ok=True)
    lines = [f"FROM {BUSYBOX}"]
    for number in range(15):
        Path(context, f"file{number}").write_text(f"{number}\n")
        lines += ["RUN true", f"COPY file{number} /data/file{number}"]
    Path(context, "Dockerfile").write_text("\n".join(lines) + "\n")

    def work(engine: Engine) -> float:
        argv = engine.build("bench-thirty:latest", context, cached=False)
        return seconds(lambda: run(argv, env=engine.env), bench.times(5), warm=0)

    return bench.each({**bench.engines, **bench.builders}, work)


ROWS = (
    Row("run", "`run --rm busybox true`, bridge", "ms", 70, 45, run_rm),
    Row("api-bridge", "create+start+wait+remove over the API, bridge", "ms", 25, 12, lifecycle("bridge")),
    Row("api-none", "create+start+wait+remove over the API, no network", "ms", 15, 8, lifecycle("none")),
    Row("exec", "`exec` into a running container", "ms", 45, 30, exec_true),
    Row("fifty-start", "50 containers started, 8 at a time", "s", 1.5, 0.7, fifty("start")),
    Row("fifty-remove", "50 containers removed, 8 at a time", "s", 1.0, 0.5, fifty("remove")),
    Row("pss", "PSS of helper processes per idle container", "MB", 1.0, 0.4, helper_pss),
    Row("idle", "memory (PSS) of the idle daemon and its spare processes", "MB", 50, 35, idle_daemon),
    Row("cached", "fully cached rebuild of the example", "ms", 100, 60, cached_rebuild),
    Row("thirty", "30 steps of `RUN true` and COPY, cold", "s", 1.2, 0.6, thirty_steps),
    Row("cold", "cold build of the example, beyond pip itself", "s", 2.0, 1.0, cold_build),
)
