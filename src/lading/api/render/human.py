"""The words of `ps`: "Up 3 minutes (healthy)", "Exited (0) 2 hours ago". Pure; times come in as nanoseconds."""

from __future__ import annotations

from lading.engine.model import State

_SECOND = 1_000_000_000


def duration(ns: int) -> str:
    """A rough length of time, in the steps every Docker client's users read: seconds, then about a minute, ..."""
    seconds = max(0, ns) // _SECOND
    minutes = seconds // 60
    hours = (seconds + 1800) // 3600  # rounded, as the tables of Docker's clients are
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def status(state: State, now_ns: int) -> str:
    """The Status column."""
    if state.status == "running" or state.status == "paused":
        text = f"Up {duration(now_ns - state.started_ns)}"
        if state.status == "paused":
            return f"{text} (Paused)"
        if state.health == "starting":
            return f"{text} (health: starting)"
        return f"{text} ({state.health})" if state.health else text
    ago = f"{duration(now_ns - state.finished_ns)} ago"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {ago}"
    if state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if state.status == "created" or not state.finished_ns:
        return "Created"
    return f"Exited ({state.exit_code}) {ago}"
