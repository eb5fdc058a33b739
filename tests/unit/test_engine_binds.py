"""-v, --mount, --tmpfs and VOLUME: every text form, and what wins over what."""

from __future__ import annotations

import pytest

from lading.base.errors import Invalid
from lading.engine import binds
from lading.engine.model import Mount


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", Mount("volume", "/data")),
        ("/host:/data", Mount("bind", "/data", "/host", create_source=True)),
        ("/host/:/data/", Mount("bind", "/data", "/host", create_source=True)),
        ("/a/../b:/x//y", Mount("bind", "/x/y", "/b", create_source=True)),
        ("/host:/data:ro", Mount("bind", "/data", "/host", read_only=True, create_source=True)),
        ("/host:/data:ro,z", Mount("bind", "/data", "/host", read_only=True, create_source=True)),
        ("/host:/data:rslave", Mount("bind", "/data", "/host", propagation="rslave", create_source=True)),
        ("vol:/data", Mount("volume", "/data", "vol")),
        ("vol:/data:ro,nocopy", Mount("volume", "/data", "vol", read_only=True, no_copy=True)),
    ],
)
def test_parse(text: str, mount: Mount) -> None:
    assert binds.parse(text) == mount


@pytest.mark.parametrize(
    "text",
    ["", "relative", ":", "a:", ":/x", "/a:relative", "/a:/", "/a:/x/..", "/a:/x:bogus", "/a:/x:ro,rw", "/a:/b:ro:z",
     "/a:/x:nocopy", "v:/x:rslave", "-v:/x", "a/b:/x", "v:/x:rslave,rprivate", "/a:/b\0", "x:/y"],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        binds.parse(text)


def test_what_is_asked_for_wins_over_the_image_and_parents_come_first() -> None:
    merged = binds.merge(
        image_volumes=["/a/b", "/kept", "/t"],
        inherited=[Mount("volume", "/from", "theirs"), Mount("volume", "/a", "theirs")],
        binds=["/host:/a"],
        mounts=[Mount("volume", "/a/b/c", "deep")],
        tmpfs_map={"/t": "size=64k,mode=700,exec"},
    )
    assert [(m.target, m.type, m.source) for m in merged] == [
        ("/a", "bind", "/host"),
        ("/from", "volume", "theirs"),
        ("/kept", "volume", ""),
        ("/t", "tmpfs", ""),
        ("/a/b", "volume", ""),
        ("/a/b/c", "volume", "deep"),
    ]
    assert (merged[3].tmpfs_size, merged[3].tmpfs_mode, merged[3].tmpfs_options) == (65536, 0o700, "exec")


def test_one_target_twice_is_refused() -> None:
    with pytest.raises(Invalid, match="duplicate"):
        binds.merge([], [], ["/a:/x", "/b:/x/"], [], {})
    with pytest.raises(Invalid, match="duplicate"):
        binds.merge([], [], ["/a:/x"], [], {"/x/": ""})


@pytest.mark.parametrize("text", ["", "x", "1.5g", "-1", "50%", "1t", "9" * 30])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        binds.size(text)


def test_sizes() -> None:
    assert [binds.size(t) for t in ("7", "1k", "2m", "3G", "1mb")] == [7, 1024, 2 << 20, 3 << 30, 1 << 20]


@pytest.mark.parametrize("mount", [Mount("bind", "/x", "rel"), Mount("npipe", "/x"), Mount("tmpfs", "/x", "src"),
                                   Mount("bind", "x", "/a"), Mount("volume", "/x", "a/b"),
                                   Mount("bind", "/x", "/a", propagation="odd")])  # fmt: skip
def test_mounts_of_the_api_are_checked(mount: Mount) -> None:
    with pytest.raises(Invalid):
        binds.check(mount)


def test_tmpfs_options_are_a_closed_list() -> None:
    with pytest.raises(Invalid):
        binds.tmpfs("/t", "context=x")
    with pytest.raises(Invalid):
        binds.tmpfs("/t", "mode=rwx")
