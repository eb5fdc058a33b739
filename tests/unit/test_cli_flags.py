"""Flags by pflag's rules, and what a wrong command line says."""

from __future__ import annotations

import os

import pytest

from lading.cli import entry, units
from lading.cli.context import Context
from lading.cli.flags import Flags, HelpWanted, UsageError, split
from lading.cli.suggest import closest, distance
from lading.cli.verbs import GROUPS, VERBS

ROWS = (
    ("all", "a", "bool", ""),
    ("detach", "d", "bool", ""),
    ("interactive", "i", "bool", ""),
    ("tty", "t", "bool", ""),
    ("publish", "p", "list", ""),
    ("name", "", "string", ""),
    ("memory", "m", "bytes", ""),
    ("count", "n", "int", ""),
    ("every", "", "duration", ""),
    ("filter", "f", "filter", ""),
)


@pytest.mark.parametrize(
    ("line", "values", "args"),
    [
        ("-it img", {"interactive": True, "tty": True}, ["img"]),
        ("-itp80:80 img", {"interactive": True, "tty": True, "publish": ["80:80"]}, ["img"]),
        ("-itp 80:80 img", {"interactive": True, "tty": True, "publish": ["80:80"]}, ["img"]),
        ("-p=1:1 -p 2:2 --publish=3:3 --publish 4:4", {"publish": ["1:1", "2:2", "3:3", "4:4"]}, []),
        ("--name=a=b", {"name": "a=b"}, []),
        ("--name -x img", {"name": "-x"}, ["img"]),
        ("--all=false img", {"all": False}, ["img"]),
        ("-a=0 -t=T", {"all": False, "tty": True}, []),
        ("img cmd -i --name x", {}, ["img", "cmd", "-i", "--name", "x"]),
        ("-d -- -i img", {"detach": True}, ["-i", "img"]),
        ("- -i", {}, ["-", "-i"]),
        ("--name one --name two", {"name": "two"}, []),
        ("-n -1", {"count": "-1"}, []),
        ("-f a=b -f c=d", {"filter": ["a=b", "c=d"]}, []),
    ],
)
def test_docker_s_way_to_run(line: str, values: dict[str, object], args: list[str]) -> None:
    flags = split("run", ROWS, line.split(), interspersed=False)
    assert flags.values == values
    assert flags.args == args


