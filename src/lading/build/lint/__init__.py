"""The lint: `check` gives a `Report` of what could be better in a Dockerfile; `fixed` applies what is safe.

Runs nothing, asks no registry and needs no daemon: a file is judged by its text and, where given, its context.
"""

from lading.build.lint.check import RULES, check, fixed
from lading.build.lint.finding import LEVELS, Finding, Report
from lading.build.lint.source import Around

__all__ = ["LEVELS", "RULES", "Around", "Finding", "Report", "check", "fixed"]
