"""A template's text cut into plain text, actions and the words of an action. Knows no grammar and no data."""

from __future__ import annotations

from lading.cli.flags import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_OPERATORS = frozenset("|(),.=")


class TemplateError(UsageError):
    """The template is wrong, or asks the data for what it has not."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__("template", why=why, hint=hint, code=64)


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """("text", ...) and ("action", ...) in turn, with {{- and -}} trimming done."""
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        plain = text[at:] if start < 0 else text[at:start]
        if trim:
            plain = plain.lstrip()
        if start < 0:
            yield "text", plain
            return
        inner = start + 2
        if text[inner : inner + 1] == "-" and text[inner + 1 : inner + 2].isspace():
            plain = plain.rstrip()
            inner += 1
        yield "text", plain
        end = _action_end(text, inner)
        body = text[inner:end]
        trim = body.endswith("-") and body[-2:-1].isspace()
        if trim:
            body = body[:-1]
        body = body.strip()
        if body.startswith("/*"):
            if not body.endswith("*/"):
                raise TemplateError("a comment is not closed")
        else:
            yield "action", body
        at = end + 2


def _action_end(text: str, at: int) -> int:
    """Where the `}}` of the action that begins at `at` is; quotes hide it."""
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in '"`':
            quote = char
        elif text.startswith("}}", at):
            return at
        at += 1
    raise TemplateError("an action is not closed: '}}' is missing")


def words_of(body: str) -> list[tuple[str, Any]]:
    """The tokens of one action: (kind, value); kind is word, field, var, string, number, char or the operator itself."""
    out: list[tuple[str, Any]] = []
    at = 0
    while at < len(body):
        char = body[at]
        if char.isspace():
            at += 1
            if out and out[-1][0] != "space":
                out.append(("space", ""))
        elif char in '"`':
            end = at + 1
            while end < len(body) and body[end] != char:
                end += 2 if body[end] == "\\" and char == '"' else 1
            if end >= len(body):
                raise TemplateError(f"a string is not closed: {body[at:]}")
            text = body[at + 1 : end]
            out.append(("string", _unquote(text) if char == '"' else text))
            at = end + 1
        elif body.startswith(":=", at):
            out.append((":=", ""))
            at += 2
        elif char == "." and body[at + 1 : at + 2].isidentifier():
            end = _identifier_end(body, at + 1)
            out.append(("field", body[at + 1 : end]))
            at = end
        elif char == "$":
            end = _identifier_end(body, at + 1)
            out.append(("var", body[at:end]))
            at = end
        elif char.isdigit() or (char in "+-" and body[at + 1 : at + 2].isdigit()):
            end = at + 1
            while end < len(body) and (body[end].isalnum() or body[end] in "._"):
                end += 1
            out.append(("number", _number(body[at:end])))
            at = end
        elif char in _OPERATORS:
            out.append((char, ""))
            at += 1
        elif char.isidentifier():
            end = _identifier_end(body, at)
            out.append(("word", body[at:end]))
            at = end
        else:
            raise TemplateError(f"unexpected {char!r} in {{{{{body}}}}}")
    return out


def _identifier_end(text: str, at: int) -> int:
    while at < len(text) and (text[at].isalnum() or text[at] == "_"):
        at += 1
    return at


def _unquote(text: str) -> str:
    from lading.client.wire import loads

    try:
        return str(loads(b'"' + text.replace("\t", "\\t").replace("\n", "\\n").encode() + b'"'))
    except ValueError:
        raise TemplateError(f"a string has an escape that Go does not know: {text!r}") from None


def _number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise TemplateError(f"{text!r} is not a number") from None
