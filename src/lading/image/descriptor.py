"""Descriptors: media type, size and digest of some content (OCI image-spec, descriptor.md), and platforms.

Owns the media types lading reads and writes; never touches the content itself.
"""

from __future__ import annotations

import platform as _platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.base import errors
from lading.image import digest as digests
from lading.image import fields

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYERS = frozenset({OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP})

_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "riscv64": "riscv64"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and processor in Go's words."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64` or a bare `arm64`."""
    parts = text.split("/")
    if len(parts) > 3 or not all(
        part and part.isascii() and part.replace("-", "").isalnum() for part in parts
    ):
        raise errors.Invalid(
            f"platform {text[:80]!r} is malformed", hint="Write os/architecture[/variant], e.g. linux/arm64."
        )
    if len(parts) == 1:
        return Platform(architecture=_GO_ARCH.get(parts[0], parts[0]))
    return Platform(parts[0].lower(), _GO_ARCH.get(parts[1], parts[1]), parts[2] if len(parts) == 3 else "")


def host_platform() -> Platform:
    """The platform this process runs on."""
    machine = _platform.machine()
    return Platform("linux", _GO_ARCH.get(machine, machine), "v7" if machine == "armv7l" else "")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed, sized, verifiable pointer to content."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        fields.put(out, "urls", list(self.urls))
        fields.put(out, "annotations", dict(self.annotations))
        if self.platform:
            out["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            fields.put(out["platform"], "variant", self.platform.variant)
        return out


def from_json(obj: dict[str, Any]) -> Descriptor:
    """Read one descriptor; Invalid where a field is missing or of the wrong type."""
    platform = None
    if obj.get("platform") is not None:
        raw = fields.mapping(obj["platform"], "field 'platform'")
        platform = Platform(
            fields.text(raw, "os"), fields.text(raw, "architecture"), fields.text(raw, "variant")
        )
    return Descriptor(
        media_type=fields.text(obj, "mediaType"),
        digest=digests.parse(obj.get("digest")),
        size=fields.integer(obj, "size"),
        annotations=fields.text_map(obj, "annotations"),
        platform=platform,
        urls=fields.texts(obj, "urls") or (),
    )
