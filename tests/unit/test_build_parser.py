"""What is no Dockerfile: each mistake with its exact place, the offending text, the message and the
suggestion.
"""

from __future__ import annotations

import pytest

from lading.base.errors import Invalid
from lading.build.dockerfile import DockerfileError, Position, parse, parse_trigger
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.words import duration

# (file, (line, column), offending text, message, hint)
MALFORMED: list[tuple[bytes, tuple[int, int], str, str, str]] = [
    (b"", (1, 1), "", "the file is empty", "Begin with a base image, as in FROM python:3.11-slim."),
    (
        b"\n# only a comment\n",
        (1, 1),
        "",
        "the file is empty",
        "Begin with a base image, as in FROM python:3.11-slim.",
    ),
    (
        b"RUN x\n",
        (1, 1),
        "RUN x",
        "RUN stands before the first FROM",
        "Begin with FROM IMAGE; only ARG may come before it.",
    ),
    (b"RNU x\n", (1, 1), "RNU x", "unknown instruction RNU", "Did you mean RUN?"),
    (b"FROM a\nRNU x\n", (2, 1), "RNU x", "unknown instruction RNU", "Did you mean RUN?"),
    (b"FROM a\n  cpoy x y\n", (2, 3), "cpoy x y", "unknown instruction cpoy", "Did you mean COPY?"),
    (b"FROM a\nHELLO\n", (2, 1), "HELLO", "unknown instruction HELLO", "Did you mean SHELL?"),
    (
        b"FROM a\n{}\n",
        (2, 1),
        "{}",
        "unknown instruction {}",
        "An instruction such as RUN, COPY or CMD is expected here.",
    ),
    (b"FROM\n", (1, 1), "FROM", "FROM needs an argument", "Write FROM IMAGE [AS NAME]."),
    (b"FROM a b\n", (1, 8), "b", "FROM takes one image, or IMAGE AS NAME", "Did you mean FROM a AS b?"),
    (b"FROM a AS\n", (1, 8), "AS", "FROM takes one image, or IMAGE AS NAME", "Did you mean FROM a AS NAME?"),
    (
        b"FROM a AS 1x\n",
        (1, 11),
        "1x",
        '"1x" is no name for a stage',
        "It begins with a letter and has letters, digits, dots, dashes and underscores.",
    ),
    (b"FROM a AS b c\n", (1, 8), "AS", "FROM takes one image, or IMAGE AS NAME", "Did you mean FROM a AS c?"),
    (b"FROM a AS b\nFROM c AS B\n", (2, 1), "FROM c AS B", 'the stage name "B" is used twice', "Rename one."),
    (
        b"FROM --plattform=x a\n",
        (1, 6),
        "--plattform=x",
        "FROM has no flag --plattform",
        "Did you mean --platform?",
    ),
    (
        b"FROM --platform a\n",
        (1, 6),
        "--platform",
        "the flag --platform needs a value",
        "Write --platform=VALUE.",
    ),
    (b"ARG\nFROM a\n", (1, 1), "ARG", "ARG needs an argument", "Write ARG NAME[=DEFAULT]."),
    (
        b"ARG 1x=2\nFROM a\n",
        (1, 5),
        "1x",
        '"1x" is no name for a variable',
        "Use letters, digits and underscores, and begin with a letter.",
    ),
    (b"ARG =x\nFROM a\n", (1, 5), "=x", "a name in ARG is empty", ""),
    (b"FROM a\nRUN\n", (2, 1), "RUN", "RUN needs an argument", "Write RUN COMMAND."),
    (b"FROM a\nRUN   \\\n", (2, 1), "RUN", "RUN needs an argument", "Write RUN COMMAND."),
    (
        b"FROM a\nRUN []\n",
        (2, 5),
        "[]",
        "RUN has an empty list of arguments",
        'Write RUN ["program", "argument"].',
    ),
    (
        b'FROM a\nRUN ["a", 1]\n',
        (2, 5),
        '["a", 1]',
        "the JSON array of RUN may hold strings only",
        'Put double quotes around each item, as in ["program", "argument"].',
    ),
    (
        b"FROM a\nRUN --network=bridge x\n",
        (2, 5),
        "bridge",
        'RUN has no network "bridge"',
        "Use default, none or host.",
    ),
    (
        b"FROM a\nRUN --security=none x\n",
        (2, 5),
        "none",
        'RUN has no security mode "none"',
        "Use sandbox or insecure.",
    ),
    (
        b"FROM a\nRUN --mount=type=cahce,target=/x y\n",
        (2, 5),
        "--mount=type=cahce,target=/x",
        '--mount has no type "cahce"',
        "Did you mean cache?",
    ),
    (
        b"FROM a\nRUN --mount=type=cache y\n",
        (2, 5),
        "--mount=type=cache",
        "a cache mount needs a target",
        "Add target=/PATH.",
    ),
    (
        b"FROM a\nRUN --mount=type=bind,target=/x,sharing=no y\n",
        (2, 5),
        "--mount=type=bind,target=/x,sharing=no",
        "a bind mount has no option sharing",
        "",
    ),
    (
        b"FROM a\nRUN --netwrok=none x\n",
        (2, 5),
        "--netwrok=none",
        "RUN has no flag --netwrok",
        "Did you mean --network?",
    ),
    (
        b"FROM a\nRUN <<EOF\nx\n",
        (2, 5),
        "<<EOF",
        "the here-document EOF does not end",
        "A line with only EOF must close it.",
    ),
    (
        b"FROM a\nRUN a <<ONE <<TWO\nONE\n",
        (2, 13),
        "<<TWO",
        "the here-document TWO does not end",
        "A line with only TWO must close it.",
    ),
    (
        b"FROM a\nCOPY <<-X /y\n  X\n",
        (2, 6),
        "<<X",
        "the here-document X does not end",
        "A line with only X must close it.",
    ),
    (
        b"FROM a\nCOPY x\n",
        (2, 6),
        "x",
        "COPY needs at least one source and a destination",
        "Write COPY SOURCE... DESTINATION.",
    ),
    (b"FROM a\nCOPY\n", (2, 1), "COPY", "COPY needs an argument", "Write COPY SOURCE... DESTINATION."),
    (
        b'FROM a\nCOPY ["x"]\n',
        (2, 6),
        '["x"]',
        "COPY needs at least one source and a destination",
        "Write COPY SOURCE... DESTINATION.",
    ),
    (b"FROM a\nCOPY --form=b x y\n", (2, 6), "--form=b", "COPY has no flag --form", "Did you mean --from?"),
    (
        b"FROM a\nCOPY --chown= x y\n",
        (2, 6),
        "--chown=",
        "the flag --chown needs a value",
        "Write --chown=VALUE.",
    ),
    (
        b"FROM a\nCOPY --link=maybe x y\n",
        (2, 6),
        "--link=maybe",
        'the flag --link is true or false, not "maybe"',
        "",
    ),
    (b"FROM a\nCOPY --chown=1 --chown=2 x y\n", (2, 16), "--chown=2", "the flag --chown is given twice", ""),
    (b"FROM a\nCOPY --exclude x y\n", (2, 6), "--exclude", "the flag --exclude needs a value", ""),
    (
        b"FROM a\nADD --from=b x y\n",
        (2, 5),
        "--from=b",
        "ADD has no flag --from",
        "ADD knows --keep-git-dir, --checksum, --chown, --chmod, --link, --exclude, --unpack.",
    ),
    (b'FROM a\nCOPY ["", "y"]\n', (2, 6), 'COPY ["", "y"]', "a path of COPY is empty", ""),
    (
        b"FROM a\nCOPY <<EOF\nEOF\n",
        (2, 6),
        "<<EOF",
        "COPY needs at least one source and a destination",
        "Write COPY SOURCE... DESTINATION.",
    ),
    (b"FROM a\nENV\n", (2, 1), "ENV", "ENV needs an argument", "Write ENV NAME=VALUE."),
    (b"FROM a\nENV x\n", (2, 5), "ENV x", "ENV x has no value", "Write ENV x=VALUE."),
    (
        b"FROM a\nENV a=1 b c=2\n",
        (2, 9),
        "b",
        '"b" is not of the form name=value',
        "Quote a value that has blanks in it.",
    ),
    (b"FROM a\nENV =1\n", (2, 5), "=1", "a name in ENV is empty", ""),
    (
        b"FROM a\nENV a=1 \\\n  \\\n  b\n",
        (4, 3),
        "b",
        '"b" is not of the form name=value',
        "Quote a value that has blanks in it.",
    ),
    (b"FROM a\nLABEL x\n", (2, 7), "LABEL x", "LABEL x has no value", "Write LABEL x=VALUE."),
    (b"FROM a\nENV --x a=b\n", (2, 5), "--x", "ENV has no flag --x", "ENV takes no flags."),
    (b"FROM a\nEXPOSE\n", (2, 1), "EXPOSE", "EXPOSE needs an argument", "Write EXPOSE PORT[/tcp|/udp]."),
    (b"FROM a\nVOLUME\n", (2, 1), "VOLUME", "VOLUME needs an argument", 'Write VOLUME ["/PATH"].'),
    (b"FROM a\nVOLUME []\n", (2, 8), "[]", "VOLUME has an empty path", ""),
    (b'FROM a\nVOLUME [""]\n', (2, 8), '[""]', "VOLUME has an empty path", ""),
    (b"FROM a\nUSER\n", (2, 1), "USER", "USER needs an argument", "Write USER NAME[:GROUP]."),
    (b"FROM a\nWORKDIR\n", (2, 1), "WORKDIR", "WORKDIR needs an argument", "Write WORKDIR /PATH."),
    (
        b"FROM a\nSTOPSIGNAL\n",
        (2, 1),
        "STOPSIGNAL",
        "STOPSIGNAL needs an argument",
        "Write STOPSIGNAL SIGTERM.",
    ),
    (
        b"FROM a\nSHELL /bin/sh\n",
        (2, 7),
        "/bin/sh",
        "SHELL must be a JSON array of strings",
        'Write SHELL ["/bin/bash", "-c"].',
    ),
    (
        b"FROM a\nSHELL []\n",
        (2, 7),
        "[]",
        "SHELL must be a JSON array of strings",
        'Write SHELL ["/bin/bash", "-c"].',
    ),
    (
        b"FROM a\nHEALTHCHECK\n",
        (2, 1),
        "HEALTHCHECK",
        "HEALTHCHECK needs an argument",
        "Write HEALTHCHECK [FLAGS] CMD COMMAND, or HEALTHCHECK NONE.",
    ),
    (
        b"FROM a\nHEALTHCHECK curl x\n",
        (2, 13),
        "curl",
        "HEALTHCHECK is followed by CMD or NONE, not curl",
        "Did you mean HEALTHCHECK CMD curl x?",
    ),
    (
        b"FROM a\nHEALTHCHECK --interval=30 CMD x\n",
        (2, 13),
        "30",
        '--interval is no duration: "30"',
        "Write a number with a unit, as in 30s, 1m30s or 500ms.",
    ),
    (b"FROM a\nHEALTHCHECK --interval=1us CMD x\n", (2, 13), "1us", "--interval is shorter than 1ms", ""),
    (
        b"FROM a\nHEALTHCHECK --retries=x CMD y\n",
        (2, 13),
        "x",
        '--retries is no number: "x"',
        "Write --retries=3.",
    ),
    (
        b"FROM a\nHEALTHCHECK NONE x\n",
        (2, 13),
        "HEALTHCHECK NONE x",
        "HEALTHCHECK NONE takes nothing more",
        "",
    ),
    (
        b"FROM a\nHEALTHCHECK CMD\n",
        (2, 1),
        "HEALTHCHECK CMD",
        "HEALTHCHECK CMD needs an argument",
        "Write HEALTHCHECK [FLAGS] CMD COMMAND, or HEALTHCHECK NONE.",
    ),
    (
        b"FROM a\nHEALTHCHECK --intervall=3s CMD x\n",
        (2, 13),
        "--intervall=3s",
        "HEALTHCHECK has no flag --intervall",
        "Did you mean --interval?",
    ),
    (b"FROM a\nHEALTHCHECK CMD []\n", (2, 17), "[]", "HEALTHCHECK CMD has an empty list of arguments", ""),
    (b"FROM a\nONBUILD\n", (2, 1), "ONBUILD", "ONBUILD needs an argument", "Write ONBUILD INSTRUCTION."),
    (b"FROM a\nONBUILD ONBUILD RUN x\n", (2, 9), "ONBUILD RUN x", "ONBUILD cannot be an ONBUILD trigger", ""),
    (b"FROM a\nONBUILD FROM b\n", (2, 9), "FROM b", "FROM cannot be an ONBUILD trigger", ""),
    (
        b"FROM a\nONBUILD MAINTAINER b\n",
        (2, 9),
        "MAINTAINER b",
        "MAINTAINER cannot be an ONBUILD trigger",
        "",
    ),
    (b"FROM a\nONBUILD RUNN x\n", (2, 9), "RUNN x", "unknown instruction RUNN", "Did you mean RUN?"),
    (
        b"FROM a\nONBUILD COPY x\n",
        (2, 14),
        "x",
        "COPY needs at least one source and a destination",
        "Write COPY SOURCE... DESTINATION.",
    ),
    (
        b"# escape=x\nFROM a\n",
        (1, 1),
        "# escape=x",
        'the escape directive must be a backslash or a backtick, not "x"',
        "",
    ),
    (
        b"# escape=`\n# ESCAPE=\\\nFROM a\n",
        (2, 1),
        "# ESCAPE=\\",
        "the parser directive escape is given twice",
        "",
    ),
    (
        b"  # syntax=a\n#syntax=b\nFROM a\n",
        (2, 1),
        "#syntax=b",
        "the parser directive syntax is given twice",
        "",
    ),
    (b"FROM a\nRUN caf\xe9\n", (2, 8), "", "the file is not UTF-8 text", "Save it with UTF-8 encoding."),
    (b"FROM a\nRUN a\x00b\n", (2, 6), "RUN a�b", "the line holds a NUL character", ""),
    (
        b"FROM a\nCMD [1]\n",
        (2, 5),
        "[1]",
        "the JSON array of CMD may hold strings only",
        'Put double quotes around each item, as in ["program", "argument"].',
    ),
    (
        b"FROM a\nENTRYPOINT --x y\n",
        (2, 12),
        "--x",
        "ENTRYPOINT has no flag --x",
        "ENTRYPOINT takes no flags.",
    ),
    (b"FROM a\nMAINTAINER\n", (2, 1), "MAINTAINER", "MAINTAINER needs an argument", "Write MAINTAINER NAME."),
    (
        b'FROM a\nRUN ["\\u0000"]\n',
        (2, 5),
        '["\\u0000"]',
        "the JSON array of RUN holds a character that no argument can carry",
        "",
    ),
    (
        b'FROM a\nCMD ["\\ud800"]\n',
        (2, 5),
        '["\\ud800"]',
        "the JSON array of CMD holds a character that no argument can carry",
        "",
    ),
]


