"""Manifests as registries send them: checked against their digest, their media type and the tricks known of JSON.

Pure. What a sound document means is the image room's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lading.base import errors
from lading.image import descriptor, fields, manifest
from lading.image import digest as digests
from lading.image.descriptor import Descriptor, Platform
from lading.image.manifest import Index, Manifest

_NESTING = 3
_UNTYPED = frozenset({"", "application/json", "text/plain", "application/octet-stream"})
_SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
# Members that readers written in Go find whatever their case: a second spelling would mean two things to two readers.
_EXACT = ("schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform")
_LOWER = {name.lower(): name for name in _EXACT}
_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
LAYERS = descriptor.LAYERS | {_ZSTD}


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index: its exact bytes, their digest, its media type and its meaning."""

    data: bytes
    digest: str  # sha256, whatever it was asked for by
    media_type: str
    value: Manifest | Index

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.data))


def checked(
    data: bytes, *, content_type: str = "", stated: str = "", wanted: str = "", name: str = ""
) -> Document:
    """Verify a manifest that a registry sent. `wanted` is the digest asked for, `stated` the registry's own claim."""
    if len(data) > fields.LIMIT:
        raise errors.Invalid(f"the manifest of {name} is larger than {fields.LIMIT} bytes")
    for expected, whose in ((wanted, "the reference"), (stated, "the registry")):
        if expected:
            hasher = digests.hasher(digests.parse(expected))
            hasher.update(data)
            if hasher.hexdigest() != digests.encoded(expected):
                raise errors.Invalid(
                    f"the manifest of {name} does not match its digest",
                    why=f"{whose.capitalize()} says {expected[:80]}, its content has another.",
                )
    sent_as = content_type.partition(";")[0].strip().lower()
    if sent_as in _SCHEMA1:
        raise errors.Unsupported(
            f"the image {name} is of Docker's schema 1",
            hint="Push it again with a tool of the last ten years.",
        )
    _no_second_spelling(data, name)
    value = manifest.parse(data)
    claimed = fields.text(fields.load(data, "manifest"), "mediaType")
    if sent_as not in _UNTYPED:
        if sent_as not in descriptor.MANIFESTS | descriptor.INDEXES:
            raise errors.Unsupported(f"{name} is of the unknown media type {sent_as[:100]!r}")
        if claimed and claimed != sent_as:
            raise errors.Invalid(
                f"the manifest of {name} is ambiguous",
                why=f"It calls itself {claimed[:90]} but was sent as {sent_as[:90]}.",
            )
        if (sent_as in descriptor.INDEXES) != isinstance(value, Index):
            raise errors.Invalid(f"the manifest of {name} is not the {sent_as} it was sent as")
        claimed = sent_as
    return Document(data, digests.of(data), claimed or value.media_type, value)


def _no_second_spelling(data: bytes, name: str) -> None:
    """Refuse members that stand twice, or in another case than the specification's (JSON readers differ on them)."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise errors.Invalid(
                    f"the manifest of {name} is ambiguous", why=f"{key[:60]!r} stands in it twice."
                )
            exact = _LOWER.get(key.lower(), key)
            if exact != key:
                raise errors.Invalid(
                    f"the manifest of {name} is ambiguous", why=f"It writes {exact!r} as {key[:60]!r}."
                )
            found[key] = value
        return found

    try:
        json.loads(data, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise errors.Invalid(f"the manifest of {name} is not valid JSON", why=str(error)[:200]) from None


def resolve(
    top: Document, platform: Platform, fetch: Callable[[Descriptor], Document]
) -> tuple[Document, Manifest]:
    """The manifest of one image for `platform`, through nested indexes (a few, and none twice)."""
    here, seen = top, {top.digest}
    for _ in range(_NESTING + 1):
        if isinstance(here.value, Manifest):
            _usable(here.value)
            return here, here.value
        chosen = _select(here.value, platform)
        if chosen.digest in seen:
            raise errors.Invalid(
                "an image index contains itself", why=f"{chosen.digest[:19]} stands in its own tree."
            )
        if chosen.media_type not in descriptor.MANIFESTS | descriptor.INDEXES:
            raise errors.Unsupported(
                f"the index points to the unknown media type {chosen.media_type[:100]!r}"
            )
        seen.add(chosen.digest)
        here = fetch(chosen)
        if len(here.data) != chosen.size:
            raise errors.Invalid(
                f"manifest {chosen.digest[:19]} has another size than its index says",
                why=f"{len(here.data)} bytes came, {chosen.size} were promised.",
            )
        if here.media_type != chosen.media_type:
            raise errors.Invalid(
                f"manifest {chosen.digest[:19]} is not the {chosen.media_type} its index promises"
            )
    raise errors.Invalid(f"the image index is nested more than {_NESTING} deep")


def _select(index: Index, platform: Platform) -> Descriptor:
    """Attestations stand in an index as unknown/unknown and are no image."""
    real = tuple(
        entry
        for entry in index.manifests
        if not (
            entry.platform and entry.platform.os == "unknown" and entry.platform.architecture == "unknown"
        )
    )
    return Index(real).select(platform)


def _usable(image: Manifest) -> None:
    """Only images are unpacked: no artifact, no layer of a type we cannot read, none that lies elsewhere."""
    if image.config.media_type not in descriptor.CONFIGS:
        raise errors.Unsupported(
            "this is not an image but another artifact",
            why=f"Its config is {image.config.media_type[:100]!r}.",
        )
    for layer in image.layers:
        if layer.media_type not in LAYERS:
            raise errors.Unsupported(f"a layer is of the unknown media type {layer.media_type[:100]!r}")
