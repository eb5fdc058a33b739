"""JSON text to values and back, without importing `json` (which brings `re`, some 10 ms). Owns no files.

The C scanner that the standard library's own decoder uses is called directly; where an interpreter has none, `json`
takes over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\r\n"


def _refuse(name: str) -> float:
    """NaN and the infinities: Python's scanner knows them, JSON does not."""
    raise ValueError(f"{name} is not a JSON text")


class _Strict:
    """What `_json.make_scanner` asks of its context (json/scanner.py): plain numbers, plain dicts, strict strings."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _refuse


try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner
except ImportError:  # another interpreter than CPython
    import json

    _scan = None
    _quote = json.dumps
else:
    _scan = _make_scanner(_Strict)  # type: ignore[arg-type]


def loads(data: bytes) -> Any:
    """The value of one JSON text; ValueError when it is not one."""
    text = data.decode("utf-8", "replace").strip(_WHITESPACE)
    if _scan is None:
        return json.loads(text, parse_constant=_refuse)
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not a JSON text") from None
    except SystemError:  # the scanner looks for json's own exception, which is not loaded
        raise ValueError("not a JSON text") from None
    except RecursionError:
        raise ValueError("a JSON text nested too deep") from None
    if end != len(text):
        raise ValueError("something follows the JSON text")
    return value


def dumps(value: Any) -> str:
    """Compact JSON of None, bool, int, float, str, and lists, tuples and dicts of these."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return str(_quote(value))
    if isinstance(value, int) or (isinstance(value, float) and value - value == 0):  # a finite one
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quote(str(k))}:{dumps(v)}" for k, v in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([dumps(v) for v in value]) + "]"
    raise TypeError(f"no JSON for {value!r:.80}")
