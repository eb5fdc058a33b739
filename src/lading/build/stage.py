"""Solving one stage: instruction after instruction, from the cache where it can, else by doing it.

Owns what each instruction's key is made of and the order look up, do, remember. Files are written by
`transfer` and `place`, configs changed by `metadata`, layers made by `layers`, commands run by `command`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

from lading.base import clock
from lading.base.errors import Internal, LadingError
from lading.build import command, metadata, owners, transfer
from lading.build.cache import Record
from lading.build.cache import key as cache_key
from lading.build.dockerfile import DockerfileError, Instruction
from lading.build.dockerfile import instructions as ins
from lading.build.failure import located
from lading.build.place import Root, full_disk
from lading.build.state import State
from lading.build.tree import Tree
from lading.build.work import Mark, Work


class StageBuild:
    """Executes the instructions of one stage on `state`. `find_source` gives the name and state of a stage
    or image that files are copied from.
    """

    def __init__(
        self,
        work: Work,
        state: State,
        label: str,
        find_source: Callable[[str], tuple[str, State]],
    ) -> None:
        self.work = work
        self.state = state
        self.label = label
        self.find_source = find_source

    def perform(self, one: Instruction) -> None:
        """One instruction, with progress; its errors name its place."""
        text = one.text if not isinstance(one, ins.Run) or not one.heredocs else f"{one.text} …"
        with self.work.vertex(text, self.label) as mark:
            try:
                self.work.request.check()
                self._dispatch(one, mark)
            except LadingError as error:
                raise located(error, one, self.work.file) from error.__cause__
            except OSError as error:
                raise located(full_disk(error, f"{one.keyword} failed"), one, self.work.file) from error
            mark.result(self.state.identity)

    def _dispatch(self, one: Instruction, mark: Mark) -> None:
        state = self.state
        match one:
            case ins.Run():
                self._run(one, mark)
            case ins.Copy() | ins.Add():
                self._transfer(one, mark)
            case ins.Workdir():
                config, text = metadata.workdir(one, state.config, state.scope)
                state.draft = replace(state.draft, config=replace(state.draft.config, config=config))
                self._directory(config.working_dir, text, mark)
            case ins.Arg():
                state.scope.declare(one)
                state.note(one.text)
            case ins.Maintainer():
                author = one.value.text
                state.draft = replace(state.draft, config=replace(state.draft.config, author=author))
                state.note(f"MAINTAINER {author}")
            case _:
                changed = metadata.apply(one, state.config, state.scope, cmd_here=state.cmd_here)
                if changed is None:
                    raise Internal(f"no one knows how to do {one.keyword}")
                state.configure(*changed)
                state.cmd_here = state.cmd_here or isinstance(one, ins.Cmd)

    # --- steps that change files ---

    def _solve(self, key: str, text: str, mark: Mark, work: Callable[[str], None]) -> Record:
        """The record of `key`: found in the cache, or made by `work` on a writable snapshot."""
        record = self._cached(key)
        if record is not None:
            mark.cached()
        else:
            self.work.unpack(self.state)
            record = self.work.layers.make(key, self.state.snapshot, text, work)
        self._apply(record, text)
        return record

    def _cached(self, key: str) -> Record | None:
        if self.work.request.no_cache:
            return None
        self.work.layers.wait(key)
        record = self.work.cache.find(key)
        if record is not None:
            # Held, then looked at again: a prune may have been between the two.
            self.work.hold(*(item for item in (record.snapshot, record.blob) if item))
            record = self.work.cache.find(key)
        if record is not None:
            self.work.hits.append(record)
        return record

    def _apply(self, record: Record, text: str) -> None:
        self.state.apply(record, text, clock.rfc3339(record.created_ns))

    def _key(self, *parts: object) -> str:
        return cache_key(self.state.identity, self.work.layers.latest_ns, self.work.layers.media, *parts)

    def _directory(self, path: str, text: str, mark: Mark) -> None:
        """WORKDIR: the directory, made with the owner that USER names."""
        state = self.state
        if path == "/":
            state.note(text)
            return
        user = state.config.user

        def make(snapshot: str) -> None:
            with self.work.snapshots.mounted(snapshot) as fd:
                root = Root(fd, self.work.request.check)
                if not root.is_dir(path):
                    try:
                        os.close(root.directory(path, owners.resolve(fd, user or "0", primary=True)))
                    except OSError as error:
                        raise full_disk(error, f"{path} cannot be made") from error

        self._solve(self._key("workdir", path, user), text, mark, make)
        state.workdir_made = path

    def _transfer(self, one: ins.Copy | ins.Add, mark: Mark) -> None:
        state, work = self.state, self.work
        what = transfer.order(one, state.scope, state.config.working_dir)
        name = one.source_stage.text if isinstance(one, ins.Copy) and one.source_stage else ""
        text = transfer.history(what, name)
        now = work.layers.latest_ns or work.layers.now()
        if not name:
            selected = transfer.select(what, work.context)
            contents = work.contents.fresh if work.request.ephemeral else work.contents.of
            key = self._key("files", what.parts(), transfer.digest(what, work.context, selected, contents))

            def fill(snapshot: str) -> None:
                with work.snapshots.mounted(snapshot) as fd:
                    transfer.perform(what, work.context, selected, fd, work.request.check, now)

            self._solve(key, text, mark, fill)
            return
        self._from_stage(one, what, name, text, now, mark)

    def _from_stage(
        self, one: Instruction, what: transfer.Order, name: str, text: str, now: int, mark: Mark
    ) -> None:
        """COPY --from: by the identity of the source's whole tree where that is known, else by what the
        files are.
        """
        if "$" in name:
            raise DockerfileError(
                "--from takes no variables",
                one.position,
                text=one.text,
                hint=f"Write FROM {name} AS SOME_NAME first, and --from=SOME_NAME here.",
            )
        work = self.work
        label, other = self.find_source(name)
        if what.inline:
            raise DockerfileError(
                "a here-document cannot come from another stage", one.position, text=one.text
            )
        quick = self._key("stage", what.parts(), what.sources, what.exclude, other.identity, other.snapshot)
        record = self._cached(quick)
        if record is not None:
            mark.cached()
            self._apply(record, text)
            return
        work.unpack(other)
        with contextlib.ExitStack() as stack:
            if other.snapshot is None:
                fd = stack.enter_context(self._nothing())
            else:
                fd = stack.enter_context(work.snapshots.mounted(other.snapshot, readonly=True))
            tree = Tree(fd, name=label, keeps_owner=True)
            selected = transfer.select(what, tree)
            key = self._key("files", what.parts(), transfer.digest(what, tree, selected, work.contents.fresh))

            def fill(snapshot: str) -> None:
                with work.snapshots.mounted(snapshot) as target:
                    transfer.perform(what, tree, selected, target, work.request.check, now)

            record = self._solve(key, text, mark, fill)
        work.cache.add(replace(work.layers.settled(record), key=quick, kind="alias"))

    @contextlib.contextmanager
    def _nothing(self) -> Iterator[int]:
        """An empty tree, for a stage from scratch that has made no file."""
        with self.work.layers.scratch(None) as snapshot, self.work.snapshots.mounted(snapshot) as fd:
            yield fd

    def _run(self, one: ins.Run, mark: Mark) -> None:
        command.refuse(one)
        execution = command.Execution(self.work, self.state, one, mark, self.find_source)
        self._solve(self._key("run", *execution.parts()), execution.history(), mark, execution.perform)
        self.state.workdir_made = self.state.config.working_dir
