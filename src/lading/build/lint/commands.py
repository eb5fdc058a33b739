"""Rules about what RUN does with package managers and the shell: the best known of Dockerfile linters, in our words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from lading.build.dockerfile import instructions as ins
from lading.build.lint.finding import Rule, Spot
from lading.build.lint.shell import Simple, cached, runs
from lading.build.lint.source import Source

_APT = ("apt-get", "apt", "aptitude")
_YES = re.compile(r"-[a-zA-Z]*[yq]|--yes|--assume-yes|-qq")
_POINTLESS = (
    "shutdown",
    "reboot",
    "service",
    "systemctl",
    "ps",
    "free",
    "top",
    "ssh",
    "vim",
    "nano",
    "ifconfig",
)


def _script(one: ins.Run) -> str:
    body = one.line if one.argv is None else " ".join(one.argv)
    return body + "".join(heredoc.content for heredoc in one.heredocs)


def _each(source: Source) -> Iterator[tuple[ins.Run, list[Simple], Simple]]:
    for stage in source.stages:
        for _, run, found in runs(stage):
            for simple in found:
                yield run, found, simple


def apt_lists(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        for _, run, found in runs(stage):
            update = next(
                (one for one in found if one.program in _APT and "update" in one.operands[:1]), None
            )
            if update is None or cached(run, "/var/lib/apt/lists") or "/var/lib/apt/lists" in _script(run):
                continue
            yield Spot(
                update.at,
                "The package lists of apt stay in the layer: some twenty megabytes that grow stale.",
                "End this RUN with && rm -rf /var/lib/apt/lists/*, or add --mount=type=cache,target=/var/lib/apt/lists.",
            )


def apt_update_alone(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        for _, _, found in runs(stage):
            apt = [one for one in found if one.program in _APT and one.operands]
            if apt and all(one.operands[0] == "update" for one in apt):
                yield Spot(
                    apt[0].at,
                    "apt-get update alone is cached, and a later install then asks for versions that are gone.",
                    "Put update and install into one RUN: apt-get update && apt-get install ...",
                )


def apt_yes(source: Source) -> Iterator[Spot]:
    for _, _, one in _each(source):
        if one.is_install(*_APT) and not any(_YES.fullmatch(flag) for flag in one.flags):
            yield Spot(
                one.at,
                f"{one.program} install asks, and nobody answers in a build.",
                "Add -y.",
                source.swap(one.at, f"{one.words[0]} install", f"{one.words[0]} install -y", safe=True),
            )


def apt_recommends(source: Source) -> Iterator[Spot]:
    for _, _, one in _each(source):
        if (
            one.is_install(*_APT)
            and not {"--no-install-recommends"} & one.flags
            and "Install-Recommends" not in " ".join(one.words)
        ):
            yield Spot(
                one.at,
                "apt installs recommended packages too, which an image seldom needs.",
                "Add --no-install-recommends.",
                source.swap(
                    one.at, f"{one.words[0]} install", f"{one.words[0]} install --no-install-recommends"
                ),
            )


def apt_front(source: Source) -> Iterator[Spot]:
    for _, _, one in _each(source):
        if (
            one.program == "apt"
            and one.operands[:1]
            and one.operands[0] in ("install", "update", "upgrade", "remove")
        ):
            yield Spot(
                one.at,
                "apt is for people at a terminal: its form may change, and it warns in scripts.",
                "Use apt-get.",
                source.swap(one.at, "apt ", "apt-get ", safe=True) if one.words[0] == "apt" else None,
            )


def apk_cache(source: Source) -> Iterator[Spot]:
    for run, _, one in _each(source):
        if one.program != "apk" or "add" not in one.operands[:1] or "--no-cache" in one.flags:
            continue
        if cached(run, "/var/cache/apk", "/etc/apk/cache") or "/var/cache/apk" in _script(run):
            continue
        yield Spot(
            one.at,
            "apk keeps its package index in the layer.",
            "Add --no-cache.",
            source.swap(one.at, "apk add", "apk add --no-cache", safe=True),
        )


def yum_clean(source: Source) -> Iterator[Spot]:
    for run, found, one in _each(source):
        if one.is_install("yum", "dnf", "microdnf") and not cached(run, "/var/cache/yum", "/var/cache/dnf"):
            cleans = any(other.program == one.program and "clean" in other.operands for other in found)
            if not cleans and "/var/cache/" not in _script(run):
                yield Spot(
                    one.at,
                    f"{one.program} keeps what it downloads in the layer.",
                    f"End with && {one.program} clean all.",
                )


def sudo(source: Source) -> Iterator[Spot]:
    for _, _, one in _each(source):
        if "sudo" in one.prefixes:
            yield Spot(
                one.at,
                "sudo in a build starts a terminal-minded program for what USER does, and drops the environment.",
                "Leave it out, and use USER root where root is needed.",
            )


def cd_alone(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        for item, run, found in runs(stage):
            if (
                run.argv is None
                and len(found) == 1
                and not run.heredocs
                and found[0].program == "cd"
                and len(found[0].words) == 2
            ):
                target = found[0].words[1]
                fix = source.whole(item, f"WORKDIR {target}") if target.startswith("/") else None
                yield Spot(run.position, "cd lasts until the end of its RUN only.", "Use WORKDIR.", fix)


def pointless(source: Source) -> Iterator[Spot]:
    for _, _, one in _each(source):
        if one.program in _POINTLESS:
            yield Spot(
                one.at,
                f"{one.program} does nothing for an image: no such service or terminal is there.",
                "Remove it.",
            )


def pipefail(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        shell = [item for one in source.chain(stage) for item in one.items if isinstance(item.one, ins.Shell)]
        if any(
            "pipefail" in " ".join(item.one.argv or ()) for item in shell if isinstance(item.one, ins.Shell)
        ):
            continue
        for _, run, found in runs(stage):
            if "pipefail" in _script(run):
                continue
            for before, one in itertools.pairwise(found):
                if one.before in ("|", "|&") and before.program in ("curl", "wget"):
                    yield Spot(
                        before.at,
                        f"When {before.program} fails the step goes on, with what {one.program} made of half a download.",
                        'Put SHELL ["/bin/bash", "-o", "pipefail", "-c"] before, or download to a file first.',
                    )


def curl_and_wget(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        first = ""
        for _, _, found in runs(stage):
            for one in found:
                if one.program in ("curl", "wget"):
                    if first and one.program != first:
                        yield Spot(
                            one.at,
                            "The stage uses both curl and wget, and so installs both.",
                            f"Use {first} here too.",
                        )
                        return
                    first = one.program


RULES = (
    Rule("AptListsLeftBehind", "warning", "apt's package lists do not stay in a layer", apt_lists),
    Rule("AptUpdateAlone", "warning", "apt-get update and install stand in one RUN", apt_update_alone),
    Rule("AptWithoutYes", "warning", "apt-get install does not ask", apt_yes),
    Rule("AptRecommends", "info", "apt-get install takes no recommended packages", apt_recommends),
    Rule("AptFrontEnd", "info", "apt-get, not apt, in scripts", apt_front),
    Rule("ApkCacheKept", "warning", "apk keeps no index in a layer", apk_cache),
    Rule("YumCacheKept", "warning", "yum and dnf keep no downloads in a layer", yum_clean),
    Rule("SudoInRun", "warning", "No sudo in a build", sudo),
    Rule("CdAlone", "warning", "WORKDIR, not a RUN of cd", cd_alone),
    Rule("PointlessCommand", "info", "No commands that do nothing for an image", pointless),
    Rule("PipeHidesFailure", "warning", "A failed download fails the step", pipefail),
    Rule("CurlAndWget", "info", "One program to download with", curl_and_wget),
)
