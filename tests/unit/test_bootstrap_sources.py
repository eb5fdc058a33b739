"""Reading the host's apt configuration: both formats, only Debian's own entries, no secret in an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.build.bootstrap import sources
from lading.build.bootstrap.sources import Source

KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEB822 = f"""\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEY}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: {KEY}

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
"""


def test_deb822() -> None:
    found = list(sources.parse_deb822(DEB822))
    assert [(s.uri, s.suite, s.components) for s in found] == [
        ("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        ("http://mirror.example/debian", "bookworm-updates", ("main", "contrib")),
        ("http://mirror.example/debian-security", "bookworm-security", ("main",)),
    ]
    assert {s.signed_by for s in found} == {KEY}


def test_one_line() -> None:
    text = (
        "# deb http://no.example/debian bookworm main\n"
        "deb-src http://src.example/debian bookworm main\n"
        "deb http://a.example/debian bookworm main contrib # why not\n"
        f"  deb [arch=amd64 signed-by={KEY}] https://b.example/debian bookworm-updates main\n"
        "deb\nnonsense\n"
    )
    assert list(sources.parse_one_line(text)) == [
        Source("http://a.example/debian", "bookworm", ("main", "contrib")),
        Source("https://b.example/debian", "bookworm-updates", ("main",), KEY),
    ]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "Types", "Types: deb", ":::\n :", " folded first", "\0\0", "Types: deb\nURIs: x"]
)
def test_nonsense_gives_no_source(text: str) -> None:
    assert list(sources.parse_deb822(text)) == []
    assert list(sources.parse_one_line(text)) == []


def test_an_embedded_key_is_not_taken_for_a_file() -> None:
    text = "Types: deb\nURIs: http://x/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -B\n .\n"
    (source,) = sources.parse_deb822(text)
    assert "\n" in source.signed_by
    assert sources.for_suite([source], "bookworm", "bookworm") == ()


def test_configured_reads_lists_in_apts_order(tmp_path: Path) -> None:
    apt = tmp_path / "etc/apt/sources.list.d"
    apt.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (apt / "b.sources").write_text(DEB822)
    (apt / "a.list").write_text("deb http://two.example/debian bookworm main\n")
    (apt / "ignored.list.save").write_text("deb http://three.example/debian bookworm main\n")
    assert [s.uri for s in sources.configured(str(tmp_path))][:3] == [
        "http://one.example/debian",
        "http://two.example/debian",
        "http://mirror.example/debian",
    ]
    assert sources.configured(str(tmp_path / "nothing")) == ()


def test_only_debians_own_sources_are_used() -> None:
    found = [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib"), KEY),
        Source("http://mirror.example/debian", "bookworm-backports", ("main",), KEY),
        Source("https://packages.example/debian", "bookworm", ("main",), "/etc/apt/keyrings/third.gpg"),
        Source("https://packages.example/linux", "bookworm", ("main",)),
        Source("https://packages.example/debian", "bookworm", ("stable",)),
    ]
    assert sources.for_suite(found, "bookworm", "bookworm") == (
        Source("http://mirror.example/debian", "bookworm", ("main",), KEY),
    )


def test_another_release_comes_from_the_same_mirror(tmp_path: Path) -> None:
    found = list(sources.parse_deb822(DEB822))
    turned = sources.for_suite(found, "trixie", "bookworm", str(tmp_path))
    assert [(s.uri, s.suite) for s in turned] == [
        ("http://mirror.example/debian", "trixie"),
        ("http://mirror.example/debian", "trixie-updates"),
        ("http://mirror.example/debian-security", "trixie-security"),
    ]
    assert sources.for_suite(found, "trixie", "", str(tmp_path)) == ()


def test_a_host_without_debian_sources_has_none() -> None:
    assert sources.for_suite([Source("http://mirror.example/ubuntu", "noble")], "bookworm", "") == ()


def test_the_image_gets_no_credentials_and_no_local_list() -> None:
    private = Source("https://user:secret@mirror.example:8443/debian", "bookworm", ("main",), KEY)
    assert "secret" in sources.render([private])
    shown = sources.render([private], public=True)
    assert "secret" not in shown and "https://mirror.example:8443/debian" in shown
    listed = Source("mirror+file:///etc/apt/mirrors/debian.list", "bookworm-security", ("main",), KEY)
    assert "/etc/apt/mirrors" not in sources.render([listed], public=True)
    assert sources.default_mirror("debian-security") in sources.render([listed], public=True)


def test_debians_own_address_is_the_tools(tmp_path: Path) -> None:
    tool = tmp_path / "mmdebstrap"
    tool.touch(mode=0o755)
    tool.write_text("my $mirror = 'http://mirror.example/debian';\n")
    assert sources.default_mirror("debian-security", [str(tool)]) == "http://mirror.example/debian-security"
    assert sources.default_mirror("debian", [str(tmp_path / "none")]).startswith("file:")


def test_render_reads_back() -> None:
    found = tuple(sources.parse_deb822(DEB822))
    assert tuple(sources.parse_deb822(sources.render(found))) == found


def test_mirror_options_pass_the_proxy_and_nothing_else() -> None:
    dump = (
        "Acquire::http::Proxy\thttp://proxy.example:3128/\n"
        "Acquire::https::CaInfo\t/etc/ssl/corporate.pem\n"
        "Acquire::Check-Valid-Until\tfalse\n"
        "Acquire::http::Timeout\t\n"
        "Acquire::AllowInsecureRepositories\t1\n"
        "APT::Get::AllowUnauthenticated\t1\n"
        "DPkg::Pre-Invoke::\trm -rf /\n"
        'Acquire::http::Bad\tquo"te\n'
    )
    assert sources.parse_options(dump) == (
        'Acquire::http::Proxy "http://proxy.example:3128/";',
        'Acquire::https::CaInfo "/etc/ssl/corporate.pem";',
        'Acquire::Check-Valid-Until "false";',
    )


def test_host_suite(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    release = tmp_path / "etc/os-release"
    assert sources.host_suite(str(tmp_path)) == ""
    release.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    assert sources.host_suite(str(tmp_path)) == "bookworm"
    release.write_text("ID=ubuntu\nVERSION_CODENAME=noble\n")
    assert sources.host_suite(str(tmp_path)) == ""
