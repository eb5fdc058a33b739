"""Images in one tar file: what `docker save` writes and what `docker load`, podman, skopeo and lading read.

Owns both layouts at once, docker-archive (manifest.json) and OCI image layout (index.json, oci-layout), over
the same blobs. Loading takes either, in any order of members and any compression; nothing is trusted until
its digest is checked, and nothing of a refused archive stays.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lading.base import errors
from lading.image import chain, config, descriptor, digest, fields, manifest, reference
from lading.image.descriptor import Descriptor
from lading.image.layer import compress, header, reader
from lading.image.layer.header import Header
from lading.image.layer.write import Batch
from lading.image.manifest import Index, Manifest
from lading.store.blobs import Blobs
from lading.store.images import Image, Images

_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_DOCUMENTS = ("index.json", "manifest.json", "oci-layout")
_IGNORED = ("repositories", "VERSION", "json")
_LIMITS = reader.Limits(members=200_000)
_NESTING = 4


# --- saving ---


def save(images: Images, refs: Iterable[str], out: Callable[[bytes], object]) -> None:
    """Write the named images, each blob once. The same images always give the same bytes."""
    chosen: dict[str, tuple[Image, set[str]]] = {}
    for ref in refs:
        image = images.get(ref)
        _, names = chosen.setdefault(image.manifest_digest, (image, set()))
        names.update(name for name in image.references if _is_named(ref, name))
    if not chosen:
        raise errors.Invalid("no image to save", hint="Name at least one image.")
    batch = Batch(out)
    for directory in (b"blobs", b"blobs/sha256"):
        batch.write(header.pack(Header(directory, header.DIRECTORY, 0o755)))
    digests: set[str] = set()
    for image, _ in chosen.values():
        digests.update((image.manifest_digest, image.id), (layer.digest for layer in image.manifest.layers))
    for blob in sorted(digests):
        _write_blob(batch, images.blobs, blob)
    _write(batch, "index.json", _index(images.blobs, chosen).encode())
    _write(
        batch, "manifest.json", fields.dump([_docker_entry(image, names) for image, names in chosen.values()])
    )
    _write(batch, "oci-layout", _LAYOUT)
    batch.write(header.END)
    batch.flush()


def _is_named(ref: str, name: str) -> bool:
    """Whether `ref`, as the user gave it, is the image's name `name` and not the beginning of its id."""
    try:
        return str(reference.parse(ref).with_default_tag()) == name
    except errors.Invalid:
        return False


def _write(batch: Batch, name: str, data: bytes) -> None:
    batch.write(header.pack(Header(name.encode(), header.REGULAR, 0o644, size=len(data))))
    batch.write(data)
    batch.write(header.padding(len(data)))


def _path(blob: str) -> str:
    return f"blobs/sha256/{digest.encoded(blob)}"


def _write_blob(batch: Batch, blobs: Blobs, blob: str) -> None:
    size = blobs.size(blob)
    batch.write(header.pack(Header(_path(blob).encode(), header.REGULAR, 0o644, size=size)))
    left = size
    with blobs.open(blob) as stream:
        while left and (chunk := stream.read(min(left, 1 << 20))):
            batch.write(chunk)
            left -= len(chunk)
    if left:
        raise errors.Internal(f"blob {blob} changed while it was read")
    batch.write(header.padding(size))


def _index(blobs: Blobs, chosen: dict[str, tuple[Image, set[str]]]) -> Index:
    entries = []
    for image, names in chosen.values():
        size = blobs.size(image.manifest_digest)
        platform = descriptor.Platform(image.config.os, image.config.architecture, image.config.variant)
        for name in sorted(names) or [""]:
            annotations = {_NAME: name, _REF_NAME: reference.parse(name).tag} if name else {}
            entries.append(
                Descriptor(image.manifest.media_type, image.manifest_digest, size, annotations, platform)
            )
    return Index(tuple(entries))


