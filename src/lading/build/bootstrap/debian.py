"""Running mmdebstrap or debootstrap. Owns their command lines and their failures; never edits the tree.

Both verify the archive's signatures themselves and run as root. They run in a mount and process namespace of
their own (unshare(1), util-linux) that dies with this process, so that not even kill -9 leaves a mount or a
process behind.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lading.base import errors
from lading.build.bootstrap import sources as apt
from lading.build.bootstrap.recipes import Recipe
from lading.build.bootstrap.scrub import KEYRING, dpkg_options
from lading.linux import identity

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# setpriv ends the chain when this process dies; unshare takes its child, the namespace's init, along, and the
# kernel the rest (pid_namespaces(7)).
_JAIL = (
    *("setpriv", "--pdeathsig", "KILL"),
    *(
        "unshare",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount",
        "--propagation",
        "private",
        "--mount-proc",
    ),
)
# debootstrap also says what it does with each package.
_PER_PACKAGE = re.compile(
    r"I: (?:Retrieving|Validating|Extracting|Unpacking|Configuring) (?!InRelease|Packages|required|the )"
)


@dataclass(frozen=True)
class Plan:
    """A command that can be printed, and the tool it belongs to."""

    tool: str
    argv: tuple[str, ...]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child needs and no more: a fixed PATH and locale, and the way to the mirror."""
    kept = {name: environ[name] for name in _PASSED_ON if environ.get(name)}
    return {**kept, "PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}


def find_tool(which: Callable[[str], str | None]) -> str:
    """mmdebstrap, else debootstrap; Unsupported, with the package's name, where there is neither."""
    for tool in ("mmdebstrap", "debootstrap"):
        if which(tool):
            if missing := [name for name in ("setpriv", "unshare") if not which(name)]:
                raise errors.Unsupported(
                    f"{tool} cannot be run safely here",
                    why=f"{' and '.join(missing)} of util-linux cannot be found.",
                    hint="Install the package util-linux.",
                )
            return tool
    raise errors.Unsupported(
        "a Debian image cannot be bootstrapped here",
        why="Neither mmdebstrap nor debootstrap is installed.",
        hint="Run `apt-get install mmdebstrap` (other distributions call it the same), then try again.",
    )


def plan(
    tool: str,
    recipe: Recipe,
    target: str,
    found: tuple[apt.Source, ...],
    sources_file: str,
    options_file: str,
) -> Plan:
    """The command that fills `target`; pure."""
    include = ",".join(recipe.include)
    if tool == "mmdebstrap":
        argv = [*_JAIL, "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
        argv += [f"--dpkgopt={line}" for line in dpkg_options(recipe)]
        argv += [f"--aptopt={options_file}"] if options_file else []
        argv += [f"--include={include}"] if include else []
        argv += [recipe.suite, target] + ([sources_file] if found else [])
        return Plan(tool, tuple(argv))
    main = next((s for s in found if s.suite == recipe.suite), None)
    argv = [*_JAIL, "debootstrap", "--variant=minbase"]
    argv += [f"--include={include}"] if include else []
    argv += [f"--keyring={main.signed_by}"] if main and main.signed_by else [f"--keyring={KEYRING}"]
    argv += [recipe.suite, target] + ([main.uri] if main else [])
    return Plan(tool, tuple(argv))


def make_tree(
    recipe: Recipe,
    target: str,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[str, tuple[apt.Source, ...]]:
    """Fill the empty directory `target`; returns the tool and the host's sources that were used, if any."""
    if not identity.host_root():
        raise errors.Denied(
            f"{recipe.name} cannot be bootstrapped",
            why="Installing Debian packages into a tree needs root.",
            hint="Run lading's daemon as root for this, or load an image made elsewhere.",
        )
    env = environment(environ)
    tool = find_tool(lambda name: shutil.which(name, path=_PATH))
    found = apt.for_suite(apt.configured(), recipe.suite, apt.host_suite())
    if not found and not os.path.exists(KEYRING):
        raise errors.Unsupported(
            f"{recipe.name} cannot be bootstrapped",
            why="This host has no keys to check Debian's signatures with.",
            hint="Install the package debian-archive-keyring.",
        )
    sources_file, options_file = f"{target}.sources", ""
    with open(sources_file, "w", encoding="utf-8") as file:
        file.write(apt.render(found))
    if options := apt.mirror_options(env):
        options_file = f"{target}.conf"
        with open(options_file, "w", encoding="utf-8") as file:
            file.write("\n".join(options) + "\n")
    if tool == "debootstrap":
        progress("debootstrap knows no security updates; install mmdebstrap to have them in the image")
    chosen = plan(tool, recipe, target, found, sources_file, options_file)
    progress(f"{tool} {recipe.suite}: " + " ".join(("minbase", *recipe.include)))
    _execute(chosen, recipe, {**env, "TMPDIR": os.path.dirname(target)}, progress, cancelled)
    if recipe.python and not os.path.exists(f"{target}/usr/bin/python{recipe.python}"):
        raise errors.Unavailable(
            f"{recipe.name} cannot be bootstrapped",
            why=f"The mirror's {recipe.suite} has another Python than {recipe.python}.",
            hint="Check this host's apt sources.",
        )
    return tool, found


def _execute(
    chosen: Plan,
    recipe: Recipe,
    env: Mapping[str, str],
    progress: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> None:
    tail: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        chosen.argv,
        env=dict(env),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:
        try:
            for line in _lines(child, cancelled):
                tail.append(line)
                if line.startswith("I: ") and not _PER_PACKAGE.match(line):  # both tools mark their stages so
                    progress(line[3:])
        except BaseException:
            child.kill()  # unshare's death takes the whole process namespace along
            raise
    if child.returncode != 0:
        wrong = [line for line in tail if line.startswith(("E:", "W:", "Err:", "dpkg: error"))] or list(tail)
        raise errors.Unavailable(
            f"{chosen.tool} could not make {recipe.name} (exit code {child.returncode})",
            why=" ".join(wrong[-4:])[:1500],
            hint="Check that `apt-get update` works here and that the disk has 1 GB free, then try again.",
        )


def _lines(child: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> Iterator[str]:
    """The child's output line by line (each bounded), looking at `cancelled` twice a second."""
    assert child.stdout is not None
    fd = child.stdout.fileno()
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if cancelled():
                raise errors.Cancelled("the bootstrap was cancelled")
            if not selector.select(0.5):
                continue
            chunk = os.read(fd, 65536)
            *whole, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
            pending = pending[-65536:]
            for line in whole if chunk else [*whole, pending]:
                if line.strip():
                    yield line.decode("utf-8", "replace").rstrip()[:2000]
            if not chunk:
                return
