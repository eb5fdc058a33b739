"""The table in BENCHMARKS.md and the description of the machine. Owns words and units; measures nothing but the host."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
from pathlib import Path

from bench.measure import run, seconds
from bench.rows import Figure, Row

SCALE = {"ms": 1e3, "s": 1.0, "MB": 1e-6}
COLUMNS = ("lading", "docker", "podman", "buildah", "crun", "runc", "bwrap")


def machine() -> list[str]:
    """What matters for the numbers; no name, address or path of the machine."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bare = seconds(lambda: run([sys.executable, "-I", "-S", "-c", "pass"]), 20)
    cgroups = "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1 or hybrid"
    return [
        f"{os.cpu_count()} cores ({cpu}), {pages / 2**30:.0f} GiB of memory",
        f"Linux {platform.release()}, control groups {cgroups}, {_distribution()}",
        f"Python {platform.python_version()}; a bare `python3 -I -S -c pass` takes {bare * 1e3:.0f} ms",
    ]


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution")
    except OSError:
        return "unknown distribution"


def cell(figure: Figure | None, unit: str, base: Figure | None) -> str:
    """A number in the row's unit and, for peers, how many times lading's it is."""
    if figure is None or isinstance(figure, str):
        return "-"
    value = figure * SCALE[unit]
    text = f"{value:.1f}" if value < 10 else f"{value:.0f}"
    if isinstance(base, float) and base > 0 and figure is not base:
        text += f" ({figure / base:.1f}x)"
    return text


def plain(why: str) -> str:
    """A reason on one line, without the paths of this run."""
    return re.sub(r"\s+", " ", re.sub(r"(?:/[\w.@+-]+){3,}/?", "...", why)).strip()


def table(results: dict[str, dict[str, Figure]], rows: tuple[Row, ...]) -> str:
    """The Markdown table, with the reasons for empty cells below it."""
    shown = [name for name in COLUMNS if any(name in figures for figures in results.values())]
    lines = ["| work | " + " | ".join(shown) + " | must | aim |", "| --- |" + " ---: |" * (len(shown) + 2)]
    reasons: list[str] = []
    for row in rows:
        figures = results.get(row.key)
        if figures is None:
            continue
        base = figures.get("lading")
        cells = [cell(figures.get(name), row.unit, None if name == "lading" else base) for name in shown]
        lines.append(f"| {row.title}, {row.unit} | " + " | ".join(cells) + f" | {row.must:g} | {row.aim:g} |")
        reasons += [
            f"- {row.title}, {name}: {plain(why)}" for name, why in figures.items() if isinstance(why, str)
        ]
    return "\n".join(lines) + ("\n\nNot measured:\n\n" + "\n".join(reasons) if reasons else "") + "\n"


def document(
    results: dict[str, dict[str, Figure]],
    rows: tuple[Row, ...],
    versions: dict[str, str],
    pip: list[float],
    quick: bool,
) -> str:
    """All of BENCHMARKS.md."""
    listed = "\n".join(f"- {line}" for line in [*machine(), *(f"{n}: {v}" for n, v in versions.items())])
    alone = (
        f"\n- In the last row the time of the same pip install in a plain chroot, taken right before each build "
        f"(median {statistics.median(pip):.1f} s), is taken off."
        if pip
        else ""
    )
    note = (
        "\n\nA quick run: few repetitions, figures wander; a small one below zero is noise." if quick else ""
    )
    return f"""# Benchmarks

Written by `make bench`: every engine in the same run on the same machine, from the same root file systems, medians.
In brackets: how many times lading's figure. Lower is better everywhere.{note}

{table(results, rows)}
## The machine

{listed}

## What is measured

- Command-line rows time whole commands; for lading that is the installed console script, Python's own start included.
- API rows use one kept-alive connection to each engine's socket and Docker's API; podman answers through its API service.
- crun and runc run alone with their default bundle: no image, network, log or daemon. bwrap is the floor: namespaces
  and nothing else.
- dockerd runs with a bridge of its own and without firewall rules, so that it leaves the machine as it was; that makes
  its bridge rows a little faster than usual. It builds with the classic builder on the host's network.
- Helper memory is the PSS of processes that exist because ten idle containers do, divided by ten.
- The peers' base image has the host's CA bundle added, since a build behind a re-signing proxy fails otherwise; lading's
  has not.{alone}
"""
