"""The builder over a real store, with both snapshotters: what lands in the image, what is cached, what a
failure leaves.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zstandard
from build_world import BUSYBOX, World, base, open_world, write
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from lading.base.errors import (
    Cancelled,
    Conflict,
    Denied,
    Invalid,
    LadingError,
    NotFound,
    Unavailable,
    Unsupported,
)
from lading.build.context import received
from lading.build.dockerfile import DockerfileError
from lading.build.failure import StepFailed
from lading.build.progress import Finished, Log, Notice, Vertex, to_json
from lading.build.request import BuildRequest
from lading.image import chain, digest
from lading.store.snapshots.overlay import Overlay

pytestmark = pytest.mark.skipif(
    not BUSYBOX, reason="needs busybox, statically linked (package busybox-static)"
)


@pytest.fixture(params=["overlay", "copy"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    found = open_world(tmp_path, request.param)
    base(found)
    yield found
    assert found.actives() == []
    assert found.db.query("SELECT * FROM builds") == []
    found.db.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[World]:
    """One snapshotter, for what does not depend on it."""
    found = open_world(tmp_path, "overlay")
    base(found)
    yield found
    assert found.actives() == []
    found.db.close()


COURSE = """FROM base:1
WORKDIR /app
COPY requirements.txt .
RUN cat requirements.txt > installed
COPY . .
RUN mkdir -p /home/model && echo trained > model.bin
USER model
EXPOSE 5000
HEALTHCHECK --interval=30s CMD ["true"]
CMD ["sh", "-c", "cat model.bin"]
"""
FILES = {
    "requirements.txt": "flask\n",
    "app.py": "import flask\n",
    ".dockerignore": "*.csv\n",
    "data.csv": "1,2\n",
}


def test_the_course_example(world: World) -> None:
    config = world.build(COURSE, FILES, tags=("meu-modelo-ml:v1.0",))
    inner = config.config
    assert inner.user == "model" and inner.working_dir == "/app" and inner.exposed_ports == ("5000/tcp",)
    assert inner.cmd == ("sh", "-c", "cat model.bin") and inner.env == ("PATH=/bin",)
    assert inner.healthcheck is not None and inner.healthcheck.interval == 30 * 10**9
    with world.root("meu-modelo-ml:v1.0") as root:
        assert sorted(os.listdir(root / "app")) == [
            ".dockerignore",
            "app.py",
            "installed",
            "model.bin",
            "requirements.txt",
        ]
        assert (root / "app/installed").read_text() == "flask\n"
    layers = [entry for entry in config.history if not entry.empty_layer]
    assert len(layers) == len(config.diff_ids) == 6
    assert [entry.created_by for entry in config.history[1:]] == [
        "WORKDIR /app",
        "COPY requirements.txt /app/",
        "RUN /bin/sh -c cat requirements.txt > installed",
        "COPY . /app/",
        "RUN /bin/sh -c mkdir -p /home/model && echo trained > model.bin",
        "USER model",
        "EXPOSE map[5000/tcp:{}]",
        'HEALTHCHECK &{["CMD" "true"]}',
        'CMD ["sh" "-c" "cat model.bin"]',
    ]
    assert [step.number for step in world.steps()] == list(range(1, 11)) and world.steps()[0].total == 10
    assert isinstance(world.events[-1], Finished)
    assert world.events[-1].tags == ("docker.io/library/meu-modelo-ml:v1.0",)


def test_the_image_is_valid_against_the_schemas(plain: World) -> None:
    specs = Path(__file__).parents[3] / "shared/specs/oci-image"
    if not specs.is_dir():
        pytest.skip("the OCI schemas are not beside this checkout")
    plain.build(COURSE, FILES)
    image = plain.images.get(plain.last)

    def retrieve(uri: str) -> Resource[Any]:
        schema = json.loads((specs / uri.rpartition("/")[2]).read_text())
        return Resource(contents=schema, specification=DRAFT4)

    registry: Registry[Any] = Registry(retrieve=retrieve)
    for name, blob in (
        ("config-schema.json", image.id),
        ("image-manifest-schema.json", image.manifest_digest),
    ):
        schema = json.loads((specs / name).read_text())
        jsonschema.Draft4Validator(schema, registry=registry).validate(json.loads(plain.blobs.read(blob)))


# --- the cache ---


def test_a_rebuild_is_cached_whole_and_gives_the_same_image(world: World) -> None:
    world.build(COURSE, FILES, tags=("a:1",))
    first, steps = world.last, len(world.executor.steps)
    world.again(COURSE, tags=("a:1",))
    assert world.last == first and len(world.executor.steps) == steps
    assert world.cached() == [False, True, True, True, True, True, False, False, False, False]


def test_a_cached_rebuild_is_fast(plain: World) -> None:
    plain.build(COURSE, FILES)
    best = 1.0
    for _ in range(10):
        started = time.perf_counter()
        plain.again(COURSE)
        best = min(best, time.perf_counter() - started)
    assert best < 0.010


def test_times_of_files_do_not_count_but_contents_modes_and_names_do(world: World) -> None:
    dockerfile = "FROM base:1\nCOPY d /d/\n"
    context = world.path / "context"
    world.build(dockerfile, {"d/a": "1", "d/b": "2"})

    def cached() -> bool:
        world.again(dockerfile)
        return world.cached()[1]

    os.utime(context / "d/a", ns=(1, 1))
    os.utime(context / "d", ns=(2, 2))
    assert cached()
    (context / "d/a").chmod(0o755)
    assert not cached() and cached()
    (context / "d/a").write_text("3")
    assert not cached() and cached()
    (context / "d/a").rename(context / "d/c")
    assert not cached() and cached()
    (context / "d/c").write_text("4")  # the same size, within the same moment
    assert not cached() and cached()
    (context / "d/empty").mkdir()
    assert not cached() and cached()
    (context / "d/link").symlink_to("a")
    assert not cached() and cached()
    (context / "d/link").unlink()
    (context / "d/link").symlink_to("b")
    assert not cached() and cached()
    (context / "unrelated").write_text("x")
    assert cached()


def test_what_a_command_sees_is_part_of_its_key(plain: World) -> None:
    def runs(dockerfile: str, **options: Any) -> int:
        before = len(plain.executor.steps)
        plain.build(dockerfile, {}, **options)
        return len(plain.executor.steps) - before

    assert runs("FROM base:1\nRUN touch /x\n") == 1
    assert runs("FROM base:1\nLABEL a=b\nEXPOSE 1\nRUN touch /x\n") == 0
    assert runs("FROM base:1\nENV A=1\nRUN touch /x\n") == 1
    assert runs("FROM base:1\nENV A=2\nRUN touch /x\n") == 1
    assert runs("FROM base:1\nUSER 0\nRUN touch /x\n") == 1
    assert runs('FROM base:1\nSHELL ["sh", "-ec"]\nRUN touch /x\n') == 1
    assert runs("FROM base:1\nARG V\nRUN touch /x\n", build_args={"V": "1"}) == 1
    assert runs("FROM base:1\nARG V\nRUN touch /x\n", build_args={"V": "1"}) == 0
    assert runs("FROM base:1\nARG V\nRUN touch /x\n", build_args={"V": "2"}) == 1
    assert runs("FROM base:1\nRUN touch /x\n", build_args={"HTTP_PROXY": "http://x"}) == 0
    assert runs("FROM base:1\nRUN touch /x\n", network_mode="none") == 1
    assert runs("FROM base:1\nRUN touch /x\n", no_cache=True) == 1
    assert runs("FROM base:1\nRUN touch /x\n", host_trust=True) == 0
    assert runs("FROM base:1\nRUN touch /x\n", compression="zstd") == 1


def test_equal_steps_that_change_nothing_each_run(plain: World) -> None:
    plain.build("FROM base:1\nRUN true\nRUN true\nRUN true\n", {})
    assert len(plain.executor.steps) == 3
    assert len(plain.images.get(plain.last).config.diff_ids) == 1
    plain.again("FROM base:1\nRUN true\nRUN true\nRUN true\n")
    assert len(plain.executor.steps) == 3


def test_a_stage_that_gives_the_same_files_does_not_spoil_later_steps(plain: World) -> None:
    dockerfile = "FROM base:1 AS b\nRUN {}\nFROM base:1\nCOPY --from=b /out /out\nRUN cat /out > /copy\n"
    plain.build(dockerfile.format("echo same > /out"), {})
    before = len(plain.executor.steps)
    plain.again(dockerfile.format("echo 'same' > /out; touch /elsewhere"))
    assert len(plain.executor.steps) == before + 1
    assert plain.cached() == [False, False, False, True, True]
    plain.again(dockerfile.format("echo 'same' > /out; touch /elsewhere"))
    assert plain.cached() == [False, True, False, True, True]


def test_a_row_whose_layer_is_gone_is_no_hit(plain: World) -> None:
    plain.build("FROM base:1\nRUN touch /x\n", {}, tags=("a",))
    layer = plain.images.get(plain.last).manifest.layers[-1].digest
    plain.images.remove(plain.last)
    plain.blobs.delete(layer)
    plain.again("FROM base:1\nRUN touch /x\n")
    assert len(plain.executor.steps) == 2


def test_usage_and_prune(plain: World) -> None:
    plain.build("FROM base:1\nRUN echo a > /x\n", {}, tags=("kept",))
    plain.again("FROM base:1\nRUN echo b > /y\n", tags=("dropped",))
    plain.images.remove(plain.last)
    rows = {row.description: row for row in plain.builder.usage()}
    kept, dropped = rows["RUN /bin/sh -c echo a > /x"], rows["RUN /bin/sh -c echo b > /y"]
    assert kept.shared and not dropped.shared and dropped.size > 0
    assert plain.builder.prune(unused_for_ns=3600 * 10**9) == ([], 0)
    assert plain.builder.prune({"until": ("1h",)}) == ([], 0)
    for filters in ({"until": ("x",)}, {"nope": ("1",)}, {"until": ("1h", "2h")}):
        with pytest.raises(Invalid):
            plain.builder.prune(filters)
    keys, freed = plain.builder.prune()
    assert keys == [dropped.id] and freed >= dropped.size
    assert [row.id for row in plain.builder.usage()] == [kept.id]
    plain.again("FROM base:1\nRUN echo a > /x\n")
    assert plain.cached() == [False, True]
    keys, _ = plain.builder.prune(everything=True)
    assert keys == [kept.id]
    plain.again("FROM base:1\nRUN echo a > /x\n")
    assert plain.cached() == [False, False]


def test_the_sweep_spares_what_the_cache_holds(plain: World) -> None:
    plain.build("FROM base:1\nRUN echo b > /y\n", {}, tags=("dropped",))
    plain.images.remove(plain.last)
    plain.images.sweep()
    plain.again("FROM base:1\nRUN echo b > /y\n")
    assert plain.cached() == [False, True]
    with plain.root() as root:
        assert (root / "y").read_text() == "b\n"


# --- COPY ---


def listing(root: Path, top: str) -> dict[str, str]:
    """Path -> mode, owner and content of everything below `top`."""
    found = {}
    for directory, folders, names in os.walk(root / top):
        for name in [*folders, *names]:
            path = Path(directory) / name
            info = path.lstat()
            body = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else "/"
            found[str(path.relative_to(root / top))] = (
                f"{stat.S_IMODE(info.st_mode):o} {info.st_uid}:{info.st_gid} {body}"
            )
    return found


COPIES: list[tuple[str, dict[str, str]]] = [
    ("COPY a.txt /d", {"": "644 0:0 A"}),
    ("COPY a.txt /d/", {"a.txt": "644 0:0 A"}),
    ("COPY a.txt b.txt /d/", {"a.txt": "644 0:0 A", "b.txt": "600 0:0 B"}),
    ("COPY [\"a.txt\", \"/d/\"]", {"a.txt": "644 0:0 A"}),
    ("COPY *.txt /d/", {"a.txt": "644 0:0 A", "b.txt": "600 0:0 B"}),
    ("COPY ?.txt sub/run.sh /d/", {"a.txt": "644 0:0 A", "b.txt": "600 0:0 B", "run.sh": "755 0:0 R"}),
    ("COPY sub /d", {"run.sh": "755 0:0 R", "deep": "755 0:0 /", "deep/x": "644 0:0 X", "link": "777 0:0 run.sh"}),
    ("COPY sub/ /d/", {"run.sh": "755 0:0 R", "deep": "755 0:0 /", "deep/x": "644 0:0 X", "link": "777 0:0 run.sh"}),
    ("COPY su*/de* /d/", {"x": "644 0:0 X"}),
    ("COPY sub/link /d/", {"link": "755 0:0 R"}),
    ("COPY --chown=1000:1001 a.txt /d/", {"a.txt": "644 1000:1001 A"}),
    ("COPY --chown=model a.txt /d/", {"a.txt": "644 1000:1000 A"}),
    ("COPY --chown=model:users a.txt /d/", {"a.txt": "644 1000:100 A"}),
    ("COPY --chown=7 sub/deep /d/", {"x": "644 7:7 X"}),
    ("COPY --chmod=700 a.txt /d/", {"a.txt": "700 0:0 A"}),
    ("COPY --chmod=u=rwX,go=rX sub /d/", {"run.sh": "755 0:0 R", "deep": "755 0:0 /", "deep/x": "644 0:0 X",
                                          "link": "777 0:0 run.sh"}),
    ("COPY --exclude=*.sh --exclude=link sub /d/", {"deep": "755 0:0 /", "deep/x": "644 0:0 X"}),
    ("COPY --exclude=b* *.txt /d/", {"a.txt": "644 0:0 A"}),
    ("COPY --parents sub/deep/x a.txt /d/", {"sub": "755 0:0 /", "sub/deep": "755 0:0 /", "sub/deep/x": "644 0:0 X",
                                             "a.txt": "644 0:0 A"}),
    ("COPY --parents sub/./deep/x /d/", {"deep": "755 0:0 /", "deep/x": "644 0:0 X"}),
    ("COPY --parents **/x /d/", {"sub": "755 0:0 /", "sub/deep": "755 0:0 /", "sub/deep/x": "644 0:0 X"}),
    ("COPY --link a.txt /d/", {"a.txt": "644 0:0 A"}),
    ("ENV N=a\nCOPY ${N}.txt /d/$N", {"a": "644 0:0 A"}),
    ("WORKDIR /d\nCOPY a.txt .", {"a.txt": "644 0:0 A"}),
    ("WORKDIR /d\nCOPY a.txt x/y", {"x": "755 0:0 /", "x/y": "644 0:0 A"}),
    ("RUN mkdir /d\nCOPY a.txt /d", {"a.txt": "644 0:0 A"}),
    ("RUN mkdir /d && echo old > /d/a.txt\nCOPY a.txt /d/", {"a.txt": "644 0:0 A"}),
    ("COPY <<one <<'two' /d/\n$N x\none\n$N y\ntwo", {"one": "644 0:0  x\n", "two": "644 0:0 $N y\n"}),
    ("COPY --chmod=755 --chown=5 <<-EOF /d/run\n\thi\nEOF", {"run": "755 5:5 hi\n"}),
    ("COPY ./sub/../a.txt //d//", {"a.txt": "644 0:0 A"}),
    ("COPY /a.txt /d/", {"a.txt": "644 0:0 A"}),
    ("COPY \"with space/é\" /d/", {"é": "644 0:0 E"}),
]  # fmt: skip

SOURCES = {
    "a.txt": "A",
    "b.txt": ("B", 0o600),
    "sub/run.sh": ("R", 0o755),
    "sub/deep/x": "X",
    "sub/link": Path("run.sh"),
    "with space/é": "E",
}


@pytest.mark.parametrize(("instruction", "expected"), COPIES, ids=[text for text, _ in COPIES])
def test_copy(world: World, instruction: str, expected: dict[str, str]) -> None:
    world.build(f"FROM base:1\n{instruction}\n", SOURCES)
    with world.root() as root:
        if "" in expected:
            info = (root / "d").stat()
            assert (
                f"{stat.S_IMODE(info.st_mode):o} {info.st_uid}:{info.st_gid} {(root / 'd').read_text()}"
                == expected[""]
            )
        else:
            assert listing(root, "d") == expected


def test_a_private_context_is_open_in_the_image(world: World) -> None:
    write(world.path / "context", {"a": "x"})
    (world.path / "context").chmod(0o700)
    world.again("FROM base:1\nCOPY . /x/\n")
    with world.root() as root:
        assert stat.S_IMODE((root / "x").stat().st_mode) == 0o755
    first = world.last
    (world.path / "context").chmod(0o750)
    world.again("FROM base:1\nCOPY . /x/\n")
    assert world.last == first, "and the cache does not care"


def test_copy_keeps_times(world: World) -> None:
    write(world.path / "context", {"d/a": "x"})
    for name in ("d/a", "d"):
        os.utime(world.path / "context" / name, ns=(10**18, 10**18))
    world.again("FROM base:1\nCOPY . /x/\n")
    with world.root() as root:
        assert (root / "x/d/a").stat().st_mtime_ns == 10**18
        assert (root / "x/d").stat().st_mtime_ns == 10**18


REFUSED_COPIES: list[tuple[str, type[LadingError], str]] = [
    ("COPY missing /d/", NotFound, '"missing" is not in the build context'),
    ("COPY *.nope /d/", NotFound, 'no file in the build context matches "*.nope"'),
    ("COPY ../x /d/", Invalid, '"../x" leads out of the build context'),
    ("COPY secret.csv /d/", NotFound, '"secret.csv" is left out of the build context'),
    ("COPY out /d/", NotFound, '"out" is not in the build context'),
    ("COPY outdir/passwd /d/", NotFound, '"outdir/passwd" is not in the build context'),
    ("COPY *.txt /d", Invalid, '"*.txt" matches 2 files, but /d is no directory'),
    ("COPY --chown=nobody a.txt /d/", Invalid, 'the image has no user "nobody"'),
    ("COPY --chown=model:nogroup a.txt /d/", Invalid, 'the image has no group "nogroup"'),
    ("COPY --chown=: a.txt /d/", Invalid, '":" is no owner'),
    ("COPY --chown=99999999999 a.txt /d/", Invalid, "the user or group number 99999999999 is out of range"),
    ("COPY --chmod=999 a.txt /d/", Invalid, '"999" is no mode'),
    ("COPY a.txt /bin/busybox/x", Conflict, "/bin/busybox is not a directory in the image"),
    ("COPY sub /bin/busybox", Conflict, "/bin/busybox is not a directory in the image"),
    (
        "RUN mkdir -p /d/a.txt\nCOPY a.txt /d/",
        Conflict,
        '"a.txt" is a directory in the image and a file in the build context',
    ),
    ("RUN ln -s /nowhere /d\nCOPY a.txt /d/x/", Conflict, "/d is a symlink to nothing in the image"),
    ("COPY --from=nope /x /y", NotFound, "the base image nope is not in the store"),
    ("COPY --from=base:1 /nope /y", NotFound, '"/nope" is not in the image base:1'),
    ("ARG S=base:1\nCOPY --from=$S /etc /y", DockerfileError, "Dockerfile line 3, column 1"),
    ("ENV E=\nCOPY a.txt $E", DockerfileError, "Dockerfile line 3, column 12"),
    ("COPY a.txt b.txt /d", DockerfileError, "Dockerfile line 2, column 18"),
    (
        "ADD https://example.com/x /d/",
        Unsupported,
        "ADD from the network is not supported (line 2, column 5)",
    ),
    (
        "ADD https://example.com/x.git#v1 /d/",
        Unsupported,
        "ADD from a git repository is not supported (line 2, column 5)",
    ),
    (
        "ADD git@example.com:x /d/",
        Unsupported,
        "ADD from a git repository is not supported (line 2, column 5)",
    ),
    (
        "RUN --mount=type=secret,id=x,required true",
        NotFound,
        'the step needs the secret "x", and the build was given none of that id',
    ),
    (
        "RUN --mount=type=secret,id=x,env=X true",
        Unsupported,
        "a secret as an environment variable is not supported (line 2)",
    ),
    ("RUN --mount=type=secret true", DockerfileError, "Dockerfile line 2, column 5"),
    ("RUN --mount=from=$S,target=/x true", DockerfileError, "Dockerfile line 2, column 5"),
    ("RUN --mount=type=ssh true", Unsupported, "RUN --mount=type=ssh is not supported (line 2, column 5)"),
    (
        "RUN --security=insecure true",
        Unsupported,
        "RUN --security=insecure is not supported (line 2, column 1)",
    ),
    ("RUN --device=vendor.com/x=y true", Unsupported, "RUN --device is not supported (line 2, column 1)"),
    ("EXPOSE 99999", DockerfileError, "Dockerfile line 2, column 8"),
    ("EXPOSE http", DockerfileError, "Dockerfile line 2, column 8"),
    ("STOPSIGNAL NOSUCH1234", DockerfileError, "Dockerfile line 2, column 12"),
    ("ARG U\nUSER ${U:?who}", DockerfileError, "Dockerfile line 3, column 6"),
    ("USER $NOPE", DockerfileError, "Dockerfile line 2, column 6"),
    ("USER nobody\nWORKDIR /made", Invalid, 'the image has no user "nobody"'),
]


@pytest.mark.parametrize(
    ("instruction", "kind", "what"), REFUSED_COPIES, ids=[text for text, *_ in REFUSED_COPIES]
)
def test_what_cannot_be_done_says_so(
    world: World, instruction: str, kind: type[LadingError], what: str
) -> None:
    files = {
        **SOURCES,
        ".dockerignore": "*.csv",
        "secret.csv": "s",
        "out": Path("/etc/passwd"),
        "outdir": Path("/etc"),
    }
    if "ln -s" in instruction:
        instruction = instruction.replace("ln -s", "busybox ln -s")
    with pytest.raises(kind) as caught:
        world.build(f"FROM base:1\n{instruction}\n", files)
    assert caught.value.what == what
    assert f"line {instruction.count(chr(10)) + 2}" in str(caught.value)
    assert world.steps()[-1].error
    assert len(world.images.list()) == 1


@pytest.mark.parametrize(("asked", "near"), [("aa.txt", "a.txt"), ("dir/b.tx", "dir/b.txt"), ("zzz", "")])
def test_a_missing_source_names_one_that_is_there(world: World, asked: str, near: str) -> None:
    with pytest.raises(NotFound) as caught:
        world.build(f"FROM base:1\nCOPY {asked} /d/\n", {"a.txt": "a", "dir/b.txt": "b"})
    assert ("Did you mean" in caught.value.hint) == bool(near) and near in caught.value.hint


def test_symlinks_of_an_image_do_not_lead_out(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    dockerfile = (
        "FROM base:1\n"
        f"RUN mkdir -p {outside} && busybox ln -s {outside} /abs && busybox ln -s ../../../../../..{outside} /rel\n"
        "COPY evil /abs/victim\nCOPY evil /rel/other\nWORKDIR /abs/made\nADD evil.tar /rel/unpacked/\n"
    )
    write(world.path / "context", {"evil": "evil", "evil.tar": archive({"x": b"evil"})})
    world.again(dockerfile)
    assert sorted(os.listdir(outside)) == ["victim"]
    assert (outside / "victim").read_text() == "untouched"
    with world.root() as root:
        inner = Path(str(root) + str(outside))
        assert sorted(os.listdir(inner)) == ["made", "other", "unpacked", "victim"]
        assert (inner / "victim").read_text() == "evil"


def test_a_directory_of_the_context_over_a_link_of_the_image(world: World) -> None:
    """A merged /usr: /lib is a symlink, and what is copied to it belongs where it points."""
    world.build(
        "FROM base:1\nRUN mkdir -p /usr/lib && busybox ln -s usr/lib /lib\nCOPY rootfs /\n",
        {"rootfs/lib/new.so": "x"},
    )
    with world.root() as root:
        assert (root / "usr/lib/new.so").read_text() == "x"
        assert (root / "lib").is_symlink()


# --- ADD ---


def archive(files: dict[str, bytes], **attributes: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o640
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("how", PACKERS)
def test_add_unpacks_archives_by_content(world: World, how: str) -> None:
    data = PACKERS[how](archive({"in/a": b"1", "b": b"2"}, uid=12, gid=13))
    world.build(
        "FROM base:1\nADD pack.bin /d\nADD --unpack=false pack.bin /raw\nADD plain.txt /d/\n",
        {"pack.bin": data, "plain.txt": "t"},
    )
    with world.root() as root:
        assert listing(root, "d") == {
            "in": "755 0:0 /",
            "in/a": "640 12:13 1",
            "b": "640 12:13 2",
            "plain.txt": "644 0:0 t",
        }
        assert (root / "raw").read_bytes() == data


def test_add_owns_what_it_unpacks(world: World) -> None:
    world.build("FROM base:1\nADD --chown=model x.tar /d/\n", {"x.tar": archive({"a": b"1"})})
    with world.root() as root:
        assert listing(root, "d") == {"a": "640 1000:1000 1"}


@pytest.mark.parametrize("name", ["../../escape", "/../escape", "a/../../escape"])
def test_archives_cannot_climb_out(world: World, name: str) -> None:
    with pytest.raises(Invalid, match="leads out"):
        world.build("FROM base:1\nADD x.tar /d/\n", {"x.tar": archive({name: b"1"})})


def test_archives_bring_no_devices(world: World) -> None:
    data = archive({"disk": b""}, type=tarfile.BLKTYPE, devmajor=8)
    with pytest.raises(Denied):
        world.build("FROM base:1\nADD x.tar /d/\n", {"x.tar": data})


def test_a_damaged_archive_is_an_error_not_a_file(world: World) -> None:
    data = gzip.compress(archive({"a": os.urandom(100_000)}))
    with pytest.raises(Invalid):
        world.build("FROM base:1\nADD x.tgz /d/\n", {"x.tgz": data[: len(data) // 2]})


# --- stages ---


def test_stages(world: World) -> None:
    config = world.build(
        """ARG BASE=base:1
