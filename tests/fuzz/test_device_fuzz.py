"""Hostile documents, names and flags at the device room's doors: a value or one of lading's errors, never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading.base.errors import LadingError
from lading.cli.flags import UsageError
from lading.cli.values_devices import request
from lading.device import catalog, document, edits, model

WORDS = st.sampled_from(
    "cdiVersion kind devices name containerEdits env deviceNodes path hostPath type major minor permissions fileMode uid "
    "gid mounts containerPath options hooks hookName args timeout intelRdt closID additionalGids netDevices annotations "
    "hostInterfaceName".split()
)
TEXT = st.sampled_from(
    ["1.1.0", "0.5.0", "a.com/b", "0", "/dev/null", "/", "..", "A=1", "c", "rw", "poststop", "", "\ud800"]
)
LEAF = TEXT | st.text(max_size=10) | st.integers(-2, 1 << 70) | st.booleans() | st.none() | st.floats()
TREE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)
ENTRY = st.fixed_dictionaries({"name": TEXT, "containerEdits": st.dictionaries(WORDS, TREE, max_size=4)})
DOCUMENT = TREE | st.fixed_dictionaries(
    {
        "cdiVersion": st.sampled_from(document.VERSIONS) | LEAF,
        "kind": st.just("a.com/b") | LEAF,
        "devices": st.lists(ENTRY, max_size=3),
    },
    optional={"containerEdits": st.dictionaries(WORDS, TREE, max_size=4), "annotations": TREE},
)


@settings(max_examples=300)
@given(DOCUMENT)
def test_documents(value: Any) -> None:
    try:
        spec = document.read(value)
    except LadingError:
        return
    for device in spec.devices.values():
        assert model.is_device_name(device.name)
        try:
            granted = edits.grant(edits.merge([(spec, device)]))
        except LadingError:
            continue
        assert all(node["path"].startswith("/") for node in granted.nodes)
        assert all(rule["allow"] and rule["type"] in "bc" and rule["major"] >= 0 for rule in granted.rules)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300) | DOCUMENT.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["json", "yaml"]),
)
def test_files(tmp_path: Path, data: bytes, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    known = catalog.Catalog([str(tmp_path)])
    assert known.names() or known.errors


@given(st.text(max_size=80))
def test_names(text: str) -> None:
    try:
        kind, device = model.split(text)
    except LadingError:
        return
    assert f"{kind}={device}" == text and text.isascii() and ".." not in device.split("/")


FIELDS = st.lists(
    st.sampled_from(["all", "2", "-1", "device=0", "device=", "count=1", '"', "capabilities=compute", "utility", "driver=x",
                     "options=a=b", "=", "", "GPU-1", "٣"]) | st.text(max_size=8),
    max_size=5,
).map(",".join)  # fmt: skip


@given(FIELDS)
def test_gpus(text: str) -> None:
    try:
        found = request(text)
    except UsageError:
        return
    assert ("Count" in found) != ("DeviceIDs" in found) and found["Capabilities"][0][-1] == "gpu"
