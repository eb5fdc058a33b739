"""The table from lading's closed set of errors to HTTP status. Owns the mapping and the JSON of an error, nothing else."""

from __future__ import annotations

from lading.base import errors
from lading.http import refused

STATUS: dict[type[errors.LadingError], int] = {
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 400,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.Cancelled: 499,  # the code the reference engine answers when the caller gave up; nobody reads it
    errors.Internal: 500,
}


class Refused(refused.Refused):
    """The request fails with a status of its own: for a reason of HTTP itself (405, 411, 413, 415, 431), or because a
    container cannot start; then `run_code` is what `run` exits with, which lading's client would else have to guess.
    """

    def __init__(self, status: int, what: str, run_code: int = 0) -> None:
        super().__init__(status, what)
        self.run_code = run_code


def status_of(error: errors.LadingError) -> int:
    """The HTTP status that tells `error`'s class to a client."""
    if isinstance(error, refused.Refused):
        return error.status
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return 500
