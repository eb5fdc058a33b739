"""What the client says and hears: JSON (`lading.base.jsontext`) and request targets. Owns no HTTP and no files."""

from __future__ import annotations

from lading.base.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "loads", "quote", "target"]

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str, keep: bytes = b"") -> str:
    """Percent-encode for a URL (RFC 3986, section 2.3); bytes in `keep` stay as they are."""
    return "".join(
        [chr(b) if b in _SAFE or b in keep else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape")]
    )


def target(path: str, query: dict[str, Any] | None = None) -> str:
    """The request target: `path` with its query. None and "" are left out, lists repeat their key, dicts become JSON."""
    pairs = []
    for key, value in (query or {}).items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is None or item == "":
                continue
            if isinstance(item, bool):
                item = "1" if item else "0"
            elif isinstance(item, dict):
                if not item:
                    continue
                item = dumps(item)
            pairs.append(f"{quote(key)}={quote(str(item))}")
    return path + ("?" + "&".join(pairs) if pairs else "")
