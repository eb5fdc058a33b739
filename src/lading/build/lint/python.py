"""Rules about installing Python packages: the cache kept in a layer, versions left to chance, hashes left out."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator

from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.errors import Position
from lading.build.lint.finding import Rule, Spot
from lading.build.lint.shell import Simple, cached, runs
from lading.build.lint.source import Source, StageItems

_VALUED = (
    "-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-i", "--index-url", "--extra-index-url", "-f",
    "--find-links", "-t", "--target", "--prefix", "--root", "--platform", "--python-version", "--cache-dir",
    "--trusted-host", "--timeout", "--retries", "--proxy", "--progress-bar", "--src", "--abi",
    "--implementation", "--only-binary", "--no-binary", "--cert", "-p", "--python", "--group", "--extra",
    "--index-strategy", "--torch-backend",
)  # fmt: skip
_PROJECT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_TOOLS = ("pip", "setuptools", "wheel", "uv", "build")
_INDEX = re.compile(r"(?:/|\+)cu(\d\d)(\d)\b")


def pip_install(one: Simple) -> tuple[str, ...] | None:
    """The words after `install` of pip, python -m pip or uv pip; None for another command."""
    words = one.words
    if re.fullmatch(r"pip[0-9.]*", one.program):
        rest = words[1:]
    elif re.fullmatch(r"python[0-9.]*", one.program) and words[1:3] == ("-m", "pip"):
        rest = words[3:]
    elif one.program == "uv" and words[1:2] == ("pip",):
        rest = words[2:]
    else:
        return None
    plain = [word for word in rest if not word.startswith("-")]
    if plain[:1] != ["install"]:
        return None
    return tuple(rest[rest.index("install") + 1 :])


def operands(words: tuple[str, ...]) -> list[str]:
    """What is installed by name, without flags and their values."""
    found, index = [], 0
    while index < len(words):
        if words[index] in _VALUED:
            index += 1
        elif not words[index].startswith("-") and not re.match(r"\d*[<>]", words[index]):
            found.append(words[index])
        index += 1
    return found


def _installs(stage: StageItems) -> Iterator[tuple[ins.Run, Simple, tuple[str, ...]]]:
    for _, run, found in runs(stage):
        for one in found:
            words = pip_install(one)
            if words is not None:
                yield run, one, words


def wheels(stage: StageItems) -> Iterator[tuple[Position, dict[str, str], str]]:
    """Each installation: its place, the versions given with ==, and the CUDA version that its index or tags name."""
    for _, one, words in _installs(stage):
        versions: dict[str, str] = {}
        for text in operands(words):
            name, _, version = text.partition("==")
            if version:
                versions[re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()] = version
        match = _INDEX.search(" ".join(words))
        yield one.at, versions, f"{match[1]}.{match[2]}" if match else ""


def cache_kept(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        told = {
            pair.key.text
            for one in source.chain(stage)
            for item in one.items
            if isinstance(item.one, (ins.Env, ins.Arg))
            for pair in item.one.pairs
        }
        for run, one, words in _installs(stage):
            if {"PIP_NO_CACHE_DIR", "UV_NO_CACHE"} & told or {"--no-cache-dir", "--no-cache"} & set(words):
                continue
            if any(text.startswith(("PIP_NO_CACHE_DIR=", "UV_NO_CACHE=")) for text in one.variables):
                continue
            if cached(run, "/root/.cache/pip", "/root/.cache/uv") or any(
                "cache" in dict(m.options).get("target", "") for m in run.mounts
            ):
                continue
            flag = "--no-cache" if one.program == "uv" else "--no-cache-dir"
            start = one.words[0] if one.program != "uv" else "uv pip"
            start += "" if one.program == "uv" or one.program.startswith("pip") else " -m pip"
            yield Spot(
                one.at,
                "pip keeps every wheel that it downloads in the layer, beside what it installs from it.",
                f"Add {flag}, or a cache mount: RUN --mount=type=cache,target=/root/.cache/pip.",
                source.swap(one.at, f"{start} install", f"{start} install {flag}", safe=True),
            )


def unpinned(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        for _, one, words in _installs(stage):
            if {"-c", "--constraint"} & set(words):
                continue
            loose = [text for text in operands(words) if _loose(text)]
            if loose:
                yield Spot(
                    one.at,
                    f"{', '.join(loose[:5])}: whatever version is the newest when the layer is made.",
                    f"Pin it, as in {loose[0].rstrip('<>=~!0123456789.')}==VERSION, or install from a file with pins.",
                )


def _loose(text: str) -> bool:
    if (
        "$" in text
        or "/" in text
        or "@" in text
        or text.startswith(".")
        or text.endswith((".whl", ".gz", ".zip"))
    ):
        return False
    match = _PROJECT.fullmatch(text)
    if match is None or match[1].lower() in _TOOLS:
        return False
    return "==" not in match[2]


def requirements_unpinned(source: Source) -> Iterator[Spot]:
    """Only where the context is known: the files that -r names are looked at."""
    for stage in source.stages:
        for _, one, words in _installs(stage):
            if "--require-hashes" in words:
                continue
            for flag, name in itertools.pairwise(words):
                text = (
                    source.around.requirements.get(posixpath.basename(name))
                    if flag in ("-r", "--requirement")
                    else None
                )
                if text is None:
                    continue
                loose = [line for line in _requirements(text) if _loose(line)]
                if loose:
                    yield Spot(
                        one.at,
                        f"{name} leaves versions to chance: {', '.join(loose[:5])}{' ...' if len(loose) > 5 else ''}.",
                        "Pin them: uv pip compile, or pip freeze, writes such a file, --generate-hashes with hashes.",
                    )


def _requirements(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        plain = line.split("#", 1)[0].partition(";")[0].partition(" --")[0].strip()
        if plain and not plain.startswith("-"):
            yield plain.replace(" ", "")


RULES = (
    Rule("PipCacheKept", "warning", "pip keeps no wheels in a layer", cache_kept),
    Rule("PipUnpinned", "warning", "Packages are installed in a version", unpinned),
    Rule("RequirementsUnpinned", "warning", "Requirements files name versions", requirements_unpinned),
)
