"""Secrets of RUN steps, and binds of stages, images and writable copies, in real containers.

The secrets' bytes are looked for in every file the engine has, after steps that end well and steps that fail.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_world import BUSYBOX, World, engine_at, paths_below

from lading.base.errors import Invalid, LadingError, NotFound
from lading.base.paths import Paths
from lading.build.failure import StepFailed
from lading.build.progress import Log
from lading.build.request import BuildRequest
from lading.engine import stepsecrets

pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox-static makes the test image")

SECRET = b"tok-5f1c9-never-on-disk"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = paths_below(tmp_path_factory.mktemp("engine"))
    with engine_at(paths) as engine:
        yield World(engine, paths)


def build(world: World, text: str, *, no_cache: bool = True, **more: Any) -> tuple[str, str]:
    """(image id, what the steps printed)."""
    printed: list[bytes] = []

    def progress(item: object) -> None:
        if isinstance(item, Log):
            printed.append(item.data)

    request = BuildRequest(dockerfile_text=text.encode(), no_cache=no_cache, **more)
    image = world.engine.builder.build(request, progress)
    return image, b"".join(printed).decode()


def files_with(directory: str, needle: bytes) -> list[str]:
    found = []
    for base, _, names in os.walk(directory):
        for name in names:
            path = f"{base}/{name}"
            if os.path.isfile(path) and not os.path.islink(path) and needle in Path(path).read_bytes():
                found.append(path)
    return found


def kept(paths: Paths, needle: bytes = SECRET) -> list[str]:
    left = glob.glob(f"/dev/shm/{stepsecrets._prefix(paths.run)}*")
    return [*files_with(paths.root, needle), *files_with(paths.run, needle), *left]


def test_a_secret_is_a_file_of_the_step_alone(world: World) -> None:
    text = (
        "FROM tiny\n"
        "RUN --mount=type=secret,id=token,required=true stat -c %a:%u:%g /run/secrets/token;"
        " wc -c < /run/secrets/token; grep -q never-on /run/secrets/token && echo right;"
        " grep /run/secrets/token /proc/mounts | grep -c 'tmpfs ro'\n"
        "RUN ls /run 2>&1; echo gone\n"
    )
    image, said = build(world, text, secrets={"token": SECRET})
    lines = said.splitlines()
    assert lines[:4] == ["400:0:0", str(len(SECRET)), "right", "1"]
    assert "secrets" not in lines[4:-1] and lines[-1] == "gone"
    stored = world.engine.images.inspect(image)
    assert SECRET not in stored.config.encode()
    assert kept(world.paths) == []


def test_the_search_finds_what_a_step_keeps(world: World) -> None:
    """The oracle itself: a step that writes its secret into the image is found."""
    needle = b"tok-kept-by-the-step-itself"
    text = "FROM tiny\nRUN --mount=type=secret,id=t cat /run/secrets/t > /kept"
    build(world, text, secrets={"t": needle}, compression="tar")
    assert kept(world.paths, needle) != []


def test_owner_mode_and_target(world: World) -> None:
    text = (
        "FROM tiny\nUSER model\n"
        "RUN --mount=type=secret,id=a,target=/etc/deep/a.conf,uid=1000,gid=1001,mode=0440"
        " stat -c %a:%u:%g /etc/deep/a.conf && cat /etc/deep/a.conf\n"
        "RUN --mount=type=secret,target=/t/b cat /t/b"
    )
    with pytest.raises(StepFailed):  # root's file, and the step is not root
        build(world, text, secrets={"a": SECRET, "b": SECRET})
    assert kept(world.paths) == []
    _, said = build(
        world, text.replace("target=/t/b", "uid=1000,target=/t/b"), secrets={"a": b"x\n", "b": b"y\n"}
    )
    assert said.splitlines() == ["440:1000:1001", "x", "y"]


def test_an_absent_secret(world: World) -> None:
    _, said = build(world, "FROM tiny\nRUN --mount=type=secret,id=t test -e /run/secrets/t || echo none")
    assert said == "none\n"
    with pytest.raises(NotFound, match='the secret "t"') as caught:
        build(world, "FROM tiny\nRUN --mount=type=secret,id=t,required true")
    assert "--secret id=t" in str(caught.value) and "line 2" in str(caught.value)


def test_a_secret_counts_for_no_cache_key(world: World) -> None:
    text = "FROM tiny\nRUN --mount=type=secret,id=t wc -c < /run/secrets/t"
    first, said = build(world, text, no_cache=False, secrets={"t": SECRET})
    assert said
    assert build(world, text, no_cache=False, secrets={"t": b"another"}) == (first, "")


def test_an_owner_that_cannot_be_is_refused(world: World) -> None:
    with pytest.raises(Invalid, match="uid"):
        build(world, "FROM tiny\nRUN --mount=type=secret,id=t,uid=x true", secrets={"t": SECRET})
    assert kept(world.paths) == []


def test_a_failing_build_shows_no_secret(world: World) -> None:
    with pytest.raises(LadingError) as caught:
        build(world, "FROM tiny\nRUN --mount=type=secret,id=t false", secrets={"t": SECRET})
    assert SECRET.decode() not in repr(caught.value) + str(caught.value)
    assert SECRET.decode() not in repr(BuildRequest(secrets={"t": SECRET}))
    assert kept(world.paths) == []


def test_what_a_killed_engine_left_goes_at_the_next_start(world: World) -> None:
    with stepsecrets.opened(world.paths.run) as files:
        path = files.add(SECRET, (0, 0), 0o400)
        assert stepsecrets.on_tmpfs(os.path.dirname(path))
        stepsecrets.forget(world.paths.run)
        assert not os.path.exists(path)


def test_binds_of_stages_and_images(world: World) -> None:
    text = (
        "FROM tiny AS made\nRUN mkdir /out && echo wheel > /out/w && chmod 640 /out/w\n"
        "FROM tiny\n"
        "RUN --mount=from=made,source=/out,target=/in cat /in/w && stat -c %a /in/w"
        " && ! touch /in/x 2>/dev/null && echo read-only\n"
        "RUN --mount=from=tiny,source=/etc/group,target=/g head -n 1 /g\n"
        "RUN ls / | grep -c -x -e in -e g || true\n"
    )
    _, said = build(world, text)
    assert said.splitlines() == ["wheel", "640", "read-only", "root:x:0:", "0"]
    again, said = build(world, text, no_cache=False)
    assert build(world, text, no_cache=False) == (again, "")


def test_a_writable_bind_keeps_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("as it was\n")
    text = (
        "FROM tiny\n"
        "RUN --mount=target=/w,source=src,rw echo changed > /w/a && touch /w/new && cat /w/a\n"
        "RUN --mount=target=/w,source=src cat /w/a && ls /w\n"
    )
    _, said = build(world, text, context_dir=str(tmp_path))
    assert said.splitlines() == ["changed", "as it was", "a"]
    assert (tmp_path / "src/a").read_text() == "as it was\n" and not (tmp_path / "src/new").exists()
    actives = [info.key for info in world.engine._rooms.snapshotter.infos() if info.key.startswith("build-")]
    assert actives == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A data root with the image `tiny` and no engine, for the command line's own."""
    paths = paths_below(tmp_path_factory.mktemp("store"))
    with engine_at(paths):
        return paths


