"""Compiled filters by profile: containers repeat the same few, and compiling one takes a millisecond."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from lading.base.errors import Unsupported
from lading.linux.seccomp import FLAG_NEW_LISTENER
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
            found = compile_filter(profile, native)
            if found[1] & FLAG_NEW_LISTENER:
                raise Unsupported(
                    "SCMP_ACT_NOTIFY is not supported by the engine",
                    why="nobody would answer the notifications",
                    hint="Remove the notify rules from the profile, or run the bundle with lading-runtime.",
                )
            self._programs[key] = found
        return found
