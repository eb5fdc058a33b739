"""Sizes, durations and counts as users write them. Owns their syntax; how they are shown is `human`'s matter."""

from __future__ import annotations

_SIZE = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATION = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_size(text: str) -> int:
    """Bytes of `512m`, `1.5g`, `2GiB`, `100`; units are powers of 1024 as docker reads them. -1 passes: no limit."""
    body = text.strip().lower()
    if body == "-1":
        return -1
    at = len(body.rstrip("abcdefghijklmnopqrstuvwxyz "))
    number, unit = body[:at], body[at:].strip()
    if len(unit) > 1 and unit[0] in "kmgtp" and unit[1:] in ("b", "ib"):
        unit = unit[0]
    factor = _SIZE.get(unit)
    if factor is None or not number or number.strip("0123456789.") or number.count(".") > 1 or number == ".":
        raise ValueError(f"invalid size: {text!r} (write bytes, or a number with b, k, m or g)")
    return int(float(number) * factor) if "." in number else int(number) * factor


def parse_rate(text: str) -> int:
    """Bits a second of `100mbit`, `1.5gbit`, `64kbit`, `8000`, as tc reads them: units are powers of 1000."""
    body = text.strip().lower().removesuffix("bit")
    factor = {"k": 10**3, "m": 10**6, "g": 10**9}.get(body[-1:], 1)
    number = body.rstrip("kmg") if factor > 1 else body
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit() and len(digits) < 15 and len(body) - len(number) < 2):
        raise ValueError(f"invalid rate: {text!r} (write bits a second, or a number with kbit, mbit or gbit)")
    return int(float(number) * factor)


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration: `1m30s`, `500ms`, `1.5h`, `0`, `-5s`."""
    body = text.strip()
    sign = 1
    if body[:1] in ("-", "+"):
        sign, body = (-1 if body[0] == "-" else 1), body[1:]
    if body == "0":
        return 0
    total, at = 0.0, 0
    while at < len(body):
        start = at
        while at < len(body) and body[at] in "0123456789.":
            at += 1
        number = body[start:at]
        start = at
        while at < len(body) and body[at] not in "0123456789.":
            at += 1
        factor = _DURATION.get(body[start:at])
        if factor is None or not number or number.count(".") > 1 or number == ".":
            total = -1
            break
        total += float(number) * factor if "." in number else int(number) * factor
    if not body or total < 0:
        raise ValueError(f"invalid duration: {text!r} (write 30s, 1m30s, 500ms or 2h)")
    return sign * int(total)


def parse_cpus(text: str) -> int:
    """Units of 1e-9 CPU of `0.5` or `2`; no finer than a nano-CPU."""
    whole, _, fraction = text.strip().partition(".")
    digits = whole + fraction
    if not digits or not (digits.isascii() and digits.isdigit()) or len(whole) > 9:
        raise ValueError(f"failed to parse {text!r} as a number of CPUs (write 0.5 or 2)")
    if len(fraction.rstrip("0")) > 9:
        raise ValueError(f"{text!r} is too precise: nine digits after the point at most")
    return int(whole or "0") * 1_000_000_000 + int((fraction + "000000000")[:9])
