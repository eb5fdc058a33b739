"""The builder: a request comes in, an image id comes out. Owns the course of one build and what is shared by
all builds.

Opens the context, parses, plans, solves stage after stage, writes the image, names it. Keeps a row for each
running build, so that what a killed one left behind is known and taken away (`reconcile`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from lading.base import clock as clocks
from lading.base.errors import Conflict, Invalid, NotFound
from lading.base.ids import new_id
from lading.build import context as contexts
from lading.build import graph, mounts, variables
from lading.build.bases import Bases
from lading.build.cache import Cache, Record, Usage
from lading.build.cache import key as cache_key
from lading.build.contents import Contents
from lading.build.dockerfile import Dockerfile, parse
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.words import duration
from lading.build.graph import Graph, Node
from lading.build.layers import Layers
from lading.build.ports import Executor, Fetch
from lading.build.progress import Finished, Notice, Progress
from lading.build.request import BuildRequest
from lading.build.stage import StageBuild
from lading.build.state import COMMENT, State, from_image, from_scratch
from lading.build.work import Work
from lading.image import mutate, reference
from lading.image.config import History
from lading.image.descriptor import Platform, host_platform, parse_platform
from lading.image.layer.compress import MEDIA_TYPES, Compression
from lading.image.mutate import Draft
from lading.store import owner
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.images import Image, Images
from lading.store.leases import Leases
from lading.store.snapshots import Snapshotter

_DDL = "CREATE TABLE builds (id TEXT PRIMARY KEY, owner TEXT NOT NULL);"
_PREFIX = "build-"

Report = Callable[[Progress], None]


class Builder:
    """Thread-safe: any number of builds at once. `caches` is the directory of cache mounts, "" for none."""

    def __init__(
        self,
        images: Images,
        blobs: Blobs,
        snapshotter: Snapshotter,
        leases: Leases,
        db: Database,
        executor: Executor,
        clock: Callable[[], int] = clocks.now_ns,
        *,
        caches: str = "",
        fetch: Fetch | None = None,
    ) -> None:
        self._images = images
        self._blobs = blobs
        self._snapshots = snapshotter
        self._leases = leases
        self._db = db
        self._executor = executor
        self._clock = clock
        self._caches = mounts.Caches(caches)
        self._fetch = fetch
        self._cache = Cache(db, blobs, snapshotter, leases)
        self._contents = Contents(db)
        db.ensure("builds", _DDL)

    def build(self, request: BuildRequest, progress: Report) -> str:
        """Build, tag, and give the image id. Raises DockerfileError, StepFailed, Cancelled or another
        LadingError.
        """
        tags = _tags(request)
        with (
            contexts.opened(request) as context,
            self._leases.hold() as lease,
            self._running() as identifier,
        ):
            dockerfile = parse(context.dockerfile, context.name)
            for text, position in dockerfile.warnings:
                progress(Notice(f"{context.name} line {position.line}: {text}", "warning"))
            work = self._work(request, context, identifier, lease.add, progress)
            with work.layers:
                state = self._solve(dockerfile, request, work)
                image = self._finish(state, request, work, tags)
        progress(Finished(image.id, tuple(str(tag) for tag in tags)))
        return image.id

    # --- the course of one build ---

    def _work(
        self,
        request: BuildRequest,
        context: contexts.Context,
        identifier: str,
        hold: Callable[..., None],
        report: Report,
    ) -> Work:
        trust = self._executor.host_trust()
        trusted = request.host_trust if request.host_trust is not None else bool(trust)
        if trusted:
            report(
                Notice(f"Host trust is on: RUN steps see {trust or 'the resolver and proxies of this host'}.")
            )
        if request.pull and self._fetch is None:
            report(Notice("Base images come from the store: there is no registry client here.", "warning"))
        counter = itertools.count(1)
        epoch = _epoch(request)
        layers = Layers(
            self._blobs,
            self._snapshots,
            self._cache,
            _compression(request),
            (lambda: epoch) if epoch is not None else self._clock,
            lambda: f"{_PREFIX}{identifier}-{next(counter)}",
            request.check,
            epoch,
        )
        return Work(
            request, context.name, self._images, self._snapshots, self._cache, self._contents, layers,
            self._executor, self._caches, context.tree, trusted, report, new_id, hold, build_id=identifier,
        )  # fmt: skip

    def _solve(self, dockerfile: Dockerfile, request: BuildRequest, work: Work) -> State:
        host = host_platform()
        platform = parse_platform(request.platform) if request.platform else host
        wanted = graph.target(dockerfile, request.target)
        stage_name = dockerfile.stages[wanted].base.alias
        scope = variables.Globals(
            dockerfile.escape, request.build_args, variables.platform_names(host, platform, stage_name)
        )
        for argument in dockerfile.arguments:
            scope.declare(argument)
        base = Bases(self._images, self._fetch, work).find
        plan = graph.plan(dockerfile, wanted, scope, platform, base)
        work.total = plan.total
        work.hold(*(node.base.manifest_digest for node in plan.nodes if isinstance(node.base, Image)))
        done: dict[int, State] = {}
        for node in plan.nodes:
            done[node.stage.index] = self._stage(node, dockerfile, scope, work, done, base)
        self._warn(request, scope, plan, work)
        return done[wanted]

    def _stage(
        self,
        node: Node,
        dockerfile: Dockerfile,
        scope: variables.Globals,
        work: Work,
        done: dict[int, State],
        base: Callable[[str, Platform], Image],
    ) -> State:
        text = node.stage.base.text if "$" not in node.stage.base.text else f"FROM {node.base_name}"
        with work.vertex(text, node.label) as mark:
            work.request.check()
            state = self._begin(node, scope, done)
            mark.result(node.base.id if isinstance(node.base, Image) else state.identity)

        def find(name: str) -> tuple[str, State]:
            index = graph.stage_index(dockerfile.stages, name, node.stage.index)
            if index is not None:
                return f"the stage {name}", done[index]
            image = base(name, node.platform)
            work.hold(image.manifest_digest)
            return f"the image {name}", from_image(image, variables.Scope(scope))

        build = StageBuild(work, state, node.label, find)
        for one in node.instructions:
            build.perform(one)
        return build.state

    def _begin(self, node: Node, scope: variables.Globals, done: dict[int, State]) -> State:
        if isinstance(node.base, int):
            state = done[node.base].copy()
        elif node.base is None:
            return from_scratch(node.platform, scope)
        else:
            state = from_image(node.base, variables.Scope(scope))
        config = replace(state.config, onbuild=())  # triggers are spent by this FROM
        state.draft = mutate.configure(state.draft, lambda _: config)
        state.scope.env = {n: v for n, e, v in (item.partition("=") for item in config.env) if e}
        return state

    def _warn(self, request: BuildRequest, scope: variables.Globals, plan: Graph, work: Work) -> None:
        for node in plan.nodes:
            for one in node.instructions:
                if isinstance(one, ins.Maintainer):
                    work.report(Notice("MAINTAINER is deprecated: use a label instead.", "warning"))
        spare = variables.unused(request.build_args, scope.used)
        if spare:
            work.report(Notice(f"No ARG asks for the build arguments: {', '.join(spare)}.", "warning"))

    # --- the image ---

    def _finish(
        self, state: State, request: BuildRequest, work: Work, tags: tuple[reference.Reference, ...]
    ) -> Image:
        work.request.check()
        draft = work.layers.finished(state.draft)
        if request.labels:
            labels = {**draft.config.config.labels, **request.labels}
            draft = mutate.configure(draft, lambda config: replace(config, labels=labels))
        if state.base is not None and draft.config == state.base.config:
            image = state.base  # a Dockerfile that adds nothing gives the base image itself
        else:
            image = self._stored(self._dated(draft, work))
        for tag in tags:
            if str(tag) not in image.references:
                self._images.put(str(tag), image.manifest_digest)
        self._cache.used(work.hits)
        return image

    def _dated(self, draft: Draft, work: Work) -> Draft:
        """Fill in the times of changes to the config alone: those of the build that first made this very
        config.

        So a rebuild from the cache gives the same image id, as it does with docker.
        """
        bare = replace(draft.config, created="")
        key = cache_key(
            "image", work.layers.latest_ns, bare.encode(), [layer.digest for layer in draft.layers]
        )
        known = None if work.request.no_cache else self._cache.find(key)
        if known is None:
            known = Record(key, "image", "", None, work.layers.now())
            self._cache.add(known)
        created = clocks.rfc3339(known.created_ns)
        history = tuple(_dated(entry, created) for entry in bare.history)
        return Draft(replace(bare, created=created, history=history), draft.layers)

    def _stored(self, draft: Draft) -> Image:
        """The image of this config, written unless it is there."""
        digest = draft.image_id
        try:
            image = self._images.get(digest)
        except NotFound:
            return self._images.store(draft)
        layers = tuple(layer.digest for layer in draft.layers)
        same = tuple(layer.digest for layer in image.manifest.layers) == layers
        return image if same else self._images.store(draft)

    # --- upkeep ---

    @contextlib.contextmanager
    def _running(self) -> Iterator[str]:
        """A row for this build; snapshots are named after it."""
        identifier = os.urandom(8).hex()
        with self._db.transaction() as cx:
            cx.execute("INSERT INTO builds VALUES (?, ?)", (identifier, owner.token()))
        try:
            yield identifier
        finally:
            with self._db.transaction(frees=True) as cx:
                cx.execute("DELETE FROM builds WHERE id = ?", (identifier,))

    def reconcile(self) -> list[str]:
        """Take away what killed builds left: their snapshots and rows. Gives the snapshots' keys; builds go
        on meanwhile.
        """
        keys = (
            self._snapshots.keys()
        )  # before the rows: a build that begins now has its row before its snapshots
        live: set[str] = set()
        dead: list[str] = []
        for row in self._db.query("SELECT id, owner FROM builds"):
            if owner.alive(row["owner"]):
                live.add(row["id"])
            else:
                dead.append(row["id"])
        gone: list[str] = []
        for key in keys:
            if key.startswith(_PREFIX) and key[len(_PREFIX) :].rpartition("-")[0] not in live:
                with contextlib.suppress(Conflict):
                    self._snapshots.remove(key)
                    gone.append(key)
        with self._db.transaction(frees=True) as cx:
            cx.executemany("DELETE FROM builds WHERE id = ?", [(one,) for one in dead])
        self._contents.forget()
        return gone

    def usage(self) -> list[Usage]:
        """What the layer cache holds, the last used first."""
        return self._cache.usage()

    def prune(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        everything: bool = False,
        unused_for_ns: int = 0,
        keep_bytes: int = 0,
    ) -> tuple[list[str], int]:
        """Forget cached steps and sweep what nothing else needs; the keys, and the bytes regained.

        Of Docker's filters, `until` (a duration such as 24h) spares what was used since.
        """
        for name, values in (filters or {}).items():
            if name != "until" or len(values) != 1:
                raise Invalid(f"the build cache cannot be filtered by {name[:40]}", hint="Use until=24h.")
            try:
                unused_for_ns = duration(values[0])
            except ValueError:
                raise Invalid(f'"{values[0][:40]}" is no duration', hint="Write until=24h.") from None
        gone = self._cache.prune(everything=everything, unused_for_ns=unused_for_ns, keep_bytes=keep_bytes)
        return gone, self._images.sweep()  # also what a killed build left


def _dated(entry: History, created: str) -> History:
    """Only entries of this build or its stages: an image from elsewhere may leave times out."""
    return replace(entry, created=created) if not entry.created and entry.comment == COMMENT else entry


def _tags(request: BuildRequest) -> tuple[reference.Reference, ...]:
    """The names to give, checked before anything is built."""
    found = []
    for tag in request.tags:
        parsed = reference.parse(tag).with_default_tag()
        if parsed.digest:
            raise Invalid(
                f"an image cannot be tagged {tag[:200]}",
                why="A digest is not chosen.",
                hint="Write NAME:TAG.",
            )
        found.append(parsed)
    return tuple(dict.fromkeys(found))


def _epoch(request: BuildRequest) -> int | None:
    """SOURCE_DATE_EPOCH as nanoseconds (reproducible-builds.org), None when it is not given."""
    text = request.build_args.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise Invalid(f"SOURCE_DATE_EPOCH is no number of seconds: {text[:40]}")
    return int(text) * 1_000_000_000


def _compression(request: BuildRequest) -> Compression:
    for known in MEDIA_TYPES:
        if request.compression == known:
            return known
    raise Invalid(
        f"the compression {request.compression[:40]} is unknown", hint=f"Use one of {', '.join(MEDIA_TYPES)}."
    )
