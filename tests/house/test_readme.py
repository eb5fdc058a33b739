"""The README is true: what it tells people to type exists. Reads documents and tables, runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.build.bootstrap import names
from lading.cli.verbs import VERBS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DEMO = (ROOT / "examples/demo.sh").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def commands(text: str) -> Iterator[str]:
    """Every `lading ...` of code blocks and inline code, one command each."""
    blocks = re.findall(r"^(?: {4}|\t)(.*)$", text, re.MULTILINE)
    blocks += [
        line for fence in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL) for line in fence.splitlines()
    ]
    blocks += re.findall(r"`([^`\n]+)`", text)
    for line in blocks:
        for command in re.split(r"[;|]|&&", line.partition(" #")[0]):
            if command.strip().startswith("lading "):
                yield command.strip()


COMMANDS = sorted(set(commands(README)))


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_exists(command: str) -> None:
    words = [word for word in command.split()[1:] if not word.startswith("-")]
    if not words or words[0].isupper():  # `lading --help`, `lading VERB`
        return
    assert words[0] in VERBS or " ".join(words[:2]) in VERBS, f"the command line has no {words[0]!r}"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("lading bootstrap ")])
def test_every_bootstrap_has_a_recipe(command: str) -> None:
    wanted = command.split()[2]
    assert wanted in names() or f"{wanted}:latest" in names() or wanted.startswith("NAME")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_the_demo_runs_what_the_readme_shows() -> None:
    values = dict(re.findall(r"^(\w+)=(\S+)$", DEMO, re.MULTILINE))
    typed = {
        re.sub(r"\$(\w+)", lambda m: values.get(m[1], m[0]), line.strip().removeprefix("run "))
        for line in DEMO.splitlines()
        if line.strip().startswith("run lading ")
    }
    assert typed, "the demo runs nothing"
    assert not sorted(typed - set(COMMANDS)), "the demo types what the README does not show"


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "BENCHMARKS.md", "examples/iris-api/Dockerfile"])
def test_what_the_readme_names_is_there(name: str) -> None:
    assert name in README
    assert (ROOT / name).is_file()
