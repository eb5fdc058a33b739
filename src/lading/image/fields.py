"""Typed reading of hostile JSON. Owns the bounds and the wording of the complaints; knows no document.

Every function takes the decoded object and a key, and gives a value of the promised type or raises Invalid
naming the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from lading.base import errors

T = TypeVar("T")

LIMIT = 4 << 20
"""Bytes of a manifest or config that are read at most; registries commonly refuse more (distribution-spec, 4
MiB)."""

MANY = 100_000
"""Items of one array or object at most."""


def load(data: bytes, what: str, limit: int = LIMIT) -> dict[str, Any]:
    """Decode a JSON object; Invalid for anything else, too large, too deep, or not UTF-8."""
    if len(data) > limit:
        raise errors.Invalid(f"{what} is larger than {limit} bytes")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise errors.Invalid(f"{what} is not valid JSON", why=str(error)[:200]) from None
    return mapping(value, what)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259)")


def dump(value: object) -> bytes:
    """Compact JSON in the order given: the same value always gives the same bytes, so the same digest."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise errors.Invalid(f"{what} must be an object, not {_kind(value)}")
    if len(value) > MANY:
        raise errors.Invalid(f"{what} has more than {MANY} members")
    return value


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _wrong(key: str, expected: str, value: object) -> NoReturn:
    raise errors.Invalid(f"field {key!r} must be {expected}, not {_kind(value)}")


def text(obj: Mapping[str, Any], key: str, default: str = "") -> str:
    value = obj.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        _wrong(key, "a string", value)
    if "\0" in value:
        raise errors.Invalid(f"field {key!r} contains a zero byte")
    return value


def integer(obj: Mapping[str, Any], key: str, default: int | None = None, *, minimum: int = 0) -> int:
    value = obj.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong(key, "a whole number", value)
    if not minimum <= value < 1 << 63:
        raise errors.Invalid(f"field {key!r} is out of range")
    return value


def boolean(obj: Mapping[str, Any], key: str) -> bool:
    value = obj.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        _wrong(key, "a boolean", value)
    return value


def items(obj: Mapping[str, Any], key: str) -> list[Any]:
    """An array, or empty where the member is missing or null (Go writes nil slices as null)."""
    value = obj.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        _wrong(key, "an array", value)
    if len(value) > MANY:
        raise errors.Invalid(f"field {key!r} has more than {MANY} items")
    return value


def texts(obj: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """An array of strings; None where the member is missing or null."""
    if obj.get(key) is None:
        return None
    values = items(obj, key)
    for value in values:
        if not isinstance(value, str):
            _wrong(key, "an array of strings", value)
        if "\0" in value:
            raise errors.Invalid(f"field {key!r} contains a zero byte")
    return tuple(values)


def text_map(obj: Mapping[str, Any], key: str) -> dict[str, str]:
    """An object whose values are strings."""
    value = obj.get(key)
    if value is None:
        return {}
    for item in mapping(value, f"field {key!r}").values():
        if not isinstance(item, str):
            _wrong(key, "an object of strings", item)
    return dict(value)


def keys(obj: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The member names of an object used as a set (`{"80/tcp": {}}`), sorted."""
    value = obj.get(key)
    if value is None:
        return ()
    return tuple(sorted(mapping(value, f"field {key!r}")))


def each(obj: Mapping[str, Any], key: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    """`read` applied to every object of an array."""
    return tuple(read(mapping(item, f"item of {key!r}")) for item in items(obj, key))


def put(target: dict[str, Any], key: str, value: object) -> None:
    """Set `key` unless the value is empty, as Go's omitempty does; 0 and "" are empty too."""
    if value is None or value == "" or value == 0 or value in ((), {}, []):
        return
    target[key] = value