FROM ${BASE} AS Build
RUN mkdir /out && echo wheel > /out/a.whl && busybox chown 3:4 /out/a.whl
FROM nowhere:1 AS unused
RUN false
FROM base:1
COPY --from=build /out/*.whl /wheels/
COPY --from=0 --chown=9 /out /second
COPY --from=base:1 /etc/passwd /third
CMD ["x"]
""",
        {},
    )
    with world.root() as root:
        assert listing(root, "wheels") == {"a.whl": "644 3:4 wheel\n"}
        assert listing(root, "second") == {"a.whl": "644 9:9 wheel\n"}
        assert (root / "third").exists()
        assert not (root / "out").exists()
    assert [step.stage for step in world.steps()] == ["build", "build", "2", "2", "2", "2", "2"]
    assert config.history[1].created_by == "COPY --from=build /out/*.whl /wheels/"


def test_targets_and_stages_on_stages(world: World) -> None:
    dockerfile = """FROM base:1 AS one
ARG FROM_ONE=yes
ENV A=1
CMD ["one"]
FROM one AS two
RUN echo $A-$FROM_ONE > /two
ENTRYPOINT ["e"]
FROM scratch AS three
COPY --from=two /two /
"""
    two = world.build(dockerfile, {}, target="TWO")
    assert two.config.cmd is None and two.config.entrypoint == ("e",)
    with world.root() as root:
        assert (root / "two").read_text() == "1-yes\n"
    one = world.again(dockerfile, target="0")
    assert one.config.cmd == ("one",)
    three = world.again(dockerfile)
    assert len(three.diff_ids) == 1 and three.config.env == ()
    with pytest.raises(NotFound) as caught:
        world.again(dockerfile, target="tow")
    assert caught.value.hint == "Did you mean two?"


def test_an_image_without_files_has_a_layer_all_the_same(world: World) -> None:
    config = world.build("FROM scratch\nLABEL a=b\n", {})
    image = world.images.get(world.last)
    assert len(image.manifest.layers) == len(config.diff_ids) == 1 and not config.history[-1].empty_layer
    assert config.diff_ids[0] == digest.EMPTY_TAR
    with world.root() as root:
        assert listing(root, "") == {}


def test_onbuild_runs_in_the_child(world: World) -> None:
    parent = world.build(
        "FROM base:1\nONBUILD COPY app /app/\nONBUILD RUN cat /app/main > /seen\nONBUILD LABEL from=parent\n",
        {},
        tags=("parent",),
    )
    assert len(parent.config.onbuild) == 3 and not world.executor.steps
    child = world.build("FROM parent\nRUN cat /seen\n", {"app/main": "hello"})
    assert child.config.onbuild == () and child.config.labels == {"from": "parent"}
    assert world.log() == "hello"
    assert [step.name for step in world.steps()][1:3] == ["COPY app /app/", "RUN cat /app/main > /seen"]
    world.again("FROM base:1 AS p\nONBUILD RUN echo trig > /t\nFROM p\nRUN cat /t\n")
    assert world.log() == "trig\n"


# --- RUN ---


def test_environment_arguments_and_working_directory(world: World) -> None:
    world.build(
        """ARG GLOBAL=g
FROM base:1
ARG GLOBAL
ARG LOCAL=l
ARG GIVEN=default
ARG NONE
ARG SHADOW=arg
ENV SHADOW=env EMPTY= TWO="a  b"
WORKDIR /w/x
WORKDIR ../y
RUN pwd; echo "$GLOBAL|$LOCAL|$GIVEN|$NONE|$SHADOW|$EMPTY|$TWO|$HTTP_PROXY|$PATH"
""",
        {},
        build_args={"GIVEN": "given", "HTTP_PROXY": "corp:3128", "TYPO": "x"},
    )
    assert world.log() == "/w/y\ng|l|given||env||a  b|corp:3128|/bin\n"
    assert "No ARG asks for the build arguments: TYPO." in world.notices()
    config = world.images.get(world.last).config
    assert config.config.env == ("PATH=/bin", "SHADOW=env", "EMPTY=", "TWO=a  b")
    assert b"corp:3128" not in config.encode()
    assert config.history[-1].created_by.startswith("RUN |3 GLOBAL=g LOCAL=l GIVEN=given /bin/sh -c pwd;")


def test_variables_hold_from_where_they_are_set(world: World) -> None:
    config = world.build(
        "FROM base:1\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n"
        "LABEL x=\"$def $ghi\" y='$def' z=\\$def\nEXPOSE $NO 80 ${abc:+81/udp}\n"
        'ARG P=82-84\nEXPOSE $P\nVOLUME ["/a b", "/$abc"]\nVOLUME /c /d\nSTOPSIGNAL ${S:-SIGINT}\nUSER ${U:-model}\n',
        {},
    )
    assert config.config.labels == {"x": "hello bye", "y": "$def", "z": "$def"}
    assert config.config.exposed_ports == ("80/tcp", "81/udp", "82/tcp", "83/tcp", "84/tcp")
    assert config.config.volumes == ("/a b", "/bye", "/c", "/d")
    assert config.config.stop_signal == "SIGINT" and config.config.user == "model"


def test_forms_of_commands(world: World) -> None:
    config = world.build(
        'FROM base:1\nRUN ["echo", "exec $HOME"]\nSHELL ["sh", "-ec"]\nRUN echo shell\n'
        "ENTRYPOINT exec x\nCMD y z\nHEALTHCHECK CMD curl\n",
        {},
    )
    assert world.log() == "exec $HOME\nshell\n"
    assert world.executor.steps[1].argv == ("sh", "-ec", "echo shell")
    inner = config.config
    assert inner.entrypoint == ("sh", "-ec", "exec x") and inner.cmd == ("sh", "-ec", "y z")
    assert inner.healthcheck is not None and inner.healthcheck.test == ("CMD-SHELL", "curl")
    assert inner.shell == ("sh", "-ec")


def test_an_entrypoint_resets_an_inherited_command_only(plain: World) -> None:
    assert plain.build('FROM base:1\nENTRYPOINT ["e"]\n', {}).config.cmd is None
    assert plain.again('FROM base:1\nCMD ["c"]\nENTRYPOINT ["e"]\n').config.cmd == ("c",)


def test_heredocs_run(world: World) -> None:
    world.build(
        'FROM base:1\nENV X=1\nRUN <<EOF\necho "a $X"\ncat <<IN\n  in\nIN\nEOF\n'
        "RUN cat <<A - <<'B'\nexpands $X\nA\nliteral $X\nB\n"
        "RUN cat <<-EOF\n\ttabs\n\t\tgone\n\tEOF\n",
        {},
    )
    assert world.log() == "a 1\n  in\nliteral $X\ntabs\ngone\n"


def test_a_script_with_an_interpreter_comes_on_a_descriptor(plain: World) -> None:
    """It needs /proc, which the engine's executor mounts and this one does not."""
    with pytest.raises(StepFailed):
        plain.build("FROM base:1\nRUN <<EOF\n#!/bin/cat -n\nbody $X\nEOF\n", {})
    shell, flag, script = plain.executor.steps[-1].argv
    assert (shell, flag) == ("/bin/sh", "-c")
    first, *rest, mark, end = script.split("\n")
    assert (
        first == f"/bin/cat -n /proc/self/fd/9 9<<'{mark}'"
        and rest == ["#!/bin/cat -n", "body $X"]
        and end == ""
    )


def test_a_failed_step_tells_all(world: World) -> None:
    with pytest.raises(StepFailed) as caught:
        world.build(
            "FROM base:1\nRUN touch /x\nRUN echo one; echo two >&2; exit 42\nRUN true\n", {}, tags=("never",)
        )
    error = caught.value
    assert (error.code, error.line, error.tail) == (42, 3, "one\ntwo")
    assert (
        error.what == "The command '/bin/sh -c echo one; echo two >&2; exit 42' returned a non-zero code: 42"
    )
    assert "Dockerfile line 3: RUN echo one" in str(error)
    assert len(world.images.list()) == 1
    assert world.steps()[-1].error == error.what
    world.again("FROM base:1\nRUN touch /x\n")
    assert world.cached() == [False, True]


def test_no_mount_point_of_the_runtime_gets_into_the_image(world: World) -> None:
    world.build("FROM base:1\nRUN touch /x\n", {})
    with world.root() as root:
        assert (
            not (root / "proc").exists() and not (root / "etc/resolv.conf").exists() and (root / "x").exists()
        )
    world.again("FROM base:1\nRUN true\n")
    assert len(world.images.get(world.last).config.diff_ids) == 1
    world.again("FROM base:1\nRUN mkdir -p /proc && echo own > /proc/file\n")
    with world.root() as root:
        assert (root / "proc/file").read_text() == "own\n"


def test_host_trust_is_decided_said_and_passed_on(plain: World) -> None:
    def trusted(**options: Any) -> bool:
        plain.build("FROM base:1\nRUN true\n", {}, no_cache=True, **options)
        return plain.executor.steps[-1].host_trust

    assert not trusted() and not plain.notices()
    plain.executor.trust = "the CA bundle /etc/corp.pem"
    assert trusted()
    assert plain.notices() == "Host trust is on: RUN steps see the CA bundle /etc/corp.pem."
    assert not trusted(host_trust=False) and not plain.notices()
    plain.executor.trust = ""
    assert trusted(host_trust=True)


def test_the_working_directory_of_the_base_is_there(plain: World) -> None:
    base(plain, "wd:1", working_dir="/not/there", user="model")
    plain.build("FROM wd:1\nRUN pwd\n", {})
    assert plain.log() == "/not/there\n"
    assert plain.executor.steps[-1].user == "model"


def test_workdir_belongs_to_the_user(world: World) -> None:
    world.build("FROM base:1\nUSER model\nWORKDIR /work/deep\n", {})
    with world.root() as root:
        info = (root / "work/deep").stat()
        assert (info.st_uid, info.st_gid) == (1000, 1001)
    assert len(world.images.get(world.last).config.diff_ids) == 2
    world.again("FROM base:1\nWORKDIR /etc\nWORKDIR /\n")
    assert len(world.images.get(world.last).config.diff_ids) == 1


def test_mounts_of_a_step(plain: World) -> None:
    plain.build(
        "FROM base:1\nRUN --mount=type=cache,target=/root/.cache/pip --mount=target=/src,source=sub"
        " --mount=type=tmpfs,target=/t,size=64m touch /x\n",
        SOURCES,
    )
    cache, bind, tmpfs = plain.executor.steps[-1].mounts
    assert (
        cache.target == "/root/.cache/pip"
        and cache.source.startswith(str(plain.path / "caches"))
        and not cache.read_only
    )
    assert bind.source == str(plain.path / "context/sub") and bind.read_only
    assert (tmpfs.type, tmpfs.size) == ("tmpfs", 64 << 20)
    with plain.root() as root:
        assert (
            not (root / "src").exists() and not (root / "t").exists() and not (root / "root/.cache").exists()
        )
        assert (root / "x").exists()


# --- requests ---


def test_times_and_ids_are_reproducible_with_an_epoch(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        world = open_world(tmp_path / name, "overlay")
        base(world)
        write(world.path / "context", {"a": "1"})
        os.utime(world.path / "context/a", ns=(10**9, 10**9))
        world.again(
            "FROM base:1\nCOPY a /d/\nRUN touch /x\nCMD x\n", build_args={"SOURCE_DATE_EPOCH": "1700000000"}
        )
        config = world.images.get(world.last).config
        assert config.created == "2023-11-14T22:13:20.000000000Z"
        found.append(config.diff_ids[1:])
        world.db.close()
        time.sleep(1.1)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "kind", "what"),
    [
        ({"tags": ("Bad",)}, Invalid, "invalid reference format"),
        ({"tags": ("a@sha256:" + "0" * 64,)}, Invalid, "an image cannot be tagged"),
        ({"compression": "lzw"}, Invalid, "the compression lzw is unknown"),
        ({"build_args": {"SOURCE_DATE_EPOCH": "x"}}, Invalid, "SOURCE_DATE_EPOCH is no number"),
        ({"platform": "linux/mips"}, Unsupported, "the image base:1 is for"),
        ({"platform": "a/b/c/d"}, Invalid, "platform"),
        ({"context_dir": "/nonexistent"}, NotFound, "the build context /nonexistent cannot be used"),
        ({"context_dir": "relative"}, Invalid, "the context is not an absolute path"),
        ({"target": "x"}, NotFound, 'Dockerfile has no stage "x"'),
        ({"dockerignore_text": b"["}, Invalid, '.dockerignore line 1: malformed pattern "["'),
    ],
)
def test_wrong_requests(plain: World, options: dict[str, Any], kind: type[LadingError], what: str) -> None:
    with pytest.raises(kind) as caught:
        plain.build("FROM base:1\nRUN true\n", {}, **options)
    assert caught.value.what.startswith(what)


def test_a_missing_base_image_says_who_wants_it_and_what_to_do(plain: World) -> None:
    with pytest.raises(NotFound) as caught:
        plain.build("FROM bsae:1\n", {})
    assert str(caught.value) == (
        "the base image bsae:1 is not in the store: Dockerfile line 1, column 6 asks for it. Did you mean 'base:1'?"
    )


def test_the_dockerfile_comes_from_the_context(plain: World) -> None:
    context = plain.path / "ctx"
    write(
        context,
        {
            "Dockerfile": "FROM base:1\nCOPY . /c/\n",
            "docker/gpu.Dockerfile": "FROM base:1\nCOPY . /g/\n",
            "docker/gpu.Dockerfile.dockerignore": "a\ndocker",
            ".dockerignore": "b\n",
            "a": "1",
            "b": "2",
            "evil": Path("/etc/passwd"),
        },
    )
    builder = plain.builder
    plain.last = builder.build(BuildRequest(context_dir=str(context)), plain.events.append)
    with plain.root() as root:
        assert sorted(os.listdir(root / "c")) == [".dockerignore", "Dockerfile", "a", "docker", "evil"]
    plain.last = builder.build(
        BuildRequest(context_dir=str(context), dockerfile="docker/gpu.Dockerfile"), plain.events.append
    )
    with plain.root() as root:
        assert sorted(os.listdir(root / "g")) == [".dockerignore", "Dockerfile", "b", "evil"]
    for name, what in (
        ("Dockerfiel", "Dockerfiel is not in the build context"),
        ("evil", "evil is not in the build context"),
        ("docker", "docker in the build context is not a regular file"),
    ):
        with pytest.raises(LadingError) as caught:
            builder.build(BuildRequest(context_dir=str(context), dockerfile=name), plain.events.append)
        assert caught.value.what == what
    with pytest.raises(DockerfileError) as caught:
        write(context, {"docker/bad": "FROM base:1\nRNU x\n"})
        builder.build(BuildRequest(context_dir=str(context), dockerfile="docker/bad"), plain.events.append)
    assert caught.value.what == "docker/bad line 2, column 1"


def test_a_build_without_context(plain: World) -> None:
    plain.build("FROM base:1\nRUN echo x\n")
    with pytest.raises(NotFound, match="no context"):
        plain.build("FROM base:1\nCOPY a /\n")


def test_labels_and_tags_of_the_request(plain: World) -> None:
    config = plain.build(
        "FROM base:1\nLABEL a=1 b=2\n", {}, labels={"b": "3"}, tags=("x", "y:2", "docker.io/library/x:latest")
    )
    assert config.config.labels == {"a": "1", "b": "3"}
    assert plain.images.get(plain.last).familiar == ("x:latest", "y:2")
    assert plain.events[-1] == Finished(plain.last, ("docker.io/library/x:latest", "docker.io/library/y:2"))


def damaged(how: str, data: bytes) -> bytes:
    return data[:600] if how == "plain" else data[:20] + bytes(20) + data[40:]


@pytest.mark.parametrize("how", PACKERS)
def test_a_context_that_came_as_a_tar(plain: World, how: str) -> None:
    data = PACKERS[how](archive({"Dockerfile": b"FROM base:1\nCOPY . /c/\n", "a": b"1"}, uid=77))
    scratch = plain.path / "tmp"
    with received(io.BytesIO(data), str(scratch)) as directory:
        plain.last = plain.builder.build(
            BuildRequest(context_dir=directory, ephemeral=True), plain.events.append
        )
    assert os.listdir(scratch) == []
    with plain.root() as root:
        assert listing(root, "c")["a"] == "640 0:0 1"
    for bad in (damaged(how, data), archive({"../x": b""}), b"not a tar at all" * 100):
        with pytest.raises(LadingError), received(io.BytesIO(bad), str(scratch)):
            pass
    assert os.listdir(scratch) == []


def test_progress_as_json(plain: World) -> None:
    plain.build("FROM base:1\nRUN echo hi\n", {})
    lines = [json.loads(json.dumps(to_json(event))) for event in plain.events]
    assert lines[-1] == {"finished": {"image_id": plain.last, "tags": []}}
    assert [line["log"]["text"] for line in lines if "log" in line] == ["hi\n"]
    assert to_json(Log("v", "stdout", b"\xff", 1)) == {
        "log": {"vertex": "v", "stream": "stdout", "ns": 1, "base64": "/w=="}
    }
    assert to_json(Notice("x")) == {"notice": {"text": "x", "kind": "info"}}
    running = [event for event in plain.events if isinstance(event, Vertex) and event.container]
    assert running and running[0].container == plain.executor.steps[-1].id


# --- cancellation, crashes, concurrency ---


def test_cancelling_stops_the_running_step_and_leaves_nothing(world: World) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        world.build("FROM base:1\nRUN sleep 60\n", {}, cancelled=stop.is_set, tags=("never",))
    timer.join()
    assert time.monotonic() - started < 5
    assert len(world.images.list()) == 1


def test_a_build_killed_in_the_middle_is_swept_up(tmp_path: Path) -> None:
    """The child dies by SIGKILL inside a RUN step; the store works afterwards, and what was done is
    cached.
    """
    world = open_world(tmp_path, "overlay")
    base(world)
    world.build("FROM base:1\n", {})
    world.db.close()
    dockerfile = "FROM base:1\nRUN echo first > /first\nRUN touch /second\n"
    child = os.fork()
    if child == 0:
        try:
            inner = open_world(tmp_path, "overlay")
            real = inner.executor.run

            def run(step: Any) -> int:
                if "second" in step.argv[-1]:
                    os.kill(os.getpid(), 9)
                return real(step)

            inner.executor.run = run  # type: ignore[method-assign]
            inner.build(dockerfile, {})
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
    world = open_world(tmp_path, "overlay")
    assert len(world.actives()) == 1
    assert len(world.images.list()) == 1
    live = world.builder.reconcile()
    assert len(live) == 1 and world.actives() == []
    assert world.db.query("SELECT * FROM builds") == []
    world.build(dockerfile, {})
    assert world.cached() == [False, True, False]
    world.db.close()


def test_reconcile_leaves_running_builds_alone(plain: World) -> None:
    reached: list[list[str]] = []

    def cancelled() -> bool:
        if plain.executor.steps and not reached:
            reached.append(plain.actives())
            assert plain.builder.reconcile() == []
        return False

    plain.build("FROM base:1\nRUN touch /x\n", {}, cancelled=cancelled)
    assert reached and len(reached[0]) == 1


def test_builds_at_the_same_time(plain: World) -> None:
    plain.build("FROM base:1\n", {"a": "1"})
    failures: list[BaseException] = []
    ids: list[str] = []

    def one(number: int) -> None:
        text = f"FROM base:1\nCOPY a /a\nRUN echo {number % 2} > /n\n".encode()
        try:
            request = BuildRequest(
                context_dir=str(plain.path / "context"), dockerfile_text=text, tags=(f"t:{number}",)
            )
            ids.append(plain.builder.build(request, lambda _: None))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(ids) == 6
    for number in range(6):
        with plain.root(f"t:{number}") as root:
            assert (root / "n").read_text() == f"{number % 2}\n"


def test_chains_name_what_was_built(plain: World) -> None:
    plain.build("FROM base:1\nRUN touch /x\n", {})
    image = plain.images.get(plain.last)
    assert plain.snapshots.exists(chain.ids(image.config.diff_ids)[-1])


def nest(directory: Path, depth: int, name: str) -> None:
    """`depth` directories, one in the other, with a file in the last; no path is used, since it may be too
    long.
    """
    directory.mkdir(exist_ok=True)
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_deep_contexts(world: World) -> None:
    nest(world.path / "context", 200, "d")
    world.again("FROM base:1\nCOPY . /x/\n")
    with world.root() as root:
        assert (root / "x" / "/".join(["d"] * 200) / "leaf").exists()
    with pytest.raises(Invalid, match="nested directories"):
        world.again("FROM base:1\nCOPY --parents **/leaf /y/\n")


