"""Errors as the distribution specification words them: a code, an HTTP status, a JSON body ("Error Codes").

Owns the table from lading's closed set to those; decides nothing about when an error happens.
"""

from __future__ import annotations

import json

from lading.base import errors
from lading.http.refused import Refused

BLOB_UNKNOWN = "BLOB_UNKNOWN"
BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
DIGEST_INVALID = "DIGEST_INVALID"
MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
MANIFEST_INVALID = "MANIFEST_INVALID"
MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
NAME_INVALID = "NAME_INVALID"
NAME_UNKNOWN = "NAME_UNKNOWN"
SIZE_INVALID = "SIZE_INVALID"
UNAUTHORIZED = "UNAUTHORIZED"
DENIED = "DENIED"
UNSUPPORTED = "UNSUPPORTED"
TOOMANYREQUESTS = "TOOMANYREQUESTS"
UNAVAILABLE = (
    "UNAVAILABLE"  # these two are not the specification's: it has no code for a server's own trouble
)
UNKNOWN = "UNKNOWN"

_TABLE: tuple[tuple[type[errors.LadingError], int, str], ...] = (
    (errors.NotFound, 404, BLOB_UNKNOWN),
    (errors.Conflict, 409, BLOB_UPLOAD_INVALID),
    (errors.Invalid, 400, UNSUPPORTED),
    (errors.Unsupported, 400, UNSUPPORTED),
    (errors.Denied, 403, DENIED),
    (errors.Unauthenticated, 401, UNAUTHORIZED),
    (errors.Unavailable, 503, UNAVAILABLE),
)


class Refusal(errors.LadingError):
    """A request that gets an error of the specification. `headers` go with it."""

    def __init__(
        self, status: int, code: str, what: str, *, why: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(what, why=why)
        self.status = status
        self.code = code
        self.headers = headers


def explain(error: errors.LadingError) -> tuple[int, str]:
    """The status and the code for any error of the closed set."""
    if isinstance(error, Refusal):
        return error.status, error.code
    if isinstance(error, Refused):
        return error.status, UNSUPPORTED
    for kind, status, code in _TABLE:
        if isinstance(error, kind):
            return status, code
    return 500, UNKNOWN


def body(code: str, message: str) -> bytes:
    """The JSON that every error answers with."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode() + b"\n"
