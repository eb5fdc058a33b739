"""Manifests and indexes: which config and layers make an image (OCI image-spec manifest.md, image-index.md).

Owns reading OCI and Docker schema 2 documents and writing OCI ones; never fetches what they point to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.base import errors
from lading.image import descriptor, fields
from lading.image.descriptor import Descriptor, Platform

MAX_LAYERS = 1000
"""More layers than any file system can stack; docker builds at most 127."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform. Layers are ordered from the base up."""

    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    media_type: str = descriptor.OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The document; the same value always gives the same bytes."""
        out: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        fields.put(out, "annotations", dict(self.annotations))
        return fields.dump(out)


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests of one image for several platforms, or the contents of a layout."""

    manifests: tuple[Descriptor, ...]
    media_type: str = descriptor.OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        out: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        fields.put(out, "annotations", dict(self.annotations))
        return fields.dump(out)

    def select(self, wanted: Platform) -> Descriptor:
        """The manifest for `wanted`; an equal variant first, then one without, then any. NotFound names what
        there is."""
        fits = [
            entry
            for entry in self.manifests
            if entry.platform is None
            or (entry.platform.os == wanted.os and entry.platform.architecture == wanted.architecture)
        ]
        if not fits:
            there = (
                ", ".join(sorted({str(entry.platform) for entry in self.manifests if entry.platform}))
                or "none"
            )
            raise errors.NotFound(f"no image for platform {wanted}", why=f"The index has: {there}.")

        def rank(entry: Descriptor) -> int:
            variant = entry.platform.variant if entry.platform else ""
            return 0 if entry.platform and variant == wanted.variant else 1 if not variant else 2

        return min(fits, key=rank)


def parse(data: bytes) -> Manifest | Index:
    """Read a manifest or an index of either family; Invalid for anything else.

    A document that has both `layers` and `manifests` is refused: readers could disagree on what it is
    (CVE-2021-41190, OCI image-spec GHSA-77vh-xpmg-72qh).
    """
    obj = fields.load(data, "manifest")
    if fields.integer(obj, "schemaVersion", 0) != 2:
        raise errors.Unsupported(
            "manifest is not of schema version 2", hint="Schema 1 images must be converted first."
        )
    media_type = fields.text(obj, "mediaType")
    has_manifests = "manifests" in obj
    if has_manifests and ("layers" in obj or "config" in obj):
        raise errors.Invalid(
            "manifest is ambiguous", why="It has the fields of an index and of an image manifest."
        )
    if has_manifests:
        if media_type and media_type not in descriptor.INDEXES:
            raise errors.Invalid(f"manifest claims the media type {media_type[:100]!r} but is an index")
        return Index(
            fields.each(obj, "manifests", descriptor.from_json),
            media_type or descriptor.OCI_INDEX,
            fields.text_map(obj, "annotations"),
        )
    if media_type and media_type not in descriptor.MANIFESTS:
        raise errors.Invalid(f"manifest has the unknown media type {media_type[:100]!r}")
    layers = fields.each(obj, "layers", descriptor.from_json)
    if len(layers) > MAX_LAYERS:
        raise errors.Invalid(f"manifest has more than {MAX_LAYERS} layers")
    return Manifest(
        descriptor.from_json(fields.mapping(obj.get("config"), "field 'config'")),
        layers,
        media_type or descriptor.OCI_MANIFEST,
        fields.text_map(obj, "annotations"),
    )
