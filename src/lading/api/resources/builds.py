"""/build: a context and a query become a BuildRequest; progress becomes the classic stream or lading's own events.

Owns the request's form and who may name a directory of the host. lading's own: `contextdir` (the daemon reads that
directory itself), `progress=vertex`, `hosttrust`, a body of type text/plain, which is the Dockerfile itself, and the
header X-Lading-Secrets: so many bytes at the front of the body are a JSON object of secrets, id to base64. They are kept
in memory for as long as the build runs, and no error or log repeats them.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from lading.api.errors import Refused
from lading.api.exchange import Exchange, Output
from lading.api.fields import Fields
from lading.api.ports import Engine
from lading.api.render.builds import Classic
from lading.api.resources import registries
from lading.api.router import Route
from lading.api.stream import error_line
from lading.base.errors import Denied, Invalid, LadingError, Unsupported
from lading.build.context import received
from lading.build.ports import Limits
from lading.build.progress import Progress, to_json
from lading.build.request import BuildRequest
from lading.engine.access import Access
from lading.http.connection import ClientGone

_DOCKERFILE_LIMIT = 1 << 20
_SECRETS_LIMIT = 8 << 20


def build(engine: Engine, x: Exchange) -> None:
    _check(x)
    access = registries.carried(x)
    gone = access.cancelled
    with x.hangups.watch(x.connection.sock, access.cancel), _request(engine, x, access) as request:
        report = _Report(x.stream("application/json"), gone, x.text("progress") == "vertex", x.flag("q"))
        try:
            image = engine.builder.build(request, report)
        except LadingError as error:
            if gone.is_set():
                raise ClientGone from error
            if not report.out.started:
                raise
            report.out.write(error_line(error))
        else:
            if report.quiet:
                report.out.line({"stream": f"{image}\n"})
    if gone.is_set():
        raise ClientGone
    report.out.end()


def _check(x: Exchange) -> None:
    if x.text("remote"):
        raise Unsupported(
            "a build context cannot be fetched from a URL",
            hint="Clone or download it, and build the directory.",
        )
    if x.text("version") == "2":
        raise Unsupported(
            "BuildKit's API is not offered", hint="Set DOCKER_BUILDKIT=0 to use the classic builder's."
        )
    if x.flag("squash"):
        raise Unsupported("images cannot be squashed")
    if x.text("outputs"):
        raise Unsupported("a build's output is always an image of the store")


def _mapping(x: Exchange, name: str) -> Fields | None:
    value = x.json_field(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a JSON object of strings")
    return Fields({name: value})


def _limits(x: Exchange) -> Limits:
    ulimits = Fields({"ulimits": x.json_field("ulimits")}).objects("ulimits")
    return Limits(
        memory=x.integer("memory"),
        memory_swap=x.integer("memswap"),
        cpu_shares=x.integer("cpushares"),
        cpu_period=x.integer("cpuperiod"),
        cpu_quota=x.integer("cpuquota"),
        cpuset_cpus=x.text("cpusetcpus"),
        cpuset_mems=x.text("cpusetmems"),
        shm_size=x.integer("shmsize"),
        ulimits=tuple((item.text("Name"), item.integer("Soft"), item.integer("Hard")) for item in ulimits),
        cgroup_parent=x.text("cgroupparent"),
    )


def _build_args(x: Exchange) -> dict[str, str | None]:
    fields = _mapping(x, "buildargs")
    if fields is None:
        return {}
    given: dict[str, str | None] = fields.mapping("buildargs")
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise fields.wrong(f"buildargs[{name[:40]}]", str, value)
    return given


@contextlib.contextmanager
def _request(engine: Engine, x: Exchange, access: Access) -> Iterator[BuildRequest]:
    """The request; a context that came as a tar lies unpacked in the scratch directory while inside."""
    labels = _mapping(x, "labels")
    common: dict[str, Any] = {
        "dockerfile": x.text("dockerfile"),
        "tags": tuple(tag for tag in x.texts("t") if tag),
        "build_args": _build_args(x),
        "labels": labels.string_map("labels") if labels else {},
        "target": x.text("target"),
        "no_cache": x.flag("nocache"),
        "pull": x.flag("pull"),
        "platform": x.text("platform"),
        "host_trust": x.flag("hosttrust") if x.text("hosttrust") else None,
        "network_mode": x.text("networkmode") or "default",
        "extra_hosts": tuple(host for host in x.texts("extrahosts") if host),
        "limits": _limits(x),
        "cancelled": access.cancelled.is_set,
        "access": access,
    }
    if x.text("compression"):
        common["compression"] = x.text("compression")
    stream = x.input()
    common["secrets"] = _secrets(x, stream)
    is_text = x.headers.get(b"content-type", b"").startswith(b"text/plain")
    directory = x.text("contextdir")
    if directory or is_text:
        if directory:
            _may_name_directories(x)
        text = stream.read(_DOCKERFILE_LIMIT + 1)
        if len(text) > _DOCKERFILE_LIMIT:
            raise Refused(413, f"the Dockerfile is longer than {_DOCKERFILE_LIMIT} bytes")
        yield BuildRequest(context_dir=directory, dockerfile_text=text if is_text else None, **common)
        return
    with received(stream, engine.scratch) as unpacked:
        yield BuildRequest(context_dir=unpacked, ephemeral=True, **common)


def _secrets(x: Exchange, stream: io.BufferedReader) -> dict[str, bytes]:
    """The secrets at the front of the body; its errors name ids only, and not those of a malformed object."""
    header = x.headers.get(b"x-lading-secrets", b"")
    if not header:
        return {}
    if not header.isdigit() or len(header) > 9 or int(header) > _SECRETS_LIMIT:
        raise Invalid(f"the secrets of a build may take {_SECRETS_LIMIT >> 20} MiB")
    data = stream.read(int(header))
    try:
        value = json.loads(data)
        if len(data) == int(header) and isinstance(value, dict):
            return {name: base64.b64decode(text, validate=True) for name, text in value.items()}
    except (ValueError, TypeError, RecursionError):
        pass
    # Raised outside of the except clause: the cause of an error would hold the text.
    raise Invalid("the secrets of the build are no JSON object of base64 strings")


def _may_name_directories(x: Exchange) -> None:
    """Only who could read as this daemon does may have it read for them: root, and the daemon's own user."""
    uid = x.peer_uid()
    if uid is None or uid not in (0, os.geteuid()):
        raise Denied(
            "a build context cannot be named by its directory here",
            why="Only root and the daemon's own user may, over its unix socket.",
            hint="Send the context as a tar archive.",
        )


class _Report:
    """Writes progress as it comes, from whatever thread; a client that went away only raises the flag."""

    def __init__(self, out: Output, gone: threading.Event, events: bool, quiet: bool) -> None:
        self.out = out
        self.quiet = quiet and not events
        self._gone = gone
        self._events = events
        self._classic = Classic()
        self._lock = threading.Lock()

    def __call__(self, event: Progress) -> None:
        with self._lock:
            if self.quiet or self._gone.is_set():
                return
            try:
                if self._events:
                    self.out.line(to_json(event))
                else:
                    for line in self._classic.feed(event):
                        self.out.line(line)
            except ClientGone:
                self._gone.set()


def prune(engine: Engine, x: Exchange) -> None:
    keep = x.integer("reserved-space") or x.integer("keep-storage")
    deleted, reclaimed = engine.builder.prune(x.filters(), everything=x.flag("all"), keep_bytes=keep)
    x.json({"CachesDeleted": list(deleted) or None, "SpaceReclaimed": reclaimed})


ROUTES = [Route("POST", "/build", build), Route("POST", "/build/prune", prune)]
