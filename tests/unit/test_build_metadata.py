"""Instructions on a config without a build, and owners from a tree's own passwd and group files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.base.errors import Invalid
from lading.build import metadata, owners
from lading.build.dockerfile import DockerfileError
from lading.image.config import ContainerConfig, Healthcheck


def test_changes_of_commit() -> None:
    before = ContainerConfig(env=("A=1", "PATH=/bin"), cmd=("old",), labels={"a": "b"}, working_dir="/w")
    after = metadata.changed(
        before,
        [
            'CMD ["new"]',
            "ENTRYPOINT run it",
            "ENV A=2 B=$A",
            "ENV C=$A",
            "EXPOSE 80 90-91/udp",
            "HEALTHCHECK --retries=2 CMD true",
            "LABEL x=y",
            "ONBUILD RUN true",
            "STOPSIGNAL 9",
            "USER me",
            "VOLUME /v",
            "workdir sub",
        ],
    )
    assert after == ContainerConfig(
        env=("A=2", "PATH=/bin", "B=1", "C=2"),
        cmd=("new",),
        entrypoint=("/bin/sh", "-c", "run it"),
        exposed_ports=("80/tcp", "90/udp", "91/udp"),
        healthcheck=Healthcheck(("CMD-SHELL", "true"), retries=2),
        labels={"a": "b", "x": "y"},
        onbuild=("RUN true",),
        stop_signal="9",
        user="me",
        volumes=("/v",),
        working_dir="/w/sub",
    )
    assert before.env == ("A=1", "PATH=/bin")


@pytest.mark.parametrize("text", ["RUN true", "COPY a /b", "FROM x", "ARG a", 'SHELL ["x"]', "MAINTAINER x"])
def test_a_change_that_is_more_than_that(text: str) -> None:
    with pytest.raises(Invalid, match="cannot be a change"):
        metadata.changed(ContainerConfig(), [text])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CMD a\nCMD b",
        "CDM x",
        "EXPOSE 0",
        "EXPOSE 5-4",
        "STOPSIGNAL 65",
        "STOPSIGNAL SIGTREM",
        "STOPSIGNAL FOO",
        "ENV a",
    ],
)
def test_a_change_that_is_no_instruction(text: str) -> None:
    with pytest.raises(DockerfileError):
        metadata.changed(ContainerConfig(), [text])


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    (tmp_path / "etc").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


PASSWD = "root:x:0:0::/root:/bin/sh\n#broken\nbad:x:nan:1::/:\nhuge:x:99999999999:1::/:\nmodel:x:1000:1001::/h:/bin/sh\n"
GROUP = "root:x:0:\nmodel:x:1002:\nusers:x:100:model\n"


@pytest.mark.parametrize(
    ("text", "owner", "primary"),
    [
        ("0", (0, 0), (0, 0)),
        ("5", (5, 5), (5, 0)),
        ("1000", (1000, 1000), (1000, 1001)),
        ("5:6", (5, 6), (5, 6)),
        ("model", (1000, 1000), (1000, 1001)),
        ("model:users", (1000, 100), (1000, 100)),
        ("model:7", (1000, 7), (1000, 7)),
        ("7:users", (7, 100), (7, 100)),
    ],
)
def test_owners(tree: tuple[Path, int], text: str, owner: tuple[int, int], primary: tuple[int, int]) -> None:
    path, fd = tree
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    assert owners.resolve(fd, text) == owner
    assert owners.resolve(fd, text, primary=True) == primary


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "model:",
        ":users",
        "nobody",
        "bad",
        "huge",
        "model:nogroup",
        "4294967295",
        "1:" + "9" * 50,
        "٣",
    ],
)
def test_owners_that_are_none(tree: tuple[Path, int], text: str) -> None:
    path, fd = tree
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    with pytest.raises(Invalid):
        owners.resolve(fd, text)


def test_a_hostile_passwd_is_refused_not_followed(tree: tuple[Path, int], tmp_path: Path) -> None:
    path, fd = tree
    target = path / "etc/passwd"
    target.symlink_to("/etc/hostname")  # of the host: inside the tree there is none
    with pytest.raises(Invalid, match="has no user"):
        owners.resolve(fd, "root")
    target.unlink()
    os.mkfifo(target)
    with pytest.raises(Invalid, match="not a regular file"):
        owners.resolve(fd, "root")
    target.unlink()
    target.mkdir()
    with pytest.raises(Invalid, match="not a regular file"):
        owners.resolve(fd, "root")
    target.rmdir()
    with open(target, "wb") as stream:
        stream.truncate(10 << 30)
    with pytest.raises(Invalid, match="larger than 1 MiB"):
        owners.resolve(fd, "root")
