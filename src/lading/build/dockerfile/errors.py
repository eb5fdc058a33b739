"""Positions in a Dockerfile and the one error its front end raises. Owns their wording; never reads text."""

from __future__ import annotations

from dataclasses import dataclass

from lading.base.errors import Invalid

_SHOWN = 120


@dataclass(frozen=True, order=True)
class Position:
    """A place in the file; line and column count from 1, columns in characters."""

    line: int
    column: int = 1


class DockerfileError(Invalid):
    """A mistake in the text: where it is, the offending text, what is wrong and what was probably meant."""

    def __init__(
        self, message: str, position: Position, *, text: str = "", hint: str = "", file: str = "Dockerfile"
    ) -> None:
        self.message = message
        self.position = position
        self.text = shown(text)
        self.file = file
        super().__init__(
            f"{file} line {position.line}, column {position.column}",
            why=message + (f" (at `{self.text}`)" if text else ""),
            hint=hint,
        )

    def inside(self, file: str) -> DockerfileError:
        """The same error, told of another file."""
        return DockerfileError(self.message, self.position, text=self.text, hint=self.hint, file=file)


def shown(text: str) -> str:
    """Text as an error may print it: one line, bounded, without control characters."""
    line = text.split("\n", 1)[0]
    line = "".join(c if c.isprintable() else "�" for c in line.replace("\t", " "))
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def closest(word: str, known: tuple[str, ...]) -> str:
    """The known word most like `word`, or "" when none is near (difflib is only imported on the way to an
    error).
    """
    import difflib

    found = difflib.get_close_matches(word[:64], known, 1, 0.6)
    return found[0] if found else ""
