"""The command line: Docker's verbs over the Docker API. One file per noun; verbs are imported when they are called.

Start-up time is a feature: see the first lines of `lading.client` and tests/house/test_cli_startup.py.
"""

from __future__ import annotations


def main() -> int:
    """The console script's entry."""
    from lading.cli.entry import run_process

    return run_process()
