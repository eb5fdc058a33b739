"""Hostile text at the engine's doors: whatever is given, the answer is a value or one of lading's errors."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lading.base.errors import Denied, Internal, Invalid
from lading.engine import binds, caps, codec, devices, request, security, signals, top, trust_host, users
from lading.engine import filters as filtering
from lading.engine.model import PortBinding
from lading.engine.record import Record

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=60)
PASSWD = st.lists(
    st.lists(
        st.sampled_from(["root", "0", "x", "-1", "4294967295", "", "/root", "٣", "a\0b"]) | TEXT, max_size=8
    ).map(":".join),
    max_size=6,
).map("\n".join)
BINDISH = st.lists(
    st.sampled_from(["/a", "b", "ro", "rw", "", "/", "..", "/x/../..", "z", "nocopy", "\0"]), max_size=5
)


@given(PASSWD, PASSWD, st.sampled_from(["", "root", "0", "root:root", "1:2", ":", "x:"]) | TEXT)
def test_users(passwd: str, group: str, name: str) -> None:
    try:
        found = users.resolve(name, (), passwd, group)
    except Invalid:
        return
    assert 0 <= found.uid < 1 << 31 and all(0 <= gid < 1 << 31 for gid in (found.gid, *found.groups))
    assert found.home.startswith("/") and "\0" not in found.home


@given(BINDISH.map(":".join) | TEXT)
def test_binds(text: str) -> None:
    try:
        mount = binds.parse(text)
    except Invalid:
        return
    assert mount.target.startswith("/") and mount.target != "/" and ".." not in mount.target.split("/")
    assert mount.type == "volume" or mount.source.startswith("/")
    assert "\0" not in mount.target


@given(TEXT)
def test_texts_of_every_kind(text: str) -> None:
    for work in (
        lambda: binds.tmpfs("/t", text),
        lambda: binds.size(text),
        lambda: devices.parse_rule(text),
        lambda: signals.parse(text),
        lambda: filtering.moment(text),
        lambda: request.check_name(text),
        lambda: request.host_range(text),
        lambda: request.check_port(PortBinding(80, host_port=text)),
        lambda: top.columns(text),
        lambda: caps.resolve([text]),
        lambda: security.parse((text, f"seccomp={text}"), False),
    ):
        try:
            work()
        except (Invalid, Denied):
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["id", "name", "config", "host", "mounts", "networks", "created_ns"]), JSON
    )
)
def test_a_damaged_row_is_told_as_such(row: dict[str, Any]) -> None:
    try:
        codec.load(Record, json.dumps(row))
    except Internal:
        return


CONDITIONS = st.dictionaries(st.sampled_from(["caps", "arches", "minKernel"]), JSON) | JSON
RULE = st.dictionaries(st.sampled_from(["names", "name", "errnoRet", "args"]), JSON | st.lists(TEXT))


@given(RULE, CONDITIONS, CONDITIONS, JSON)
def test_profiles(rule: dict[str, Any], includes: Any, excludes: Any, whole: Any) -> None:
    rule = {"action": "SCMP_ACT_ALLOW", "includes": includes, "excludes": excludes, **rule}
    for profile in (
        whole,
        {"defaultAction": "x", "syscalls": whole},
        {"defaultAction": "x", "syscalls": [rule]},
    ):
        try:
            security.lower(json.dumps(profile), caps.DEFAULT)
        except Invalid:
            continue


@given(
    st.dictionaries(
        st.sampled_from(
            ["SSL_CERT_FILE", "https_proxy", "PIP_INDEX_URL", "PIP_NO_INDEX", "SSL_CERT_DIR", "HOME"]
        ),
        TEXT,
    )
)
def test_environments(environ: dict[str, str]) -> None:
    found = trust_host.find({**environ, "PIP_CONFIG_FILE": "/dev/null"})
    assert all(value for _, value in found.environment)
