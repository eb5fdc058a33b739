"""The contract of `Snapshotter`, held by every implementation: overlay (with both ways of mounting) and
copy."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lading.base import errors
from lading.image.layer import reader
from lading.linux import overlayfs
from lading.store import owner
from lading.store.database import Database
from lading.store.snapshots import ADDED, DELETED, MODIFIED, Change, Snapshotter
from lading.store.snapshots.copy import Copy
from lading.store.snapshots.overlay import Overlay, unsupported

Make = Callable[[], Snapshotter]


@pytest.fixture(params=["overlay", "overlay-by-thread", "copy"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a snapshotter over the same root each time, as a restarted daemon would."""
    root = f"{tmp_path}/snapshots"
    if request.param != "copy":
        if os.geteuid() != 0:
            pytest.skip("overlay mounts need root")
        if reason := unsupported(root):
            pytest.skip(reason)
    if request.param == "overlay-by-thread":
        monkeypatch.setattr(overlayfs, "_has_lowerdir_plus", lambda: False)
    opened: list[Database] = []

    def make() -> Snapshotter:
        opened.append(Database(f"{tmp_path}/db"))
        return Copy(root, opened[-1]) if request.param == "copy" else Overlay(root, opened[-1])

    yield make
    for db in opened:
        db.close()


@pytest.fixture
def snapshots(make: Make) -> Snapshotter:
    return make()


def write(fd: int, path: str, text: str, mode: int = 0o644) -> None:
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode, dir_fd=fd)
    os.write(out, text.encode())
    os.close(out)


def read(fd: int, path: str) -> str:
    found = os.open(path, os.O_RDONLY, dir_fd=fd)
    try:
        return os.read(found, 1000).decode()
    finally:
        os.close(found)


def layer_of(snapshots: Snapshotter, key: str) -> bytes:
    parts: list[bytes] = []
    snapshots.layer(key, parts.append)
    return b"".join(parts)


def names(data: bytes) -> list[str]:
    return [os.fsdecode(member.name) for member in reader.Reader(io.BytesIO(data))]


