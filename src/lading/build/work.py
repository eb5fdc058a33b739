"""What the stages of one build share, and how a step is reported. Owns no step's meaning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from lading.base import clock
from lading.base.errors import LadingError
from lading.build import mounts
from lading.build.cache import Cache, Record
from lading.build.contents import Contents
from lading.build.layers import Layers
from lading.build.ports import Executor
from lading.build.progress import Progress, Vertex
from lading.build.request import BuildRequest
from lading.build.state import State
from lading.build.tree import Tree
from lading.store.images import Images
from lading.store.snapshots import Snapshotter


@dataclass
class Work:
    """What all stages of one build share."""

    request: BuildRequest
    file: str  # the Dockerfile's name in errors
    images: Images
    snapshots: Snapshotter
    cache: Cache
    contents: Contents
    layers: Layers
    executor: Executor
    caches: mounts.Caches
    context: Tree | None
    host_trust: bool
    report: Callable[[Progress], None]
    step_id: Callable[[], str]
    hold: Callable[..., None]  # protects blobs and snapshots from a sweep until the build ends
    total: int = 0
    number: int = 0
    build_id: str = ""
    hits: list[Record] = field(default_factory=list)

    def unpack(self, state: State) -> None:
        """Make sure the files of the base image are there, before the first step that needs them."""
        base = state.base
        if base is not None and base.manifest.layers and not self.snapshots.exists(base.chain_id or ""):
            self.images.unpack(base)

    @contextlib.contextmanager
    def vertex(self, text: str, stage: str) -> Iterator[Mark]:
        """One numbered step as progress: started, then completed with what `Mark` was told."""
        self.number += 1
        mark = Mark(
            Vertex(f"{self.build_id}-{self.number}", text, self.number, self.total, stage, clock.now_ns()),
            self.report,
        )
        self.report(mark.value)
        try:
            yield mark
        except BaseException as error:
            what = error.what if isinstance(error, LadingError) else "interrupted"
            mark.change(completed_ns=clock.now_ns(), error=what)
            raise
        mark.change(completed_ns=clock.now_ns())


class Mark:
    """The vertex of the running step."""

    def __init__(self, value: Vertex, report: Callable[[Progress], None]) -> None:
        self.value = value
        self.report = report
        self.final: dict[str, object] = {}

    def change(self, **fields: object) -> None:
        self.value = replace(self.value, **{**self.final, **fields})  # type: ignore[arg-type]
        self.report(self.value)

    def cached(self) -> None:
        """To be said at completion."""
        self.final["cached"] = True

    def result(self, digest: str) -> None:
        self.final["result"] = digest
