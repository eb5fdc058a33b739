"""Compact JSON bytes and the few shapes every renderer needs. Owns Docker's null-or-list and zero-time habits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from lading.base import clock

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dumps(value: Any) -> bytes:
    """One JSON text. Lone surrogates, which a hostile file name can hold, go out as replacement characters."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        return _encode(value).encode("utf-8", "replace")


def strings(values: Iterable[str] | None) -> list[str] | None:
    """Go's nil slice: null where there is nothing."""
    found = list(values) if values is not None else []
    return found or None


def present(mapping: Mapping[str, str] | None) -> dict[str, str]:
    """A copy that is never null."""
    return dict(mapping or {})


def keys(values: Iterable[str]) -> dict[str, dict[str, Any]] | None:
    """Go's map[string]struct{}; null where there is nothing."""
    return {value: {} for value in values} or None


def when(ns: int) -> str:
    """RFC 3339 with nanoseconds, Go's zero time for never; trailing zeros of the fraction go, as in Go's RFC3339Nano."""
    text = clock.rfc3339(ns)
    if "." not in text:
        return text
    return text[:-1].rstrip("0").rstrip(".") + "Z"


def when_seconds(ns: int) -> str:
    """RFC 3339 in whole seconds, as volumes show their age."""
    return clock.rfc3339(ns).partition(".")[0].removesuffix("Z") + "Z"
