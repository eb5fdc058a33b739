"""RUN: what is executed, what of it counts for the cache, and the run itself through the executor.

Owns the command line, environment and mounts of a step; never makes the layer nor looks into the cache.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable

from lading.base import clock
from lading.base.errors import Unsupported
from lading.build import metadata, mounts, transfer
from lading.build.cache import key as cache_key
from lading.build.dockerfile import instructions as ins
from lading.build.failure import StepFailed, Tail
from lading.build.place import Root
from lading.build.ports import Step, StepMount
from lading.build.progress import Log
from lading.build.state import State
from lading.build.tree import Tree
from lading.build.work import Mark, Work


def refuse(one: ins.Run) -> None:
    """Flags that lading parses but does not do."""
    where = f"line {one.position.line}, column {one.position.column}"
    if one.security == "insecure":
        raise Unsupported(f"RUN --security=insecure is not supported ({where})", hint="Leave the flag out.")
    if one.devices:
        raise Unsupported(f"RUN --device is not supported ({where})", hint="Leave the flag out.")


def command_line(one: ins.Run, shell: tuple[str, ...]) -> tuple[str, ...]:
    """Exec form as it is, a line or script below the shell. Here-documents are the shell's to read."""
    if one.argv is not None:
        return one.argv
    if not one.heredocs:
        return (*shell, one.line)
    first = one.heredocs[0]
    if len(one.heredocs) > 1 or not one.line.startswith("<<") or len(one.line.split()) > 1:
        return (*shell, one.line + "".join(f"\n{doc.content}{doc.name}" for doc in one.heredocs) + "\n")
    content = first.content
    if content.startswith("#!"):
        # The program of the first line reads the script from descriptor 9, which leaves it its standard
        # input.
        program = content[2:].split("\n", 1)[0].strip()
        end = "LADING_" + cache_key(content)[:16]
        return (*shell, f"{program} /proc/self/fd/9 9<<'{end}'\n{content}{end}\n")
    return (*shell, content)


