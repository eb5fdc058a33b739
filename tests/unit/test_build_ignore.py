"""Ignore files: the documented patterns as a table, the order of exceptions, malformed lines."""

from __future__ import annotations

import time

import pytest

from lading.base.errors import Invalid
from lading.build import ignore

TABLE = [
    # pattern file, path, ignored
    ("*/temp*", "somedir/temporary.txt", True),
    ("*/temp*", "somedir/temp/x", True),
    ("*/temp*", "temporary.txt", False),
    ("*/*/temp*", "a/b/temp.txt", True),
    ("*/*/temp*", "a/temp.txt", False),
    ("temp?", "tempa", True),
    ("temp?", "temp", False),
    ("temp?", "tempab", False),
    ("temp?", "d/tempa", False),
    ("**/*.go", "x.go", True),
    ("**/*.go", "a/b/c/x.go", True),
    ("**/*.go", "a/b/x.gob", False),
    ("**", "anything/at/all", True),
    ("*", "a/b/c", True),
    ("*.md", "README.md", True),
    ("*.md", "docs/README.md", False),
    ("*.md\n!README.md", "README.md", False),
    ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
    ("*.md\n!README*.md\nREADME-secret.md", "README-x.md", False),
    ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
    ("foo", "foo/bar/baz", True),
    ("foo/", "foo/x", True),
    ("/foo", "foo", True),
    ("/foo/bar", "foo/bar/x", True),
    ("./foo", "foo", True),
    ("foo/../bar", "bar", True),
    ("foo//bar", "foo/bar", True),
    ("  spaced  ", "spaced", True),
    ("# comment", "# comment", False),
    (" #x", "#x", True),
    ("\\#x", "#x", True),
    ("[a-c]x", "bx", True),
    ("[a-c]x", "dx", False),
    ("[^a-c]x", "dx", True),
    ("[^a-c]x", "ax", False),
    ("a[^x]b", "a/b", False),
    ("a\\*b", "a*b", True),
    ("a\\*b", "axb", False),
    ("a.c", "abc", False),
    ("a+(b)", "a+(b)", True),
    ("foo/**", "foo/a/b", True),
    ("foo/**", "foo", False),
    ("foo/**/bar", "foo/bar", True),
    ("foo/**/bar", "foo/a/b/bar", True),
    ("**/foo/*.txt", "x/foo/a.txt", True),
    ("**/foo/*.txt", "x/foo/y/a.txt", False),
    ("a*b*c", "aXbYc", True),
    ("a*b*c", "abbbc", True),
    ("a*ab", "aab", True),
    ("*a*a*b", "aaab", True),
    ("**/a*b", "a/x/ab", True),
    ("*\n!keep", "keep/x", False),
    ("*\n!keep/x", "keep/y", True),
    ("*\n!keep/x", "keep/x", False),
    ("!foo\nfoo", "foo", True),
    ("foo\r\nbar\r\n", "bar", True),
    (".", "x", False),
    ("", "x", False),
    ("node_modules\n**/*.pyc\n!important.pyc", "a/node_modules", False),
    ("**/node_modules", "a/node_modules/b", True),
    (".git", ".git/HEAD", True),
    (".git", ".gitignore", False),
    ("ünï*", "ünïcode", True),
]


@pytest.mark.parametrize(("text", "path", "ignored"), TABLE)
def test_documented_rules(text: str, path: str, ignored: bool) -> None:
    assert ignore.parse(text.encode()).matches(path) is ignored


def test_a_byte_order_mark_is_no_part_of_the_first_pattern() -> None:
    assert ignore.parse(b"\xef\xbb\xbffoo\n").matches("foo")


@pytest.mark.parametrize(
    ("text", "directory", "prunes"),
    [
        ("big", "big", True),
        ("big\n!small", "big", True),
        ("big\n!big/keep", "big", False),
        ("*\n!a/b/c", "a", False),
        ("*\n!a/b/c", "x", True),
        ("*\n!**/keep", "x", False),
        ("*\n!a/*/keep", "a/b", False),
        ("*\n!a/*/keep", "b", True),
    ],
)
def test_a_directory_is_pruned_unless_an_exception_reaches_into_it(
    text: str, directory: str, prunes: bool
) -> None:
    assert ignore.parse(text.encode()).prunes(directory) is prunes


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"ok\n!\n", ".dockerignore line 2: an exception without a pattern"),
        (b"a[b\n", '.dockerignore line 1: malformed pattern "a[b"'),
        (b"x\ny\n[]a]\n", '.dockerignore line 3: malformed pattern "[]a]"'),
        (b"[c-a]\n", '.dockerignore line 1: malformed pattern "[c-a]"'),
        (b"a\\\n", '.dockerignore line 1: malformed pattern "a\\"'),
        (
            b"**a**b**c**d**e**f**g**h**i\n",
            '.dockerignore line 1: malformed pattern "**a**b**c**d**e**f**g**h**i"',
        ),
        (b"\xff\xfe\n", ".dockerignore is not UTF-8 text"),
        (b"x" * ((1 << 20) + 1), ".dockerignore is longer than 1 MiB"),
        (b"x\n" * 10_001, ".dockerignore has more than 10000 patterns"),
    ],
)
def test_malformed_files_say_where(data: bytes, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        ignore.parse(data)
    assert caught.value.what == what


def test_the_verdict_names_the_line() -> None:
    verdict = ignore.parse(b"# first\n\n*.csv\n!small.csv\n").verdict("big.csv")
    assert verdict is not None and (verdict.line, verdict.text) == (3, "*.csv")


def test_many_stars_cost_no_backtracking() -> None:
    started = time.monotonic()
    assert not ignore.parse(b"a*" * 200 + b"b").matches("a" * 4000)
    assert time.monotonic() - started < 2
