"""Filters as Docker sends them: a map of key to values. Owns their common rules; each noun names its own keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from lading.base import clock
from lading.base.errors import Invalid

Filters = Mapping[str, tuple[str, ...]]


def known(filters: Filters, keys: Iterable[str]) -> None:
    """Invalid, with a suggestion, when a key is not among `keys`."""
    allowed = frozenset(keys)
    for key in filters:
        if key not in allowed:
            near = get_close_matches(key, allowed, 1)
            raise Invalid(
                f"invalid filter '{key}'",
                hint=f"Did you mean '{near[0]}'?" if near else f"Known are {', '.join(sorted(allowed))}.",
            )


def labels(have: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether every "key" or "key=value" is among `have`."""
    for text in wanted:
        key, separator, value = text.partition("=")
        if key not in have or (separator and have[key] != value):
            return False
    return True


def truth(filters: Filters, key: str) -> bool | None:
    """A filter that is true or false; None when it is not given."""
    values = filters.get(key)
    if not values:
        return None
    if all(value.lower() in ("1", "true", "t") for value in values):
        return True
    if all(value.lower() in ("0", "false", "f") for value in values):
        return False
    raise Invalid(f"invalid filter '{key}={values[0]}'", hint="Use true or false.")


def moment(text: str) -> int:
    """A time of a filter or of --since: seconds with a fraction, RFC 3339, or a duration back from now ("10m")."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        if text and text[-1] in units:
            total, number = 0.0, ""
            for char in text:
                if char in units:
                    total += float(number) * units[char]
                    number = ""
                else:
                    number += char
            return clock.now_ns() - int(total * 1_000_000_000)
        if text.replace(".", "", 1).isdigit():
            seconds, _, fraction = text.partition(".")
            return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
        return clock.parse_rfc3339(text)
    except ValueError:
        raise Invalid(
            f'invalid time "{text[:64]}"', hint="Write seconds since 1970, RFC 3339, or a duration as 10m."
        ) from None
