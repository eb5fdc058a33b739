"""Spec files on disk: formats, precedence, conflicts, and files that are not to be trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lading.base.errors import NotFound
from lading.device import document
from lading.device.catalog import Catalog


def spec(*names: str, kind: str = "acme.com/gpu", mark: str = "x") -> dict[str, Any]:
    devices = [{"name": name, "containerEdits": {"env": [f"FROM={mark}"]}} for name in names]
    return {"cdiVersion": "0.5.0", "kind": kind, "devices": devices}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def mark(known: Catalog, name: str) -> str:
    return known.find(name)[1].edits.env[0]


def test_json_and_yaml(tmp_path: Path) -> None:
    write(tmp_path / "a.json", spec("0"))
    write(tmp_path / "b.yaml", yaml.safe_dump(spec("0", kind="b.com/gpu")))
    write(tmp_path / "c.yml", yaml.safe_dump(spec("0", kind="c.com/gpu")))
    write(tmp_path / "d.txt", "not looked at")
    known = Catalog([str(tmp_path)])
    assert known.names() == ["acme.com/gpu=0", "b.com/gpu=0", "c.com/gpu=0"] and not known.errors
    assert known.kinds() == ["acme.com/gpu", "b.com/gpu", "c.com/gpu"]


def test_numbers_come_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "a.json", spec("10", "2", "all", "GPU-1"))
    assert Catalog([str(tmp_path)]).names("acme.com/gpu") == [
        f"acme.com/gpu={name}" for name in ("2", "10", "GPU-1", "all")
    ]


def test_a_later_directory_wins(tmp_path: Path) -> None:
    low, high = tmp_path / "etc", tmp_path / "run"
    write(low / "a.json", spec("0", "1", mark="low"))
    write(high / "z.json", spec("1", "2", mark="high"))
    known = Catalog([str(low), str(high), str(tmp_path / "missing")])
    assert [mark(known, f"acme.com/gpu={n}") for n in "012"] == ["FROM=low", "FROM=high", "FROM=high"]
    turned = Catalog([str(high), str(low)])
    assert mark(turned, "acme.com/gpu=1") == "FROM=low"


def test_two_specs_of_one_directory_make_a_name_unusable(tmp_path: Path) -> None:
    low, high = tmp_path / "etc", tmp_path / "run"
    write(low / "a.json", spec("0", "1"))
    write(low / "b.json", spec("1", "2"))
    known = Catalog([str(low)])
    assert known.names() == ["acme.com/gpu=0", "acme.com/gpu=2"]
    with pytest.raises(
        NotFound, match=r"acme\.com/gpu=1 is claimed by .*a\.json and by .*b\.json, so neither counts"
    ):
        known.find("acme.com/gpu=1")
    known.add(document.read(spec("1"), "the machine"))
    assert "acme.com/gpu=1" not in known.names(), "what nobody may say twice is not said by a third"
    write(high / "c.json", spec("1", mark="high"))
    assert mark(Catalog([str(low), str(high)]), "acme.com/gpu=1") == "FROM=high", "a higher directory decides"


def test_a_conflict_above_hides_the_name_below(tmp_path: Path) -> None:
    low, high = tmp_path / "etc", tmp_path / "run"
    write(low / "a.json", spec("1"))
    write(high / "b.json", spec("1"))
    write(high / "c.json", spec("1"))
    assert Catalog([str(low), str(high)]).names() == []


def test_what_is_missing_is_told_with_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "a.json", spec("0"))
    write(tmp_path / "bad.json", "{")
    with pytest.raises(NotFound) as caught:
        Catalog([str(tmp_path)]).find_all(["acme.com/gpu=0", "acme.com/gpu=7", "b.com/x=y"])
    said = str(caught.value)
    assert "unresolvable CDI devices acme.com/gpu=7, b.com/x=y" in said
    assert "This machine has acme.com/gpu=0." in said and "bad.json is not usable: it is not JSON" in said
    with pytest.raises(NotFound, match="names a device"):
        Catalog([str(tmp_path / "none")]).find("a.com/b=c")


BOMB = "a: &a [1,2,3]\nb: [*a,*a,*a]\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", '{"kind": 1}', "cdiVersion is missing"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.yaml", BOMB, "alias"),
        ("a.yaml", "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a.yaml", "!!python/object/apply:os.system [id]", "not YAML"),
        ("a.yaml", "\x00", "not YAML"),
        ("a.yaml", "", "must be an object"),
        ("a.json", " " * (1 << 20) + "{}", "larger than 1 MiB"),
    ],
)
def test_a_bad_file_is_left_out_with_its_reason(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path / name, text)
    write(tmp_path / "good.json", spec("0"))
    known = Catalog([str(tmp_path)])
    assert list(known.errors) == [f"{tmp_path}/{name}"] and said in known.errors[f"{tmp_path}/{name}"]
    assert known.names() == ["acme.com/gpu=0"]


def test_who_may_write_a_spec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", spec("0"))
    path.chmod(0o666)
    assert "others may write it" in Catalog([str(tmp_path)]).errors[str(path)]
    path.chmod(0o644)
    assert not Catalog([str(tmp_path)]).errors
    if os.geteuid() == 0:
        os.chown(path, 12345, 0)
        assert "belongs to user 12345" in Catalog([str(tmp_path)]).errors[str(path)]
        os.chown(path, 0, 12345)
        path.chmod(0o664)
        assert "others may write it" in Catalog([str(tmp_path)]).errors[str(path)]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    (tmp_path / "c.json").symlink_to("/dev/zero")
    (tmp_path / "d.json").symlink_to("nowhere")
    known = Catalog([str(tmp_path)])
    assert len(known.errors) == 4 and not known.names()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", spec("0", mark="one"))
    assert mark(Catalog([str(tmp_path)]), "acme.com/gpu=0") == "FROM=one"
    write(path, spec("0", mark="two!"))
    assert mark(Catalog([str(tmp_path)]), "acme.com/gpu=0") == "FROM=two!"


def test_too_many_files(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"{number:04}.json").write_text("{}")
    assert "more than 1000 specs" in Catalog([str(tmp_path)]).errors[str(tmp_path)]
