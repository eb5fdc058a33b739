"""Each file says what it is for, stays small, and uses the house's words. Reads source, runs none."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/lading"
FILES = sorted(SOURCE.rglob("*.py"))
LIMIT = 400

# Longer files, each with its reason.
LONG: dict[str, str] = {}

FORBIDDEN_WORDS = re.compile(r"(Manager|Helper|Util|Utils)(?=[A-Z]|$)")
FORBIDDEN_FILES = re.compile(r"^(utils?|helpers?|managers?|misc|common)(_|$)")
# Doors may print; a library that prints spoils somebody's output.
MAY_PRINT = ("cli", "__main__.py")


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def parametrized(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name)


@parametrized([path for path in FILES if path.stat().st_size])
def test_the_first_docstring_states_the_purpose(path: Path) -> None:
    purpose = ast.get_docstring(ast.parse(path.read_text()))
    assert purpose, "the file opens with no docstring"
    assert len(purpose.split()) >= 4, f"this says too little: {purpose!r}"


@parametrized(FILES)
def test_length(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    if name(path) in LONG:
        assert lines > LIMIT, f"{lines} lines: take it out of LONG"
    else:
        assert lines <= LIMIT, f"{lines} lines: split it, or add it to LONG with a reason"


def test_long_files_exist() -> None:
    assert set(LONG) <= {name(path) for path in FILES}
    assert all(LONG.values())


@parametrized(FILES)
def test_words(path: Path) -> None:
    assert not FORBIDDEN_FILES.match(path.stem), "say what the file is about"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert not FORBIDDEN_WORDS.search(node.name), f"line {node.lineno}: class {node.name}"


@parametrized(FILES)
def test_habits(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text), "unfinished business belongs into an issue"
    prints = name(path).split("/")[0] in MAY_PRINT
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert prints, f"line {node.lineno}: print in a library"


def test_class_names_are_recognised() -> None:
    assert FORBIDDEN_WORDS.search("ImageManager") and FORBIDDEN_WORDS.search("PathUtils")
    assert not FORBIDDEN_WORDS.search("Utilisation")


def test_no_machine_of_ours_is_named() -> None:
    """Paths of a workplace in code, documents or tests would be true on one machine only."""
    private = re.compile(r"/work/(?:main|shared|\.library)|/opt/(?:wheels|pypi)")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for tracked in filter(None, listing.stdout.decode().split("\0")):
        path = ROOT / tracked
        if path != Path(__file__) and path.is_file():
            lines = enumerate(path.read_text(errors="replace").splitlines(), 1)
            found += [f"{tracked}:{number}" for number, line in lines if private.search(line)]
    assert not found
