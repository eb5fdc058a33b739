"""The verbs that talk to registries: pull, push, log in, look at. Owns what of a transfer becomes an image, and when.

The client (registry/client) moves and verifies bytes; here names, leases, events and words for people are added. Loaded
at the first such verb.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lading.base.errors import Invalid, LadingError, NotFound, Unauthenticated
from lading.engine.access import Access, domain_of
from lading.image import reference
from lading.image.manifest import Manifest
from lading.image.reference import Reference
from lading.registry.client import settings
from lading.registry.client.client import Client, Session
from lading.registry.client.documents import Document
from lading.registry.client.ports import NOBODY, Credentials
from lading.registry.client.wire import Unreachable

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms
    from lading.store.images import Image

Progress = Callable[[dict[str, Any]], None]


def _silent(line: dict[str, Any]) -> None:
    """Progress that nobody looks at."""


def _credit(access: Access) -> Callable[[str], Credentials]:
    """The client's question for credentials, answered from what the caller brought."""

    def find(domain: str) -> Credentials:
        found = access.of(domain)
        return credentials(found) if found else NOBODY

    return find


def credentials(said: Mapping[str, str]) -> Credentials:
    """Credentials in Docker's AuthConfig words."""
    return Credentials(
        said.get("username", ""),
        said.get("password", ""),
        said.get("identitytoken", ""),
        said.get("registrytoken", ""),
    )


class Registry:
    """Registry verbs of one engine."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.client = Client(settings.load(rooms.environ, os.geteuid()))

    @contextlib.contextmanager
    def _session(self, access: Access) -> Iterator[Session]:
        """Connections that are cut when the caller goes."""
        with self.client.session(access.cancelled) as session:
            access.on_cancel(session.cancel)
            yield session

    # --- pull ---

    def pull(
        self, ref: str, platform: str = "", progress: Progress | None = None, access: Access | None = None
    ) -> str:
        """Bring an image here and name it; its id. What a failed pull brought is thrown away."""
        wanted = reference.parse(ref).with_default_tag()
        rooms, access, report = self._rooms, access or Access(), progress or _silent
        name = f"{wanted.name}@{wanted.digest}" if wanted.digest else f"{wanted.name}:{wanted.tag}"
        made: set[str] = set()
        try:
            with rooms.leases.hold() as lease, self._session(access) as session:
                pulled = self.client.pull(
                    session, wanted, platform, _credit(access),
                    blobs=rooms.blobs, snapshots=rooms.snapshotter, report=report, keep=lease.add, made=made,
                )  # fmt: skip
                before = self._named(name)
                rooms.images.put(name, pulled.manifest.digest)
                image = rooms.images.by_manifest(pulled.manifest.digest)
        except BaseException as error:
            rooms.images.discard(made)
            if isinstance(error, Unreachable):
                advice = "Without a registry, make a base image with `lading bootstrap`, or bring one with `lading load`."
                raise Unreachable(error.what, why=error.why, hint=advice) from error
            raise
        rooms.images.settle()
        same = before is not None and before.id == image.id and not pulled.fetched
        report({"status": f"Digest: {pulled.top.digest}"})
        verb = "Image is up to date" if same else "Downloaded newer image"
        report({"status": f"Status: {verb} for {reference.parse(name).familiar}"})
        rooms.events.say("image", "pull", image.id, {"name": reference.parse(name).familiar})
        return image.id

    def _named(self, name: str) -> Image | None:
        try:
            return self._rooms.images.get(name)
        except LadingError:
            return None

    # --- push ---

    def push(
        self, ref: str, tag: str = "", progress: Progress | None = None, access: Access | None = None
    ) -> None:
        """Send an image under its name; all tags of the repository when none is given."""
        parsed = reference.parse(f"{ref}:{tag}" if tag else ref)
        if parsed.digest:
            raise Invalid(f"{ref[:200]} names a digest", why="An image is pushed under a tag.")
        access, report = access or Access(), progress or _silent
        report({"status": f"The push refers to repository [{parsed.name}]"})
        with self._session(access) as session:
            for one in [parsed] if parsed.tag else self._tags(parsed):
                self._push(session, one, report, access)

    def _tags(self, repository: Reference) -> list[Reference]:
        found = [
            name
            for image in self._rooms.images.list()
            for name in map(reference.parse, image.references)
            if name.tag and name.name == repository.name
        ]
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
        return sorted(found, key=str)

    def _push(self, session: Session, ref: Reference, report: Progress, access: Access) -> None:
        rooms = self._rooms
        image = rooms.images.get(str(ref))
        if str(ref) not in image.references:
            raise NotFound(
                f"no image is named {ref.familiar}", hint=f"Name one with `lading tag … {ref.familiar}`."
            )
        data = rooms.blobs.read(image.manifest_digest)
        document = Document(data, image.manifest_digest, image.manifest.media_type, image.manifest)
        with rooms.leases.hold(image.manifest_digest):
            self.client.push(
                session, ref, document, image.manifest, _credit(access),
                blobs=rooms.blobs, report=report, elsewhere=self._elsewhere(ref, image.manifest),
            )  # fmt: skip
        report({"status": f"{ref.tag}: digest: {document.digest} size: {len(data)}"})
        aux = {"Tag": ref.tag, "Digest": document.digest, "Size": len(data)}
        report({"progressDetail": {}, "aux": aux})
        rooms.events.say("image", "push", image.id, {"name": ref.familiar})

    def _elsewhere(self, ref: Reference, manifest: Manifest) -> dict[str, tuple[str, ...]]:
        """Other repositories of the registry that may hold a layer: those that images here with it are named after."""
        wanted = {layer.digest for layer in manifest.layers}
        found: dict[str, list[str]] = {}
        for image in self._rooms.images.list():
            paths = {
                name.path
                for name in map(reference.parse, image.references)
                if name.domain == ref.domain and name.path != ref.path
            }
            for layer in image.manifest.layers:
                if layer.digest in wanted:
                    found.setdefault(layer.digest, []).extend(sorted(paths))
        return {digest: tuple(dict.fromkeys(paths)) for digest, paths in found.items()}

    # --- the rest ---

    def login(self, said: Mapping[str, str], access: Access | None = None) -> None:
        """Check credentials with their registry."""
        given = credentials(said)
        if not given:
            raise Unauthenticated("no user name is given")
        domain = domain_of(said.get("serveraddress", ""))
        with self._session(access or Access()) as session:
            self.client.login(session, domain, given)

    def distribution(self, ref: str, access: Access | None = None) -> dict[str, Any]:
        """What a registry has under a name: DistributionInspect."""
        access = access or Access()
        wanted = reference.parse(ref).with_default_tag()
        with self._session(access) as session:
            document = self.client.document(session, wanted, _credit(access))
            platforms = self.client.platforms(session, wanted, document, _credit(access))
        return {
            "Descriptor": {
                "mediaType": document.media_type, "digest": document.digest, "size": len(document.data),
            },
            "Platforms": [
                {"architecture": one.architecture, "os": one.os} | ({"variant": one.variant} if one.variant else {})
                for one in platforms
            ],
        }  # fmt: skip