@pytest.mark.parametrize("form", ["directory", "stdin", "tar", "file-elsewhere"])
def test_the_command_line_sends_secrets(store: Paths, tmp_path: Path, form: str) -> None:
    """`lading build --secret`, from a file and a variable, over each form of a context."""
    context = tmp_path / "context"
    context.mkdir()
    text = (
        "FROM tiny\nRUN --mount=type=secret,id=a --mount=type=secret,id=b"
        " wc -c < /run/secrets/a; wc -c < /run/secrets/b"
    )
    (context / "Dockerfile").write_text(text)
    (tmp_path / "secret").write_bytes(SECRET)
    given, arguments = b"", [str(context)]
    if form == "stdin":
        given, arguments = text.encode(), ["-"]
    elif form == "tar":
        given, arguments = subprocess.check_output(["tar", "-C", str(context), "-c", "."]), ["-"]
    elif form == "file-elsewhere":
        (tmp_path / "D").write_text(text)
        arguments = ["-f", str(tmp_path / "D"), str(context)]
    ran = subprocess.run(
        [sys.executable, "-m", "lading", "--here", "build", "--no-cache", "--progress=plain",
         "--secret", f"id=a,src={tmp_path}/secret", "--secret", "id=b,env=TOKEN", *arguments],
        input=given, capture_output=True, timeout=60, check=False,
        env={**os.environ, "LADING_ROOT": store.root, "LADING_RUN": store.run,
             "TOKEN": SECRET.decode() + "+"},
    )  # fmt: skip
    out = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == 0, out
    assert f" {len(SECRET)}\n" in out and f" {len(SECRET) + 1}\n" in out and SECRET.decode() not in out
    assert kept(store) == []
