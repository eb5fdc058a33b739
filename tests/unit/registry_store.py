"""A store without privileges and the engine's registry verbs over it, for tests of pulls and pushes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lading.engine.registry import Registry as Verbs
from lading.registry.client.client import Client
from lading.registry.client.settings import Settings
from lading.registry.client.wire import Patience
from lading.store.blobs import Blobs
from lading.store.database import Database
from lading.store.images import Images
from lading.store.leases import Leases
from lading.store.snapshots.copy import Copy

PLAIN = Settings()
QUICK = Patience(connect=2, head=0.8, window=0.6, rate=2000, attempts=3, backoff=0.01)


class Host:
    """One data root."""

    def __init__(self, root: Path, settings: Settings = PLAIN, **options: Any) -> None:
        self.root = root
        self.db = Database(f"{root}/db")
        self.blobs = Blobs(f"{root}/blobs")
        self.snapshots = Copy(f"{root}/snapshots", self.db)
        self.images = Images(self.db, self.blobs, self.snapshots)
        self.said: list[tuple[str, str]] = []
        rooms: Any = SimpleNamespace(
            environ={}, blobs=self.blobs, images=self.images, leases=Leases(self.db), snapshotter=self.snapshots,
            events=SimpleNamespace(say=lambda kind, act, *_: self.said.append((kind, act))),
        )  # fmt: skip
        self.verbs = Verbs(rooms)
        self.verbs.client = Client(settings, QUICK, **options)

    def close(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "settle":
                thread.join()
        self.db.close()

    def nothing_is_left(self) -> None:
        """No image, no blob, no half of one, no snapshot."""
        assert self.images.list() == ()
        assert os.listdir(f"{self.root}/blobs/sha256") == []
        assert self.snapshots.keys() == []
