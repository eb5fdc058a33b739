"""Rules about base images: unpinned, past their end of life, larger than needed, CUDA versions that do not go together.

The tables are the publishers' own dates (devguide.python.org, debian.org, ubuntu.com, nodejs.org, alpinelinux.org) and
PyTorch's table of releases; a version that no table knows is never found fault with.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from lading.build.lint.finding import Rule, Spot
from lading.build.lint.python import wheels
from lading.build.lint.source import Source, StageItems

_END = {
    "python": {"2": "2020-01-01", "3.5": "2020-09-30", "3.6": "2021-12-23", "3.7": "2023-06-27", "3.8": "2024-10-07",
               "3.9": "2025-10-31", "3.10": "2026-10-31", "3.11": "2027-10-31", "3.12": "2028-10-31"},
    "debian": {"jessie": "2020-06-30", "stretch": "2022-06-30", "buster": "2024-06-30", "bullseye": "2026-08-31",
               "8": "2020-06-30", "9": "2022-06-30", "10": "2024-06-30", "11": "2026-08-31", "bookworm": "2028-06-30"},
    "ubuntu": {"14.04": "2019-04-30", "16.04": "2021-04-30", "18.04": "2023-05-31", "20.04": "2025-05-31",
               "22.04": "2027-04-30", "trusty": "2019-04-30", "xenial": "2021-04-30", "bionic": "2023-05-31",
               "focal": "2025-05-31"},
    "node": {"10": "2021-04-30", "12": "2022-04-30", "14": "2023-04-30", "16": "2023-09-11", "18": "2025-04-30",
             "20": "2026-04-30"},
    "centos": {"6": "2020-11-30", "7": "2024-06-30", "8": "2021-12-31"},
    "alpine": {"3.15": "2023-11-01", "3.16": "2024-05-23", "3.17": "2024-11-22", "3.18": "2025-05-09",
               "3.19": "2025-11-01"},
}  # fmt: skip
_SUITES = ("jessie", "stretch", "buster", "bullseye")

_TORCH = {
    # torch: (torchvision, CUDA versions that wheels are built for, major version of cuDNN)
    "1.13": ("0.14", ("11.6", "11.7"), 8), "2.0": ("0.15", ("11.7", "11.8"), 8), "2.1": ("0.16", ("11.8", "12.1"), 8),
    "2.2": ("0.17", ("11.8", "12.1"), 8), "2.3": ("0.18", ("11.8", "12.1"), 8),
    "2.4": ("0.19", ("11.8", "12.1", "12.4"), 9),
    "2.5": ("0.20", ("11.8", "12.1", "12.4"), 9), "2.6": ("0.21", ("11.8", "12.4", "12.6"), 9),
    "2.7": ("0.22", ("11.8", "12.6", "12.8"), 9), "2.8": ("0.23", ("12.6", "12.8", "12.9"), 9),
}  # fmt: skip


def _named(stage: StageItems) -> tuple[str, str, bool]:
    """(repository without the default registry, tag, whether there is a digest) of a stage's FROM."""
    text = stage.base.image.text.strip("\"'")
    name, _, digest = text.partition("@")
    head, _, last = name.rpartition("/")
    short, _, tag = last.partition(":")
    repository = f"{head}/{short}" if head else short
    for prefix in ("docker.io/library/", "docker.io/", "library/"):
        repository = repository.removeprefix(prefix)
    return repository, tag, bool(digest)


def _images(source: Source) -> Iterator[tuple[StageItems, str, str, bool]]:
    for stage in source.stages:
        text = stage.base.image.text
        if "$" in text or text.lower() == "scratch" or source.stage_named(text, stage.index) is not None:
            continue
        yield stage, *_named(stage)


def unpinned(source: Source) -> Iterator[Spot]:
    for stage, repository, tag, digest in _images(source):
        if not digest and tag in ("", "latest"):
            yield Spot(
                stage.base.image.position,
                f"{repository}{':' + tag if tag else ''} is another image tomorrow, and the build with it.",
                f"Name a version, as in {repository}:{'3.12-slim' if repository == 'python' else 'VERSION'}, or a digest.",
            )


def end_of_life(source: Source) -> Iterator[Spot]:
    for stage, repository, tag, _ in _images(source):
        versions = _END.get(repository)
        found = _ended(versions, tag, source.around.today) if versions else ""
        said = f"{repository} {found.partition(' ')[0]}" if found else ""
        if not found:
            suite = next((one for one in _SUITES if re.search(rf"(?:\A|-){one}(?:-|\Z)", tag)), "")
            found = _ended(_END["debian"], suite, source.around.today) if suite else ""
            said = f"Debian {suite}"
        ubuntu = re.search(r"ubuntu(\d\d\.\d\d)", tag)
        if not found and ubuntu is not None:
            found, said = _ended(_END["ubuntu"], ubuntu[1], source.around.today), f"Ubuntu {ubuntu[1]}"
        if found:
            yield Spot(
                stage.base.image.position,
                f"{said} gets no security fixes since {found.partition(' ')[2]}.",
                "Use a version that is maintained.",
            )


