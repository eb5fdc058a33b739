"""The suite's own words: `attack` strikes a defended engine, which must hold, and one without the defence, which must not.

An attack that fails without the defence too proves nothing; that is a failure as well. The last line of a run tells
attacks tried, escapes, and controls that bite.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attack_ground import BUSYBOX, Ground, Without

Strike = Callable[..., bool]
"""Called with a ground and the control's flags; true when something outside was reached."""


@dataclass
class Score:
    tried: int = 0
    escapes: int = 0
    bites: int = 0


SCORE = Score()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "attack: a strike at the engine, with a control that bites")


class Grounds:
    """The defended engine, and the last one without a defence; tests that share a control share its engine."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._numbers = directory, itertools.count()
        self._defended: Ground | None = None
        self._other: tuple[str, Ground] | None = None

    def defended(self) -> Ground:
        if self._defended is None:
            self._defended = Ground(self._directory / f"defended-{next(self._numbers)}")
        return self._defended

    def without(self, defence: Without) -> Ground:
        if self._other is None or self._other[0] != defence.key:
            self._drop()
            self._other = (defence.key, Ground(self._directory / f"without-{next(self._numbers)}", defence))
        return self._other[1]

    def _drop(self) -> None:
        if self._other is not None:
            self._other[1].close()
            self._other = None

    def close(self) -> None:
        self._drop()
        if self._defended is not None:
            self._defended.close()


@pytest.fixture(scope="session", params=["rootful"])
def grounds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    if not BUSYBOX:
        pytest.skip("needs the busybox-static package")
    made = Grounds(tmp_path_factory.mktemp("attacks"))
    yield made
    made.close()


@pytest.fixture
def ground(grounds: Grounds) -> Ground:
    made = grounds.defended()
    made.reset()
    return made


@pytest.fixture
def attack(ground: Ground, grounds: Grounds) -> Callable[..., None]:
    """attack(strike, off=flags or Without(...)): holds with the defence, gives way without it.

    `weak` is planted in both: a flaw of another kind, so that a second line of defence is tried alone.
    """

    def go(strike: Strike, off: tuple[str, ...] | Without, weak: Without | None = None) -> None:
        SCORE.tried += 1
        field = grounds.without(weak) if weak is not None else ground
        field.reset()
        escaped = strike(field, ())
        SCORE.escapes += escaped
        if isinstance(off, Without):
            other = grounds.without(off)
            other.reset()
            bites = strike(other, ())
        else:
            field.reset()
            bites = strike(field, off)
        SCORE.bites += bites
        assert not escaped, "the attack reached what lies outside the container"
        assert bites, (
            "the control does not bite: without the defence the attack fails too, so it shows nothing"
        )

    return go


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SCORE.tried:
        terminalreporter.write_line(
            f"attacks: {SCORE.tried} tried, {SCORE.escapes} escapes, "
            f"{SCORE.bites} of {SCORE.tried} controls bite (rootful)"
        )