def test_flags_may_follow_positionals_where_the_verb_says_so() -> None:
    flags = split("ps", ROWS, ["x", "-a", "y", "--name", "n", "--", "-z"])
    assert flags.args == ["x", "y", "-z"]
    assert flags.on("all") and flags.text("name") == "n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--nmae x", "unknown flag: --nmae. Did you mean --name?"),
        ("--xyzzy", "unknown flag: --xyzzy"),
        ("-z", "unknown shorthand flag: 'z' in -z"),
        ("-itz", "unknown shorthand flag: 'z' in -itz. Did you mean --itz?"),
        ("--name", "flag needs an argument: --name"),
        ("-ip", "flag needs an argument: 'p' in -ip"),
        ("--all=maybe", 'invalid argument "maybe" for "-a, --all" flag: it is true or false'),
        (
            "-m 12q",
            'invalid argument "12q" for "-m, --memory" flag: invalid size: \'12q\' (write bytes, or a number',
        ),
        ("-n two", 'invalid argument "two" for "-n, --count" flag: it is not a whole number: \'two\''),
        ("--every 5", 'invalid argument "5" for "--every" flag: invalid duration: \'5\''),
        ("-f x", 'invalid argument "x" for "-f, --filter" flag: a filter is KEY=VALUE'),
    ],
)
def test_wrong_flags(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        split("run", ROWS, line.split())
    assert str(caught.value).startswith(message)
    assert caught.value.code == 125


def test_help_is_asked_for_unless_h_means_something() -> None:
    with pytest.raises(HelpWanted):
        split("ps", ROWS, ["-h"])
    with pytest.raises(HelpWanted):
        split("ps", ROWS, ["--help"])
    assert split("run", (("hostname", "h", "string", ""),), ["-h", "x"]).text("hostname") == "x"


def test_accessors_have_zero_values() -> None:
    flags = Flags()
    assert (flags.on("x"), flags.text("x"), flags.many("x"), flags.integer("x"), flags.size("x")) == (
        False,
        "",
        [],
        None,
        None,
    )
    assert flags.on("x", True) and flags.text("x", "d") == "d" and flags.duration("x") is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
        ("64k", 65536),
        ("1 kb", 1024),
        ("-1", -1),
        ("10b", 10),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "1x", "1.2.3m", "-5", "1mm", ".", "0x10", "١m"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("30s", 30 * 10**9),
        ("1m30s", 90 * 10**9),
        ("500ms", 5 * 10**8),
        ("1.5h", 5400 * 10**9),
        ("1us", 1000),
        ("-2s", -2 * 10**9),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert units.parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "1s2", "1..5s", "x1s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        units.parse_duration(text)


def test_cpus() -> None:
    assert [units.parse_cpus(t) for t in ("0.5", "2", "1.25", ".5")] == [
        5 * 10**8,
        2 * 10**9,
        125 * 10**7,
        5 * 10**8,
    ]
    for wrong in ("", "x", "-1", "1.0000000001", "1e3"):
        with pytest.raises(ValueError):
            units.parse_cpus(wrong)


def test_suggestions() -> None:
    assert distance("detahc", "detach") == 1  # a swap
    assert closest("conatiner", GROUPS) == "container"
    assert closest("memry", ("memory", "name")) == "memory"
    assert closest("zzzzzz", ("memory", "name")) == ""
    assert closest("publ", ("publish", "pull")) == "publish"


def run(*argv: str) -> tuple[int, str, str]:
    """The whole command line in this process, with pipes for its output."""
    pipes = os.pipe(), os.pipe()
    code = entry.run(
        argv,
        Context({"LADING_HOST": "unix:///nonexistent/lading.sock"}, stdout=pipes[0][1], stderr=pipes[1][1]),
    )
    texts = []
    for reader, writer in pipes:
        os.close(writer)
        with open(reader, "rb") as file:
            texts.append(file.read().decode())
    return code, texts[0], texts[1]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["runn"], 1, "unknown command: lading runn. Did you mean 'lading run'?"),
        (["volume", "lss"], 1, "unknown command: lading volume lss. Did you mean 'lading volume ls'?"),
        (["--hots", "x"], 125, "unknown flag: --hots. Did you mean --host?"),
        (["run"], 1, '"lading run" requires at least 1 argument, and got 0'),
        (["tag", "a"], 1, '"lading tag" requires 2 arguments, and got 1'),
        (["ps", "x"], 1, "\"lading ps\" accepts no arguments, and got 'x'"),
        (["port", "a", "b", "c"], 1, '"lading port" requires at most 2 arguments, and got 3'),
        (["-H", "nonsense:1", "ps"], 1, "'nonsense:1' is not a daemon's address"),
        (["-H", "ssh://x", "ps"], 1, "the host 'ssh://x' cannot be dialled"),
        (["ps"], 1, "no daemon answers at unix:///nonexistent/lading.sock"),
        (["run", "img"], 125, "no daemon answers at unix:///nonexistent/lading.sock"),
        (["ps", "--format", "{{.Nonsense"], 1, "no daemon answers"),
    ],
)
def test_a_wrong_command_line_is_one_clear_message(argv: list[str], code: int, message: str) -> None:
    got, out, err = run(*argv)
    assert got == code
    assert out == ""
    assert err.startswith(f"lading: {message}"), err
    assert "Traceback" not in err


def test_every_verb_has_a_page_and_its_table_is_sound() -> None:
    for name, row in VERBS.items():
        verb = entry.load(row)
        longs = [flag[0] for flag in verb.rows]
        shorts = [flag[1] for flag in verb.rows if flag[1]]
        assert len(set(longs)) == len(longs) and len(set(shorts)) == len(shorts), name
        assert {flag[2] for flag in verb.rows} <= {
            "bool", "string", "list", "map", "filter", "int", "uint", "uint16", "bytes", "duration", "decimal"}  # fmt: skip
        code, out, _ = run(*name.split(), "--help")
        assert code == 0
        assert out.startswith(f"Usage:  lading {name.rpartition(' ')[0]}".rstrip()) and row[2] in out
        assert all(f"--{flag[0]}" in out for flag in verb.rows if flag[3])
        assert max(map(len, out.splitlines())) <= 120


def test_groups_and_the_whole_command_have_pages() -> None:
    for group in GROUPS:
        code, out, _ = run(group)
        assert code == 0 and f"Usage:  lading {group} COMMAND" in out
    code, out, _ = run()
    assert code == 0 and "Management Commands:" in out and "bootstrap" in out
    assert run("help", "volume", "ls")[1].startswith("Usage:  lading volume ls")
    assert run("--version")[1].startswith("lading version ")
