"""argv of run and create to the body of the request: what parity with docker's client (compat) does not already hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lading.cli.context import Context
from lading.cli.createbody import create_body
from lading.cli.flags import UsageError, split
from lading.cli.runflags import RUN
from lading.cli.values import fields, publish


def body(line: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    flags = split("run", RUN, line.split(), interspersed=False)
    return create_body(Context(environ or {}), flags, flags.on("detach"))


def test_only_what_was_asked_for_is_sent() -> None:
    assert body("img") == {
        "Image": "img",
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {},
    }


def test_a_detached_container_is_attached_to_nothing() -> None:
    made = body("-dit img sh")
    assert (made["AttachStdin"], made["AttachStdout"], made["AttachStderr"]) == (False, False, False)
    assert made["OpenStdin"] and made["Tty"] and "StdinOnce" not in made and made["Cmd"] == ["sh"]


def test_the_environment_fills_bare_names() -> None:
    made = body("-e A -e B -e C=3 img", {"A": "1"})
    assert made["Env"] == ["A=1", "B", "C=3"]


def test_env_files_come_first(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfX=1\n#no\nFROM_HERE\nABSENT\n")
    made = body(f"-e A=1 --env-file {file} img", {"FROM_HERE": "yes"})
    assert made["Env"] == ["X=1", "FROM_HERE=yes", "A=1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"A B=1\n", "poorly formatted"), (b"=1\n", "poorly formatted"), (b"\xff\xfe=1", "not UTF-8")],
)
def test_bad_env_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        body(f"--env-file {file} img")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80", [("80/tcp", {"HostIp": "", "HostPort": ""})]),
        ("8080:80/udp", [("80/udp", {"HostIp": "", "HostPort": "8080"})]),
        ("127.0.0.1::80", [("80/tcp", {"HostIp": "127.0.0.1", "HostPort": ""})]),
        ("[::1]:8080:80", [("80/tcp", {"HostIp": "::1", "HostPort": "8080"})]),
        ("1-2:3-4", [("3/tcp", {"HostIp": "", "HostPort": "1"}), ("4/tcp", {"HostIp": "", "HostPort": "2"})]),
        ("8000-8010:80", [("80/tcp", {"HostIp": "", "HostPort": "8000-8010"})]),
    ],
)
def test_ports(text: str, wanted: object) -> None:
    assert publish(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "80/xyz",
        "0x50",
        "70000",
        "-1",
        "5-3",
        "1-2:3-5",
        "1.2.3:4:5",
        "300.1.1.1:1:1",
        "[::1]80:80",
        "1:2:3:4",
        "80/",
        "²",
    ],
)
def test_wrong_ports(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        publish(text)
    assert f'invalid argument "{text}"' in str(caught.value)


def test_fields_honour_quotes() -> None:
    assert fields('a=1,"b=2,3",c="x"') == ["a=1", "b=2,3", 'c="x"']
    assert fields('"say ""hi""",z') == ['say "hi"', "z"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--gpus many img", "value must be either"),
        ("--link a img", "--link is not supported"),
        ("-v rel img", "mount path must be absolute"),
        ("-v a:rel img", "mount path must be absolute"),
        ("-v :/x img", "empty section"),
        ("--tmpfs rel img", "mount path must be absolute"),
        ("--mount type=bind,target=/x img", "a bind mount needs source=PATH"),
        ("--mount source=v img", "target is required"),
        ("--mount type=nfs,target=/x img", "unknown type 'nfs'"),
        ("--mount tpye=bind,target=/x img", "did you mean 'type'"),
        ("--mount type=volume,target=/x,tmpfs-size=1m img", "cannot mix 'tmpfs' options"),
        ("--mount type=tmpfs,target=/x,tmpfs-mode=999 img", "invalid value for tmpfs-mode"),
        ("--restart somtimes img", "invalid restart policy"),
        ("--restart always:3 img", "only on-failure takes a retry count"),
        ("--restart alway img", "did you mean 'always'"),
        ("--log-opt novalue img", "it is KEY=VALUE"),
        ("--device /a:/b:c:d img", "invalid device specification"),
        ("--device /a:/b:xyz img", "invalid device specification"),
        ("--ulimit nofile=5:1 img", "soft limit must be less"),
        ("--network name=a --network name=a img", "specified multiple times"),
        ("--network alias=a img", "it needs name=NETWORK"),
        ("--device-read-bps sda:1 img", "bad format"),
        ("--rm --restart on-failure img", "conflicting options"),
        ("--health-interval -5s img", "cannot be negative"),
        ("--add-host onlyname img", "bad format for add-host"),
        ("--label =x img", "it is KEY=VALUE"),
        ("-e =x img", "invalid environment variable"),
    ],
)
def test_refusals_name_the_flag_and_the_reason(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        body(line)
    assert caught.value.code == 125


def test_host_trust_and_entrypoint() -> None:
    assert body("--host-trust img")["HostConfig"]["HostTrust"] is True
    assert body("--host-trust=false img")["HostConfig"]["HostTrust"] is False
    assert body("--entrypoint= img")["Entrypoint"] == [""]


def test_relative_sources_are_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = body("-v ./a:/a -v name:/b --mount type=bind,src=c,dst=/c img")["HostConfig"]
    assert made["Binds"] == [f"{tmp_path}/a:/a", "name:/b"]
    assert made["Mounts"] == [{"Type": "bind", "Source": f"{tmp_path}/c", "Target": "/c"}]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("100mbit", {"Egress": 100_000_000, "Ingress": 100_000_000}),
        ("egress=1.5gbit", {"Egress": 1_500_000_000}),
        ("egress=64kbit,ingress=8000", {"Egress": 64_000, "Ingress": 8_000}),
        ("10M", {"Egress": 10_000_000, "Ingress": 10_000_000}),
    ],
)
def test_net_rates(text: str, wanted: dict[str, int]) -> None:
    assert body(f"--net-rate {text} img")["HostConfig"] == {"NetRate": wanted}


@pytest.mark.parametrize(
    "text", ["", "fast", "mbit", "1kmbit", "-1mbit", "up=1mbit", "egress=1mbit,egress=2mbit", "1..2"]
)
def test_bad_net_rates(text: str) -> None:
    with pytest.raises(UsageError, match="net-rate"):
        body(f"--net-rate={text} img")