def _ended(versions: dict[str, str], tag: str, today: datetime.date) -> str:
    """ "VERSION DATE" when the version that `tag` begins with has ended; the longest version counts."""
    for version in sorted(versions, key=len, reverse=True):
        if re.match(re.escape(version) + r"(?![0-9])", tag):
            end = versions[version]
            return f"{version} {end}" if datetime.date.fromisoformat(end) < today else ""
    return ""


def too_large(source: Source) -> Iterator[Spot]:
    for stage in source.stages[-1:]:
        root = source.root(stage)
        repository, tag, _ = _named(root)
        if repository not in ("python", "node") or not re.match(r"\d", tag) or "$" in tag:
            continue
        if re.search(r"slim|alpine|windows|nanoserver", tag):
            continue
        small = re.sub(r"-(?:bookworm|trixie|bullseye)\Z", "", tag) + "-slim"
        yield Spot(
            root.base.image.position,
            f"{repository}:{tag} carries compilers and headers, some 900 MB that a running service does not use.",
            f"End with FROM {repository}:{small}, and build in a stage of its own where compilers are needed.",
            source.swap(root.base.image.position, root.base.image.text, f"{repository}:{small}"),
        )


def devel_at_the_end(source: Source) -> Iterator[Spot]:
    for stage in source.stages[-1:]:
        root = source.root(stage)
        repository, tag, _ = _named(root)
        if re.search(r"(?:\A|-)devel(?:-|\Z)", tag) and (
            "cuda" in repository or "pytorch" in repository or "cuda" in tag
        ):
            text = root.base.image.text
            yield Spot(
                root.base.image.position,
                f"The final stage stands on {text}: nvcc, headers and static libraries are gigabytes that nothing runs.",
                f"Build in it, and end with FROM {text.replace('-devel', '-runtime')} and COPY --from.",
                source.swap(root.base.image.position, text, text.replace("-devel", "-runtime")),
            )


def cuda_and_torch(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        chain = source.chain(stage)
        repository, tag, _ = _named(chain[0])
        match = (
            re.match(r"(\d+)\.(\d+)", tag) if repository in ("nvidia/cuda", "nvcr.io/nvidia/cuda") else None
        )
        cudnn = re.search(r"cudnn(\d+)", tag) if match else None
        for at, packages, wanted in wheels(stage):
            torch = re.match(r"\d+\.\d+", packages.get("torch", ""))
            known = _TORCH.get(torch[0]) if torch else None
            vision = re.match(r"\d+\.\d+", packages.get("torchvision", ""))
            if torch and known and vision and vision[0] != known[0]:
                yield Spot(
                    at,
                    f"torchvision {vision[0]} is not built for torch {torch[0]}: its operators fail to load.",
                    f"Use torchvision {known[0]}, or another torch.",
                )
            if wanted and torch and known and wanted not in known[1]:
                yield Spot(
                    at,
                    f"There is no torch {torch[0]} for CUDA {wanted}.",
                    f"Its wheels are for CUDA {', '.join(known[1])}.",
                )
            if match and wanted and wanted.split(".")[0] != match[1]:
                yield Spot(
                    at,
                    f"The wheels are for CUDA {wanted}, and the image has CUDA {match[1]}.{match[2]}: extensions built here"
                    " do not load into them.",
                    f"Use wheels of CUDA {match[1]}, or an image of CUDA {wanted.split('.')[0]}.",
                )
            if cudnn and torch and known and cudnn[1] not in ("", str(known[2])):
                yield Spot(
                    at,
                    f"torch {torch[0]} needs cuDNN {known[2]}, and the image has cuDNN {cudnn[1]}.",
                    "Use another base image, or none with cuDNN: the wheels bring theirs.",
                )


RULES = (
    Rule("BaseImageUnpinned", "warning", "Base images have a version", unpinned),
    Rule("BaseImageEndOfLife", "warning", "Base images are maintained", end_of_life),
    Rule("BaseImageTooLarge", "info", "The final stage stands on a small image", too_large),
    Rule("CudaDevelInFinalStage", "warning", "No CUDA development image at the end", devel_at_the_end),
    Rule("CudaMismatch", "warning", "CUDA, cuDNN, torch and torchvision go together", cuda_and_torch),
)