class Execution:
    """One RUN instruction with its variables expanded; `perform` runs it on a snapshot."""

    def __init__(
        self,
        work: Work,
        state: State,
        one: ins.Run,
        mark: Mark,
        find_source: Callable[[str], tuple[str, State]],
    ) -> None:
        self.work = work
        self.find_source = find_source
        self.state = state
        self.one = one
        self.mark = mark
        self.argv = command_line(one, metadata.shell_of(state.config))
        self.args = state.scope.step_args()
        self.network = one.network if one.network not in ("", "default") else work.request.network_mode
        directory = state.config.working_dir
        self.options = [mounts.read(mount, self._expand, directory) for mount in one.mounts]

    def _expand(self, text: str) -> str:
        return self.state.scope.expand(ins.Word(text, self.one.position, literal=True))

    def parts(self) -> list[object]:
        """All that may change what the command does, but for the files, which the stage's identity tells."""
        config = self.state.config
        return [
            self.argv,
            config.env,
            self.args,
            config.working_dir,
            config.user,
            self.network,
            sorted(self.work.request.extra_hosts),
            [self._mount_key(option) for option in self.options],
        ]

    def history(self) -> str:
        """The line of `created_by`: arguments first, as Docker's builder tells them."""
        args = [f"{name}={value}" for name, value in self.args.items()]
        prefix = f"|{len(args)} {' '.join(args)} " if args else ""
        return f"RUN {prefix}{' '.join(self.argv) if self.one.argv is None else shlex.join(self.argv)}"

    def perform(self, snapshot: str) -> None:
        """Run the command and wait; StepFailed when it does not end with 0."""
        work = self.work
        with contextlib.ExitStack() as stack:
            found = [self._mount(option, stack) for option in self.options]
            made = tuple(mount for mount in found if mount is not None)
            stubs = self._prepare(snapshot, made)
            tail = Tail()
            step = self._step(snapshot, made, tail)
            self.mark.change(container=step.id)
            code = work.executor.run(step)
            work.request.check()
            if code != 0:
                shown = self.argv if not self.one.heredocs else (*self.argv[:-1], self.one.line)
                raise StepFailed(code, shown, self.one, work.file, tail.text())
            if stubs:
                with work.snapshots.mounted(snapshot) as fd:
                    stubs.clear(fd)

    def _step(self, snapshot: str, made: tuple[StepMount, ...], tail: Tail) -> Step:
        work, config, scope = self.work, self.state.config, self.state.scope
        env = {"PATH": metadata.DEFAULT_PATH, **scope.proxies(), **self.args, **metadata.environment(config)}
        return Step(
            id=work.step_id(),
            rootfs=work.snapshots.rootfs(snapshot, volatile=True),
            argv=self.argv,
            env=tuple(f"{name}={value}" for name, value in env.items()),
            working_dir=config.working_dir or "/",
            user=config.user,
            network_mode=self.network or "default",
            host_trust=work.host_trust,
            extra_hosts=work.request.extra_hosts,
            limits=work.request.limits,
            output=self._output(tail),
            cancelled=work.request.cancelled,
            mounts=made,
        )

    def _output(self, tail: Tail) -> Callable[[str, bytes], None]:
        vertex = self.mark.value.id

        def output(stream: str, data: bytes) -> None:
            tail.add(data)
            self.work.report(Log(vertex, stream, data, clock.now_ns()))

        return output

    # --- mounts ---

    def _mount_key(self, option: mounts.Options) -> list[object]:
        """Caches, tmpfs and secrets count by their options alone, a bind by what the files are."""
        described: list[object] = [option.type, option.target, sorted(option.values.items())]
        tree = self.work.context
        if option.values.get("from"):
            other = self.find_source(option.values["from"])[1]
            described += [other.identity, other.snapshot]
        elif option.type == "bind" and tree is not None:
            found = tree.select(option.values.get("source") or ".")
            contents = self.work.contents.fresh if self.work.request.ephemeral else self.work.contents.of
            described.append(transfer.listed(tree, found, contents))
        return described

    def _mount(self, option: mounts.Options, stack: contextlib.ExitStack) -> StepMount | None:
        if option.type == "secret":
            return mounts.secret(option, self.work.request.secrets)
        source = ""
        if option.copied:
            source = self._copy(option, stack)
        elif option.type == "cache":
            source = stack.enter_context(self.work.caches.open(option))
        elif option.type == "bind":
            source = mounts.bind_source(self.work.context, option)
        return mounts.step_mount(option, source)

    def _copy(self, option: mounts.Options, stack: contextlib.ExitStack) -> str:
        """The files of a bind in a scratch snapshot: what a step changes there goes with it."""
        work, name = self.work, option.values.get("from", "")
        scratch = stack.enter_context(work.layers.scratch(None))
        with contextlib.ExitStack() as inner:
            tree = work.context
            if name:
                label, other = self.find_source(name)
                work.unpack(other)
                if other.snapshot is None:
                    snapshot = inner.enter_context(work.layers.scratch(None))
                    fd = inner.enter_context(work.snapshots.mounted(snapshot))
                else:
                    fd = inner.enter_context(work.snapshots.mounted(other.snapshot, readonly=True))
                tree = Tree(fd, name=label, keeps_owner=True)
            return mounts.copied(tree, option, work.snapshots, scratch, work.request.check)

    def _prepare(self, snapshot: str, made: tuple[StepMount, ...]) -> mounts.Stubs:
        """The working directory of the base image, mount points, and what of them is to go away after the
        step.
        """
        work = self.work
        stubs = mounts.Stubs()
        whole = work.snapshots.rootfs(snapshot).type == "bind"
        directory = self.state.config.working_dir or "/"
        missing = directory not in ("/", self.state.workdir_made)
        if not (whole or made or missing):
            return stubs
        with work.snapshots.mounted(snapshot) as fd:
            if missing:
                os.close(Root(fd, work.request.check).directory(directory, None))
            stubs.note(fd, [*(work.executor.stubs if whole else ()), *(mount.target for mount in made)])
            for mount in made:
                is_dir = mount.type == "tmpfs" or (mount.type == "bind" and os.path.isdir(mount.source))
                stubs.make(fd, mount.target, is_dir)
        return stubs
