"""What the client reads from the host and from headers: challenges, URLs, settings, credential files and helpers."""

from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.base import errors
from lading.registry.client import authfiles, challenge, documents, origin, settings
from lading.registry.client.credentials import HUB_KEY, Keyring
from lading.registry.client.ports import NOBODY, Credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"})],
        ),
        ('Negotiate, Basic realm="a, \\"b\\""', [("negotiate", {}), ("basic", {"realm": 'a, "b"'})]),
        ("Bearer realm=bare , service = s", [("bearer", {"realm": "bare", "service": "s"})]),
        ("", []),
        ('="', []),
    ],
)
def test_challenges(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, one.parameters) for one in challenge.parse([text])] == expected


@given(st.lists(st.text(max_size=80), max_size=3))
def test_any_header_gives_challenges_or_none(values: list[str]) -> None:
    for one in challenge.parse(values):
        assert one.scheme == one.scheme.lower()


@given(st.text(max_size=120))
def test_any_location_is_a_url_or_refused(text: str) -> None:
    here = origin.parse("https://registry.example/v2/")
    try:
        there = origin.follow(here, text)
    except errors.LadingError:
        return
    assert there.origin.secure and str(there).isascii() and "\n" not in str(there)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_document_is_a_manifest_or_refused(data: bytes) -> None:
    with pytest.raises(errors.LadingError):
        documents.checked(data)


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("/v2/x", True),
        ("https://blobs.example/x?sig=a", True),
        ("http://registry.example/x", False),
        ("https://127.0.0.1/x", False),
        ("https://localhost/x", False),
        ("https://169.254.169.254/latest", False),
        ("https://[::1]/x", False),
        ("https://10.0.0.1/x", True),
    ],
)
def test_where_a_registry_may_send_us(location: str, allowed: bool) -> None:
    here = origin.parse("https://registry.example/v2/")
    if allowed:
        origin.follow(here, location)
    else:
        with pytest.raises(errors.Denied):
            origin.follow(here, location)


@pytest.mark.parametrize(
    ("one", "other", "related"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("quay.io", "quay.io", True),
        ("registry.example.co.uk", "evil.co.uk", False),
        ("registry.example", "registry.example.evil.test", False),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_which_hosts_belong_together(one: str, other: str, related: bool) -> None:
    assert origin.related(one, other) is related


# --- settings ---


def load(tmp_path: Path, text: str = "", **environ: str) -> settings.Settings:
    (tmp_path / "lading").mkdir(exist_ok=True)
    (tmp_path / "lading/registries.toml").write_text(text)
    return settings.load({"XDG_CONFIG_HOME": str(tmp_path), **environ}, 1000)


def test_settings_of_the_user(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        'insecure = ["reg.lan:5000", "10.1.0.0/16"]\n[mirrors]\n"docker.io" = ["https://m.lan"]\n'
        '[realms]\n"reg.lan" = ["login.lan"]\n',
    )
    assert [
        found.is_insecure(name) for name in ("reg.lan:5000", "10.1.2.3:80", "localhost:5000", "127.0.0.9")
    ] == [True] * 4
    assert [found.is_insecure(name) for name in ("reg.lan", "10.2.0.1", "docker.io")] == [False] * 3
    assert found.mirrors == {"docker.io": ("https://m.lan",)}
    assert found.realms == {"reg.lan": ("login.lan",)}


@pytest.mark.parametrize(
    "text", ["insecure = 3", "mirrors = []", '[mirrors]\n"a" = "b"', "insecure = [", "[realms]\nx = [1]"]
)
def test_wrong_settings_name_their_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.Invalid, match=r"registries\.toml"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://registry.example", "http://proxy:3128"),
        ("http://registry.example", ""),
        ("https://a.inside.example", ""),
        ("https://inside.example", ""),
        ("https://notinside.example", "http://proxy:3128"),
        ("https://10.1.2.3", ""),
        ("https://port.example:5000", ""),
        ("https://port.example", "http://proxy:3128"),
        ("https://localhost:5000", ""),
    ],
)
def test_proxies(tmp_path: Path, url: str, expected: str) -> None:
    found = load(
        tmp_path, HTTPS_PROXY="http://proxy:3128", NO_PROXY="inside.example, 10.1.0.0/16,port.example:5000"
    )
    assert found.proxy(origin.parse(url).origin) == expected


