"""Sizes, counts and times as docker shows them (its go-units). Owns rounding and words; reads no clock."""

from __future__ import annotations

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def _scaled(size: float, base: float, units: tuple[str, ...]) -> tuple[float, str]:
    at = 0
    while size >= base and at < len(units) - 1:
        size /= base
        at += 1
    return size, units[at]


def size(count: float, digits: int = 4) -> str:
    """Powers of 1000, four significant digits: `72.8MB`."""
    value, unit = _scaled(count, 1000.0, _DECIMAL)
    return f"{value:.{digits}g}{unit}"


def size3(count: float) -> str:
    """Powers of 1000, three significant digits, as image lists show them."""
    return size(count, 3)


def binary(count: float) -> str:
    """Powers of 1024, four significant digits: `1.944GiB`."""
    value, unit = _scaled(count, 1024.0, _BINARY)
    return f"{value:.4g}{unit}"


def duration(seconds: float) -> str:
    """`Less than a second`, `About a minute`, `5 hours`: go-units' HumanDuration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(hours / 24 / 365)} years"


def ago(then: float, now: float) -> str:
    """`5 minutes ago`; nothing for Go's zero time."""
    return duration(now - then) + " ago" if then > 0 else "N/A"


def zone_offset(seconds: float) -> tuple[str, str]:
    """The local zone at that time, as `+0200` and `CEST`."""
    import time

    local = time.localtime(seconds)
    return time.strftime("%z", local), time.strftime("%Z", local)


def created_at(seconds: float) -> str:
    """`2026-11-21 19:23:00 +0000 UTC`: how Go prints a time, which {{.CreatedAt}} shows."""
    import time

    offset, zone = zone_offset(seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))} {offset} {zone}"


def go_time(text: str) -> str:
    """An RFC 3339 time as Go prints it, in its own zone: `2026-11-21 19:23:00.5 +0000 UTC`."""
    if not text:
        return "0001-01-01 00:00:00 +0000 UTC"
    day, _, rest = text.partition("T")
    at = max(rest.rfind("+"), rest.rfind("-"))
    clock, zone = (rest[:at], rest[at:].replace(":", "")) if at > 0 else (rest.rstrip("Z"), "+0000")
    if "." in clock:
        clock = clock.rstrip("0").rstrip(".")
    return f"{day} {clock} {zone} {'UTC' if zone == '+0000' else zone}"


def short_id(identifier: str) -> str:
    """Twelve digits, without `sha256:`."""
    return identifier.removeprefix("sha256:")[:12]


def ellipsis(text: str, most: int) -> str:
    """At most `most` characters, the last one an ellipsis when something was cut."""
    if len(text) <= most:
        return text
    return text[: most - 1] + "…" if most > 1 else text[:most]
