"""Compiled filters by profile: containers repeat the same few, and compiling one takes a millisecond."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from lading.linux.syscall_numbers import NATIVE
from lading.runtime.seccomp.assemble import compile_filter

_KEPT = 32


class Filters:
    """Keeps the last few programs by their profile's text."""

    def __init__(self) -> None:
        self._programs: dict[str, tuple[bytes, int]] = {}

    def compiled(self, profile: Mapping[str, Any] | None) -> tuple[bytes, int]:
        """(program, flags); empty without a profile or on a machine whose numbers are unknown."""
        native = NATIVE.get(os.uname().machine)
        if not profile or native is None:
            return b"", 0
        key = json.dumps(profile, sort_keys=True)
        found = self._programs.get(key)
        if found is None:
            if len(self._programs) >= _KEPT:
                self._programs.clear()
            found = self._programs[key] = compile_filter(profile, native)
        return found
