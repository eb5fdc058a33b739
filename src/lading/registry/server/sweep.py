"""Garbage collection while serving: what no manifest needs goes, once it is old enough. Owns the rule, no schedule.

The rule of age is the lease: whoever pushes has `age` seconds between the last sight of a blob (its upload, mount, or a
HEAD that found it) and the manifest that refers to it. Uploads under way have no digest yet and are never looked at.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lading.base import clock
from lading.registry.server.content import Content

AGE = 24 * 3600.0
_BATCH = 128  # blobs looked at under the guard at a time: a push waits for that long at most


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed."""

    manifests: int
    links: int
    blobs: int
    size: int


def sweep(content: Content, *, age: float = AGE, untagged: bool = False) -> Swept:
    """Remove what nothing has needed for `age` seconds; `untagged`: also manifests that no tag leads to."""
    before = clock.now_ns() - int(age * 1e9)
    manifests = content.catalog.forget_untagged(before) if untagged else 0
    links = content.catalog.forget_unneeded(before)
    blobs = size = 0
    everything = content.blobs.list()
    while batch := list(itertools.islice(everything, _BATCH)):
        with content.guard(sweep=True):
            wanted = content.catalog.wanted(batch)
            for digest in batch:
                if digest not in wanted and content.blobs.modified_ns(digest) < before:
                    size += content.blobs.delete(digest)
                    blobs += 1
    return Swept(manifests, links, blobs, size)
