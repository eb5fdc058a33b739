"""The engine's values to JSON and back, for the database's rows. Owns the encoding; never what a value means.

Fields that have their default value are left out, so that a row stays small and a field added later reads as its
default in rows written before.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union

from lading.base.errors import Internal

T = TypeVar("T")


def dump(value: Any) -> str:
    """One dataclass value as compact JSON text."""
    return json.dumps(_encode(value), separators=(",", ":"), ensure_ascii=False)


def load(cls: type[T], text: str) -> T:
    """The value of `cls` that `dump` wrote; Internal when the text is not one."""
    kind: Any = cls
    try:
        return typing.cast(T, _decoder(kind)(json.loads(text)))
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise Internal(f"a stored {cls.__name__} cannot be read", why=str(e)) from e


def _encode(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, tuple | list | frozenset | set):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    out = {}
    for name, default in _defaults(typing.cast(Any, type(value))):
        item = getattr(value, name)
        if item != default:
            out[name] = _encode(item)
    return out


@cache
def _defaults(cls: type) -> tuple[tuple[str, Any], ...]:
    """Every field of a dataclass with its default; MISSING, which equals nothing, where it has none."""
    found = []
    for item in fields(cls):
        default = item.default
        if default is MISSING and item.default_factory is not MISSING:
            default = item.default_factory()
        found.append((item.name, default))
    return tuple(found)


@cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    """A function that turns parsed JSON into a value of the annotated type."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"no decoder for {kind}")
        decode = _decoder(inner[0])
        return lambda data: None if data is None else decode(data)
    if origin is tuple:
        decode_item = _decoder(typing.get_args(kind)[0])
        return lambda data: tuple([decode_item(item) for item in data])
    if origin is not None and issubclass(origin, Mapping):
        decode_item = _decoder(typing.get_args(kind)[1])
        return lambda data: {str(key): decode_item(item) for key, item in data.items()}
    if is_dataclass(kind):
        return _dataclass_decoder(typing.cast(type, kind))
    if kind in (str, int, bool, float):
        return lambda data: _checked(kind, data)
    raise TypeError(f"no decoder for {kind}")


def _checked(kind: type, data: Any) -> Any:
    if not isinstance(data, kind):
        raise TypeError(f"expected {kind.__name__}, found {type(data).__name__}")
    return data


def _dataclass_decoder(cls: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(cls)
    decoders = {item.name: _decoder(hints[item.name]) for item in fields(cls)}

    def decode(data: Any) -> Any:
        return cls(**{name: decoders[name](item) for name, item in data.items() if name in decoders})

    return decode
