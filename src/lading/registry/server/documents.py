"""Manifests as pushed: what they refer to, and what the referrers API tells about them. Owns no storage.

Reading is `image.manifest`'s, which refuses ambiguous documents; this file adds `subject` and `artifactType`
(image-spec manifest.md, image-index.md; distribution-spec "Listing Referrers").
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lading.base import errors
from lading.image import descriptor, fields, manifest
from lading.registry.server import failures
from lading.registry.server.failures import Refusal

LIMIT = 4 << 20
"""Bytes of a manifest (distribution-spec "Pushing Manifests": registries should take at least 4 MiB)."""

_ELSEWHERE = (".foreign.", ".nondistributable.")


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest or index, read."""

    media_type: str
    blobs: tuple[str, ...] = ()  # digests that must be in the repository
    manifests: tuple[str, ...] = ()
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


def read(data: bytes, content_type: str) -> Document:
    """Read a pushed manifest; a Refusal with MANIFEST_INVALID for anything that is none."""
    claimed = content_type.partition(";")[0].strip().lower()
    try:
        found = manifest.parse(data)
        raw = fields.load(data, "manifest")
        subject = (
            fields.mapping(raw["subject"], "field 'subject'") if raw.get("subject") is not None else None
        )
        subject_digest = descriptor.from_json(subject).digest if subject is not None else ""
        artifact_type = fields.text(raw, "artifactType")
        inside = fields.text(raw, "mediaType")
    except errors.LadingError as error:
        raise Refusal(400, failures.MANIFEST_INVALID, error.what, why=error.why) from None
    known = descriptor.INDEXES if isinstance(found, manifest.Index) else descriptor.MANIFESTS
    # Pushing with the wrong type would make clients disagree on what the bytes mean (CVE-2021-41190).
    if (claimed and claimed not in known) or (inside and claimed and inside != claimed):
        raise Refusal(
            400,
            failures.MANIFEST_INVALID,
            f"Content-Type {claimed[:100]!r} does not fit the manifest",
            why=f"The document is {inside or sorted(known)}.",
        )
    media_type = claimed or found.media_type
    if isinstance(found, manifest.Index):
        children = tuple(dict.fromkeys(entry.digest for entry in found.manifests))
        return Document(media_type, (), children, subject_digest, artifact_type, dict(found.annotations))
    needed = [found.config.digest]
    needed += [layer.digest for layer in found.layers if not _elsewhere(layer)]
    return Document(
        media_type,
        tuple(dict.fromkeys(needed)),
        (),
        subject_digest,
        artifact_type or found.config.media_type,
        dict(found.annotations),
    )


def _elsewhere(layer: descriptor.Descriptor) -> bool:
    """Layers that may not be given on are fetched from their own URLs, not from here (image-spec layer.md)."""
    return any(mark in layer.media_type for mark in _ELSEWHERE)
