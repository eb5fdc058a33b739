"""Where a stage stands between two instructions: its config, its files, its variables. Owns nothing but the
fields.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lading.build.cache import Record
from lading.build.cache import key as cache_key
from lading.build.variables import Globals, Scope
from lading.image import mutate
from lading.image.config import ContainerConfig, History, ImageConfig
from lading.image.descriptor import Platform
from lading.image.mutate import Draft
from lading.store.images import Image

COMMENT = "lading"


@dataclass
class State:
    """Mutable, but owned by one stage; `copy` gives another stage its own."""

    draft: Draft
    snapshot: str | None  # chainID of the files; None for an empty tree
    identity: str  # what the key of the next step stands on
    scope: Scope
    base: Image | None = None  # to be unpacked before the first step that needs its files
    cmd_here: bool = False
    workdir_made: str = ""  # the working directory that surely exists

    @property
    def config(self) -> ContainerConfig:
        return self.draft.config.config

    def configure(self, config: ContainerConfig, created_by: str) -> None:
        """A change of the config alone. Its time is filled in when the whole image is known."""
        self.draft = mutate.configure(self.draft, lambda _: config)
        self.note(created_by)

    def note(self, created_by: str, created: str = "") -> None:
        """A history entry without a layer."""
        self.draft = mutate.append_empty(self.draft, History(created, created_by, COMMENT))

    def apply(self, record: Record, created_by: str, created: str) -> None:
        """The result of a step that may have changed files."""
        if record.layer is None:
            self.note(created_by, created)
            # Two equal steps in a row that change nothing are two steps, each of which is to run.
            self.identity = cache_key("after", self.identity, record.key)
            return
        self.draft = mutate.append(self.draft, record.layer, History(created, created_by, COMMENT))
        self.snapshot = record.snapshot
        self.identity = record.snapshot

    def copy(self) -> State:
        """The state a stage begins with that is based on this one."""
        scope = Scope(self.scope.outer, dict(self.scope.args), dict(self.scope.env))
        return replace(self, scope=scope, cmd_here=False)


def from_image(image: Image, scope: Scope) -> State:
    return State(
        mutate.draft(image.manifest, image.config), image.chain_id, image.chain_id or "empty", scope, image
    )


def from_scratch(platform: Platform, outer: Globals) -> State:
    config = ImageConfig(platform.architecture, platform.os, platform.variant)
    return State(Draft(config), None, "empty", Scope(outer))
