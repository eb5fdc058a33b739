"""The oracle: whether a stored image is what its documents say. Used by tests and by a check of the store.

Owns the list of what must hold; never repairs anything and never raises for a bad image: it lists the
complaints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from lading.base import errors
from lading.image import config, digest, fields, manifest
from lading.image.config import ImageConfig
from lading.image.descriptor import Descriptor
from lading.image.layer import compress, reader
from lading.image.manifest import Manifest

Open = Callable[[str], BinaryIO]
"""Opens a blob by digest; raises NotFound."""


def image(open_blob: Open, manifest_digest: str) -> list[str]:
    """Everything that is wrong with the image; empty when it is sound. Reads every layer to its end."""
    try:
        data = _content(open_blob, Descriptor("", manifest_digest, -1), fields.LIMIT)
        found = manifest.parse(data)
        if not isinstance(found, Manifest):
            return ["the digest names an index"]
        conf = config.parse(_content(open_blob, found.config, fields.LIMIT))
    except errors.LadingError as error:
        return [str(error)]
    complaints = _agreement(found, conf)
    for position, layer in enumerate(found.layers):
        expected = conf.diff_ids[position] if position < len(conf.diff_ids) else ""
        complaints += _layer(open_blob, layer, expected, position)
    return complaints


def _content(open_blob: Open, wanted: Descriptor, limit: int) -> bytes:
    with open_blob(wanted.digest) as stream:
        data = b""
        while len(data) <= limit and (chunk := stream.read(limit + 1 - len(data))):
            data += chunk
    if len(data) > limit:
        raise errors.Invalid(f"{wanted.digest} is larger than {limit} bytes")
    if digest.of(data) != wanted.digest:
        raise errors.Invalid(f"{wanted.digest} has other content")
    if wanted.size not in (-1, len(data)):
        raise errors.Invalid(f"{wanted.digest} has {len(data)} bytes, its descriptor says {wanted.size}")
    return data


def _agreement(found: Manifest, conf: ImageConfig) -> list[str]:
    complaints = []
    if len(found.layers) != len(conf.diff_ids):
        complaints.append(f"{len(found.layers)} layers in the manifest, {len(conf.diff_ids)} in the config")
    made = sum(not entry.empty_layer for entry in conf.history)
    if conf.history and made != len(conf.diff_ids):
        complaints.append(f"the history tells of {made} layers, there are {len(conf.diff_ids)}")
    if not conf.architecture or not conf.os:
        complaints.append("the config names no platform")
    return complaints


class _Hashed:
    """A stream that hashes and counts what is read from it."""

    def __init__(self, stream: reader.Source) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        self.size += len(data)
        return data


def _layer(open_blob: Open, layer: Descriptor, diff_id: str, position: int) -> list[str]:
    name = f"layer {position}"
    try:
        with open_blob(layer.digest) as stream:
            outer = _Hashed(stream)
            inner = _Hashed(compress.Decompressed(outer))
            archive = reader.Reader(inner)
            for _ in archive:
                pass
            archive.drain()
            while outer.read(1 << 20):
                pass
    except errors.LadingError as error:
        return [f"{name}: {error}"]
    complaints = []
    if "sha256:" + outer.hash.hexdigest() != layer.digest:
        complaints.append(f"{name} is damaged: its content has another digest")
    if outer.size != layer.size:
        complaints.append(f"{name} has {outer.size} bytes, its descriptor says {layer.size}")
    if "sha256:" + inner.hash.hexdigest() != diff_id:
        complaints.append(f"{name} does not match its diffID")
    return complaints