def test_certificates_of_a_registry(tmp_path: Path) -> None:
    directory = tmp_path / "lading/certs.d/reg.lan:5000"
    directory.mkdir(parents=True)
    found = load(tmp_path)
    assert found.certificates("reg.lan:5000") == [str(directory)] and found.certificates("reg.lan") == []
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", directory / "client.key",
         "-out", directory / "client.cert", "-days", "1", "-subj", "/CN=reg.lan"],
        capture_output=True,
    )  # fmt: skip
    if made.returncode == 0:
        (directory / "ca.crt").write_bytes((directory / "client.cert").read_bytes())
        before = len(settings.context(found, "other").get_ca_certs())
        after = settings.context(found, "reg.lan:5000")
        assert len(after.get_ca_certs()) == before + 1 and after.verify_mode == ssl.CERT_REQUIRED
        (directory / "client.key").unlink()
        with pytest.raises(errors.Invalid, match="has no key"):
            settings.context(found, "reg.lan:5000")
    (directory / "ca.crt").write_text("nonsense")
    with pytest.raises(errors.Invalid, match=r"certs\.d"):
        settings.context(found, "reg.lan:5000")


# --- credentials ---


def keyring(home: Path, said: object = None, **environ: str) -> Keyring:
    if said is not None:
        (home / ".docker").mkdir(exist_ok=True)
        (home / ".docker/config.json").write_text(said if isinstance(said, str) else json.dumps(said))
    return Keyring({"HOME": str(home), "PATH": f"{home}:/usr/bin:/bin", **environ})


def test_credentials_of_docker_s_file(tmp_path: Path) -> None:
    ring = keyring(
        tmp_path,
        {
            "auths": {HUB_KEY: {"auth": "YWRhOnM6Mw=="}, "https://r.lan/v2/": {"identitytoken": "t"}},
            "psFormat": "x",
        },
    )
    assert ring.find("docker.io") == Credentials("ada", "s:3")
    assert ring.find("r.lan") == Credentials(identity_token="t")
    assert ring.find("other.lan") == NOBODY
    assert set(ring.every()) == {"docker.io", "r.lan"}
    assert "s:3" not in repr(ring.find("docker.io"))


def test_saving_and_forgetting_keep_what_is_not_ours(tmp_path: Path) -> None:
    ring = keyring(tmp_path, {"psFormat": "x", "auths": None})
    where = ring.save("r.lan:5000", Credentials("ada", "pass:word"))
    path = tmp_path / ".docker/config.json"
    assert where == str(path) and path.stat().st_mode & 0o777 == 0o600
    assert ring.find("r.lan:5000") == Credentials("ada", "pass:word")
    assert json.loads(path.read_text())["psFormat"] == "x"
    assert ring.forget("r.lan:5000") and not ring.forget("r.lan:5000")
    assert ring.find("r.lan:5000") == NOBODY


def test_podman_s_file_knows_repositories(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text(
        json.dumps({"auths": {"r.lan/team": {"auth": "dGVhbTp4"}, "r.lan": {"auth": "YWxsOng="}}})
    )
    ring = keyring(tmp_path, REGISTRY_AUTH_FILE=str(path))
    assert ring.find("r.lan", "team/app").username == "team"
    assert ring.find("r.lan", "other/app").username == "all"
    assert authfiles.present({"REGISTRY_AUTH_FILE": str(path)}) and not authfiles.present({"HOME": "/nosuch"})


HELPER = """#!/bin/sh
read -r line
case "$1" in
get) [ -e "$HOME/kept" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$HOME/kept" ;;
store) echo "$line" > "$HOME/kept" ;;
erase) rm "$HOME/kept" ;;
esac
"""


def test_a_credential_helper(tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    ring = keyring(tmp_path, {"credsStore": "test"})
    assert ring.find("r.lan") == NOBODY
    assert ring.save("r.lan", Credentials("ada", "x")) == "helper docker-credential-test"
    assert ring.find("r.lan") == Credentials("ada", "x")
    assert "x" not in json.loads((tmp_path / ".docker/config.json").read_text())["auths"]["r.lan"]
    assert ring.forget("r.lan") and ring.find("r.lan") == NOBODY
    ring.save("r.lan", Credentials(identity_token="t"))
    assert ring.find("r.lan") == Credentials(identity_token="t")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ({"auths": []}, "auths"),
        ({"auths": {"r.lan": {"auth": "%%%"}}}, "base64"),
        ({"credsStore": "../../bin/sh"}, "no name"),
        ({"credHelpers": {"r.lan": 5}}, "string"),
        ({"credsStore": "not-installed-here"}, "not installed"),
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, said: object, words: str) -> None:
    with pytest.raises(errors.LadingError, match=words):
        keyring(tmp_path, said).find("r.lan")
