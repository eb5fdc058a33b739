"""The part of Go's text/template that `--format` needs: parser and evaluator.

The lexer is `template_words`, the functions are `template_functions`.

Values are JSON's (dict, list, str, int, float, bool, None) or an object with `field(name)` (a row of a listing). There
is no way from a template to anything else: no attribute of Python is ever looked up by a name in the text.

Grammar: https://pkg.go.dev/text/template
"""

from __future__ import annotations

from lading.cli.template_words import TemplateError, pieces, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Scope = dict[str, Any]

_DEPTH = 100


class Template:
    """A parsed template. `strict` makes a missing key an error, as `docker inspect` does."""

    __slots__ = ("nodes", "strict")

    def __init__(self, text: str, name: str = "template", strict: bool = True) -> None:
        self.strict = strict
        parser = _Parser(list(pieces(text)))
        self.nodes = parser.block(())[0]

    def render(self, data: Any, raw_json: bool = False) -> str:
        """The text for one value. `raw_json`: headers of a table pass through every function unchanged."""
        out: list[str] = []
        try:
            _Run(out, self.strict, raw_json).nodes(self.nodes, data, {"$": data})
        except _Leave as leave:
            raise TemplateError(f"{{{{{leave}}}}} outside {{{{range}}}}") from None
        return "".join(out)


class _Node:
    """One node: `kind` and what belongs to it. Kinds: text, pipe, if, range, with, break, continue."""

    __slots__ = ("body", "kind", "names", "otherwise", "pipe", "text")

    def __init__(
        self,
        kind: str,
        text: str = "",
        pipe: list[list[Any]] | None = None,
        names: list[str] | None = None,
        body: list[_Node] | None = None,
        otherwise: list[_Node] | None = None,
    ) -> None:
        self.kind, self.text, self.pipe, self.names = kind, text, pipe or [], names or []
        self.body, self.otherwise = body or [], otherwise or []


