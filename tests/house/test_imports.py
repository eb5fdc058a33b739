"""The floors of the house: a file imports only from lower floors. One table, one list of exceptions.

Reads the source, so that an import inside a function counts like one at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

FLOORS: dict[str, float] = {
    "base": 0,
    "linux": 0,
    "http": 1,
    "image": 1,
    "store": 2,
    "runtime": 2,
    "registry": 2,
    "network": 2,
    "device": 2,
    "engine": 3,
    "build": 3,
    "jobs": 3,
    "trust": 3,
    "api": 4,
    "client": 4,
    "rootless": 4.4,
    "assemble": 4.5,
    "cli": 5,
    "compose": 5,
    "web": 5,
    "__main__": 6,
    "__init__": -1,
}

# (importer, imported): why this crosses the rule.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def files() -> list[Path]:
    return sorted((SOURCE / "lading").rglob("*.py"))


def module_of(path: Path) -> str:
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every module that `tree` names in an import, or in a call of import_module with a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            if base == "lading":
                yield from ((node.lineno, f"lading.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def excepted(module: str, target: str) -> bool:
    return any(
        (module == importer or module.startswith(importer + "."))
        and (target == name or target.startswith(name + "."))
        for importer, name in EXCEPTIONS
    )


def offences(source: str, module: str, is_package: bool) -> list[str]:
    found = []
    for line, target in imported(ast.parse(source), module, is_package):
        if target.split(".")[0] != "lading" or "." not in target:
            continue
        mine, theirs = room_of(module), room_of(target)
        if theirs.startswith("__"):  # lading.__version__ and the like
            continue
        if theirs not in FLOORS:
            found.append(f"line {line}: {target} is on no floor")
        elif mine != theirs and not FLOORS[theirs] < FLOORS[mine] and not excepted(module, target):
            found.append(
                f"line {line}: {module} (floor {FLOORS[mine]}) imports {target} (floor {FLOORS[theirs]})"
            )
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: module_of(path))
def test_imports_come_from_lower_floors(path: Path) -> None:
    module = module_of(path)
    assert room_of(module) in FLOORS, (
        f"{module} is on no floor: add its room to DESIGN's plan and to this table"
    )
    assert not offences(path.read_text(), module, path.name == "__init__.py")


def test_every_exception_is_still_needed() -> None:
    used = set()
    for path in files():
        module = module_of(path)
        for _, target in imported(ast.parse(path.read_text()), module, path.name == "__init__.py"):
            used |= {pair for pair in EXCEPTIONS if module.startswith(pair[0]) and target.startswith(pair[1])}
    assert used == set(EXCEPTIONS)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("lading.image.layer", "from lading.store import blobs"),
        ("lading.store.blobs", "import lading.runtime"),
        ("lading.build.solve", "def f():\n    from lading.engine import model"),
        ("lading.engine.containers", "from ..api import server"),
        ("lading.engine.containers", "import importlib\nimportlib.import_module('lading.cli.run')"),
        ("lading.api.server", "from lading import assemble"),
        ("lading.base.errors", "from lading.linux import calls"),
    ],
)
def test_the_rule_finds_an_upward_import(module: str, line: str) -> None:
    assert offences(line, module, False)


def test_the_rule_lets_downward_imports_pass() -> None:
    assert not offences(
        "from lading.base import errors\nfrom . import blobs\nimport lading.image", "lading.store.x", False
    )