@pytest.mark.parametrize(("data", "place", "text", "message", "hint"), MALFORMED)
def test_mistakes_are_located(
    data: bytes, place: tuple[int, int], text: str, message: str, hint: str
) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(data)
    error = caught.value
    found = ((error.position.line, error.position.column), error.text, error.message, error.hint)
    assert found == (place, text, message, hint)


def test_there_are_enough_mistakes() -> None:
    assert len({data for data, *_ in MALFORMED}) >= 40


def test_the_error_reads_as_one_sentence_for_people() -> None:
    with pytest.raises(Invalid) as caught:
        parse(b"FROM a\n  RNU pip install x\n", "docker/Dockerfile.gpu")
    assert str(caught.value) == (
        "docker/Dockerfile.gpu line 2, column 3: unknown instruction RNU (at `RNU pip install x`). Did you mean RUN?"
    )


def test_offending_text_is_bounded_and_printable() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(b"FROM a\nRNU \x1b[31m" + b"x" * 10_000)
    assert len(caught.value.text) == 120
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"FROM a\n" + b"#" * (4 << 20), "the file is longer than 4 MiB"),
        (b"FROM a\n" + b"\n" * 100_001, "the file has more than 100000 lines"),
        (b"FROM a\n" * 1002, "the file has more than 1000 stages"),
    ],
)
def test_size_is_bounded(data: bytes, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        parse(data)


def test_deep_json_is_a_shell_line_and_no_crash() -> None:
    one = parse(b"FROM a\nRUN " + b"[" * 100_000).stages[0].instructions[0]
    assert isinstance(one, ins.Run) and one.argv is None


def test_warnings_have_places() -> None:
    found = parse(b"FROM a\nRUN ['x', 'y']\nRUN [ -d /x ]\nRUN a \\\n\n b\n").warnings
    assert [position for _, position in found] == [Position(5, 1), Position(2, 5)]


def test_positions_follow_continuations() -> None:
    (one,) = parse(b"FROM a\nCOPY --chown=1 \\\n  # comment\n  x \\\n    /y\n").stages[0].instructions
    assert isinstance(one, ins.Copy)
    assert one.sources[0].position == Position(4, 3)
    assert one.destination.position == Position(5, 5)


def test_a_trigger_is_exactly_one_instruction() -> None:
    assert isinstance(parse_trigger("RUN x"), ins.Run)
    for text in ("", "RUN x\nRUN y", "NOPE"):
        with pytest.raises(DockerfileError):
            parse_trigger(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("30s", 30 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("500ms", 500 * 10**6),
        (".5s", 5 * 10**8),
        ("10us", 10_000),
        ("1h2m3s4ms", 3723 * 10**9 + 4 * 10**6),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1 s", "-1s", "1d", "1s2", "١s", "9" * 30 + "h", "1.2.3s"])
def test_malformed_durations(text: str) -> None:
    with pytest.raises(ValueError):
        duration(text)
