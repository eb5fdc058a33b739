"""ChainIDs: the name of a stack of layers, hence of a committed snapshot (OCI image-spec config.md, "Layer
ChainID").

Pure; never touches a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable

from lading.image import digest


def extend(parent: str | None, diff_id: str) -> str:
    """ChainID of `diff_id` applied over the stack `parent`."""
    return digest.of(f"{parent} {diff_id}".encode()) if parent else diff_id


def ids(diff_ids: Iterable[str]) -> list[str]:
    """The chainID of every prefix, from the base up; the last one names the whole root file system."""
    out: list[str] = []
    parent: str | None = None
    for diff_id in diff_ids:
        parent = extend(parent, diff_id)
        out.append(parent)
    return out
