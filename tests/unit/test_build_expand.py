"""Variable expansion: a table of the documented forms, and what is refused."""

from __future__ import annotations

import time

import pytest

from lading.build.dockerfile.expand import MAX_LENGTH, ExpansionError, expand, expand_words

VALUES = {
    "foo": "/bar",
    "empty": "",
    "v": "1.2.3",
    "path": "/usr/local/bin/python",
    "name": "foobarfoo",
    "star": "a*b",
    "list": "80 443/tcp",
    "sp": "a b",
    "_x1": "under",
}

TABLE = [
    ("plain", "plain"),
    ("$foo", "/bar"),
    ("${foo}", "/bar"),
    ("${foo}_x", "/bar_x"),
    ("$foo_x", ""),
    ("a$foo/b", "a/bar/b"),
    ("$foo$v", "/bar1.2.3"),
    ("$_x1", "under"),
    ("$missing", ""),
    ("${missing}", ""),
    ("$1", ""),
    ("$12x", "x"),
    ("$$", ""),
    ("$", "$"),
    ("a$", "a$"),
    ("$ x", "$ x"),
    ("$/x", "$/x"),
    (r"\$foo", "$foo"),
    (r"\${foo}", "${foo}"),
    (r"\\$foo", "\\/bar"),
    ("'$foo'", "$foo"),
    ('"$foo"', "/bar"),
    ("'a\"b'", 'a"b'),
    ('"a\'b"', "a'b"),
    (r'"a\"b"', 'a"b'),
    (r'"a\$foo"', "a$foo"),
    (r'"a\nb"', r"a\nb"),
    (r"a\nb", "anb"),
    (r"a\ b", "a b"),
    ('""', ""),
    ("x''y", "xy"),
    ("end\\", "end\\"),
    # ${x:-w} and ${x-w}
    ("${foo:-w}", "/bar"),
    ("${missing:-w}", "w"),
    ("${empty:-w}", "w"),
    ("${empty-w}", ""),
    ("${missing-w}", "w"),
    ("${missing:-}", ""),
    ("${missing:-$foo}", "/bar"),
    ("${missing:-${empty:-deep}}", "deep"),
    ("${missing:-'a}b'}", "a}b"),
    ('${missing:-"a b"}', "a b"),
    (r"${missing:-a\}b}", "a}b"),
    # ${x:+w} and ${x+w}
    ("${foo:+w}", "w"),
    ("${missing:+w}", ""),
    ("${empty:+w}", ""),
    ("${empty+w}", "w"),
    ("${foo:+$v}", "1.2.3"),
    # ${x:?w} and ${x?w}
    ("${foo:?w}", "/bar"),
    ("${empty?w}", ""),
    # prefixes and suffixes
    ("${path#*/}", "usr/local/bin/python"),
    ("${path##*/}", "python"),
    ("${path%/*}", "/usr/local/bin"),
    ("${path%%/*}", ""),
    ("${v%.*}", "1.2"),
    ("${v%%.*}", "1"),
    ("${v#1.}", "2.3"),
    ("${v#9}", "1.2.3"),
    ("${v%?}", "1.2."),
    ("${v#$missing}", "1.2.3"),
    (r"${star%\*b}", "a"),
    ("${star%'*b'}", "a"),
    ("${name#foo}", "barfoo"),
    ("${name%foo}", "foobar"),
    ("${missing#x}", ""),
    ("${v#[1]}", "1.2.3"),
    # replacement
    ("${name/foo/x}", "xbarfoo"),
    ("${name//foo/x}", "xbarx"),
    ("${name//o}", "fbarf"),
    ("${name/o/}", "fobarfoo"),
    ("${v//./-}", "1-2-3"),
    ("${v//?/x}", "xxxxx"),
    ("${name/b*r/-}", "foo-foo"),
    ("${name//zz/x}", "foobarfoo"),
    ("${name/foo/$v}", "1.2.3barfoo"),
    (r"${path//\//_}", "_usr_local_bin_python"),
    ("${missing/a/b}", ""),
]


@pytest.mark.parametrize(("text", "value"), TABLE)
def test_documented_forms(text: str, value: str) -> None:
    assert expand(text, VALUES.get) == value


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("${foo", 0, "${foo is not closed"),
        ("x${", 1, "a ${ is not closed"),
        ("${}", 0, "a ${ has no variable name"),
        ("${.}", 0, "a ${ has no variable name"),
        ("${foo:}", 0, "${foo:} is no modifier"),
        ("${foo:*}", 0, "${foo:* is no modifier"),
        ("${foo^}", 0, "${foo^ is no modifier"),
        ("${foo:-x", 0, "a ${ is not closed"),
        ("${foo/x", 0, "a ${ is not closed"),
        ("${foo#x", 0, "a ${ is not closed"),
        ("a'b", 1, "a single quote is not closed"),
        ('ab"c', 2, "a double quote is not closed"),
        ("${missing:?must be given}", 0, "missing: must be given"),
        ("${missing?}", 0, "missing: a value is required"),
        ("${missing:-'}", 11, "a single quote is not closed"),
    ],
)
def test_mistakes_say_what_and_where(text: str, offset: int, message: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(text, VALUES.get)
    assert (caught.value.offset, caught.value.message) == (offset, message)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$list", ["80", "443/tcp"]),
        ('"$list"', ["80 443/tcp"]),
        ("a $foo b", ["a", "/bar", "b"]),
        ("$missing", []),
        ('""', [""]),
        ("x$sp", ["xa", "b"]),
        (r"a\ b c", ["a b", "c"]),
        ("'a b' c", ["a b", "c"]),
    ],
)
def test_words_split_at_unquoted_blanks(text: str, words: list[str]) -> None:
    assert expand_words(text, VALUES.get) == words


def test_the_backtick_escapes_where_the_directive_says_so() -> None:
    assert expand("`$foo c:\\dir $foo", VALUES.get, "`") == "$foo c:\\dir /bar"


def test_values_of_flags_and_json_keep_their_quotes() -> None:
    assert expand('it\'s $foo "x"', VALUES.get, quotes=False) == 'it\'s /bar "x"'


def test_a_value_that_doubles_without_end_is_refused() -> None:
    value = "x"
    with pytest.raises(ExpansionError, match="longer than 128 KiB"):
        for _ in range(40):
            value = expand("$a$a", {"a": value}.get)
    assert len(value) <= MAX_LENGTH


def test_nesting_is_bounded() -> None:
    with pytest.raises(ExpansionError, match="nested more than 32 deep"):
        expand("${a:-" * 200 + "x" + "}" * 200, lambda _: None)


def test_hostile_patterns_cost_bounded_time() -> None:
    started = time.monotonic()
    with pytest.raises(ExpansionError, match="too costly"):
        expand("${a//a*a*a*a*a*b/x}", {"a": "a" * 50_000}.get)
    assert time.monotonic() - started < 10
