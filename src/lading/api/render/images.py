"""An image as `images` and `inspect` show it. Pure: the store's Image to dictionaries of Docker's names."""

from __future__ import annotations

from typing import Any

from lading.api.ports import Image
from lading.api.render.json import keys, when
from lading.image import reference
from lading.image.config import ContainerConfig


def _names(image: Image) -> tuple[list[str], list[str]]:
    """(tags, digests) as people write them."""
    tags, digests = [], []
    for text in image.references:
        ref = reference.parse(text)
        if ref.tag:
            tags.append(ref.familiar)
        digest = f"{ref.familiar_name}@{ref.digest or image.manifest_digest}"
        if digest not in digests:
            digests.append(digest)
    return tags, digests


def summary(image: Image) -> dict[str, Any]:
    """ImageSummary: one row of `images`. -1 stands for numbers that were not asked for."""
    tags, digests = _names(image)
    return {
        "Containers": -1,
        "Created": image.created_ns // 1_000_000_000,
        "Id": image.id,
        "Labels": dict(image.config.config.labels) or None,
        "ParentId": "",
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": image.size,
    }


def config(value: ContainerConfig, version: int) -> dict[str, Any]:
    """The image's defaults for its containers. Before API 1.50 the fields only containers use stood there at zero."""
    found: dict[str, Any] = {}
    if version < 50:
        found = {
            "Hostname": "",
            "Domainname": "",
            "AttachStdin": False,
            "AttachStdout": False,
            "AttachStderr": False,
            "Tty": False,
            "OpenStdin": False,
            "StdinOnce": False,
            "Image": "",
        }
    found |= {
        "User": value.user,
        "Env": list(value.env) or None,
        "Cmd": list(value.cmd) if value.cmd is not None else None,
        "Volumes": keys(value.volumes),
        "WorkingDir": value.working_dir,
        "Entrypoint": list(value.entrypoint) if value.entrypoint is not None else None,
        "OnBuild": list(value.onbuild) or None,
        "Labels": dict(value.labels) or None,
    }
    if value.exposed_ports:
        found["ExposedPorts"] = keys(value.exposed_ports)
    if value.stop_signal:
        found["StopSignal"] = value.stop_signal
    if value.stop_timeout is not None:
        found["StopTimeout"] = value.stop_timeout
    if value.shell:
        found["Shell"] = list(value.shell)
    check = value.healthcheck
    if check is not None:
        found["Healthcheck"] = {
            name: number
            for name, number in (
                ("Test", list(check.test)),
                ("Interval", check.interval),
                ("Timeout", check.timeout),
                ("StartPeriod", check.start_period),
                ("StartInterval", check.start_interval),
                ("Retries", check.retries),
            )
            if number
        }
    return found


def inspect(image: Image, version: int) -> dict[str, Any]:
    """ImageInspect."""
    tags, digests = _names(image)
    found: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": when(image.created_ns),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": {"Data": {}, "Name": "overlay"},
        "RootFS": {"Type": "layers", "Layers": list(image.config.diff_ids)},
        "Metadata": {"LastTagTime": when(0)},
        "Config": config(image.config.config, version),
        "Comment": image.config.history[-1].comment if image.config.history else "",
        "Author": image.config.author,
        "Parent": "",
    }
    if image.config.variant:
        found["Variant"] = image.config.variant
    if version < 44:  # taken away in 1.44
        found["VirtualSize"] = image.size
    return found
