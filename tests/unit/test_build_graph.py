"""Which stages a target needs, in which order, and what FROM may say; variables in the global scope."""

from __future__ import annotations

import time

import pytest

from lading.base.errors import Invalid, LadingError, NotFound
from lading.build import graph, variables
from lading.build.dockerfile import DockerfileError, parse
from lading.image.config import ContainerConfig, ImageConfig
from lading.image.descriptor import OCI_CONFIG, Descriptor, Platform
from lading.image.manifest import Manifest
from lading.store.images import Image

HOST = Platform("linux", "amd64")


def image(name: str, *onbuild: str) -> Image:
    config = ImageConfig(config=ContainerConfig(onbuild=onbuild))
    return Image(
        f"sha256:{name}", "sha256:m", Manifest(Descriptor(OCI_CONFIG, "sha256:c", 1)), config, (), 1, 0
    )


def plan(text: str, target: str = "", **given: str | None) -> tuple[graph.Graph, list[str]]:
    file = parse(text)
    asked: list[str] = []

    def find(name: str, platform: Platform) -> Image:
        asked.append(f"{name} {platform}")
        if name == "missing":
            raise NotFound("no such image", hint="Make it.")
        return image(name, *(("RUN trigger", "COPY --from=first a b") if name == "triggers" else ()))

    wanted = graph.target(file, target)
    names = variables.platform_names(HOST, HOST, file.stages[wanted].base.alias)
    scope = variables.Globals(file.escape, given, names)
    for argument in file.arguments:
        scope.declare(argument)
    return graph.plan(file, wanted, scope, HOST, find), asked


def stages(text: str, target: str = "") -> list[int]:
    return [node.stage.index for node in plan(text, target)[0].nodes]


MANY = """FROM a AS first
FROM b AS second
COPY --from=FIRST x y
FROM c
RUN x
FROM second AS fourth
COPY --from=2 x y
COPY --from=image:1 x y
FROM d AS last
RUN --mount=type=bind,from=first,target=/x y
"""


def test_only_what_the_target_needs() -> None:
    assert stages(MANY) == [0, 4]
    assert stages(MANY, "fourth") == [0, 1, 2, 3]
    assert stages(MANY, "Second") == [0, 1]
    assert stages(MANY, "2") == [2]
    assert plan(MANY, "fourth")[1] == ["c linux/amd64", "b linux/amd64", "a linux/amd64"]


def test_labels_and_totals() -> None:
    found, _ = plan(MANY, "fourth")
    assert [node.label for node in found.nodes] == ["first", "second", "2", "fourth"]
    assert found.total == 1 + 2 + 2 + 3
    assert plan("FROM a\n")[0].nodes[0].label == ""


def test_triggers_come_first_and_count() -> None:
    found, _ = plan("FROM a AS first\nFROM triggers\nCMD x\n")
    assert [node.stage.index for node in found.nodes] == [0, 1]
    assert [one.keyword for one in found.nodes[1].instructions] == ["RUN", "COPY", "CMD"]
    found, _ = plan("FROM a AS p\nONBUILD RUN late\nFROM p\n")
    assert [one.text for one in found.nodes[1].instructions] == ["RUN late"]


def test_a_number_is_an_image_name_in_from_and_a_stage_in_copy() -> None:
    assert plan("FROM a\nFROM 0\n")[1] == ["0 linux/amd64"]
    assert stages("FROM a\nFROM b\nCOPY --from=0 x y\n") == [0, 1]
    assert stages("FROM a\nFROM b\nCOPY --from=7 x y\n") == [1]


@pytest.mark.parametrize(
    ("text", "given", "asked"),
    [
        ("ARG V=1\nFROM x:$V\n", {}, "x:1 linux/amd64"),
        ("ARG V=1\nFROM x:$V\n", {"V": "2"}, "x:2 linux/amd64"),
        ("ARG A=a\nARG B=${A}b\nFROM $B\n", {}, "ab linux/amd64"),
        ("ARG A\nFROM ${A:-d}\n", {}, "d linux/amd64"),
        ("FROM --platform=$BUILDPLATFORM x\n", {}, "x linux/amd64"),
        ("FROM --platform=linux/arm64 x\n", {}, "x linux/arm64"),
        ("FROM x-$TARGETARCH-$TARGETSTAGE AS y\n", {}, "x-amd64-y linux/amd64"),
        ("ARG TARGETARCH\nFROM x-$TARGETARCH\n", {}, "x-amd64 linux/amd64"),
    ],
)
def test_variables_in_from(text: str, given: dict[str, str | None], asked: str) -> None:
    assert plan(text, **given)[1] == [asked]


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("FROM $X\n", DockerfileError, "Dockerfile line 1, column 6"),
        ("FROM ${X\n", DockerfileError, "Dockerfile line 1, column 6"),
        ("FROM --platform=x/y/z/w a\n", Invalid, ""),
        ("FROM a AS s\nCOPY --from=s x y\n", DockerfileError, "Dockerfile line 2, column 6"),
        ("FROM missing\n", NotFound, "no such image"),
        ("FROM a\n" + "LABEL a=b\n" * 10_001, Invalid, "Dockerfile makes 10002 steps"),
    ],
)
def test_what_cannot_be_planned(text: str, kind: type[LadingError], what: str) -> None:
    with pytest.raises(kind) as caught:
        plan(text)
    assert caught.value.what.startswith(what)


def test_the_place_is_told_of_a_missing_image() -> None:
    with pytest.raises(NotFound) as caught:
        plan("FROM a\nFROM  missing\n")
    assert str(caught.value) == "no such image: Dockerfile line 2, column 7 asks for it. Make it."


def test_a_long_chain_of_stages() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(999))
    started = time.monotonic()
    assert stages(text) == list(range(1000))
    assert time.monotonic() - started < 5


def test_build_arguments_nobody_asked_for() -> None:
    assert variables.unused({"A": "1", "B": None, "HTTP_PROXY": "x", "SOURCE_DATE_EPOCH": "1"}, {"A"}) == [
        "B"
    ]
