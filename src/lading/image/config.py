"""Image configs: how a container of the image runs, and what its layers are (OCI image-spec config.md).

Owns reading and writing the document, Docker's own fields (Healthcheck, OnBuild, Shell, StopTimeout)
included; never decides what a container really runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lading.base import clock, errors
from lading.image import digest as digests
from lading.image import fields


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Docker's health check; times are nanoseconds, 0 is the default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What the image says about running it. None for cmd, entrypoint and shell means "not said"."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # "5000/tcp"
    env: tuple[str, ...] = ()  # "NAME=value"
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    healthcheck: Healthcheck | None = None
    onbuild: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None
    args_escaped: bool = False

    def to_json(self) -> dict[str, Any]:
        """The `config` object, in the order Docker writes it."""
        out: dict[str, Any] = {}
        fields.put(out, "User", self.user)
        fields.put(out, "ExposedPorts", {port: {} for port in sorted(self.exposed_ports)})
        fields.put(out, "Env", list(self.env))
        if self.entrypoint is not None:
            out["Entrypoint"] = list(self.entrypoint)
        if self.cmd is not None:
            out["Cmd"] = list(self.cmd)
        if self.healthcheck is not None:
            out["Healthcheck"] = _healthcheck_json(self.healthcheck)
        fields.put(out, "ArgsEscaped", self.args_escaped)
        fields.put(out, "Volumes", {path: {} for path in sorted(self.volumes)})
        fields.put(out, "WorkingDir", self.working_dir)
        fields.put(out, "OnBuild", list(self.onbuild))
        fields.put(out, "Labels", dict(sorted(self.labels.items())))
        fields.put(out, "StopSignal", self.stop_signal)
        if self.stop_timeout is not None:
            out["StopTimeout"] = self.stop_timeout
        if self.shell is not None:
            out["Shell"] = list(self.shell)
        return out


@dataclass(frozen=True, slots=True)
class History:
    """How one layer, or one change without a layer, came to be."""

    created: str = ""  # RFC 3339
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        fields.put(out, "created", self.created)
        fields.put(out, "created_by", self.created_by)
        fields.put(out, "author", self.author)
        fields.put(out, "comment", self.comment)
        fields.put(out, "empty_layer", self.empty_layer)
        return out


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image's configuration; its digest is the image id. `diff_ids` are ordered from the base up."""

    architecture: str = "amd64"
    os: str = "linux"
    variant: str = ""
    created: str = ""  # RFC 3339
    author: str = ""
    config: ContainerConfig = ContainerConfig()
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()

    @property
    def created_ns(self) -> int:
        """Nanoseconds since the epoch; 0 where the image does not say, or says nonsense."""
        try:
            return clock.parse_rfc3339(self.created) if self.created else 0
        except ValueError:
            return 0

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        fields.put(out, "created", self.created)
        fields.put(out, "author", self.author)
        out["architecture"] = self.architecture
        fields.put(out, "variant", self.variant)
        out["os"] = self.os
        out["config"] = self.config.to_json()
        out["rootfs"] = {"type": "layers", "diff_ids": list(self.diff_ids)}
        fields.put(out, "history", [entry.to_json() for entry in self.history])
        return out

    def encode(self) -> bytes:
        """The document; the same value always gives the same bytes."""
        return fields.dump(self.to_json())


def parse(data: bytes) -> ImageConfig:
    """Read a config; Invalid where a field has the wrong type or the layers are not named."""
    obj = fields.load(data, "image config")
    rootfs = fields.mapping(obj.get("rootfs"), "field 'rootfs'")
    if fields.text(rootfs, "type") != "layers":
        raise errors.Invalid("image config has a rootfs that is not of type 'layers'")
    return ImageConfig(
        architecture=fields.text(obj, "architecture"),
        os=fields.text(obj, "os"),
        variant=fields.text(obj, "variant"),
        created=fields.text(obj, "created"),
        author=fields.text(obj, "author"),
        config=container_from_json(
            fields.mapping({} if obj.get("config") is None else obj["config"], "field 'config'")
        ),
        diff_ids=tuple(digests.parse(item, "diffID") for item in fields.items(rootfs, "diff_ids")),
        history=fields.each(obj, "history", _history),
    )


def _history(obj: dict[str, Any]) -> History:
    return History(
        created=fields.text(obj, "created"),
        created_by=fields.text(obj, "created_by"),
        comment=fields.text(obj, "comment"),
        author=fields.text(obj, "author"),
        empty_layer=fields.boolean(obj, "empty_layer"),
    )


def container_from_json(obj: Mapping[str, Any]) -> ContainerConfig:
    """Read the `config` object, which is also the shape of Docker's container Config."""
    stop_timeout = obj.get("StopTimeout")
    return ContainerConfig(
        user=fields.text(obj, "User"),
        exposed_ports=fields.keys(obj, "ExposedPorts"),
        env=fields.texts(obj, "Env") or (),
        entrypoint=fields.texts(obj, "Entrypoint"),
        cmd=fields.texts(obj, "Cmd"),
        volumes=fields.keys(obj, "Volumes"),
        working_dir=fields.text(obj, "WorkingDir"),
        labels=fields.text_map(obj, "Labels"),
        stop_signal=fields.text(obj, "StopSignal"),
        stop_timeout=None if stop_timeout is None else fields.integer(obj, "StopTimeout", minimum=-1),
        healthcheck=_healthcheck(obj.get("Healthcheck")),
        onbuild=fields.texts(obj, "OnBuild") or (),
        shell=fields.texts(obj, "Shell"),
        args_escaped=fields.boolean(obj, "ArgsEscaped"),
    )


def _healthcheck(value: object) -> Healthcheck | None:
    if value is None:
        return None
    obj = fields.mapping(value, "field 'Healthcheck'")
    return Healthcheck(
        test=fields.texts(obj, "Test") or (),
        interval=fields.integer(obj, "Interval", 0),
        timeout=fields.integer(obj, "Timeout", 0),
        start_period=fields.integer(obj, "StartPeriod", 0),
        start_interval=fields.integer(obj, "StartInterval", 0),
        retries=fields.integer(obj, "Retries", 0),
    )


def _healthcheck_json(check: Healthcheck) -> dict[str, Any]:
    out: dict[str, Any] = {}
    fields.put(out, "Test", list(check.test))
    fields.put(out, "Interval", check.interval)
    fields.put(out, "Timeout", check.timeout)
    fields.put(out, "StartPeriod", check.start_period)
    fields.put(out, "StartInterval", check.start_interval)
    fields.put(out, "Retries", check.retries)
    return out
