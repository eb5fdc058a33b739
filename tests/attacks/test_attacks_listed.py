"""SECURITY.md tells every attack of this suite, and none that is not here. Reads files, runs nothing."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_the_table_is_true() -> None:
    text = (HERE.parents[1] / "SECURITY.md").read_text()
    listed = set(re.findall(r"`(test_\w+)`", text))
    found = set()
    for path in HERE.glob("test_attacks_*.py"):
        if f"`tests/attacks/{path.name}`" in text:
            continue  # a row for the whole file
        for name, arguments in re.findall(r"^def (test_\w+)\(([^)]*)\)", path.read_text(), re.MULTILINE):
            if "attack: Attack" in arguments and not name.endswith("_for_long"):
                found.add(name)
    assert len(found) > 30
    assert listed == found