class _Parser:
    """Pieces to nodes."""

    def __init__(self, pieces: list[tuple[str, str]]) -> None:
        self.pieces = pieces
        self.at = 0
        self.depth = 0

    def block(self, ends: tuple[str, ...]) -> tuple[list[_Node], list[tuple[str, Any]]]:
        """Nodes up to an action that begins with one of `ends`; with the tokens of that action."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise TemplateError("it is nested too deep")
        nodes: list[_Node] = []
        while self.at < len(self.pieces):
            kind, text = self.pieces[self.at]
            self.at += 1
            if kind == "text":
                if text:
                    nodes.append(_Node("text", text))
                continue
            words = words_of(text)
            first = words[0][1] if words and words[0][0] == "word" else ""
            if first in ends:
                self.depth -= 1
                return nodes, words
            nodes.append(self._action(first, words, text))
        if ends:
            raise TemplateError("unexpected end: an {{end}} is missing")
        self.depth -= 1
        return nodes, []

    def _action(self, first: str, words: list[tuple[str, Any]], text: str) -> _Node:
        if first in ("if", "range", "with"):
            return self._control(first, words[1:])
        if first in ("else", "end"):
            raise TemplateError(f"unexpected {{{{{text}}}}}")
        if first in ("define", "template", "block"):
            raise TemplateError(f"{first!r} has no use in a format", "Only one template is given here.")
        if first in ("break", "continue"):
            return _Node(first)
        names, pipe = _pipeline(words)
        return _Node("pipe", pipe=pipe, names=names)

    def _control(self, kind: str, words: list[tuple[str, Any]]) -> _Node:
        names, pipe = _pipeline(words)
        body, closing = self.block(("else", "end"))
        otherwise: list[_Node] = []
        if closing[0][1] == "else":
            rest = [word for word in closing[1:] if word[0] != "space"]
            if rest and rest[0][1] in ("if", "with"):
                at = next(i for i, word in enumerate(closing) if word == rest[0])
                otherwise = [self._control(str(rest[0][1]), closing[at + 1 :])]
            elif rest:
                raise TemplateError("nothing but 'if' or 'with' may follow 'else'")
            else:
                otherwise = self.block(("end",))[0]
        return _Node(kind, pipe=pipe, names=names, body=body, otherwise=otherwise)


def _pipeline(words: list[tuple[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """`$a, $b := cmd | cmd` as variable names and commands; a command is a list of operands."""
    solid = [word for word in words if word[0] != "space"]
    names: list[str] = []
    mark = next((i for i, word in enumerate(words) if word[0] in (":=", "=")), -1)
    if mark >= 0:
        names = [str(word[1]) for word in words[:mark] if word[0] == "var"]
        if not names or len(names) > 2 or any(w[0] not in ("var", ",", "space") for w in words[:mark]):
            raise TemplateError("a variable's name must stand left of ':='")
        words = words[mark + 1 :]
        solid = [word for word in words if word[0] != "space"]
    if not solid:
        raise TemplateError("missing value for command")
    commands, rest = _commands(words, 0)
    if rest != len(words):
        raise TemplateError("unexpected ')'")
    return names, commands


def _commands(words: list[tuple[str, Any]], at: int) -> tuple[list[list[Any]], int]:
    """Commands separated by `|` from `at` up to the end or an unmatched `)`."""
    commands: list[list[Any]] = [[]]
    glued = False
    while at < len(words) and words[at][0] != ")":
        kind, value = words[at]
        at += 1
        if kind == "space":
            glued = False
            continue
        operand: Any
        if kind == "|":
            if not commands[-1]:
                raise TemplateError("missing value for command")
            commands.append([])
            glued = False
            continue
        if kind == "(":
            inner, at = _commands(words, at)
            if at >= len(words):
                raise TemplateError("a '(' is not closed")
            at += 1
            operand = ("pipe", inner, [])
        elif kind == "field":
            if glued and commands[-1] and commands[-1][-1][0] in ("chain", "pipe", "var"):
                commands[-1][-1][2].append(value)
                continue
            operand = ("chain", None, [value])
        elif kind == ".":
            operand = ("chain", None, [])
        elif kind == "var":
            operand = ("var", value, [])
        elif kind in ("string", "number"):
            operand = ("value", value, [])
        elif kind == "word":
            operand = ("value", {"true": True, "false": False, "nil": None}[value], []) if value in _CONSTANTS else (
                "call", value, [])  # fmt: skip
        else:
            raise TemplateError(f"unexpected {kind!r}")
        if glued:
            raise TemplateError("a space is missing between two operands")
        commands[-1].append(operand)
        glued = True
    if not commands[-1]:
        raise TemplateError("missing value for command")
    return commands, at


_CONSTANTS = ("true", "false", "nil")


class _Leave(Exception):
    """{{break}} or {{continue}} on its way to its {{range}}."""


class _Run:
    """One rendering."""

    def __init__(self, out: list[str], strict: bool, raw: bool) -> None:
        from lading.cli.template_functions import FUNCTIONS, show, truth

        self.out, self.strict, self.raw = out, strict, raw
        self.functions: dict[str, Callable[..., Any]] = FUNCTIONS
        self.show, self.truth = show, truth

    def nodes(self, nodes: list[_Node], dot: Any, scope: Scope) -> None:
        for node in nodes:
            if node.kind == "text":
                self.out.append(node.text)
            elif node.kind == "pipe":
                value = self.pipe(node.pipe, dot, scope)
                if node.names:
                    scope[node.names[0]] = value
                else:
                    self.out.append(self.show(value))
            elif node.kind == "range":
                self._range(node, dot, scope)
            elif node.kind in ("break", "continue"):
                raise _Leave(node.kind)
            else:
                value = self.pipe(node.pipe, dot, scope)
                inner = {**scope, node.names[0]: value} if node.names else dict(scope)
                if self.truth(value):
                    self.nodes(node.body, value if node.kind == "with" else dot, _Inner(inner, scope))
                else:
                    self.nodes(node.otherwise, dot, _Inner(inner, scope))

    def _range(self, node: _Node, dot: Any, scope: Scope) -> None:
        value = self.pipe(node.pipe, dot, scope)
        pairs: list[tuple[Any, Any]]
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, list):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(i, i) for i in range(min(value, 1_000_000))]
        elif value is None:
            pairs = []
        else:
            raise TemplateError(f"range can't iterate over {self.show(value)!r}")
        if not pairs:
            self.nodes(node.otherwise, dot, _Inner(scope, scope))
        for key, item in pairs:
            inner = dict(scope)
            if len(node.names) == 2:
                inner[node.names[0]], inner[node.names[1]] = key, item
            elif node.names:
                inner[node.names[0]] = item
            try:
                self.nodes(node.body, item, _Inner(inner, scope))
            except _Leave as leave:
                if leave.args[0] == "break":
                    return

    def pipe(self, commands: list[list[Any]], dot: Any, scope: Scope) -> Any:
        value: Any = None
        for at, command in enumerate(commands):
            value = self._command(command, dot, scope, [value] if at else [])
        return value

    def _command(self, command: list[Any], dot: Any, scope: Scope, last: list[Any]) -> Any:
        kind, name, fields = command[0]
        if kind == "call":
            return self._call(name, command[1:], dot, scope, last)
        value = self._operand(command[0], dot, scope)
        arguments = [self._operand(operand, dot, scope) for operand in command[1:]] + last
        if callable(value):  # {{.Label "key"}}: the only method a row has
            try:
                return value(*arguments)
            except TypeError:
                raise TemplateError(f"wrong number of arguments for .{fields[-1]}") from None
        if arguments:
            raise TemplateError(f"can't give argument to non-function {'.'.join(['', *fields]) or name}")
        return value

    def _call(self, name: str, operands: list[Any], dot: Any, scope: Scope, last: list[Any]) -> Any:
        if name in ("and", "or"):
            # Go evaluates these only as far as it must, so that a guard may protect what follows it.
            value: Any = None
            for operand in operands:
                value = self._operand(operand, dot, scope)
                if self.truth(value) == (name == "or"):
                    return value
            return last[0] if last else value
        function = self.functions.get(name)
        if function is None:
            from lading.cli.suggest import closest

            guess = closest(name, self.functions)
            raise TemplateError(f"function {name!r} not defined", f"Did you mean {guess!r}?" if guess else "")
        arguments = [self._operand(operand, dot, scope) for operand in operands] + last
        if self.raw:
            return (
                arguments[0]
                if len(arguments) == 1
                else next((a for a in arguments if isinstance(a, str)), "")
            )
        try:
            return function(*arguments)
        except (TypeError, ValueError, IndexError, AttributeError, KeyError, OverflowError) as error:
            raise TemplateError(f"error calling {name}: {error}") from None

    def _operand(self, operand: Any, dot: Any, scope: Scope) -> Any:
        kind, value, fields = operand
        if kind == "value":
            return value
        if kind == "call":
            return self._call(value, [], dot, scope, [])
        if kind == "pipe":
            start = self.pipe(value, dot, scope)
        elif kind == "var":
            if value not in scope:
                raise TemplateError(f"undefined variable {value!r}")
            start = scope[value]
        else:
            start = dot
        for name in fields:
            start = self._field(start, name)
        return start

    def _field(self, value: Any, name: str) -> Any:
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if not self.strict:
                return None
            return self._missing(name, value)
        if hasattr(value, "field"):
            try:
                return value.field(name)
            except KeyError:
                return self._missing(name, value.names())
        if value is None:
            if self.strict:
                raise TemplateError(f"nil data; no entry for key {name!r}")
            return None
        raise TemplateError(f"can't evaluate field {name} in {self.show(value)!r}")

    def _missing(self, name: str, names: Any) -> Any:
        from lading.cli.suggest import closest

        known = sorted(str(key) for key in names)
        guess = closest(name, known)
        hint = f"Did you mean .{guess}?" if guess else f"There are: {', '.join(known)}." if known else ""
        raise TemplateError(f"there is no field {name!r}", hint)


class _Inner(dict):  # type: ignore[type-arg]
    """Variables of a block: new ones stay inside, `$x = ...` on an outer one is seen outside."""

    def __init__(self, names: Scope, outer: Scope) -> None:
        super().__init__(names)
        self.outer = outer

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name in self.outer:
            self.outer[name] = value