def diff_id(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def base(snapshots: Snapshotter) -> str:
    snapshots.prepare("making", None)
    with snapshots.mounted("making") as fd:
        os.mkdir("etc", 0o755, dir_fd=fd)
        os.mkdir("etc/conf.d", 0o755, dir_fd=fd)
        write(fd, "etc/conf.d/a", "a")
        write(fd, "etc/passwd", "root")
        write(fd, "gone", "x")
        os.symlink("etc/passwd", "link", dir_fd=fd)
    snapshots.commit("making", "base")
    return "base"


def test_an_active_snapshot_sees_its_parent_and_keeps_its_changes(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        assert read(fd, "etc/passwd") == "root"
        write(fd, "etc/passwd", "changed")
        os.unlink("gone", dir_fd=fd)
    with snapshots.mounted("c") as fd:
        assert read(fd, "etc/passwd") == "changed"
        assert "gone" not in os.listdir(fd)
    with snapshots.mounted(base) as fd:
        assert read(fd, "etc/passwd") == "root"
        assert "gone" in os.listdir(fd)


@pytest.mark.parametrize("volatile", [False, True])
def test_a_root_file_system_can_be_mounted_again_and_again(
    snapshots: Snapshotter, base: str, volatile: bool
) -> None:
    """The kernel refuses an upper directory that was once mounted volatile, unless its mark is taken away."""
    snapshots.prepare("c", base)
    for turn in range(3):
        value = snapshots.rootfs("c", volatile=volatile)
        if value.type == "overlay":
            fd = overlayfs.mount_detached(value.base, value.lower, value.upper, value.work, value.options)
            write(fd, f"by-runtime-{turn}", "x")
            os.close(fd)
        with snapshots.mounted("c") as fd:
            write(fd, f"by-us-{turn}", "x")
    value = snapshots.rootfs("c")
    assert "volatile" not in value.options
    snapshots.commit("c", "done")
    with snapshots.mounted("done") as fd:
        assert len([name for name in os.listdir(fd) if name.startswith("by-us")]) == 3


def test_siblings_do_not_see_each_other(snapshots: Snapshotter, base: str) -> None:
    for key in ("one", "two"):
        snapshots.prepare(key, base)
    with snapshots.mounted("one") as fd:
        write(fd, "etc/passwd", "one")
    with snapshots.mounted("two") as fd:
        assert read(fd, "etc/passwd") == "root"


def test_the_diff_names_what_changed(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        write(fd, "etc/passwd", "longer than before")
        write(fd, "etc/new", "n")
        os.unlink("gone", dir_fd=fd)
        os.mkdir("var", dir_fd=fd)
    assert list(snapshots.diff("c")) == [
        Change(MODIFIED, "/etc"),
        Change(ADDED, "/etc/new"),
        Change(MODIFIED, "/etc/passwd"),
        Change(DELETED, "/gone"),
        Change(ADDED, "/var"),
    ]


def test_an_untouched_snapshot_has_no_diff_and_an_empty_layer(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    assert list(snapshots.diff("c")) == []
    assert layer_of(snapshots, "c") == bytes(1024)


def test_the_layer_holds_the_change_and_nothing_else(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        write(fd, "etc/new", "n")
        os.unlink("gone", dir_fd=fd)
        os.unlink("etc/conf.d/a", dir_fd=fd)
    data = layer_of(snapshots, "c")
    assert names(data) == ["etc/", "etc/conf.d/", "etc/conf.d/.wh.a", "etc/new", ".wh.gone"]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.extractfile("etc/new").read() == b"n"  # type: ignore[union-attr]


def test_a_directory_made_anew_hides_the_old_one(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        os.unlink("etc/conf.d/a", dir_fd=fd)
        os.rmdir("etc/conf.d", dir_fd=fd)
        os.mkdir("etc/conf.d", 0o700, dir_fd=fd)
        write(fd, "etc/conf.d/b", "b")
    assert Change(DELETED, "/etc/conf.d/a") in list(snapshots.diff("c"))
    data = layer_of(snapshots, "c")
    snapshots.apply(base, "applied", io.BytesIO(data))
    with snapshots.mounted("applied") as fd:
        assert os.listdir(os.open("etc/conf.d", os.O_RDONLY, dir_fd=fd)) == ["b"]


def test_a_layer_applied_elsewhere_gives_the_same_tree(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        write(fd, "etc/passwd", "p", 0o600)
        os.chmod("etc/passwd", 0o4711, dir_fd=fd)
        os.link("etc/passwd", "etc/twin", src_dir_fd=fd, dst_dir_fd=fd)
        os.unlink("link", dir_fd=fd)
        os.mkdir("link", dir_fd=fd)
        os.unlink("gone", dir_fd=fd)
        os.symlink("x", "gone", dir_fd=fd)
        os.chmod("etc/conf.d", 0o700, dir_fd=fd)
    data = layer_of(snapshots, "c")
    snapshots.apply(base, "again", io.BytesIO(data), diff_id(data))
    with snapshots.mounted("c", readonly=True) as one, snapshots.mounted("again") as two:
        assert _tree(one) == _tree(two)
    snapshots.prepare("d", base)
    snapshots.commit("c", "committed")
    with snapshots.mounted("committed") as fd:
        st = os.stat("etc/twin", dir_fd=fd)
        assert (st.st_nlink, st.st_mode & 0o7777) == (2, 0o4711)


def _tree(fd: int, above: str = "") -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for name in sorted(os.listdir(fd)):
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        found.append(
            (
                f"{above}{name}",
                st.st_mode,
                st.st_uid,
                st.st_gid,
                st.st_size if not above else 0,
                int(st.st_mtime),
            )
        )
        if os.path.isdir(f"/proc/self/fd/{fd}/{name}") and not os.path.islink(f"/proc/self/fd/{fd}/{name}"):
            child = os.open(name, os.O_RDONLY, dir_fd=fd)
            found += _tree(child, f"{above}{name}/")
            os.close(child)
    return found


def test_the_same_change_gives_the_same_layer(snapshots: Snapshotter, base: str) -> None:
    made = []
    for key in ("one", "two"):
        snapshots.prepare(key, base)
        with snapshots.mounted(key) as fd:
            for name in ("b", "a") if key == "one" else ("a", "b"):
                write(fd, name, name)
                os.utime(name, (7, 7), dir_fd=fd)
        made.append(layer_of(snapshots, key))
    assert made[0] == made[1]


def test_a_deep_stack(snapshots: Snapshotter, base: str) -> None:
    parent = base
    for number in range(127):
        snapshots.prepare("step", parent)
        with snapshots.mounted("step") as fd:
            write(fd, f"f{number}", "x")
        parent = f"layer{number}"
        snapshots.commit("step", parent)
    snapshots.view("v", parent)
    with snapshots.mounted("v") as fd:
        assert len([name for name in os.listdir(fd) if name.startswith("f")]) == 127


def test_keys_and_states(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    snapshots.view("v", base)
    assert set(snapshots.keys()) == {"base", "c", "v"}
    assert [snapshots.info(key).kind for key in ("base", "c", "v")] == ["committed", "active", "view"]
    assert snapshots.info("c").parent == "base"
    assert snapshots.exists("c") and not snapshots.exists("other")
    with pytest.raises(errors.Conflict):
        snapshots.prepare("c", base)
    with pytest.raises(errors.NotFound):
        snapshots.prepare("d", "missing")
    with pytest.raises(errors.Conflict):
        snapshots.prepare("d", "c")  # not committed
    with pytest.raises(errors.Conflict):
        snapshots.remove(base)  # others stand on it
    with pytest.raises(errors.Conflict):
        snapshots.commit("v", "x")
    with pytest.raises(errors.Conflict):
        snapshots.rootfs(base)
    for call in (snapshots.info, snapshots.rootfs, snapshots.usage):
        with pytest.raises(errors.NotFound):
            call("missing")
    assert set(snapshots.keys()) == {"base", "c", "v"}


def test_removing_leaves_no_file(snapshots: Snapshotter, base: str, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path / "snapshots"))
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        os.mkdir("locked", 0o000, dir_fd=fd)
    snapshots.remove("c")
    snapshots.remove("c")
    assert sorted(os.listdir(tmp_path / "snapshots")) == before
    assert not snapshots.exists("c")


def test_a_tree_of_any_depth_is_removed(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        at = os.dup(fd)
        for _ in range(700):
            os.mkdir("d" * 50, dir_fd=at)
            below = os.open("d" * 50, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        os.close(at)
    assert snapshots.usage("c").inodes > 100
    with pytest.raises(errors.Unavailable, match="nested deeper"):
        snapshots.layer("c", lambda data: None)
    snapshots.remove("c")


def test_committing_what_exists_keeps_the_first(snapshots: Snapshotter, base: str) -> None:
    for key, text in (("one", "1"), ("two", "2")):
        snapshots.prepare(key, base)
        with snapshots.mounted(key) as fd:
            write(fd, "f", text)
        snapshots.commit(key, "same")
    with snapshots.mounted("same") as fd:
        assert read(fd, "f") == "1"
    assert set(snapshots.keys()) == {"base", "same"}


def test_usage_counts_hard_links_once(snapshots: Snapshotter) -> None:
    snapshots.prepare("c", None)
    with snapshots.mounted("c") as fd:
        write(fd, "a", "x" * 100_000)
        os.link("a", "b", src_dir_fd=fd, dst_dir_fd=fd)
    size, inodes = snapshots.usage("c")
    assert inodes == 2
    assert 100_000 <= size < 150_000
    snapshots.commit("c", "done")
    assert snapshots.usage("done") == snapshots.usage("done") == (size, inodes)
    assert snapshots.info("done").parent is None


def test_a_layer_with_a_wrong_diff_id_leaves_nothing(
    snapshots: Snapshotter, base: str, tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path / "snapshots"))
    with pytest.raises(errors.Invalid, match="does not match its diffID"):
        snapshots.apply(base, "bad", io.BytesIO(bytes(1024)), diff_id(b"other"))
    with pytest.raises(errors.Invalid):
        snapshots.apply(base, "bad", io.BytesIO(b"no tar at all"))
    with pytest.raises(errors.NotFound):
        snapshots.apply("missing", "bad", io.BytesIO(bytes(1024)))
    assert snapshots.keys() == ["base"]
    assert sorted(os.listdir(tmp_path / "snapshots")) == before


def test_bytes_after_the_end_of_the_tar_count_for_the_diff_id(snapshots: Snapshotter, base: str) -> None:
    data = bytes(1024 * 20)
    snapshots.apply(base, "padded", io.BytesIO(data), diff_id(data))
    assert snapshots.exists("padded")


def test_unpacking_the_same_layer_at_once_happens_once(snapshots: Snapshotter, base: str) -> None:
    snapshots.prepare("c", base)
    with snapshots.mounted("c") as fd:
        write(fd, "f", "x" * 1_000_000)
    data = layer_of(snapshots, "c")
    read_by: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            read_by.append(id(self))
            return super().read(size)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            snapshots.apply(base, "same", Counted(data), diff_id(data))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(read_by)) == 1
    assert set(snapshots.keys()) == {"base", "c", "same"}


def test_many_threads_prepare_and_remove(snapshots: Snapshotter, base: str) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for turn in range(8):
                key = f"{number}-{turn}"
                snapshots.prepare(key, base)
                with snapshots.mounted(key) as fd:
                    write(fd, "f", key)
                snapshots.remove(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert snapshots.keys() == ["base"]


def test_mounts_are_seen_by_nobody(snapshots: Snapshotter, base: str) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with snapshots.mounted(base):
        assert Path("/proc/self/mountinfo").read_text() == mounts
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_a_power_cut_before_the_sync_makes_a_snapshot_damaged(
    make: Make, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsynced work of this boot is trusted, of an earlier boot is not; unpacking again heals what stands on
    it."""
    snapshots = make()
    snapshots.prepare("step", base)
    with snapshots.mounted("step") as fd:
        write(fd, "f", "whole")
    data = layer_of(snapshots, "step")
    snapshots.remove("step")
    snapshots.sync()
    snapshots.apply(base, "top", io.BytesIO(data))
    snapshots.prepare("container", "top")
    with snapshots.mounted("container") as fd:
        write(fd, "mine", "mine")
    make().recover()
    assert snapshots.exists("top"), "the same boot trusts it"
    monkeypatch.setattr(owner, "boot_id", lambda: "another boot")
    again = make()
    again.recover()
    assert again.exists(base), "it was synced"
    assert not again.exists("top")
    with pytest.raises(errors.NotFound):
        again.prepare("other", "top")
    again.apply(base, "top", io.BytesIO(data))
    with again.mounted("container") as fd:
        assert (read(fd, "f"), read(fd, "mine")) == ("whole", "mine")


def test_a_killed_unpacking_is_swept_at_the_next_start(make: Make, base: str, tmp_path: Path) -> None:
    snapshots = make()
    before = sorted(os.listdir(tmp_path / "snapshots"))
    child = subprocess.Popen(
        [sys.executable, "-c", _UNPACK, str(tmp_path), snapshots.name, base],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin and child.stdout
    header_and_half = _half_a_layer()
    child.stdin.write(header_and_half)
    child.stdin.flush()
    assert child.stdout.read(1) == b"r"
    assert len(snapshots.keys()) == 2
    make().recover()
    assert len(snapshots.keys()) == 2, "its process lives: left alone"
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    make().recover()
    assert snapshots.keys() == [base]
    assert sorted(os.listdir(tmp_path / "snapshots")) == before


def _half_a_layer() -> bytes:
    from lading.image.layer import header

    return header.pack(header.Header(b"big", header.REGULAR, size=1 << 20)) + bytes(1000)


_UNPACK = """
import os, sys
from lading.store.database import Database
from lading.store.snapshots.copy import Copy
from lading.store.snapshots.overlay import Overlay
root, name, base = sys.argv[1:]
db = Database(root + "/db")
snapshots = (Copy if name == "copy" else Overlay)(root + "/snapshots", db)
class Source:
    told = False
    def read(self, size=-1):
        if self.told:
            os.write(1, b"r")
        self.told = True
        return os.read(0, 512)
snapshots.apply(base, "half", Source())
"""


def test_files_without_a_record_are_removed(make: Make, base: str, tmp_path: Path) -> None:
    (tmp_path / "snapshots/999/d").mkdir(parents=True)
    make().recover()
    assert not (tmp_path / "snapshots/999").exists()
    assert make().exists(base)
