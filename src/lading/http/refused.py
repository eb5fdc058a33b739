"""Refusals that HTTP itself gives, each with a status of its own. Owns no body of an answer."""

from __future__ import annotations

from lading.base.errors import LadingError


class Refused(LadingError):
    """The request fails for a reason of HTTP itself: 405, 411, 413, 415, 431, 505."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
