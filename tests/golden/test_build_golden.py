"""Dockerfiles and what they parse to. LADING_GOLDEN=write makes the expected files anew, for a reviewer's
eyes.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lading.build.dockerfile import Position, parse

FILES = sorted((Path(__file__).parent / "dockerfiles").glob("*.Dockerfile"))


def plain(value: Any) -> Any:
    """Values as JSON: positions as "line:column", fields that are empty left out."""
    if isinstance(value, Position):
        return f"{value.line}:{value.column}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        kept = {name: item for name, item in fields.items() if item not in (None, "", [], {}, False, 0)}
        return {"type": type(value).__name__, **kept}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parses_as_recorded(path: Path) -> None:
    found = plain(parse(path.read_bytes(), path.name))
    expected = path.with_suffix(".json")
    if os.environ.get("LADING_GOLDEN") == "write":
        expected.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(expected.read_text())


def test_there_is_something_to_compare() -> None:
    assert len(FILES) >= 7
