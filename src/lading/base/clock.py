"""Time as values: nanoseconds since the epoch, and RFC 3339 text. Owns formats; the only place that reads the clock."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time, which Docker's API uses for "never"."""


def now_ns() -> int:
    """Wall clock, nanoseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns()


def rfc3339(ns: int) -> str:
    """`2026-11-21T19:23:00.000000001Z`; nine fraction digits, always UTC. 0 gives Go's zero time."""
    if ns == 0:
        return ZERO
    seconds, fraction = divmod(ns, 1_000_000_000)
    t = time.gmtime(seconds)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}.{fraction:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with any number of fraction digits.

    Raises ValueError for anything else. Go's zero time gives 0.
    """
    import calendar

    body, offset = text.strip(), 0
    if len(body) < 20 or body[10] not in "Tt ":
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    if body[-1] in "Zz":
        body = body[:-1]
    else:
        sign = {"+": 1, "-": -1}.get(body[-6])
        if sign is None or body[-3] != ":":
            raise ValueError(f"not an RFC 3339 time (no zone): {text!r}")
        offset = sign * (int(body[-5:-3]) * 3600 + int(body[-2:]) * 60)
        body = body[:-6]
    whole, _, fraction = body.partition(".")
    if fraction and not (fraction.isascii() and fraction.isdigit()):
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    if whole.startswith("0001-01-01"):
        return 0
    t = time.strptime(whole[:10] + "T" + whole[11:], "%Y-%m-%dT%H:%M:%S")
    return (calendar.timegm(t) - offset) * 1_000_000_000 + int(
        (fraction + "000000000")[:9] if fraction else 0
    )
