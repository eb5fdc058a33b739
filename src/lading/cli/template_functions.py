"""The functions of `--format` templates: Go's built-in ones and docker's own. Owns how a value prints; parses nothing."""

from __future__ import annotations

from lading.client.wire import dumps, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def show(value: Any) -> str:
    """A value as Go's `%v` prints it: maps as map[a:1 b:2], lists as [a b]."""
    if value is None:
        return "<no value>"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, dict):
        return "map[" + " ".join([f"{k}:{_inside(v)}" for k, v in sorted(value.items())]) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join([_inside(v) for v in value]) + "]"
    if hasattr(value, "value"):
        return show(value.value())
    return str(value)


def _inside(value: Any) -> str:
    return "<nil>" if value is None else show(value)


def truth(value: Any) -> bool:
    """Go's truth: zero values are false."""
    if hasattr(value, "value"):
        return True
    return bool(value)


def to_json(value: Any) -> str:
    return dumps(value.value() if hasattr(value, "value") else value)


def index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            raise TypeError(f"can't index {show(value)!r} with {show(key)!r}")
    return value


def cut(value: Any, *bounds: int) -> Any:
    """slice: `slice .X 0 12`."""
    if not isinstance(value, str | list):
        raise TypeError(f"can't slice {show(value)!r}")
    if len(bounds) > 2 or any(not 0 <= bound <= len(value) for bound in bounds):
        raise IndexError(f"slice bounds out of range: {list(bounds)} of {len(value)}")
    return value[bounds[0] if bounds else 0 : bounds[1] if len(bounds) > 1 else None]


def equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TypeError("missing argument for comparison")
    return any(_comparable(first, other) and first == other for other in others)


def _comparable(a: Any, b: Any) -> bool:
    if a is None or b is None or type(a) is type(b):
        return True
    if isinstance(a, int | float) and isinstance(b, int | float) and bool not in (type(a), type(b)):
        return True
    raise TypeError("incompatible types for comparison")


def _less(a: Any, b: Any) -> bool:
    _comparable(a, b)
    return bool(a < b)


def split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def join(parts: Any, separator: str) -> str:
    if not isinstance(parts, list):
        raise TypeError(f"can't join {show(parts)!r}")
    return separator.join([show(part) for part in parts])


def pad(text: str, before: int, after: int) -> str:
    """docker's pad: spaces around a text that is not empty."""
    if not text:
        return text
    return " " * min(before, 1000) + text + " " * min(after, 1000)


def truncate(text: str, most: int) -> str:
    return text[:most]


def title(text: str) -> str:
    return "".join([c.upper() if at == 0 or text[at - 1].isspace() else c for at, c in enumerate(text)])


def println(*values: Any) -> str:
    return " ".join([show(value) for value in values]) + "\n"


def plain(*values: Any) -> str:
    """print: a space only between two values that are not strings."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += show(value)
    return out


def printf(form: str, *values: Any) -> str:
    """Go's verbs %v %s %q %d %x %X %o %b %c %t %f %e %g %T %%, with flags, width and precision."""
    out, at, given = [], 0, list(values)
    while at < len(form):
        mark = form.find("%", at)
        if mark < 0:
            out.append(form[at:])
            break
        out.append(form[at:mark])
        end = mark + 1
        while end < len(form) and form[end] in "+-# 0123456789.":
            end += 1
        if end >= len(form):
            out.append("%!(NOVERB)")
            break
        flags, verb = form[mark + 1 : end], form[end]
        at = end + 1
        if verb == "%":
            out.append("%")
        elif not given:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_verb(flags, verb, given.pop(0)))
    if given:
        out.append("%!(EXTRA " + ", ".join([show(value) for value in given]) + ")")
    return "".join(out)


def _verb(flags: str, verb: str, value: Any) -> str:
    width, _, precision = flags.lstrip("+-# 0").partition(".")
    if max(len(width), len(precision)) > 4:
        raise ValueError(f"%{flags}{verb} is too wide")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb in "vs":
        text = show(value)
        text = text[: int(precision)] if precision and verb == "s" else text
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))
    if verb == "q":
        return dumps(show(value))
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if verb in "dxXobcfeg" and number:
        if verb == "b":
            return f"{int(value):b}".rjust(int(width or 0))
        return f"%{flags}{verb}" % (int(value) if verb in "dxXoc" else float(value))
    if verb in "xX" and isinstance(value, str):
        digits = value.encode().hex()
        return digits.upper() if verb == "X" else digits
    if verb == "T":
        return {str: "string", bool: "bool", int: "int", float: "float64"}.get(type(value), "interface {}")
    return f"%!{verb}({show(value)})"


def html(value: Any) -> str:
    text = show(value)
    for plain_, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(plain_, code)
    return text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((v for v in values if not truth(v)), values[-1]),
    "eq": equal,
    "ge": lambda a, b: not _less(a, b),
    "gt": lambda a, b: _less(b, a),
    "html": html,
    "index": index,
    "join": join,
    "js": lambda value: dumps(show(value))[1:-1],
    "json": to_json,
    "le": lambda a, b: not _less(b, a),
    "len": len,
    "lower": lambda text: text.lower(),
    "lt": _less,
    "ne": lambda a, b: not equal(a, b),
    "not": lambda value: not truth(value),
    "or": lambda *values: next((v for v in values if truth(v)), values[-1]),
    "pad": pad,
    "print": plain,
    "printf": printf,
    "println": println,
    "slice": cut,
    "split": split,
    "title": title,
    "truncate": truncate,
    "upper": lambda text: text.upper(),
    "urlquery": lambda value: quote(show(value)).replace("%20", "+"),
}
