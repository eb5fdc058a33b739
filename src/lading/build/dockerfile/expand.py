"""Variable expansion: `$name`, `${name}` with every modifier the reference documents, quotes and escapes.

Owns the rules and their bounds; never decides which instruction expands what (`state` does) nor where values
come from. Source: the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

from collections.abc import Callable

from lading.build.dockerfile.errors import DockerfileError, Position

MAX_LENGTH = 128 << 10
"""Linux refuses a longer environment string (MAX_ARG_STRLEN, execve(2)); it also stops expansions that
double.
"""
_MAX_PATTERN = 1024
_MAX_DEPTH = 32
_SPECIAL = "@*#?-$!0"

Lookup = Callable[[str], str | None]


class ExpansionError(Exception):
    """What is wrong, and at which offset of the word; the caller adds the position in the file."""

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint


def expand(text: str, lookup: Lookup, escape: str = "\\", *, quotes: bool = True) -> str:
    """The text with variables replaced, quotes and escapes removed.

    `quotes` False is for items of JSON arrays and values of flags, whose quotes are gone or are characters.
    """
    if "$" not in text and escape not in text and not (quotes and ('"' in text or "'" in text)):
        return text
    return _Scanner(text, lookup, escape, quotes=quotes).whole()


def expand_words(text: str, lookup: Lookup, escape: str = "\\") -> list[str]:
    """As `expand`, then split at blanks; values of unquoted variables split too, as EXPOSE documents."""
    return _Scanner(text, lookup, escape).words()


def at(error: ExpansionError, text: str, position: Position) -> DockerfileError:
    """The error as a DockerfileError at `position` plus its offset in the word."""
    return DockerfileError(
        error.message,
        Position(position.line, position.column + error.offset),
        text=text[error.offset :] or text,
        hint=error.hint,
    )


class _Scanner:
    """One pass over the text. `pos` is the next character; output pieces carry whether blanks in them split
    words.
    """

    def __init__(
        self, text: str, lookup: Lookup, escape: str, depth: int = 0, *, quotes: bool = True
    ) -> None:
        self.text = text
        self.lookup = lookup
        self.escape = escape
        self.depth = depth
        self.quotes = quotes
        self.pos = 0
        self.size = 0
        self.out: list[tuple[str, bool]] = []  # (piece, splits)

    def whole(self) -> str:
        self._scan("")
        return "".join(piece for piece, _ in self.out)

    def words(self) -> list[str]:
        self._scan("")
        words: list[str] = []
        word: list[str] = []
        open_ = False
        for piece, splits in self.out:
            if not splits:
                word.append(piece)
                open_ = True
                continue
            for char in piece:
                if char in " \t\n\r\f\v":
                    if open_:
                        words.append("".join(word))
                    word, open_ = [], False
                else:
                    word.append(char)
                    open_ = True
        if open_:
            words.append("".join(word))
        return words

    def _put(self, piece: str, splits: bool) -> None:
        self.size += len(piece)
        if self.size > MAX_LENGTH:
            raise ExpansionError(f"the expanded value is longer than {MAX_LENGTH >> 10} KiB", 0)
        self.out.append((piece, splits))

    def _scan(self, stop: str) -> None:
        """Read until an unquoted `stop` character (left unread) or, without one, to the end."""
        while self.pos < len(self.text) and not (stop and self.text[self.pos] in stop):
            self._one()

    def _one(self) -> None:
        """Scan exactly one element: a quoted run, a variable, an escape or a character."""
        char = self.text[self.pos]
        if char == "'" and self.quotes:
            self._single()
        elif char == '"' and self.quotes:
            self._double()
        elif char == "$":
            self.pos += 1
            self._put(self._dollar(), True)
        elif char == self.escape and self.pos + 1 < len(self.text):
            self._put(self.text[self.pos + 1], False)
            self.pos += 2
        else:  # an escape at the very end stands for itself
            self._put(char, True)
            self.pos += 1

    def _single(self) -> None:
        start = self.pos
        end = self.text.find("'", start + 1)
        if end < 0:
            raise ExpansionError("a single quote is not closed", start, "Close it, or escape it.")
        self._put(self.text[start + 1 : end], False)
        self.pos = end + 1

    def _double(self) -> None:
        start = self.pos
        self.pos += 1
        self._put("", False)
        while self.pos < len(self.text):
            char = self.text[self.pos]
            if char == '"':
                self.pos += 1
                return
            if char == "$":
                self.pos += 1
                self._put(self._dollar(), False)
                continue
            if char == self.escape and self.pos + 1 < len(self.text):
                following = self.text[self.pos + 1]
                if following in ('"', "$", self.escape):
                    self._put(following, False)
                else:
                    self._put(char + following, False)
                self.pos += 2
                continue
            self._put(char, False)
            self.pos += 1
        raise ExpansionError("a double quote is not closed", start, "Close it, or escape it.")

    def _dollar(self) -> str:
        """The value of the variable whose `$` was just read."""
        if self.pos >= len(self.text):
            return "$"
        if self.text[self.pos] != "{":
            name = self._name()
            return "$" if not name else (self.lookup(name) or "")
        start = self.pos - 1
        self.pos += 1
        if self.pos >= len(self.text):
            raise ExpansionError("a ${ is not closed", start, "Add the closing brace.")
        name = self._name()
        if not name:
            raise ExpansionError(
                "a ${ has no variable name", start, "Write ${NAME}, or \\${ for the characters."
            )
        value = self.lookup(name)
        if self.pos >= len(self.text):
            raise ExpansionError(f"${{{name} is not closed", start, "Add the closing brace.")
        operator = self.text[self.pos]
        self.pos += 1
        if operator == "}":
            return value or ""
        return self._modified(name, value, operator, start)

    def _name(self) -> str:
        text, start = self.text, self.pos
        first = text[start] if start < len(text) else ""
        if first.isascii() and (first.isalpha() or first == "_"):
            end = start + 1
            while end < len(text) and text[end].isascii() and (text[end].isalnum() or text[end] == "_"):
                end += 1
        elif first.isascii() and first.isdigit():
            end = start + 1
            while end < len(text) and text[end].isascii() and text[end].isdigit():
                end += 1
        elif first and first in _SPECIAL:
            end = start + 1
        else:
            return ""
        self.pos = end
        return text[start:end]

    def _modified(self, name: str, value: str | None, operator: str, start: int) -> str:
        if operator == ":":
            operator = self.text[self.pos] if self.pos < len(self.text) else ""
            if not operator or operator not in "-+?":
                raise ExpansionError(
                    f"${{{name}:{operator} is no modifier",
                    start,
                    "Use one of :- :+ :? # ## % %% / //.",
                )
            self.pos += 1
            present = bool(value)
        else:
            present = value is not None
        if operator in "-+?":
            word = self._word("}", start)
            self.pos += 1
            if operator == "-":
                return (value or "") if present else word
            if operator == "+":
                return word if present else ""
            if not present:
                raise ExpansionError(
                    f"{name}: {word or 'a value is required'}", start, f"Give {name} a value."
                )
            return value or ""
        if operator in "#%":
            longest = self.text[self.pos : self.pos + 1] == operator
            self.pos += longest
            pattern = self._pattern("}", start)
            self.pos += 1
            return _trimmed(value or "", pattern, operator == "#", longest)
        if operator == "/":
            every = self.text[self.pos : self.pos + 1] == "/"
            self.pos += every
            pattern = self._pattern("/}", start)
            closed = self.text[self.pos] == "}"
            self.pos += 1
            if closed:
                return _replaced(value or "", pattern, "", every)
            word = self._word("}", start)
            self.pos += 1
            return _replaced(value or "", pattern, word, every)
        raise ExpansionError(
            f"${{{name}{operator} is no modifier", start, "Use one of :- :+ :? # ## % %% / //."
        )

    def _word(self, stop: str, start: int) -> str:
        """The word of a modifier, itself expanded, up to the unquoted stop character."""
        if self.depth >= _MAX_DEPTH:
            raise ExpansionError(f"variables are nested more than {_MAX_DEPTH} deep", start)
        inner = _Scanner(self.text, self.lookup, self.escape, self.depth + 1, quotes=self.quotes)
        inner.pos = self.pos
        inner._scan(stop)
        self.pos = inner.pos
        if self.pos >= len(self.text):
            raise ExpansionError("a ${ is not closed", start, "Add the closing brace.")
        return "".join(piece for piece, _ in inner.out)

    def _pattern(self, stop: str, start: int) -> list[str]:
        """A glob as a list: "*" and "?" are wild, other items are one literal character with a leading "=".

        Escapes make the following character literal; variables inside are expanded as literals.
        """
        if self.depth >= _MAX_DEPTH:
            raise ExpansionError(f"variables are nested more than {_MAX_DEPTH} deep", start)
        items: list[str] = []
        inner = _Scanner(self.text, self.lookup, self.escape, self.depth + 1, quotes=self.quotes)
        inner.pos = self.pos
        while inner.pos < len(self.text) and self.text[inner.pos] not in stop:
            char = self.text[inner.pos]
            if char in "*?":
                items.append(char)
                inner.pos += 1
                continue
            before = len(inner.out)
            inner._one()
            items += ["=" + c for piece, _ in inner.out[before:] for c in piece]
        self.pos = inner.pos
        if self.pos >= len(self.text):
            raise ExpansionError("a ${ is not closed", start, "Add the closing brace.")
        if len(items) > _MAX_PATTERN:
            raise ExpansionError(f"the pattern is longer than {_MAX_PATTERN} characters", start)
        return items


class _Work:
    """Counts the steps of one matching, which a hostile pattern could make quadratic in the value."""

    def __init__(self) -> None:
        self.left = 4_000_000

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ExpansionError("the pattern is too costly for this value", 0, "Use a simpler pattern.")


def _ends(pattern: list[str], text: str, start: int, longest: bool, work: _Work) -> int:
    """Where a match of `pattern` from `start` ends: the longest or shortest, -1 for none.

    A set of states walks the text, so that no pattern costs more than its length times the text's.
    """
    states = _closure({0}, pattern)
    best = start if len(pattern) in states else -1
    if best >= 0 and not longest:
        return best
    for index in range(start, len(text)):
        work.spend(len(states))
        char = text[index]
        following: set[int] = set()
        for state in states:
            if state == len(pattern):
                continue
            item = pattern[state]
            if item == "*":
                following.add(state)
            elif item == "?" or item[1:] == char:
                following.add(state + 1)
        states = _closure(following, pattern)
        if not states:
            break
        if len(pattern) in states:
            best = index + 1
            if not longest:
                return best
    return best


def _closure(states: set[int], pattern: list[str]) -> set[int]:
    for state in tuple(states):
        while state < len(pattern) and pattern[state] == "*":
            state += 1
            states.add(state)
    return states


def _trimmed(value: str, pattern: list[str], prefix: bool, longest: bool) -> str:
    if not prefix:
        return _trimmed(value[::-1], pattern[::-1], True, longest)[::-1]
    end = _ends(pattern, value, 0, longest, _Work())
    return value[end:] if end > 0 else value


def _replaced(value: str, pattern: list[str], word: str, every: bool) -> str:
    """The longest match at the earliest place, once or everywhere; an empty pattern matches nothing."""
    if not pattern:
        return value
    work = _Work()
    out: list[str] = []
    index = size = 0
    while index < len(value):
        end = _ends(pattern, value, index, True, work)
        if end <= index:
            out.append(value[index])
            index += 1
            continue
        out.append(word)
        size += len(word)
        if size > MAX_LENGTH:
            raise ExpansionError(f"the expanded value is longer than {MAX_LENGTH >> 10} KiB", 0)
        index = end
        if not every:
            break
    return "".join(out) + value[index:]
