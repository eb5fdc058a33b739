"""Changes to images as new values (house rule 2): append a layer, set the config, rebase nothing in place.

Owns keeping manifest, diff_ids and history consistent; never reads or writes a blob.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lading.base import errors
from lading.image import descriptor, digest
from lading.image.config import ContainerConfig, History, ImageConfig
from lading.image.descriptor import Descriptor
from lading.image.manifest import Manifest

EMPTY = ImageConfig()


@dataclass(frozen=True, slots=True)
class Layer:
    """A stored layer: the descriptor of the blob and the digest of the tar inside it (the diffID)."""

    descriptor: Descriptor
    diff_id: str


@dataclass(frozen=True, slots=True)
class Draft:
    """An image that is not stored yet: its config and the descriptors of its layers, in step."""

    config: ImageConfig
    layers: tuple[Descriptor, ...] = ()

    @property
    def image_id(self) -> str:
        """The digest of the config."""
        return digest.of(self.config.encode())

    def manifest(self) -> Manifest:
        """The OCI manifest; the config's descriptor is computed from its encoding."""
        data = self.config.encode()
        return Manifest(Descriptor(descriptor.OCI_CONFIG, digest.of(data), len(data)), self.layers)


def draft(manifest: Manifest, config: ImageConfig) -> Draft:
    """A draft that continues a stored image; Docker's media types become OCI's, which name the same bytes."""
    if len(manifest.layers) != len(config.diff_ids):
        raise errors.Invalid("manifest and config disagree on the number of layers")
    return Draft(
        config, tuple(replace(layer, media_type=_oci(layer.media_type)) for layer in manifest.layers)
    )


def _oci(media_type: str) -> str:
    return {
        descriptor.DOCKER_LAYER: descriptor.OCI_LAYER,
        descriptor.DOCKER_LAYER_GZIP: descriptor.OCI_LAYER_GZIP,
    }.get(media_type, media_type)


def append(image: Draft, layer: Layer, history: History) -> Draft:
    """`image` with `layer` on top."""
    config = replace(
        image.config,
        diff_ids=(*image.config.diff_ids, layer.diff_id),
        history=(*image.config.history, replace(history, empty_layer=False)),
        created=history.created or image.config.created,
    )
    return Draft(config, (*image.layers, layer.descriptor))


def append_empty(image: Draft, history: History) -> Draft:
    """`image` with one more history entry that changed no file."""
    config = replace(
        image.config,
        history=(*image.config.history, replace(history, empty_layer=True)),
        created=history.created or image.config.created,
    )
    return Draft(config, image.layers)


def configure(image: Draft, change: Callable[[ContainerConfig], ContainerConfig]) -> Draft:
    """`image` whose container config is `change` of the present one."""
    return Draft(replace(image.config, config=change(image.config.config)), image.layers)
