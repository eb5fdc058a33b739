"""From a name to an image in the store. Owns the order of steps and the image's config; never makes a file.

Everything happens in one scratch directory, which goes away in the end; after kill -9 the next start
empties it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from lading.base import clock
from lading.base.errors import Unavailable
from lading.build.bootstrap import busybox, debian, packages, scrub
from lading.build.bootstrap.packages import Package
from lading.build.bootstrap.recipes import Recipe, familiar, recipe
from lading.image import descriptor, mutate
from lading.image.config import ContainerConfig, History, ImageConfig
from lading.image.layer import write
from lading.image.layer.compress import BlobStore, write_layer
from lading.image.mutate import Layer


class Blobs(BlobStore, Protocol):
    """Content by digest."""

    def put(self, data: bytes, /) -> str: ...


class Leases(Protocol):
    """Keeps what is being made from being swept."""

    def hold(self) -> AbstractContextManager[object]: ...


class Images(Protocol):
    """Names for manifests."""

    def put(self, ref: str, manifest_digest: str) -> None: ...


def _never() -> bool:
    return False


def bootstrap(
    reference: str,
    *,
    images: Images,
    blobs: Blobs,
    leases: Leases,
    tmp_dir: str,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
    cancelled: Callable[[], bool] = _never,
) -> str:
    """Make the image `reference` and tag it; returns its id. The same package set always gives the same id.

    NotFound for a name without a recipe.
    """
    chosen = recipe(reference)
    name = familiar(reference)
    scratch = tempfile.mkdtemp(prefix="bootstrap-", dir=tmp_dir)
    try:
        root = f"{scratch}/root"
        os.mkdir(root, mode=0o755)
        os.chmod(scratch, 0o755)  # apt reads as user _apt
        tool, epoch, installed = _make_tree(chosen, root, environ, progress, cancelled)
        progress(f"writing the layer: {len(installed)} package{'s' * (len(installed) != 1)}")
        with leases.hold():
            draft = describe(chosen, _layer(blobs, root, epoch), tool, epoch, installed)
            blobs.put(draft.config.encode())
            images.put(name, blobs.put(draft.manifest().encode()))
    except ConnectionError:
        raise  # whoever reads the progress has gone
    except OSError as error:
        raise Unavailable(
            f"the base image {name} cannot be made", why=f"{error.strerror}: {error.filename or scratch}."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress(f"{name} is {draft.image_id}")
    return draft.image_id


def _layer(blobs: Blobs, root: str, epoch: int) -> Layer:
    def produce(out: write.Out) -> None:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            writer = write.Writer(out, latest_ns=epoch * 1_000_000_000)
            write.tree(fd, writer)
            writer.close()
        finally:
            os.close(fd)

    return write_layer(blobs, produce)


def _make_tree(
    chosen: Recipe,
    root: str,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[str, int, tuple[Package, ...]]:
    if not chosen.suite:
        epoch, installed = busybox.make_tree(root, debian.environment(environ), progress)
        return "busybox-static", epoch, installed
    started_ns = os.stat(root).st_mtime_ns
    tool, found = debian.make_tree(chosen, root, environ, progress, cancelled)
    epoch = scrub.scrub(root, chosen, found, started_ns)
    with open(f"{root}/var/lib/dpkg/status", encoding="utf-8") as file:
        return tool, epoch, packages.parse_status(file.read())


def describe(
    chosen: Recipe, layer: Layer, tool: str, epoch: int, installed: tuple[Package, ...]
) -> mutate.Draft:
    """The image around its one layer; pure."""
    created = clock.rfc3339(epoch * 1_000_000_000)
    platform = descriptor.host_platform()
    labels = {
        "io.lading.bootstrap": "local",
        "io.lading.bootstrap.name": chosen.name,
        "io.lading.bootstrap.packages": packages.list_digest(installed),
        "org.opencontainers.image.created": created,
    }
    env = chosen.env
    if version := _python_version(installed):
        env = (*env, f"PYTHON_VERSION={version}")
    config = ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        config=ContainerConfig(env=env, cmd=chosen.cmd, labels=labels),
    )
    history = History(created=created, created_by=f"lading bootstrap {chosen.name}", comment=tool)
    return mutate.append(mutate.Draft(config), layer, history)


def _python_version(installed: tuple[Package, ...]) -> str:
    """Upstream version of Debian's python3.N: `3.11.2` of `3.11.2-6+deb12u6`."""
    versions = {package.name: package.version for package in installed}
    full = versions.get("python3-minimal", "") and next(
        (
            v
            for n, v in versions.items()
            if n.startswith("python3.") and n.endswith("-minimal") and "lib" not in n
        ),
        "",
    )
    return full.partition("-")[0].rpartition(":")[2]
