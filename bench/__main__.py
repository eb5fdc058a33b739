"""The bench's door: flags, the order of things, starting and stopping engines. Writes BENCHMARKS.md."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import report
from bench.measure import Failed, run, seconds
from bench.peers import PYTHON, Buildah, Docker, Engine, Lading, Podman
from bench.rows import ROWS, Bench, Figure, Row, attempt, take_idle

ROOT = Path(__file__).parents[1]
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument(
        "--only", action="append", choices=[row.key for row in ROWS], help="this row (repeatable)"
    )
    parser.add_argument(
        "--peers", default="docker,podman,buildah", help="comma separated; empty for lading alone"
    )
    parser.add_argument(
        "--output", default=str(ROOT / "BENCHMARKS.md"), help="file to write; - prints the table"
    )
    flags = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    rows = tuple(row for row in ROWS if not flags.only or row.key in flags.only)
    scratch = tempfile.mkdtemp(prefix="lading-bench-", dir="/var/tmp")
    os.chmod(scratch, 0o755)
    try:
        with ExitStack() as stack:
            bench, versions = prepare(stack, scratch, flags.peers.split(","), flags.quick, rows)
            results = take(bench, rows)
        if flags.output == "-":
            print(report.table(results, rows))
        else:
            text = report.document(results, rows, versions, bench.pip_taken, flags.quick)
            Path(flags.output).write_text(text)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    failed = [key for key, figures in results.items() if not isinstance(figures.get("lading"), float)]
    if failed:
        say(f"lading could not be measured in: {', '.join(failed)}")
    return 1 if failed else 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepare(
    stack: ExitStack, scratch: str, peers: list[str], quick: bool, rows: tuple[Row, ...]
) -> tuple[Bench, dict[str, str]]:
    """Start every engine and give it its images; what cannot be started is remembered with the reason."""
    rootfs, busybox_tar = make_busybox(scratch)
    builds = any(row.key in ("cached", "cold") for row in rows)
    archive = f"{scratch}/python.tar" if builds else ""
    engines: dict[str, Engine] = {"lading": Lading(scratch)}
    engines |= {kind.name: kind(scratch) for kind in (Docker, Podman) if kind.name in peers}
    builders: dict[str, Engine] = {"buildah": Buildah(scratch)} if "buildah" in peers else {}
    bench = Bench(engines, builders, scratch, rootfs, str(ROOT / "examples/iris-api"), quick)
    versions: dict[str, str] = {}
    for name, engine in {**engines, **builders}.items():
        if engine.missing:
            bench.refused[name] = engine.missing
            continue
        say(f"starting {name}")
        stack.callback(engine.stop)
        try:
            engine.start()
            engine.prepare(busybox_tar, archive)
            if builds and name != "lading":
                trust(engine, scratch)
            versions[name] = engine.version()
        except Failed as error:
            bench.refused[name] = str(error)
            say(f"  {error}")
            continue
        if name in engines:
            bench.idle[name] = attempt(partial(take_idle, engine))
    if any(row.key == "cold" for row in rows) and "lading" not in bench.refused:
        bench.pip = pip_alone(engines["lading"], scratch)
    return bench, versions


def take(bench: Bench, rows: tuple[Row, ...]) -> dict[str, dict[str, Figure]]:
    results: dict[str, dict[str, Figure]] = {}
    for row in rows:
        say(row.title)
        results[row.key] = row.work(bench)
        for name, figure in results[row.key].items():
            shown = (
                figure if isinstance(figure, str) else report.cell(figure, row.unit, None) + f" {row.unit}"
            )
            say(f"  {name}: {shown}")
    return results


def make_busybox(scratch: str) -> tuple[str, str]:
    """A root file system that every engine imports: one static binary and its names."""
    binary = shutil.which("busybox")
    if binary is None:
        raise SystemExit("bench: busybox is not installed; apt-get install busybox-static")
    rootfs = Path(scratch, "rootfs")
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "data"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(binary, rootfs / "bin/busybox")
    for applet in ("sh", "true", "sleep", "cat", "echo", "ls", "mkdir"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\n")
    tar = f"{scratch}/busybox.tar"
    run(["tar", "-C", str(rootfs), "-cf", tar, "."])
    return str(rootfs), tar


def trust(engine: Engine, scratch: str) -> None:
    """Give a peer's base image the host's CA bundle; without it pip fails behind a re-signing proxy."""
    bundle = next((path for path in BUNDLES if os.path.exists(path)), None)
    if bundle is None:
        return
    context = Path(scratch, f"trust-{engine.name}")
    context.mkdir()
    shutil.copy(bundle, context / "bundle.crt")
    context.joinpath("Dockerfile").write_text(
        f"FROM {PYTHON}\nCOPY bundle.crt /etc/ssl/certs/ca-certificates.crt\n"
    )
    run(engine.build(PYTHON, str(context), cached=True), env=engine.env)


def pip_alone(lading: Engine, scratch: str) -> Callable[[], float]:
    """Seconds of the example's pip install in a plain chroot of the base image: no engine, no layer."""
    root = Path(scratch, "pip-root")
    root.mkdir()
    container = run(lading.cli("create", PYTHON), env=lading.env).strip()
    run(lading.cli("export", "-o", f"{scratch}/pip.tar", container), env=lading.env)
    run(lading.cli("rm", container), env=lading.env)
    run(["tar", "-C", str(root), "-xf", f"{scratch}/pip.tar"])
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy(ROOT / "examples/iris-api/requirements.txt", root / "requirements.txt")
    bundle = next((path for path in BUNDLES if os.path.exists(path)), None)
    if bundle:
        shutil.copy(bundle, root / "etc/ssl/certs/ca-certificates.crt")
    passed = [f"{name}={value}" for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    inside = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" env -i "$@"'
    pip = ["pip", "install", "-q", "--no-cache-dir", "-r", "/requirements.txt"]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, str(root)]
    argv += ["PATH=/usr/local/bin:/usr/bin:/bin", *passed, *pip]

    def once() -> float:
        shutil.rmtree(root / "usr/local")
        (root / "usr/local").mkdir()
        return seconds(lambda: run(argv), 1, warm=0)

    return once


if __name__ == "__main__":
    raise SystemExit(main())
