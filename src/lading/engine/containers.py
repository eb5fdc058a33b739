"""Everything `lading` and the API ask of containers. Owns looking at them, their files and their limits.

The work behind these verbs has files of its own: view.py, archive.py, commit.py, stats.py, top.py, logs.py.
"""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from lading.base.errors import Conflict, Invalid, LadingError, Unavailable
from lading.engine import archive, commit, compose, logs, ordinary, request, resources, stats, top, view
from lading.engine import filters as filtering
from lading.engine.filters import Filters
from lading.engine.images import Change as ConfigChange
from lading.engine.lifecycle import Lifecycle
from lading.engine.model import Change, ContainerView, LogRecord, Resources, Restart
from lading.engine.roster import Entry, Finished
from lading.engine.start import log_path
from lading.runtime.model import Attachment

if TYPE_CHECKING:
    from lading.engine.rooms import Rooms


class Containers(Lifecycle):
    """The verbs of containers."""

    def __init__(self, rooms: Rooms, change: ConfigChange) -> None:
        super().__init__(rooms)
        self._change = change

    # -- look ------------------------------------------------------------------------------------------------

    def wait(self, ref: str, condition: str) -> Future[Finished]:
        """A future of its end: "not-running" (now, if it is down), "next-exit" or "removed"."""
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise Invalid(
                f'invalid condition: "{condition[:40]}"', hint="Use not-running, next-exit or removed."
            )
        entry = self._rooms.roster.find(ref)
        future: Future[Finished] = Future()
        with entry.lock:
            if condition == "removed":
                entry.gone.append(future)
            elif condition == "next-exit" or entry.running:
                entry.next_exit.append(future)
            else:
                future.set_result(Finished(entry.history.exit_code, entry.history.error, entry.history.hint))
        return future

    def inspect(self, ref: str, size: bool = False) -> ContainerView:
        """Everything about one container."""
        return view.view(self._rooms, self._rooms.roster.find(ref), size=size)

    def list(
        self, all: bool = False, limit: int = 0, filters: Filters | None = None, size: bool = False
    ) -> builtins.list[ContainerView]:
        """Containers, newest first."""
        found = view.select(self._rooms, self._rooms.roster.all(), all, limit, filters or {})
        return [view.with_size(self._rooms, item) for item in found] if size else found

    def attach(
        self,
        ref: str,
        fd: int,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        logs: bool,
        framed: bool,
        keys: bytes = b"",
    ) -> None:
        """Give a client's connection to the container's monitor; before the start it waits for the start.

        Typing `keys` ends the connection, and not the container.
        """
        entry = self._rooms.roster.find(ref)
        attachment = Attachment(fd, stdin and entry.record.config.open_stdin, stdout, stderr, framed, keys)
        if logs:
            self._replay(entry, attachment)
        with entry.lock:
            self._check_present(entry)
            if entry.running:
                self._rooms.runtime.attach(entry.id, attachment)
            else:
                entry.pending.append(replace(attachment, fd=os.dup(fd)))
        self.starter.say(entry, "attach")

    def _replay(self, entry: Entry, attachment: Attachment) -> None:
        """What it has said so far, in the form the client reads."""
        path = log_path(self._rooms.paths.container_dir(entry.id))
        for item in logs.read(path, stdout=attachment.stdout, stderr=attachment.stderr):
            data = item.text
            if attachment.framed:
                data = (
                    bytes((1 if item.stream == "stdout" else 2, 0, 0, 0))
                    + len(data).to_bytes(4, "big")
                    + data
                )
            view_ = memoryview(data)
            while view_:
                view_ = view_[os.write(attachment.fd, view_) :]

    def resize(self, ref: str, height: int, width: int) -> None:
        """The terminal's size."""
        entry = self._rooms.roster.find(ref)
        self._running(entry)
        self._rooms.runtime.resize(entry.id, height, width)
        self.starter.say(entry, "resize", height=str(height), width=str(width))

    def logs(
        self,
        ref: str,
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since_ns: int = 0,
        until_ns: int = 0,
        tail: int | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[LogRecord]:
        """What it wrote; see logs.read."""
        entry = self._rooms.roster.find(ref)
        if entry.record.host.log_driver == "none":
            raise Unavailable(
                "configured logging driver does not support reading", hint="It runs with --log-driver none."
            )
        if not stdout and not stderr:
            raise Invalid("you must choose at least one stream")
        return logs.read(
            log_path(self._rooms.paths.container_dir(entry.id)),
            stdout=stdout,
            stderr=stderr,
            since_ns=since_ns,
            until_ns=until_ns,
            tail=tail,
            follow=follow,
            running=lambda: entry.running or entry.restarting is not None,
            stop=stop,
        )

    def top(self, ref: str, ps_args: str) -> tuple[tuple[str, ...], builtins.list[tuple[str, ...]]]:
        """Its processes, from the host's /proc."""
        entry = self._rooms.roster.find(ref)
        self._running(entry)
        return top.table(self._rooms.runtime.pids(entry.id), ps_args)

    def stats(self, ref: str) -> dict[str, Any]:
        """One sample in Docker's shape; zeros when it does not run."""
        return stats.sample(self._rooms, self._rooms.roster.find(ref))

    # -- files -----------------------------------------------------------------------------------------------

    def changes(self, ref: str) -> builtins.list[Change]:
        """What it changed over its image."""
        entry = self._rooms.roster.find(ref)
        return [Change(item.kind, item.path) for item in self._rooms.snapshotter.diff(entry.id)]

    def archive_head(self, ref: str, path: str) -> dict[str, Any]:
        """stat of a path in Docker's shape."""
        with archive.tree(self._rooms, self._rooms.roster.find(ref), path) as where:
            return archive.head(where)

    def archive_get(self, ref: str, path: str, out: Callable[[bytes], object]) -> None:
        """A path and all below it as a tar."""
        entry = self._rooms.roster.find(ref)
        with archive.tree(self._rooms, entry, path) as where:
            archive.get(where, out)
        self.starter.say(entry, "archive-path")

    def archive_put(
        self, ref: str, path: str, stream: BinaryIO, *, no_overwrite: bool = False, copy_owner: bool = False
    ) -> None:
        """Unpack a tar into a directory."""
        entry = self._rooms.roster.find(ref)
        if entry.record.host.readonly_rootfs:
            raise Conflict(
                "container rootfs is marked read-only", hint="Copy into a volume's own path on the host."
            )
        owner = None
        if copy_owner:  # the container's own user, as `cp -a` asks
            user = compose.user(self._rooms.snapshotter.rootfs(entry.id), entry.record.config.user)
            owner = (user.uid, user.gid)
        with archive.tree(self._rooms, entry, path, write=True) as where:
            archive.put(where, stream, no_overwrite=no_overwrite, owner=owner)
        self.starter.say(entry, "extract-to-dir")

    def export(self, ref: str, out: Callable[[bytes], object]) -> None:
        """The whole merged tree as a tar."""
        entry = self._rooms.roster.find(ref)
        with self._rooms.snapshotter.mounted(entry.id, readonly=True) as root:
            archive.export(root, out)
        self.starter.say(entry, "export")

    def commit(
        self,
        ref: str,
        repo: str = "",
        tag: str = "",
        comment: str = "",
        author: str = "",
        changes: Iterable[str] = (),
        pause: bool = True,
    ) -> str:
        """A new image of its present files."""
        entry = self._rooms.roster.find(ref)
        image_id = commit.commit(
            self._rooms, entry, repo, tag, comment, author, tuple(changes), pause, self._change
        )
        self.starter.say(entry, "commit", imageID=image_id)
        return image_id

    # -- change ----------------------------------------------------------------------------------------------

    def update(self, ref: str, limits: Resources, policy: Restart | None = None) -> builtins.list[str]:
        """Other limits and restart policy, at once when it runs. Unset fields stay as they are."""
        entry = self._rooms.roster.find(ref)
        with entry.lock:
            self._check_present(entry)
            host = entry.record.host
            merged = overlay(host.resources, limits)
            changed = replace(host, resources=merged, restart=policy or host.restart)
            request.check_host(changed, self._rooms.cpus)
            ordinary.check_limits(limits, self._rooms)
            if entry.running:
                self._rooms.runtime.update(entry.id, resources.compose(limits, [], initial=False))
            self._rooms.roster.amend(entry, replace(entry.record, host=changed))
        self.starter.say(entry, "update")
        return []

    def prune(self, filters: Filters | None = None) -> tuple[builtins.list[str], int]:
        """Remove every container that does not run."""
        wanted = filters or {}
        filtering.known(wanted, ("label", "label!", "until"))
        until = min((filtering.moment(text) for text in wanted.get("until", ())), default=0)
        removed, freed = [], 0
        for entry in self._rooms.roster.all():
            record = entry.record
            if entry.running or entry.restarting is not None or (until and record.created_ns > until):
                continue
            if not filtering.labels(record.config.labels, wanted.get("label", ())):
                continue
            if wanted.get("label!") and filtering.labels(record.config.labels, wanted["label!"]):
                continue
            try:
                size = self._rooms.snapshotter.usage(record.id).bytes
                self.remove(record.id, False, False)
            except LadingError:
                continue  # started or removed meanwhile
            removed.append(record.id)
            freed += size
        return removed, freed


def overlay(base: Resources, over: Resources) -> Resources:
    """`base` with every field that `over` sets."""
    default = Resources()
    given = {name: value for name, value in vars(over).items() if value != getattr(default, name)}
    return replace(base, **given)
