"""Restart policies. Pure: whether a container that ended is started again, and after how long."""

from __future__ import annotations

from lading.engine.model import Restart

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
STEADY_NS = 10_000_000_000
"""A run of ten seconds counts as success: the next failure starts from the shortest delay again."""


def again(policy: Restart, exit_code: int, restarts: int, wanted: bool) -> bool:
    """`wanted` is false once the user has stopped the container; `restarts` counts those made so far."""
    if not wanted:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    return (
        policy.name == "on-failure" and exit_code != 0 and (not policy.maximum or restarts < policy.maximum)
    )


def delay(previous: float, ran_ns: int) -> float:
    """Seconds to wait: 100 ms, doubled after each short run, 60 s at most."""
    if previous <= 0 or ran_ns >= STEADY_NS:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
