"""The grammar of image references and digests, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.base import errors
from lading.image import digest, reference

HEX = "0123456789abcdef" * 4
SHA = f"sha256:{HEX}"

GOOD = [
    # text, canonical, familiar
    ("python", "docker.io/library/python", "python"),
    ("python:3.11-slim", "docker.io/library/python:3.11-slim", "python:3.11-slim"),
    ("library/python", "docker.io/library/python", "python"),
    ("docker.io/python", "docker.io/library/python", "python"),
    ("docker.io/library/python:1", "docker.io/library/python:1", "python:1"),
    ("index.docker.io/library/python", "docker.io/library/python", "python"),
    ("index.docker.io/python", "docker.io/library/python", "python"),
    ("user/app", "docker.io/user/app", "user/app"),
    ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
    ("a/b/c", "docker.io/a/b/c", "a/b/c"),
    ("localhost/x", "localhost/x", "localhost/x"),
    ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
    ("localhost:5000/x:tag", "localhost:5000/x:tag", "localhost:5000/x:tag"),
    ("example.com/x", "example.com/x", "example.com/x"),
    ("example.com:443/a/b:t", "example.com:443/a/b:t", "example.com:443/a/b:t"),
    ("Example/x", "Example/x", "Example/x"),  # upper case can only be a registry
    ("127.0.0.1:80/x", "127.0.0.1:80/x", "127.0.0.1:80/x"),
    ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
    ("x:5000", "docker.io/library/x:5000", "x:5000"),  # without a slash the colon starts a tag
    ("a-b", "docker.io/library/a-b", "a-b"),
    ("a--b__c.d", "docker.io/library/a--b__c.d", "a--b__c.d"),
    ("meu-modelo-ml:v1.0", "docker.io/library/meu-modelo-ml:v1.0", "meu-modelo-ml:v1.0"),
    (f"python@{SHA}", f"docker.io/library/python@{SHA}", f"python@{SHA}"),
    (f"python:3@{SHA}", f"docker.io/library/python:3@{SHA}", f"python:3@{SHA}"),
    (f"localhost:5000/x@{SHA}", f"localhost:5000/x@{SHA}", f"localhost:5000/x@{SHA}"),
    ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    (HEX[:63], f"docker.io/library/{HEX[:63]}", HEX[:63]),
    ("docker.io/library/localhost/x", "docker.io/library/localhost/x", "library/localhost/x"),
    ("docker.io/localhost/x", "docker.io/localhost/x", "docker.io/localhost/x"),
    ("docker.io/foo.bar/x", "docker.io/foo.bar/x", "docker.io/foo.bar/x"),
]

BAD = [
    "",
    ":",
    ":tag",
    "@",
    "x:",
    "x@",
    "x@sha256:abc",
    f"x@md5:{HEX[:32]}",
    f"x@sha256:{HEX.upper()}",
    "Python",
    "user/App",
    "x/Y:t",
    "a//b",
    "/a",
    "a/",
    "a/:t",
    "-a",
    "a-",
    "a___b",
    "a..b",
    "a._b",
    "_a",
    "x:.t",
    "x:-t",
    "x:" + "t" * 129,
    "x:ta g",
    "x y",
    "x\n",
    "x:t\n",
    "é",
    "x:é",
    HEX,
    f"library/{'a' * 255}",
    "example.com:port/x",
    "exam_ple.com/x",
    "-example.com/x",
    "../x",
    "a/../b",
    "a/./b",
    "http://example.com/x",
]


@pytest.mark.parametrize(("text", "canonical", "familiar"), GOOD)
def test_good_references(text: str, canonical: str, familiar: str) -> None:
    ref = reference.parse(text)
    assert str(ref) == canonical
    assert ref.familiar == familiar


@pytest.mark.parametrize(("text", "canonical", "familiar"), GOOD)
def test_both_forms_parse_back_to_the_same(text: str, canonical: str, familiar: str) -> None:
    assert reference.parse(canonical) == reference.parse(familiar) == reference.parse(text)


@pytest.mark.parametrize("text", BAD)
def test_bad_references(text: str) -> None:
    with pytest.raises(errors.Invalid, match="invalid reference format"):
        reference.parse(text)


def test_an_upper_case_name_is_answered_with_the_lower_case_one() -> None:
    with pytest.raises(errors.Invalid, match=r"must be lowercase.*'python:3'"):
        reference.parse("Python:3")


def test_parts() -> None:
    ref = reference.parse(f"localhost:5000/team/app:v2@{SHA}")
    assert (ref.domain, ref.path, ref.tag, ref.digest) == ("localhost:5000", "team/app", "v2", SHA)
    assert ref.name == "localhost:5000/team/app"


def test_the_default_tag_is_only_for_bare_names() -> None:
    assert str(reference.parse("a").with_default_tag()) == "docker.io/library/a:latest"
    assert reference.parse("a:b").with_default_tag().tag == "b"
    assert reference.parse(f"a@{SHA}").with_default_tag().tag == ""


@given(st.text(max_size=300))
def test_any_text_gives_a_reference_that_round_trips_or_invalid(text: str) -> None:
    try:
        ref = reference.parse(text)
    except errors.Invalid:
        return
    assert reference.parse(str(ref)) == ref
    assert reference.parse(ref.familiar) == ref


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", True), (SHA, True), ("sha256:ab", True), ("xyz", False), ("", False), (HEX + "0", False)],
)
def test_what_can_be_an_id(text: str, expected: bool) -> None:
    assert reference.is_id(text) is expected


def test_digest_of_a_known_text() -> None:
    assert digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.of(bytes(1024)) == digest.EMPTY_TAR


@pytest.mark.parametrize("text", [SHA, f"sha512:{HEX}{HEX}"])
def test_good_digests(text: str) -> None:
    assert digest.parse(text) == text
    assert digest.encoded(text) in text
    assert digest.hasher(text).name == digest.algorithm(text)


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        [],
        "",
        "sha256:",
        "sha256",
        HEX,
        f"sha256:{HEX}0",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[:-1]}/",
        f"sha256:../{HEX[3:]}",
        f"SHA256:{HEX}",
        f"sha256:{HEX}\n",
        f"blake3:{HEX}",
        "sha256:" + "a" * 10_000,
    ],
)
def test_bad_digests(value: object) -> None:
    with pytest.raises((errors.Invalid, errors.Unsupported)):
        digest.parse(value)
