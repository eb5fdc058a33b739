"""What a build that fails says: the step, its place in the Dockerfile, its exit code, the end of its output.

Owns the wording; never decides that something failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lading.base.errors import Cancelled, Invalid, LadingError
from lading.build.dockerfile import DockerfileError, Instruction

_TAIL_BYTES = 8192
_TAIL_LINES = 12


class StepFailed(Invalid):
    """A RUN step ended with an exit code other than 0."""

    def __init__(
        self, code: int, argv: Sequence[str], instruction: Instruction, file: str, tail: str
    ) -> None:
        self.code = code
        self.instruction = instruction
        self.line = instruction.position.line
        self.tail = tail
        why = f"{file} line {self.line}: {instruction.text[:300]}"
        if tail:
            why += f"\nThe last lines of its output:\n{tail}"
        # Docker's own sentence, which scripts look for.
        super().__init__(f"The command '{' '.join(argv)[:1000]}' returned a non-zero code: {code}", why=why)


class Tail:
    """Keeps the end of a step's output."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-_TAIL_BYTES:]

    def text(self) -> str:
        """The last lines, without control characters that would play with a terminal."""
        lines = self._data.decode("utf-8", "replace").replace("\r", "\n").split("\n")
        kept = [line for line in lines if line.strip()][-_TAIL_LINES:]
        return "\n".join("".join(c for c in line if c.isprintable() or c == "\t")[:400] for line in kept)


def located(error: LadingError, instruction: Instruction, file: str) -> LadingError:
    """The same error, saying which instruction met it."""
    if isinstance(error, DockerfileError):
        return error.inside(file) if error.file == "Dockerfile" else error
    if not isinstance(error, (StepFailed, Cancelled)):
        told(error, f"{file} line {instruction.position.line}: {instruction.text[:200]}")
    return error


def told(error: LadingError, where: str) -> None:
    """Add to an error where it was met; its kind and whatever else it carries stay."""
    if error.why and not error.why.endswith((".", "!", "?")):
        error.why += "."
    error.why = f"{error.why} {where}".lstrip()
