"""The closed set of errors that cross a room's border. Owns their words; never maps them to HTTP or exit codes.

Each error says what happened, why, and what to do next. `linux/` raises OSError; a room translates once, at its
border, into one of these. Anything else that reaches a door (cli, api) is a bug and is shown as Internal.
"""

from __future__ import annotations


class LadingError(Exception):
    """Base of the set. `what` is one clause without a full stop; `why` and `hint` are whole sentences or empty."""

    exit_code = 125
    """What `run` exits with: 125, or 126/127 when the container's own command is at fault."""

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.hint:
            text += ("" if text.endswith((".", "!", "?")) else ".") + f" {self.hint}"
        return text


class NotFound(LadingError):
    """The named thing does not exist (HTTP 404)."""


class Conflict(LadingError):
    """The request clashes with the present state: a name in use, a running container (HTTP 409)."""


class Invalid(LadingError):
    """The input is malformed or contradicts itself (HTTP 400)."""


class Denied(LadingError):
    """The caller, or lading itself, may not do this (HTTP 403)."""


class Unauthenticated(LadingError):
    """Credentials are missing or wrong (HTTP 401)."""


class Unsupported(LadingError):
    """This kernel, host or version of lading cannot do it (HTTP 501)."""


class Unavailable(LadingError):
    """Something needed does not answer now: daemon, registry, disk space (HTTP 503)."""


class Cancelled(LadingError):
    """The caller went away or asked to stop."""


class Internal(LadingError):
    """A broken promise inside lading (HTTP 500)."""