def _docker_entry(image: Image, names: set[str]) -> dict[str, Any]:
    parsed = sorted(reference.parse(name).familiar for name in names if reference.parse(name).tag)
    return {
        "Config": _path(image.id),
        "RepoTags": parsed or None,
        "Layers": [_path(layer.digest) for layer in image.manifest.layers],
    }


# --- loading ---


@dataclass
class _Contents:
    """What the archive held: every file as a blob under its path, the three documents, and links between
    paths."""

    blobs: dict[str, str] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(
        default_factory=set
    )  # blobs and snapshots to be looked at again when the lease is over

    def find(self, path: str) -> str:
        """The digest of the file at `path`; links are followed a few times."""
        at = _clean(path)
        for _ in range(8):
            if at in self.blobs:
                return self.blobs[at]
            if at not in self.links:
                break
            at = self.links[at]
        raise errors.Invalid(f"archive lacks the file {path[:200]!r}")


def load(blobs: Blobs, images: Images, stream: reader.Source) -> list[str]:
    """Store, check and unpack all images of an archive; gives their familiar names, or ids of nameless
    ones."""
    contents = _Contents()
    loaded: list[str] = []
    try:
        with images.leases.hold():
            _receive(blobs, compress.Decompressed(stream), contents)
            found = _from_layout(blobs, contents) or _from_docker(blobs, contents)
            if not found:
                raise errors.Invalid(
                    "archive holds no image for this platform",
                    why="It has neither a manifest.json nor a usable index.json.",
                    hint="Give a file made by `save`; use `import` for a plain root file system.",
                )
            for manifest_digest, names in found.items():
                loaded += _record(images, manifest_digest, sorted(names), contents)
    finally:
        images.discard(contents.made)
    return loaded


def _clean(path: str) -> str:
    """A member's path as a key. Nothing is ever opened by it."""
    return posixpath.normpath("/" + path).lstrip("/")


def _receive(blobs: Blobs, stream: reader.Source, contents: _Contents) -> None:
    archive = reader.Reader(stream, _LIMITS)
    for member in archive:
        path = _clean(member.name.decode("utf-8", "replace"))
        if member.type in (header.SYMLINK, header.HARD_LINK):
            target = member.linkname.decode("utf-8", "replace")
            contents.links[path] = _clean(
                target if member.type == header.HARD_LINK else posixpath.join(posixpath.dirname(path), target)
            )
        elif member.type != header.REGULAR or posixpath.basename(path) in _IGNORED:
            continue
        elif path in _DOCUMENTS:
            contents.documents[path] = _document(archive, member)
        else:
            contents.blobs[path] = _blob(blobs, archive, path)
            contents.made.add(contents.blobs[path])


def _document(archive: reader.Reader, member: Header) -> bytes:
    if member.size > fields.LIMIT:
        raise errors.Invalid(
            f"{member.name.decode('utf-8', 'replace')} in the archive is larger than {fields.LIMIT} bytes"
        )
    data = b""
    while chunk := archive.read():
        data += chunk
    return data


def _blob(blobs: Blobs, archive: reader.Reader, path: str) -> str:
    directory, _, name = path.rpartition("/")
    expected = digest.parse(f"sha256:{name}") if directory == "blobs/sha256" else None
    with blobs.writer() as writer:
        while chunk := archive.read(1 << 20):
            writer.write(chunk)
        return writer.commit(expected)[0]


Found = dict[str, set[str]]
"""Manifest digests with the canonical names the archive gives them."""


def _from_layout(blobs: Blobs, contents: _Contents) -> Found:
    """Images of an OCI layout that are complete and fit this machine."""
    data = contents.documents.get("index.json")
    if data is None:
        return {}
    index = manifest.parse(data)
    if not isinstance(index, Index):
        raise errors.Invalid("index.json in the archive is not an index")
    found: Found = {}
    for entry in index.manifests:
        chosen = _resolve(blobs, entry, 0)
        if chosen is not None:
            names = found.setdefault(chosen, set())
            names.update(_names(entry))
    _add_docker_names(blobs, contents, found)
    return found


