"""Digests: the names of immutable content (OCI image-spec, descriptor.md "Digests").

Owns their grammar and their computation; never reads a file.
"""

from __future__ import annotations

import hashlib
import re

from lading.base import errors

_LENGTHS = {"sha256": 64, "sha512": 128}
_SHAPE = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")

EMPTY_TAR = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The diffID of the layer that changes nothing: 1024 zero bytes, the end marker of a tar archive."""


def of(data: bytes) -> str:
    """The sha256 digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse(text: object, what: str = "digest") -> str:
    """Return `text` when it is a digest lading can verify; Invalid otherwise.

    The result is safe as a path component after `encoded`: only lower-case hexadecimal digits of one exact
    length.
    """
    if not isinstance(text, str) or len(text) > 256 or not _SHAPE.fullmatch(text):
        raise errors.Invalid(f"{what} {str(text)[:80]!r} is malformed", why="A digest is algorithm:hex.")
    algorithm, _, encoded_part = text.partition(":")
    length = _LENGTHS.get(algorithm)
    if length is None:
        raise errors.Unsupported(
            f"{what} uses the algorithm {algorithm!r}", hint="Only sha256 and sha512 are known."
        )
    if len(encoded_part) != length or not is_hex(encoded_part):
        raise errors.Invalid(
            f"{what} {text[:80]!r} is not {length} lower-case hexadecimal digits after {algorithm}:"
        )
    return text


def is_hex(text: str) -> bool:
    """Only the digits 0-9a-f, and at least one."""
    return bool(text) and not text.strip("0123456789abcdef")


def algorithm(digest: str) -> str:
    return digest.partition(":")[0]


def encoded(digest: str) -> str:
    """The part after the colon."""
    return digest.partition(":")[2]


def hasher(digest: str) -> hashlib._Hash:
    """A fresh hash object of the digest's algorithm."""
    return hashlib.new(algorithm(digest))
