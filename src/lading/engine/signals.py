"""Signals by name or number, as `--signal` and STOPSIGNAL write them. Pure."""

from __future__ import annotations

import signal

from lading.base.errors import Invalid

_RTMIN, _RTMAX = int(signal.SIGRTMIN), int(signal.SIGRTMAX)


def parse(text: str) -> int:
    """ "SIGTERM", "term", "15" or "RTMIN+3" as a number; Invalid otherwise."""
    name = text.strip().upper()
    if name.isascii() and name.isdigit() and len(name) <= 3:
        number = int(name)
        if 1 <= number <= _RTMAX:
            return number
        raise Invalid(f"invalid signal: {text[:40]}", why=f"The range is 1 to {_RTMAX}.")
    name = name.removeprefix("SIG")
    for base, number, sign in (("RTMIN", _RTMIN, 1), ("RTMAX", _RTMAX, -1)):
        rest = name.removeprefix(base)
        if rest != name:
            offset = rest.lstrip("+-")
            value = number + sign * int(offset) if offset.isdigit() and len(offset) < 3 else number
            if (not rest or offset.isdigit()) and _RTMIN <= value <= _RTMAX:
                return value
    found = getattr(signal, "SIG" + name, None)
    if isinstance(found, signal.Signals):
        return int(found)
    raise Invalid(f"invalid signal: {text[:40]}", hint="Write a name as SIGTERM or a number; see signal(7).")
