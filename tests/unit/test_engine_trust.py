"""Host trust: what is found of a host's certificates, proxies and indexes, and what never passes."""

from __future__ import annotations

from pathlib import Path

from lading.engine import spec, trust_host
from lading.engine.users import User


def bundle(tmp_path: Path) -> str:
    path = tmp_path / "corp.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return str(path)


def test_a_named_bundle_is_unusual_and_shown_under_every_name(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    found = trust_host.find({"REQUESTS_CA_BUNDLE": path, "SSL_CERT_FILE": "/no/such/file"})
    assert found.unusual and found.bundle == path
    assert found.files == ((path, trust_host.GUEST_BUNDLE),)
    variables = dict(found.environment)
    for name in ("SSL_CERT_FILE", "PIP_CERT", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"):
        assert variables[name] == trust_host.GUEST_BUNDLE
    assert path in found.describe() and path in found.summary()


def test_a_host_without_anything_of_its_own_is_not_unusual() -> None:
    assert not trust_host.find({}).unusual
    assert not trust_host.find({"NO_PROXY": "localhost"}).unusual


def test_proxies_pass_in_both_cases() -> None:
    found = trust_host.find({"https_proxy": "http://proxy:3128", "NO_PROXY": "a,b"})
    variables = dict(found.environment)
    assert variables["HTTPS_PROXY"] == variables["https_proxy"] == "http://proxy:3128"
    assert variables["no_proxy"] == "a,b"
    assert found.unusual and found.proxies == ("HTTPS_PROXY", "NO_PROXY")


def test_pips_settings_pass_without_the_hosts_paths(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://index.example/simple\nextra-index-url = file:///srv/simple https://b.example\n"
        "cert = /host/cert.pem\nfind-links = /srv/wheels\ntimeout = 9\ntarget = /evil\n"
    )
    found = trust_host.find(
        {"PIP_CONFIG_FILE": str(config), "PIP_TRUSTED_HOST": "b.example", "PIP_TARGET": "/evil"}
    )
    variables = {name: value for name, value in found.environment if value != trust_host.GUEST_BUNDLE}
    assert variables == {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://b.example",
        "PIP_TRUSTED_HOST": "b.example",
        "PIP_TIMEOUT": "9",
    }
    assert found.index


def test_no_index_passes_only_with_an_index_to_use() -> None:
    alone = trust_host.find(
        {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels", "PIP_CONFIG_FILE": "/dev/null"}
    )
    assert "PIP_NO_INDEX" not in dict(alone.environment)
    linked = trust_host.find(
        {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "https://x.example/w", "PIP_CONFIG_FILE": "/dev/null"}
    )
    assert dict(linked.environment)["PIP_NO_INDEX"] == "1"


def test_a_damaged_pip_configuration_is_passed_over(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_bytes(b"no section\xff\xfe")
    assert not trust_host.find({"PIP_CONFIG_FILE": str(config)}).index


def test_the_images_own_settings_win(tmp_path: Path) -> None:
    found = trust_host.find({"SSL_CERT_FILE": bundle(tmp_path)})
    plan = spec.Plan(
        id="x", args=("x",), env=("SSL_CERT_FILE=/image.pem",), user=User(0, 0, (0,), "/root"),
        trust_env=found.environment,
    )  # fmt: skip
    environment = spec.environment(plan)
    assert "SSL_CERT_FILE=/image.pem" in environment
    assert f"PIP_CERT={trust_host.GUEST_BUNDLE}" in environment
