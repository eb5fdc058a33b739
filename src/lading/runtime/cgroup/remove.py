"""Taking control groups away again. Apart from `group` because the monitor needs this and nothing else of it."""

from __future__ import annotations

import os
import time

if False:  # names for the type checker only; the zygote must not import typing
    from collections.abc import Iterable


def remove_directories(directories: Iterable[str]) -> None:
    """rmdir each group and what the container made below it. Never raises for a group already gone."""
    for directory in directories:
        for attempt in range(50):
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError:
                for path, names, _ in os.walk(directory, topdown=False):
                    for name in names:
                        try:
                            os.rmdir(os.path.join(path, name))
                        except OSError:
                            pass
                time.sleep(0.001 * min(attempt, 10))
