"""Typed looks into a JSON object a client sent. Owns the type errors, which name the field; knows no API.

Go's decoder, which clients are written against, ignores unknown fields, takes null as absent and matches names without
regard to case; so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lading.base.errors import Invalid

_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class Fields:
    """One object; `where` is its place for messages ("HostConfig")."""

    __slots__ = ("_folded", "_where", "value")

    def __init__(self, value: Mapping[str, Any], where: str = "") -> None:
        self.value = value
        self._where = where
        self._folded: dict[str, Any] | None = None

    def get(self, name: str) -> Any:
        """The raw value, None when absent; another spelling of the case is looked up only when the exact one is missing."""
        found = self.value.get(name)
        if found is not None or name in self.value:
            return found
        if self._folded is None:
            self._folded = {key.lower(): value for key, value in self.value.items()}
        return self._folded.get(name.lower())

    def _typed(self, name: str, kind: type) -> Any:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(name, kind, value)
        return value

    def wrong(self, name: str, kind: type, value: object) -> Invalid:
        place = f"{self._where}.{name}" if self._where else name
        return Invalid(f"{place} must be {_NAMES[kind]}, not {_NAMES.get(type(value), 'null')}")

    def text(self, name: str, default: str = "") -> str:
        value: str | None = self._typed(name, str)
        return default if value is None else value

    def flag(self, name: str, default: bool = False) -> bool:
        value: bool | None = self._typed(name, bool)
        return default if value is None else value

    def integer(self, name: str, default: int = 0) -> int:
        value: int | None = self._typed(name, int)
        return default if value is None else self._bounded(name, value)

    def maybe_integer(self, name: str) -> int | None:
        value: int | None = self._typed(name, int)
        return None if value is None else self._bounded(name, value)

    def _bounded(self, name: str, value: int) -> int:
        if not -(1 << 63) <= value < 1 << 63:
            raise Invalid(f"{self._where + '.' if self._where else ''}{name} does not fit in 64 bits")
        return value

    def items(self, name: str) -> list[Any]:
        value: list[Any] | None = self._typed(name, list)
        return value or []

    def maybe_strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, None when it is absent."""
        value: list[Any] | None = self._typed(name, list)
        if value is None:
            return None
        for item in value:
            if not isinstance(item, str):
                raise self.wrong(f"{name}[]", str, item)
        return tuple(value)

    def strings(self, name: str) -> tuple[str, ...]:
        return self.maybe_strings(name) or ()

    def words(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or one string that stands for a list of one (Docker's StrSlice)."""
        value = self.get(name)
        return (value,) if isinstance(value, str) else self.maybe_strings(name)

    def mapping(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] | None = self._typed(name, dict)
        return value or {}

    def string_map(self, name: str) -> dict[str, str]:
        value = self.mapping(name)
        for key, item in value.items():
            if not isinstance(item, str):
                raise self.wrong(f"{name}[{key[:40]}]", str, item)
        return value

    def object(self, name: str) -> Fields:
        return Fields(self.mapping(name), f"{self._where}.{name}" if self._where else name)

    def objects(self, name: str) -> list[Fields]:
        place = f"{self._where}.{name}" if self._where else name
        found = []
        for item in self.items(name):
            if not isinstance(item, dict):
                raise self.wrong(f"{name}[]", dict, item)
            found.append(Fields(item, f"{place}[]"))
        return found
