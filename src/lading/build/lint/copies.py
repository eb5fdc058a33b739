"""Rules about COPY and ADD: ignored files, secrets, data sets and repositories in images, the order for the cache."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator

from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.instructions import Word
from lading.build.lint.finding import Rule, Spot
from lading.build.lint.shell import commands
from lading.build.lint.source import Item, Source

_URL = re.compile(r"[a-z]+://|git@", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tar\.\w+)\Z", re.IGNORECASE)
_SECRET_FILES = (
    ".env", ".env.*", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", ".netrc", ".pypirc",
    ".npmrc", ".git-credentials", "kaggle.json", "credentials", "credentials.json", "service-account*.json", ".aws", ".ssh",
    ".kube", ".docker", "token.txt",
)  # fmt: skip
_HARMLESS = (".env.example", ".env.sample", ".env.template")
_DATA = (
    "*.csv", "*.tsv", "*.parquet", "*.feather", "*.arrow", "*.npy", "*.npz", "*.h5", "*.hdf5", "*.tfrecord", "*.jsonl",
    "data", "datasets", "dataset",
)  # fmt: skip
_WEIGHTS = (
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.safetensors",
    "*.onnx",
    "*.gguf",
    "*.bin",
    "*.pb",
    "checkpoints",
    "weights",
)
_OTHER = {"*.ipynb": "notebooks", "notebooks": "notebooks", ".git": "the repository's history"}


def _sources(source: Source) -> Iterator[tuple[Item, Word, str]]:
    """The local sources of COPY and ADD, without a leading ./ or trailing slash."""
    for item in source.items:
        one = item.one
        if not isinstance(one, ins.Transfer) or (isinstance(one, ins.Copy) and one.source_stage is not None):
            continue
        for word in one.sources:
            text = word.text.strip("\"'")
            if not _URL.match(text):
                yield item, word, posixpath.normpath("/" + text).lstrip("/")


def _like(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(posixpath.basename(path), pattern) for pattern in patterns)


def ignored(source: Source) -> Iterator[Spot]:
    patterns = source.around.ignore
    if patterns is None:
        return
    for item, word, path in _sources(source):
        verdict = patterns.verdict(path) if path and "$" not in path and "*" not in path else None
        if verdict is not None and patterns.prunes(path):
            yield Spot(
                word.position,
                f'{item.one.keyword} names "{path}", which line {verdict.line} of the ignore file leaves out.',
                f'Remove "{verdict.text}" there, or add !{path}.',
            )


def secret_files(source: Source) -> Iterator[Spot]:
    for item, word, path in _sources(source):
        if _like(path, _SECRET_FILES) and not _like(path, _HARMLESS):
            yield Spot(
                word.position,
                f"{item.one.keyword} puts {path} into a layer, where whoever has the image reads it, also when a later step"
                " removes it.",
                "Use RUN --mount=type=secret for the build, or mount the file when the container starts.",
            )


def data(source: Source) -> Iterator[Spot]:
    for item, word, path in _sources(source):
        what = "a data set" if _like(path, _DATA) else "weights" if _like(path, _WEIGHTS) else ""
        what = what or next((text for pattern, text in _OTHER.items() if _like(path, (pattern,))), "")
        if what:
            yield Spot(
                word.position,
                f"{item.one.keyword} {path} puts {what} into the image: every push and pull carries it, and every"
                " change makes a new layer.",
                f"Mount it when the container starts (-v or --mount), and add {path} to .dockerignore.",
            )


def no_ignore_file(source: Source) -> Iterator[Spot]:
    if source.around.ignore is None or source.around.has_ignore:
        return
    for _, word, path in _sources(source):
        if path in ("", "*"):
            yield Spot(
                word.position,
                "The whole context is copied, and no .dockerignore keeps .git, caches, data and credentials out.",
                "Write one that begins with: .git, __pycache__, .venv, .env, data, *.ipynb.",
            )
            return


def requirements_late(source: Source) -> Iterator[Spot]:
    for stage in source.stages:
        whole: Item | None = None
        for item in stage.items:
            one = item.one
            if isinstance(one, ins.Transfer) and not (isinstance(one, ins.Copy) and one.source_stage):
                if any(word.text.strip("\"'") in (".", "./", "*") for word in one.sources):
                    whole = whole or item
            elif isinstance(one, ins.Run) and whole is not None and one.mounts == ():
                for found in commands(item):
                    text = " ".join(found.words)[:4096]
                    match = re.search(r"install .*?(?:-r|--requirement)[ =]?(\S+)", text)
                    if found.program in ("pip", "pip3", "python", "python3", "uv") and match:
                        names = f"COPY {match[1]} ./"
                        yield Spot(
                            whole.one.position,
                            "The code is copied before its requirements are installed, so each change of a line installs"
                            " everything anew.",
                            f"Put {names} and the installation first, and this line after them.",
                        )
                        break
                else:
                    continue
                break


def add_local(source: Source) -> Iterator[Spot]:
    for item in source.items:
        one = item.one
        if not isinstance(one, ins.Add) or one.checksum is not None or not one.sources:
            continue
        texts = [word.text.strip("\"'") for word in one.sources]
        if any(_URL.match(text) or _ARCHIVE.search(text) or "$" in text or "*" in text for text in texts):
            continue
        keyword = item.words[0][1]
        new = "copy" if keyword.islower() else "COPY"
        yield Spot(
            one.position,
            "ADD also downloads and unpacks; for files of the context COPY says what is meant.",
            "Use COPY.",
            source.swap(one.position, keyword, new, safe=one.unpack is None),
        )


RULES = (
    Rule("CopyIgnoredFile", "error", "Nothing is copied that the ignore file leaves out", ignored),
    Rule("SecretFileCopied", "error", "No files with credentials in the image", secret_files),
    Rule("DataInImage", "warning", "No data sets, weights, notebooks or repositories in the image", data),
    Rule(
        "MissingDockerignore", "warning", "A context that is copied whole has a .dockerignore", no_ignore_file
    ),
    Rule(
        "RequirementsAfterCode",
        "warning",
        "Requirements are installed before the code is copied",
        requirements_late,
    ),
    Rule("AddForLocalFiles", "info", "COPY for files, ADD for downloads and archives", add_local),
)
