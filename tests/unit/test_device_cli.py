"""`lading cdi`: what it prints and writes, on scratch directories."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lading.cli import entry
from lading.cli.context import Context
from lading.device import catalog


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SYSTEM_DIRECTORIES", ())


def lading(tmp_path: Path, *words: str) -> tuple[int, str, str]:
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as o, err.open("wb") as e:
        context = Context(
            {"LADING_ROOT": f"{tmp_path}/root", "LADING_RUN": f"{tmp_path}/run"},
            stdout=o.fileno(),
            stderr=e.fileno(),
        )
        code = entry.run(words, context)
    return code, out.read_text(), err.read_text()


def test_from_a_node_to_a_listed_device(tmp_path: Path) -> None:
    target = f"{tmp_path}/run/cdi/acme.json"
    code, out, err = lading(
        tmp_path,
        "cdi",
        "generate",
        "-o",
        target,
        "--vendor",
        "acme.com",
        "--class",
        "acc",
        "generic",
        "/dev/zero",
    )
    assert (code, out) == (0, "") and "acme.com/acc=0, acme.com/acc=zero, acme.com/acc=all" in err
    assert os.stat(target).st_mode & 0o777 == 0o644
    code, out, err = lading(tmp_path, "cdi", "list")
    assert code == 0 and not err
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "SPEC"], *([f"acme.com/acc={name}", target] for name in ("0", "all", "zero")),
    ]  # fmt: skip
    assert lading(tmp_path, "cdi", "ls", "-q")[1].split() == [
        f"acme.com/acc={name}" for name in ("0", "all", "zero")
    ]
    shown = json.loads(lading(tmp_path, "cdi", "show", "acme.com/acc=0")[1])
    assert shown[0]["ContainerEdits"]["deviceNodes"][0]["path"] == "/dev/zero" and shown[0]["Spec"] == target


def test_generate_prints_where_no_file_is_named(tmp_path: Path) -> None:
    code, out, _ = lading(tmp_path, "cdi", "generate", "generic", "/dev/null")
    assert code == 0 and json.loads(out)["kind"] == "lading.host/device"


def test_trouble_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run/cdi"
    folder.mkdir(parents=True)
    (folder / "bad.json").write_text("{")
    spec = {
        "cdiVersion": "1.0.0",
        "kind": "a.com/b",
        "devices": [{"name": "x", "containerEdits": {"env": ["A=1"]}}],
    }
    for name in ("one.json", "two.json"):
        (folder / name).write_text(json.dumps(spec))
    code, _, err = lading(tmp_path, "cdi", "list")
    assert code == 0 and "bad.json is not usable: it is not JSON" in err and "a.com/b=x is not usable" in err
    code, _, err = lading(tmp_path, "cdi", "show", "a.com/b=x")
    assert code == 1 and "is claimed by" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("generate", "requires at least 1 argument"),
        ("generate tpu", "unknown kind of spec"),
        ("generate generic", "needs device nodes"),
        ("generate nvidia /dev/null", "takes no paths"),
        ("generate generic /dev/null -o /tmp/x.txt", "must end in .json"),
        ("generate generic /dev/nothing-here", "does not exist"),
        ("show nonsense", "not the name of a CDI device"),
        ("show a.com/b=c", "unresolvable CDI devices a.com/b=c"),
    ],
)
def test_refusals(tmp_path: Path, words: str, said: str) -> None:
    code, out, err = lading(tmp_path, "cdi", *words.split())
    assert code == 1 and not out and said in err
