"""From stages to the order of work: which stages the target needs, on what each stands, how many steps that
makes.

Pure but for asking `find` for base images. Never runs or caches anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lading.base.errors import Invalid, LadingError, NotFound
from lading.build.dockerfile import Dockerfile, DockerfileError, Instruction, Stage, parse_trigger
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.errors import Position, closest
from lading.build.failure import told
from lading.build.variables import Globals, expanded
from lading.image.descriptor import Platform, parse_platform
from lading.store.images import Image

SCRATCH = "scratch"
MAX_STEPS = 10_000
"""Far more than any image has layers or a person writes instructions."""


@dataclass(frozen=True)
class Node:
    """One stage to be built. `base` is an image, the index of another stage, or None for scratch."""

    stage: Stage
    base: Image | int | None
    base_name: str  # as FROM names it, variables expanded
    instructions: tuple[Instruction, ...]  # triggers of the base first
    platform: Platform
    label: str  # for progress: "" where the file has one stage only


@dataclass(frozen=True)
class Graph:
    """Stages in an order in which each comes after those it needs; the last one is the target."""

    nodes: tuple[Node, ...]
    total: int  # steps, FROM included


def sources(instruction: Instruction) -> Iterator[tuple[str, Position]]:
    """The stages or images that an instruction copies or mounts from."""
    if isinstance(instruction, ins.Copy) and instruction.source_stage is not None:
        yield instruction.source_stage.text, instruction.source_stage.position
    if isinstance(instruction, ins.Run):
        for mount in instruction.mounts:
            for key, value in mount.options:
                if key == "from":
                    yield value, mount.position


def stage_index(stages: tuple[Stage, ...], name: str, before: int) -> int | None:
    """The stage before number `before` that `name` means: an alias in any case, or an index. None: an
    image.
    """
    for stage in stages[:before]:
        if stage.base.alias and stage.base.alias.lower() == name.lower():
            return stage.index
    if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < before:
        return int(name)
    return None


def target(dockerfile: Dockerfile, name: str) -> int:
    """The index of the stage to build."""
    stages = dockerfile.stages
    if not name:
        return len(stages) - 1
    index = stage_index(stages, name, len(stages))
    if index is not None:
        return index
    names = tuple(stage.name for stage in stages)
    near = closest(name.lower(), names)
    raise NotFound(
        f'{dockerfile.name} has no stage "{name[:80]}"',
        hint=f"Did you mean {near}?" if near else f"Its stages are {', '.join(names[:20])}.",
    )


def plan(
    dockerfile: Dockerfile,
    wanted: int,
    scope: Globals,
    default: Platform,
    find: Callable[[str, Platform], Image],
) -> Graph:
    """The graph below stage `wanted`; base images are looked up now, so that their triggers are known."""
    needed = {wanted}
    nodes: list[Node] = []
    many = len(dockerfile.stages) > 1
    # Stages refer to earlier ones only, so one pass from the end meets each after all that need it.
    for index in range(wanted, -1, -1):
        if index not in needed:
            continue
        stage = dockerfile.stages[index]
        node = _node(dockerfile, stage, scope, default, find, many)
        if isinstance(node.base, int):
            needed.add(node.base)
            node = _with_triggers(node, dockerfile.stages[node.base], dockerfile.escape)
        for one in node.instructions:
            needed.update(_stages_of(one, dockerfile, stage))
        nodes.append(node)
    total = sum(1 + len(node.instructions) for node in nodes)
    if total > MAX_STEPS:
        raise Invalid(f"{dockerfile.name} makes {total} steps", why=f"More than {MAX_STEPS} are not built.")
    return Graph(tuple(reversed(nodes)), total)


def _stages_of(one: Instruction, dockerfile: Dockerfile, stage: Stage) -> Iterator[int]:
    """The earlier stages that an instruction takes files from."""
    for name, position in sources(one):
        index = stage_index(dockerfile.stages, name, stage.index)
        if index is not None:
            yield index
        elif name.lower() == stage.base.alias.lower() != "":
            raise DockerfileError(
                f"the stage {name} copies from itself", position, text=one.text, file=dockerfile.name
            )


def _node(
    dockerfile: Dockerfile,
    stage: Stage,
    scope: Globals,
    default: Platform,
    find: Callable[[str, Platform], Image],
    many: bool,
) -> Node:
    word = stage.base.image
    platform = default
    try:
        name = expanded(word, scope.lookup, dockerfile.escape)
        if stage.base.platform is not None:
            platform = parse_platform(expanded(stage.base.platform, scope.lookup, dockerfile.escape))
    except DockerfileError as error:
        raise error.inside(dockerfile.name) from None
    if not name:
        raise DockerfileError(
            "FROM has become empty",
            word.position,
            text=stage.base.text,
            hint="Give the variable a default in an ARG before FROM, or a --build-arg.",
            file=dockerfile.name,
        )
    label = stage.name if many else ""
    index = stage_index(dockerfile.stages, name, stage.index) if not name.isdigit() else None
    if index is not None:
        return Node(stage, index, name, stage.instructions, platform, label)
    if name.lower() == SCRATCH:
        return Node(stage, None, SCRATCH, stage.instructions, platform, label)
    try:
        image = find(name, platform)
    except LadingError as error:
        told(
            error, f"{dockerfile.name} line {word.position.line}, column {word.position.column} asks for it."
        )
        raise
    triggers = tuple(_trigger(text, name) for text in image.config.config.onbuild)
    return Node(stage, image, name, (*triggers, *stage.instructions), platform, label)


def _with_triggers(node: Node, base: Stage, escape: str) -> Node:
    triggers = tuple(
        _trigger(one.trigger, base.name, escape) for one in base.instructions if isinstance(one, ins.Onbuild)
    )
    return Node(
        node.stage, node.base, node.base_name, (*triggers, *node.instructions), node.platform, node.label
    )


def _trigger(text: str, base: str, escape: str = "\\") -> Instruction:
    try:
        return parse_trigger(text, escape)
    except DockerfileError as error:
        raise error.inside(f"ONBUILD of {base}") from None
