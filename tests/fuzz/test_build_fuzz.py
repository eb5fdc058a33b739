"""Random text at the front end's doors: only DockerfileError, ExpansionError or Invalid may come out, and
soon.
"""

from __future__ import annotations

import contextlib
import posixpath

from hypothesis import given, settings
from hypothesis import strategies as st

from lading.base.errors import Invalid
from lading.build import ignore, place
from lading.build.dockerfile import DockerfileError, parse
from lading.build.dockerfile.expand import ExpansionError, expand, expand_words

WORDS = st.sampled_from(
    [
        "FROM", "a", "RUN", "COPY", "ADD", "ENV", "ARG", "x=1", "x", "=", "ONBUILD", "HEALTHCHECK", "CMD", "NONE",
        "SHELL",
        "--from=b", "--mount=type=cache,target=/x", "--interval=3s", "--", "<<EOF", "<<-'E'", "EOF", "E", "\\", "\\\n",
        "\n",
        "#", "# escape=`", "`", '["a"]', '["', "[]", "'", '"', "$x", "${x:-", "}", "\t", " ", "\r\n", "\0", "\ufeff", "é",
    ]
)  # fmt: skip
TEXT = st.one_of(
    st.text(max_size=300),
    st.lists(WORDS, max_size=40).map("".join),
    st.lists(WORDS, max_size=40).map(" ".join),
)


@settings(max_examples=400, deadline=2000)
@given(TEXT)
def test_parse_raises_only_its_own_error(text: str) -> None:
    for data in (text, "FROM a\n" + text):
        try:
            file = parse(data)
        except DockerfileError as error:
            lines = data.count("\n") + 1
            assert 1 <= error.position.line <= lines and error.position.column >= 1
            assert str(error)
        else:
            assert file.stages
            for stage in file.stages:
                for one in stage.instructions:
                    assert one.position.line <= one.end


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=300))
def test_parse_takes_any_bytes(data: bytes) -> None:
    with contextlib.suppress(DockerfileError):
        parse(b"FROM a\n" + data)


EXPANSION = st.lists(
    st.sampled_from(
        [
            "$",
            "{",
            "}",
            "a",
            "b",
            ":",
            "-",
            "+",
            "?",
            "#",
            "%",
            "/",
            "*",
            "\\",
            "'",
            '"',
            " ",
            "1",
            "${a:-",
            "é",
        ]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=600, deadline=2000)
@given(EXPANSION, st.dictionaries(st.sampled_from("ab"), st.text(max_size=20)))
def test_expand_raises_only_its_own_error(text: str, values: dict[str, str]) -> None:
    for function in (expand, expand_words):
        try:
            function(text, values.get)
        except ExpansionError as error:
            assert 0 <= error.offset <= len(text)


@settings(max_examples=300, deadline=2000)
@given(st.text(alphabet="ab", max_size=20), st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)))
def test_text_without_syntax_stays(text: str, values: dict[str, str]) -> None:
    assert expand(text, values.get) == text
    assert expand(f"'{text}$a'", values.get) == text + "$a"


PATTERN = st.text(alphabet="ab*?[]^-!\\/.# \n", max_size=30)
PATH = st.lists(st.text(alphabet="ab*.", min_size=1, max_size=5), min_size=1, max_size=5).map("/".join)


@settings(max_examples=600, deadline=2000)
@given(PATTERN, PATH)
def test_ignore_raises_only_invalid(text: str, path: str) -> None:
    try:
        patterns = ignore.parse(text.encode())
    except Invalid:
        return
    verdict = patterns.verdict(path)
    if verdict is not None and "/" in path and verdict is patterns.verdict(posixpath.dirname(path)):
        assert patterns.matches(path)


@settings(max_examples=300, deadline=2000)
@given(PATH.filter(lambda path: "*" not in path and not any(p in (".", "..") for p in path.split("/"))))
def test_a_literal_pattern_ignores_itself_and_what_is_below(path: str) -> None:
    clean = posixpath.normpath(path)
    patterns = ignore.parse(path.encode())
    assert patterns.matches(clean) and patterns.matches(clean + "/x/y") and not patterns.matches(clean + "x")


@settings(max_examples=300, deadline=2000)
@given(st.text(alphabet="ugoarwxXst+-=,0174 8", max_size=12), st.integers(0, 0o7777))
def test_chmod_gives_a_mode_or_invalid(text: str, mode: int) -> None:
    try:
        change = place.parse_chmod(text)
    except Invalid:
        return
    assert 0 <= change(0o100000 | mode) - 0o100000 <= 0o7777
