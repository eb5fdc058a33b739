"""What lading writes is valid by the OCI image-spec's own JSON schemas (shared/specs/oci-image, beside the
checkout)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema

from lading.image import descriptor, digest, mutate
from lading.image.config import ContainerConfig, Healthcheck, History, ImageConfig
from lading.image.descriptor import Descriptor, Platform
from lading.image.manifest import Index

SCHEMAS = Path(__file__).parents[3] / "shared/specs/oci-image"

pytestmark = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason="the specification's schemas are not beside the checkout"
)

A = digest.of(b"a")
LAYER = mutate.Layer(
    Descriptor(descriptor.OCI_LAYER_GZIP, A, 10, {"k": "v"}, urls=("https://example.com/a",)), digest.of(b"b")
)

DRAFTS = {
    "smallest": mutate.append(mutate.Draft(mutate.EMPTY), LAYER, History()),
    "with a layer": mutate.append(mutate.Draft(mutate.EMPTY), LAYER, History("2026-01-01T00:00:00Z", "RUN x", "c", "a")),
    "with everything": mutate.append(
        mutate.Draft(
            ImageConfig(
                variant="v8",
                created="2026-01-01T00:00:00.123456789Z",
                author="me",
                config=ContainerConfig(
                    "0:0", ("80/tcp",), ("A=b",), ("e",), ("c",), ("/v",), "/w", {"l": "1"}, "TERM", 3,
                    Healthcheck(("NONE",), 1, 1, 1, 1, 1), ("RUN y",), ("sh",), True,
                ),
            )
        ),
        LAYER,
        History(empty_layer=False),
    ),
}  # fmt: skip


def _validator(name: str) -> jsonschema.protocols.Validator:
    def retrieve(uri: str) -> referencing.Resource[Any]:
        contents = json.loads((SCHEMAS / uri.rpartition("/")[2]).read_text())
        return referencing.jsonschema.DRAFT4.create_resource(contents)

    schema = json.loads((SCHEMAS / name).read_text())
    _rebase(schema)
    registry: referencing.Registry[Any] = referencing.Registry(retrieve=retrieve)
    return jsonschema.Draft4Validator(schema, registry=registry, format_checker=jsonschema.FormatChecker())


def _rebase(schema: object) -> None:
    """The schemas carry `id`s that are no addresses of files, while their references are file names: drop the
    ids."""
    if isinstance(schema, dict):
        if isinstance(schema.get("id"), str):
            del schema["id"]
        for value in schema.values():
            _rebase(value)
    elif isinstance(schema, list):
        for value in schema:
            _rebase(value)


@pytest.mark.parametrize("name", DRAFTS)
def test_manifest(name: str) -> None:
    _validator("image-manifest-schema.json").validate(json.loads(DRAFTS[name].manifest().encode()))


@pytest.mark.parametrize("name", DRAFTS)
def test_config(name: str) -> None:
    _validator("config-schema.json").validate(json.loads(DRAFTS[name].config.encode()))


def test_index() -> None:
    entries = (
        Descriptor(
            descriptor.OCI_MANIFEST,
            A,
            1,
            {"org.opencontainers.image.ref.name": "v1"},
            Platform("linux", "arm64", "v8"),
        ),
        Descriptor(descriptor.OCI_MANIFEST, A, 1),
    )
    _validator("image-index-schema.json").validate(
        json.loads(Index(entries, annotations={"a": "b"}).encode())
    )


def test_the_schemas_do_refuse() -> None:
    """So that the tests above can fail."""
    document = json.loads(DRAFTS["with a layer"].manifest().encode())
    document["layers"][0]["digest"] = "nonsense"
    with pytest.raises(jsonschema.ValidationError):
        _validator("image-manifest-schema.json").validate(document)
    config = replace(DRAFTS["with a layer"].config, created="yesterday").to_json()
    config["config"]["Env"] = [1]
    with pytest.raises(jsonschema.ValidationError):
        _validator("config-schema.json").validate(config)
