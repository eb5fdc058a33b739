"""CDI documents: what is read from them, and what is refused, naming the field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lading.base.errors import Invalid
from lading.device import document, model
from lading.device.model import Hook, Mount, Node

WHOLE: dict[str, Any] = {
    "cdiVersion": "1.1.0",
    "kind": "acme.com/net.work",
    "annotations": {"a": "b"},
    "containerEdits": {"env": ["COMMON=yes"]},
    "devices": [
        {
            "name": "0",
            "annotations": {"where": "slot 1"},
            "containerEdits": {
                "env": ["A=1", "EMPTY="],
                "deviceNodes": [
                    {"path": "/dev/acme0"},
                    {
                        "path": "/dev/inside",
                        "hostPath": "/dev/outside",
                        "type": "c",
                        "major": 5,
                        "minor": 6,
                        "permissions": "r",
                        "fileMode": 384,
                        "uid": 7,
                        "gid": 8,
                    },
                ],
                "mounts": [
                    {"hostPath": "/a", "containerPath": "/b//c", "type": "bind", "options": ["ro", "bind"]}
                ],
                "hooks": [
                    {
                        "hookName": "createContainer",
                        "path": "/bin/tool",
                        "args": ["tool", "x"],
                        "env": ["E=1"],
                        "timeout": 3,
                    }
                ],
                "additionalGids": [0, 44],
            },
        },
        {"name": "whole:1", "containerEdits": {"intelRdt": {"closID": "x", "schemata": ["L3:0=f"]}}},
    ],
}


def test_everything_is_read() -> None:
    spec = document.read(WHOLE, "/etc/cdi/a.json")
    assert (spec.version, spec.kind, spec.origin) == ("1.1.0", "acme.com/net.work", "/etc/cdi/a.json")
    assert spec.annotations == {"a": "b"} and spec.edits.env == ("COMMON=yes",)
    device = spec.devices["0"]
    assert device.annotations == {"where": "slot 1"}
    assert device.edits.env == ("A=1", "EMPTY=")
    assert device.edits.nodes == (
        Node("/dev/acme0"),
        Node("/dev/inside", "/dev/outside", "c", 5, 6, "r", 0o600, 7, 8),
    )
    assert device.edits.mounts == (Mount("/a", "/b/c", "bind", ("ro", "bind")),)
    assert device.edits.hooks == (Hook("createContainer", "/bin/tool", ("tool", "x"), ("E=1",), 3),)
    assert device.edits.gids == (44,), "0 stands for none"
    assert spec.devices["whole:1"].edits.refused == ("intelRdt",)


def test_an_empty_edit_asks_for_nothing() -> None:
    edits = {"env": ["A=1"], "intelRdt": {}, "netDevices": [], "deviceNodes": None}
    made = {"cdiVersion": "0.3.0", "kind": "a.com/b", "devices": [{"name": "x", "containerEdits": edits}]}
    assert document.read(made).devices["x"].edits.refused == ()


def changed(*path: Any, to: Any) -> dict[str, Any]:
    made = copy.deepcopy(WHOLE)
    place: Any = made
    for key in path[:-1]:
        place = place[key]
    if to is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return made


EDITS = ("devices", 0, "containerEdits")
NODE, MOUNT, HOOK = (*EDITS, "deviceNodes", 0), (*EDITS, "mounts", 0), (*EDITS, "hooks", 0)

WRONG = [
    (("cdiVersion",), KeyError, "cdiVersion is missing"),
    (("cdiVersion",), "2.0.0", "not known"),
    (("cdiVersion",), 1, "cdiVersion must be a string"),
    (("kind",), "acme", "not VENDOR/CLASS"),
    (("kind",), "9acme.com/gpu", "not VENDOR/CLASS"),
    (("kind",), "acme.com/gpu/x", "not VENDOR/CLASS"),
    (("kind",), "a" * 300 + "/gpu", "not VENDOR/CLASS"),
    (("devices",), [], "no devices"),
    (("devices",), {}, "devices must be a list"),
    (("devices",), [1], "must be an object"),
    (("devices",), [{"name": "a", "containerEdits": {"env": ["A=1"]}}] * 2, "two devices named 'a'"),
    (("devices",), [{}] * 5000, "more than"),
    (("devices", 0, "name"), "-x", "not a device name"),
    (("devices", 0, "name"), "a b", "not a device name"),
    (("devices", 0, "name"), "a=b", "not a device name"),
    (("devices", 0, "name"), "x" * 254, "not a device name"),
    (("devices", 0, "name"), "é", "not a device name"),
    (("devices", 0, "name"), "a\n", "not a device name"),
    (("devices", 0, "containerEdits"), {}, "does nothing"),
    (("devices", 0, "containerEdits"), KeyError, "does nothing"),
    (("devices", 0, "extra"), 1, "'extra'"),
    (("annotations",), {"a": 1}, "annotations"),
    (("surprise",), True, "'surprise'"),
    ((*EDITS, "env"), ["=x"], "NAME=VALUE"),
    ((*EDITS, "env"), ["NAME"], "NAME=VALUE"),
    ((*EDITS, "env"), "A=1", "env must be a list"),
    ((*EDITS, "env"), ["A=\0"], "NUL"),
    ((*EDITS, "env"), ["A=" + "x" * 5000], "too long"),
    ((*EDITS, "env"), ["A=\ud800"], "not text"),
    ((*EDITS, "env"), ["A=1"] * 5000, "more than"),
    ((*EDITS, "additionalGids"), [-1], "group id"),
    ((*EDITS, "additionalGids"), [True], "group id"),
    ((*EDITS, "additionalGids"), [0xFFFFFFFF], "group id"),
    ((*EDITS, "intelRdt"), {"what": 1}, "'what'"),
    ((*EDITS, "netDevices"), [{"name": "eth0"}], "hostInterfaceName is missing"),
    ((*NODE, "path"), "dev/x", "plain absolute path"),
    ((*NODE, "path"), "/dev/../etc/x", "plain absolute path"),
    ((*NODE, "path"), "/proc/kcore", "would cover /proc/kcore"),
    ((*NODE, "path"), "/dev", "would cover /dev"),
    ((*NODE, "path"), KeyError, "path is missing"),
    ((*NODE, "hostPath"), "../x", "plain absolute path"),
    ((*NODE, "type"), "x", "b, c, u or p"),
    ((*NODE, "permissions"), "rwx", "letters of rwm"),
    ((*NODE, "major"), -1, "out of range"),
    ((*NODE, "major"), 1 << 40, "out of range"),
    ((*NODE, "major"), "5", "whole number"),
    ((*NODE, "minor"), True, "whole number"),
    ((*NODE, "uid"), 0xFFFFFFFF, "out of range"),
    ((*NODE, "mode"), 1, "'mode'"),
    ((*MOUNT, "hostPath"), "a", "plain absolute path"),
    ((*MOUNT, "containerPath"), "/", "would cover /"),
    ((*MOUNT, "containerPath"), "/proc//sys", "would cover /proc/sys"),
    ((*MOUNT, "type"), "overlay", "bind or tmpfs"),
    ((*MOUNT, "options"), ["ro,lowerdir=/"], "no mount option"),
    ((*HOOK, "hookName"), "now", "unknown"),
    ((*HOOK, "path"), "tool", "plain absolute path"),
    ((*HOOK, "timeout"), -1, "out of range"),
    ((*HOOK, "env"), ["LD_PRELOAD"], "NAME=VALUE"),
]


@pytest.mark.parametrize(
    ("path", "value", "said"), WRONG, ids=[f"{w[0][-1]}-{i}" for i, w in enumerate(WRONG)]
)
def test_the_wrong_field_is_named(path: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said.replace("(", r"\(")):
        document.read(changed(*path, to=value))


@pytest.mark.parametrize("value", [None, [], "text", 1, {1: 2}])
def test_a_document_is_an_object(value: Any) -> None:
    with pytest.raises(Invalid, match="must be an object"):
        document.read(value)


@pytest.mark.parametrize(
    ("edits", "name", "needed"),
    [
        ({"env": ["A=1"]}, "a", "0.1.0"),
        ({"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "bind"}]}, "a", "0.4.0"),
        ({"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]}, "a", "0.5.0"),
        ({"env": ["A=1"]}, "0", "0.5.0"),
        ({"additionalGids": [1]}, "a", "0.7.0"),
        ({"intelRdt": {"closID": "x"}}, "a", "0.7.0"),
        ({"intelRdt": {"enableMonitoring": True}}, "a", "1.1.0"),
        ({"netDevices": [{"name": "e", "hostInterfaceName": "e"}]}, "a", "1.1.0"),
    ],
)
def test_a_version_must_have_what_is_used(edits: dict[str, Any], name: str, needed: str) -> None:
    made = {"cdiVersion": needed, "kind": "a.com/b", "devices": [{"name": name, "containerEdits": edits}]}
    document.read(made)
    before = document.VERSIONS.index(needed) - 1
    if before >= 0:
        made["cdiVersion"] = document.VERSIONS[before]
        with pytest.raises(Invalid, match=f"came with {needed}"):
            document.read(made)


def test_names_are_split_by_the_grammar() -> None:
    assert model.split("nvidia.com/gpu=GPU-0a:1_x.y") == ("nvidia.com/gpu", "GPU-0a:1_x.y")
    for bad in (
        "",
        "gpu=0",
        "a.com/gpu",
        "a.com/gpu=",
        "/gpu=0",
        "a.com/=0",
        "a.com/gpu=0=1",
        "a com/gpu=0",
        "a/b=../x",
    ):
        with pytest.raises(Invalid, match="not the name of a CDI device"):
            model.split(bad)