@pytest.mark.parametrize(("depth", "name"), [(600, "d"), (50, "n" * 100)])
def test_contexts_too_deep_are_refused(plain: World, depth: int, name: str) -> None:
    nest(plain.path / "context", depth, name)
    with pytest.raises(Invalid, match="the build context is nested too deeply"):
        plain.again("FROM base:1\nCOPY . /x/\n")
    (plain.path / "context/.dockerignore").write_text(name[0] + "*")
    plain.again("FROM base:1\nCOPY . /x/\n")


def test_sockets_and_pipes_of_a_context(plain: World) -> None:
    context = plain.path / "context"
    context.mkdir()
    os.mkfifo(context / "pipe", 0o600)
    (context / "a").write_text("1")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(context / "sock"))
    server.close()
    plain.again("FROM base:1\nCOPY . /x/\n")
    with plain.root() as root:
        assert sorted(os.listdir(root / "x")) == ["a", "pipe"]
        assert stat.S_ISFIFO((root / "x/pipe").lstat().st_mode)
    with pytest.raises(NotFound):
        plain.again("FROM base:1\nCOPY sock /x/\n")


def test_a_file_that_changes_while_it_is_copied(plain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from lading.build import place

    real = place.files.copy_data

    def slow(source: int, target: int) -> None:
        real(source, target)
        (plain.path / "context/a").write_text("changed")

    monkeypatch.setattr(place.files, "copy_data", slow)
    with pytest.raises(Conflict, match="changed while it was copied"):
        plain.build("FROM base:1\nCOPY a /a\n", {"a": "1"})
    monkeypatch.undo()
    plain.again("FROM base:1\nCOPY a /a\n")
    with plain.root() as root:
        assert (root / "a").read_text() == "changed"


def test_a_full_disk_is_said(plain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from lading.build import place

    def full(source: int, target: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place.files, "copy_data", full)
    with pytest.raises(Unavailable) as caught:
        plain.build("FROM base:1\nCOPY a /a\n", {"a": "1"})
    assert "The disk is full." in str(caught.value) and "line 2" in str(caught.value)


def test_a_prune_during_a_build_does_not_take_what_it_uses(plain: World) -> None:
    dockerfile = "FROM base:1\nRUN echo a > /a\nRUN true\nRUN echo b > /b\n"
    plain.build("FROM base:1\nRUN echo a > /a\n", {}, tags=("once",))
    plain.images.remove(plain.last)
    done = []

    def cancelled() -> bool:
        if len(plain.executor.steps) > 1 and not done:
            done.append(plain.builder.prune(everything=True))
        return False

    plain.again(dockerfile, cancelled=cancelled)
    assert done and done[0][0]
    with plain.root() as root:
        assert (root / "a").read_text() == "a\n" and (root / "b").read_text() == "b\n"


BIG = "FROM base:1\nCOPY big /big\nRUN sleep 0.1; echo after > /after\n"


@pytest.mark.parametrize("media", ["gzip", "zstd", "tar"])
def test_large_layers_are_compressed_behind_the_next_step(world: World, media: str) -> None:
    data = os.urandom(3 << 20) * 3
    config = world.build(BIG, {"big": data}, compression=media)
    image = world.images.get(world.last)
    assert [layer.media_type.rpartition(".")[2] for layer in image.manifest.layers[1:]] == [
        {"gzip": "tar+gzip", "zstd": "tar+zstd", "tar": "tar"}[media]
    ] * 2
    layer = image.manifest.layers[1]
    assert world.blobs.size(layer.digest) == layer.size > 3 << 20
    # A store that has only the blobs gets the same files: diffIDs and blobs belong together.
    fresh = Overlay(str(world.path / "fresh"), world.db) if world.snapshots.name == "copy" else None
    if fresh is not None:
        parent = None
        for descriptor, diff_id, key in zip(
            image.manifest.layers, config.diff_ids, chain.ids(config.diff_ids), strict=True
        ):
            with world.blobs.open(descriptor.digest) as stream:
                fresh.apply(parent, key, stream, diff_id)
            parent = key
        with fresh.mounted(parent or "", readonly=True) as fd:
            assert Path(f"/proc/self/fd/{fd}/big").read_bytes() == data
    world.again(BIG, compression=media)
    assert world.cached() == [False, True, True] and world.last == image.id


def test_a_large_layer_is_kept_when_a_later_step_fails(plain: World) -> None:
    with pytest.raises(StepFailed):
        plain.build("FROM base:1\nCOPY big /big\nRUN false\n", {"big": os.urandom(6 << 20)})
    plain.again("FROM base:1\nCOPY big /big\n")
    assert plain.cached() == [False, True]


def test_a_step_twice_in_one_build_is_done_once_also_when_large(plain: World) -> None:
    run = "RUN cat /bin/busybox /bin/busybox /bin/busybox > /big\n"
    plain.build(f"FROM base:1 AS a\n{run}FROM base:1 AS b\n{run}COPY --from=a /big /same\n", {})
    assert plain.cached() == [False, False, False, True, False]
    with plain.root() as root:
        assert (root / "big").read_bytes() == (root / "same").read_bytes()


def test_a_layer_that_cannot_be_stored_fails_the_build(plain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from lading.build import layers

    def full(*_: Any) -> None:
        raise Unavailable("a blob cannot be written", why="No space left on device.")

    monkeypatch.setattr(layers.compress, "write_layer", full)
    for size in (10, 6 << 20):
        with pytest.raises(Unavailable, match="a blob cannot be written"):
            plain.build("FROM base:1\nCOPY big /big\nRUN true\n", {"big": os.urandom(size)})
    monkeypatch.undo()
    plain.again("FROM base:1\nCOPY big /big\nRUN true\n")
    assert plain.cached()[1] is False


def test_cancelling_stops_a_large_layer(plain: World) -> None:
    """The layer is being compressed behind a step when the build is cancelled: nobody waits for its end."""
    seen = []

    def cancelled() -> bool:
        seen.append(len(plain.executor.steps))
        return bool(plain.executor.steps)

    with pytest.raises(Cancelled):
        plain.build(
            "FROM base:1\nCOPY big /big\nRUN sleep 30\n", {"big": os.urandom(16 << 20)}, cancelled=cancelled
        )
    assert seen[0] == 0
