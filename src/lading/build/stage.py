"""Solving one stage: instruction after instruction, from the cache where it can, else by doing it.

Owns what each instruction's key is made of and the order look up, do, remember. Files are written by
`transfer` and `place`, configs changed by `metadata`, layers made by `layers`, commands run by the executor.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from lading.base import clock
from lading.base.errors import Cancelled, LadingError, Unsupported
from lading.build import metadata, mounts, owners, transfer
from lading.build.cache import Cache, Record
from lading.build.cache import key as cache_key
from lading.build.contents import Contents
from lading.build.dockerfile import DockerfileError, Instruction
from lading.build.dockerfile import instructions as ins
from lading.build.failure import StepFailed, Tail, located
from lading.build.layers import Layers
from lading.build.place import Root, full_disk
from lading.build.ports import Executor, Step, StepMount
from lading.build.progress import Log, Progress, Vertex
from lading.build.request import BuildRequest
from lading.build.state import State
from lading.build.tree import Tree
from lading.image.config import ContainerConfig
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
    total: int = 0
    number: int = 0
    build_id: str = ""
    hits: list[Record] | None = None
    unpacked: set[str] | None = None

    def check(self) -> None:
        """Cancelled, when the caller has asked to stop."""
        if self.request.cancelled():
            raise Cancelled("the build was cancelled")

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


class StageBuild:
    """Executes the instructions of one stage on `state`. `others` gives the states of finished stages."""

    def __init__(
        self,
        work: Work,
        state: State,
        label: str,
        others: Mapping[int, State],
        find_source: Callable[[str], tuple[str, State]],
    ) -> None:
        self.work = work
        self.state = state
        self.label = label
        self.others = others
        self.find_source = find_source

    def perform(self, one: Instruction) -> None:
        """One instruction, with progress; its errors name its place."""
        text = one.text if not isinstance(one, ins.Run) or not one.heredocs else f"{one.text} …"
        with self.work.vertex(text, self.label) as mark:
            try:
                self.work.check()
                self._dispatch(one, mark)
            except LadingError as error:
                raise located(error, one, self.work.file) from error
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
            case ins.Cmd():
                state.configure(*metadata.cmd(one, state.config))
                state.cmd_here = True
            case ins.Entrypoint():
                state.configure(*metadata.entrypoint(one, state.config, state.cmd_here))
            case ins.Shell():
                state.configure(*metadata.shell(one, state.config))
            case ins.Healthcheck():
                state.configure(*metadata.healthcheck(one, state.config))
            case ins.Onbuild():
                state.configure(*metadata.onbuild(one, state.config))
            case _:
                state.configure(*_EXPANDED[type(one)](one, state.config, state.scope))

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
        record = self.work.cache.find(key)
        if record is not None and self.work.hits is not None:
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
                root = Root(fd, self.work.check)
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
                    transfer.perform(what, work.context, selected, fd, work.check, now)

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
                    transfer.perform(what, tree, selected, target, work.check, now)

            record = self._solve(key, text, mark, fill)
        work.cache.add(replace(record, key=quick, kind="alias"))

    @contextlib.contextmanager
    def _nothing(self) -> Iterator[int]:
        """An empty tree, for a stage from scratch that has made no file."""
        with self.work.layers.scratch(None) as snapshot, self.work.snapshots.mounted(snapshot) as fd:
            yield fd

    # --- RUN ---

    def _run(self, one: ins.Run, mark: Mark) -> None:
        state, work = self.state, self.work
        self._refuse(one)
        shell = metadata.shell_of(state.config)
        argv, shown = self._command(one, shell)
        options = [
            mounts.read(mount, self._expand_text(one), state.config.working_dir) for mount in one.mounts
        ]
        args = state.scope.step_args()
        network = one.network if one.network not in ("", "default") else work.request.network_mode
        key = self._key(
            "run", argv, state.config.env, args, state.config.working_dir, state.config.user, network,
            sorted(work.request.extra_hosts), [self._mount_key(option) for option in options],
        )  # fmt: skip
        prefix = (
            "|" + " ".join([str(len(args)), *(f"{n}={v}" for n, v in args.items())]) + " " if args else ""
        )
        text = f"RUN {prefix}{' '.join(argv) if one.argv is None else shlex.join(argv)}"
        env = {
            "PATH": metadata.DEFAULT_PATH,
            **state.scope.proxies(),
            **args,
            **metadata.environment(state.config),
        }

        def execute(snapshot: str) -> None:
            with contextlib.ExitStack() as stack:
                made = [self._mount(option, stack) for option in options]
                stubs = self._prepare(snapshot, options)
                tail = Tail()
                step = Step(
                    id=work.step_id(),
                    rootfs=work.snapshots.rootfs(snapshot),
                    argv=argv,
                    env=tuple(f"{name}={value}" for name, value in env.items()),
                    working_dir=state.config.working_dir or "/",
                    user=state.config.user,
                    network_mode=network or "default",
                    host_trust=work.host_trust,
                    extra_hosts=work.request.extra_hosts,
                    limits=work.request.limits,
                    output=self._output(mark, tail),
                    cancelled=work.request.cancelled,
                    mounts=tuple(made),
                )
                mark.change(container=step.id)
                code = work.executor.run(step)
                work.check()
                if code != 0:
                    raise StepFailed(code, shown, one, work.file, tail.text())
                if stubs:
                    with work.snapshots.mounted(snapshot) as fd:
                        stubs.clear(fd)

        self._solve(key, text, mark, execute)
        state.workdir_made = state.config.working_dir

    def _refuse(self, one: ins.Run) -> None:
        where = f"line {one.position.line}, column {one.position.column}"
        if one.security == "insecure":
            raise Unsupported(
                f"RUN --security=insecure is not supported ({where})", hint="Leave the flag out."
            )
        if one.devices:
            raise Unsupported(f"RUN --device is not supported ({where})", hint="Leave the flag out.")

    def _expand_text(self, one: ins.Run) -> Callable[[str], str]:
        scope = self.state.scope
        return lambda text: scope.expand(ins.Word(text, one.position, literal=True))

    def _command(self, one: ins.Run, shell: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What to run and how errors show it. Here-documents go to the shell, which reads them itself."""
        if one.argv is not None:
            return one.argv, one.argv
        if not one.heredocs:
            return (*shell, one.line), (*shell, one.line)
        first = one.heredocs[0]
        alone = len(one.heredocs) == 1 and one.line.startswith("<<") and len(one.line.split()) == 1
        if not alone:
            script = one.line + "".join(f"\n{doc.content}{doc.name}" for doc in one.heredocs) + "\n"
            return (*shell, script), (*shell, one.line)
        content = first.content
        if content.startswith("#!"):
            # The program of the first line reads the script from descriptor 9, which leaves it its standard
            # input.
            program = content[2:].split("\n", 1)[0].strip()
            mark = "LADING_" + cache_key(content)[:16]
            script = f"{program} /proc/self/fd/9 9<<'{mark}'\n{content}{mark}\n"
            return (*shell, script), (*shell, one.line)
        return (*shell, content), (*shell, one.line)

    def _mount_key(self, option: mounts.Options) -> list[object]:
        """Caches and tmpfs count by their options, a bind by what the files are."""
        described: list[object] = [option.type, option.target, sorted(option.values.items())]
        if option.type == "bind" and self.work.context is not None:
            tree = self.work.context
            found = tree.select(option.values.get("source") or ".")
            contents = self.work.contents.fresh if self.work.request.ephemeral else self.work.contents.of
            described.append(transfer.digest(_WHOLE, tree, found, contents))
        return described

    def _mount(self, option: mounts.Options, stack: contextlib.ExitStack) -> StepMount:
        source = ""
        if option.type == "cache":
            source = stack.enter_context(self.work.caches.open(option))
        elif option.type == "bind":
            source = mounts.bind_source(self.work.context, option)
        return mounts.step_mount(option, source)

    def _prepare(self, snapshot: str, options: list[mounts.Options]) -> mounts.Stubs:
        """The working directory of the base image, mount points, and what of them is to go away after the
        step.
        """
        state, work = self.state, self.work
        stubs = mounts.Stubs()
        whole = work.snapshots.rootfs(snapshot).type == "bind"
        directory = state.config.working_dir or "/"
        missing = directory not in ("/", state.workdir_made)
        if not (whole or options or missing):
            return stubs
        with work.snapshots.mounted(snapshot) as fd:
            if missing:
                os.close(Root(fd, work.check).directory(directory, None))
            stubs.note(fd, [*(work.executor.stubs if whole else ()), *(option.target for option in options)])
            for option in options:
                source = mounts.bind_source(work.context, option) if option.type == "bind" else ""
                stubs.make(fd, option.target, not source or os.path.isdir(source))
        return stubs

    def _output(self, mark: Mark, tail: Tail) -> Callable[[str, bytes], None]:
        vertex = mark.value.id

        def output(stream: str, data: bytes) -> None:
            tail.add(data)
            self.work.report(Log(vertex, stream, data, clock.now_ns()))

        return output


_WHOLE = transfer.Order("mount", (), (), "/", "", "", (), False, False)

_EXPANDED: dict[type[Instruction], Callable[..., tuple[ContainerConfig, str]]] = {
    ins.Env: metadata.env,
    ins.Label: metadata.label,
    ins.User: metadata.user,
    ins.Stopsignal: metadata.stopsignal,
    ins.Expose: metadata.expose,
    ins.Volume: metadata.volume,
}
