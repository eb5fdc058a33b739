"""Image indexes made by hand: what `manifest create`, `annotate` and `push` do. Owns the list between these commands.

A list is one file: a name, and for each image its descriptor with its platform and the repository it was found in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lading.base import atomic, errors
from lading.image import descriptor, fields, reference
from lading.image import digest as digests
from lading.image.descriptor import Descriptor
from lading.image.manifest import Index, Manifest
from lading.image.reference import Reference
from lading.registry.client.client import Client, Credit, Session
from lading.registry.client.documents import Document
from lading.registry.client.remote import Repository


@dataclass(frozen=True)
class Entry:
    """One image of a list."""

    source: Reference  # by digest
    descriptor: Descriptor


class Lists:
    """The lists below a directory, one file each, named by the digest of the list's name."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def _path(self, name: Reference) -> str:
        return f"{self._directory}/{digests.encoded(digests.of(str(name).encode()))}.json"

    def load(self, name: Reference) -> list[Entry]:
        """NotFound where there is no such list."""
        try:
            with open(self._path(name), "rb") as file:
                data = file.read(fields.LIMIT + 1)
        except FileNotFoundError:
            raise errors.NotFound(
                f"no such manifest list: {name.familiar}", hint="Make it with `lading manifest create`."
            ) from None
        said = fields.load(data, f"the list {name.familiar}")
        return list(fields.each(said, "entries", _entry))

    def exists(self, name: Reference) -> bool:
        return os.path.exists(self._path(name))

    def save(self, name: Reference, entries: Iterable[Entry]) -> None:
        made: dict[str, Any] = {
            "name": str(name),
            "entries": [
                {"source": str(one.source), "descriptor": one.descriptor.to_json()} for one in entries
            ],
        }
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        atomic.write_file(self._path(name), fields.dump(made), mode=0o600)

    def remove(self, name: Reference) -> None:
        self.load(name)
        os.unlink(self._path(name))


def _entry(said: dict[str, Any]) -> Entry:
    found = descriptor.from_json(fields.mapping(said.get("descriptor"), "field 'descriptor'"))
    return Entry(reference.parse(fields.text(said, "source")), found)


def entry(client: Client, session: Session, ref: Reference, credit: Credit) -> Entry:
    """An image at a registry as a member of a list; its platform is its config's."""
    document = client.document(session, ref, credit)
    if not isinstance(document.value, Manifest):
        raise errors.Invalid(f"{ref.familiar} is a list itself", hint="Name the images in it by digest.")
    platform = client.platforms(session, ref, document, credit)[0]
    return Entry(
        replace(ref, tag="", digest=document.digest), replace(document.descriptor, platform=platform)
    )


def index(entries: Iterable[Entry]) -> Document:
    """The index of a list: Docker's where all its images are Docker's, OCI's otherwise."""
    members = tuple(one.descriptor for one in entries)
    docker = bool(members) and all(one.media_type == descriptor.DOCKER_MANIFEST for one in members)
    value = Index(members, descriptor.DOCKER_INDEX if docker else descriptor.OCI_INDEX)
    data = value.encode()
    return Document(data, digests.of(data), value.media_type, value)


def push(client: Client, session: Session, name: Reference, entries: list[Entry], credit: Credit) -> Document:
    """Bring the images into the list's repository where they are in a neighbour, and name the index."""
    target = client.repository(session, name, credit, "pull,push")
    away = sorted({one.source.path for one in entries if one.source.name != name.name})
    target.may_also_read(away)
    for one in entries:
        if one.source.domain != name.domain:
            raise errors.Unsupported(
                f"{one.source.familiar} is at another registry than {name.familiar_name}",
                hint=f"Push the image to {name.domain} first.",
            )
        if one.source.path != name.path and not target.has(f"manifests/{one.descriptor.digest}"):
            _bring(client.document(session, one.source, credit), one.source.path, target)
    made = index(entries)
    _put(target, made, name.tag or name.digest)
    return made


def _bring(document: Document, path: str, target: Repository) -> None:
    """One image from a neighbour, by mounts."""
    if not isinstance(document.value, Manifest):
        raise errors.Invalid("a list holds another list")
    for blob in {one.digest: one for one in (document.value.config, *document.value.layers)}.values():
        if target.has(f"blobs/{blob.digest}"):
            continue
        url = target.url(f"blobs/uploads/?mount={blob.digest}&from={path}")
        with target.exchange("POST", url, (201, 202), body=lambda: b"", what="a mount") as response:
            if response.status != 201:
                raise errors.Unsupported(
                    f"{target} does not take blobs from {path}",
                    hint=f"Push the image to {target} itself first.",
                )
    _put(target, document, document.digest)


def _put(target: Repository, document: Document, name: str) -> None:
    headers = {"Content-Type": document.media_type}
    url = target.url(f"manifests/{name}")
    target.exchange(
        "PUT", url, (201, 200, 202), headers, lambda: document.data, what=f"the manifest {name}"
    ).close()