def _resolve(blobs: Blobs, entry: Descriptor, depth: int) -> str | None:
    """The complete manifest `entry` leads to, through nested indexes; None where parts are not in the
    archive."""
    if depth > _NESTING or not blobs.has(entry.digest):
        return None
    document = manifest.parse(blobs.read(entry.digest))
    if isinstance(document, Index):
        try:
            inner = document.select(descriptor.host_platform())
        except errors.NotFound:
            return None
        return _resolve(blobs, inner, depth + 1)
    needed = (document.config.digest, *(layer.digest for layer in document.layers))
    return entry.digest if all(blobs.has(blob) for blob in needed) else None


def _names(entry: Descriptor) -> set[str]:
    """A layout names an image by a full reference, or by a tag only, which names nothing here."""
    for key in (_NAME, _REF_NAME):
        text = entry.annotations.get(key, "")
        if ":" in text or "/" in text:
            return {str(reference.parse(text).with_default_tag())}
    return set()


def _docker_entries(contents: _Contents) -> list[dict[str, Any]]:
    data = contents.documents.get("manifest.json")
    if data is None:
        return []
    wrapped = fields.load(b'{"entries":' + data + b"}", "manifest.json")
    return [fields.mapping(item, "item of manifest.json") for item in fields.items(wrapped, "entries")]


def _repo_tags(entry: dict[str, Any]) -> set[str]:
    return {str(reference.parse(tag).with_default_tag()) for tag in fields.texts(entry, "RepoTags") or ()}


def _add_docker_names(blobs: Blobs, contents: _Contents, found: Found) -> None:
    """Names that only manifest.json gives, matched by the config."""
    by_config = {}
    for manifest_digest in found:
        document = manifest.parse(blobs.read(manifest_digest))
        if isinstance(document, Manifest):
            by_config[document.config.digest] = manifest_digest
    for entry in _docker_entries(contents):
        name = fields.text(entry, "Config")
        if name and contents.find(name) in by_config:
            found[by_config[contents.find(name)]].update(_repo_tags(entry))


def _from_docker(blobs: Blobs, contents: _Contents) -> Found:
    """Images of a docker-archive, for each of which a manifest is written."""
    found: Found = {}
    for entry in _docker_entries(contents):
        conf_digest = contents.find(fields.text(entry, "Config"))
        conf_data = blobs.read(conf_digest)
        paths = fields.texts(entry, "Layers") or ()
        if len(paths) != len(config.parse(conf_data).diff_ids):
            raise errors.Invalid(
                "archive is inconsistent", why="manifest.json and the config disagree on the layers."
            )
        layers = tuple(_layer(blobs, contents.find(path)) for path in paths)
        document = Manifest(Descriptor(descriptor.OCI_CONFIG, conf_digest, len(conf_data)), layers)
        made = blobs.put(document.encode())
        contents.made.add(made)
        found.setdefault(made, set()).update(_repo_tags(entry))
    return found


def _layer(blobs: Blobs, blob: str) -> Descriptor:
    with blobs.open(blob) as stream:
        media = compress.detect(stream.read(4))
    return Descriptor(compress.MEDIA_TYPES[media], blob, blobs.size(blob))


def _record(images: Images, manifest_digest: str, names: list[str], contents: _Contents) -> list[str]:
    """Check by unpacking, then name. An image that fails its check is forgotten again."""
    known = images.has_manifest(manifest_digest)
    images.put("", manifest_digest)
    image = images.by_manifest(manifest_digest)
    contents.made.update(chain.ids(image.config.diff_ids))
    try:
        if image.chain_id is not None:
            images.unpack(image)
    except BaseException:
        if not known:
            images.forget(manifest_digest)
        raise
    for name in names:
        images.put(name, manifest_digest)
    return [reference.parse(name).familiar for name in names] or [image.id]
