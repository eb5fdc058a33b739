"""`lading lint` and `build --check`: which files are read, forms of output, what --fix writes, exit codes; no daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BAD = "FROM python:3.12-slim as base\nCOPY . .\nUSER 1000\nCMD python app.py\n"
GOOD = 'FROM python:3.12-slim AS base\nCOPY app.py .\nUSER 1000\nCMD ["python", "app.py"]\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/Dockerfile").write_text(BAD)
    return tmp_path


def lading(home: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Without a way to start a daemon: its directories are not directories."""
    (home / "file").touch()
    env = {**os.environ, "LADING_ROOT": f"{home}/file/root", "LADING_RUN": f"{home}/file/run"}
    return subprocess.run(
        [sys.executable, "-m", "lading", *argv], input=stdin, cwd=home, env=env, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


def rules(home: Path, *argv: str, stdin: str = "") -> set[str]:
    ran = lading(home, "lint", "--format", "json", *argv, stdin=stdin)
    (file,) = json.loads(ran.stdout)["files"]
    return {one["rule"] for one in file["findings"]}


def test_text_and_exit_codes(home: Path) -> None:
    ran = lading(home, "lint", "project")
    assert ran.returncode == 1 and not ran.stderr
    assert "project/Dockerfile:1:23: warning: FromAsCasing\n" in ran.stdout
    assert "  Fixed:\n    FROM python:3.12-slim AS base\n" in ran.stdout
    assert ran.stdout.endswith("project/Dockerfile: 3 warnings\n")
    assert lading(home, "lint", "--fail-on", "error", "project").returncode == 0
    assert lading(home, "lint", "--fail-on=never", "project").returncode == 0
    (home / "project/Dockerfile").write_text("# check=error=true\n" + BAD)
    assert lading(home, "lint", "--fail-on", "error", "project").returncode == 1
    (home / "project/Dockerfile").write_text(GOOD)
    assert lading(home, "lint", "project").returncode == 0
    assert lading(home, "lint", "--fail-on=info", "project/Dockerfile").returncode == 0


def test_the_context_counts(home: Path) -> None:
    assert "MissingDockerignore" in rules(home, "project")
    (home / "project/.dockerignore").write_text(".git\napp.py\n")
    (home / "project/Dockerfile").write_text(GOOD)
    assert rules(home, "project") == {"CopyIgnoredFile"}
    assert rules(home, "-", stdin=GOOD) == set()
    (home / "project/Dockerfile").write_text("FROM a:1\nRUN pip install --no-cache-dir -r requirements.txt\n")
    (home / "project/requirements.txt").write_text("flask>=1\n")
    assert rules(home, "project") == {"RequirementsUnpinned"}
    assert rules(home, "--ignore", "RequirementsUnpinned,X", "project") == set()


def test_fix_writes_what_is_safe_and_nothing_else(home: Path) -> None:
    path = home / "project/Dockerfile"
    path.chmod(0o640)
    ran = lading(home, "lint", "--fix", "project")
    assert (
        "project/Dockerfile: 2 fixed" in ran.stdout and ran.returncode == 1
    )  # the ignore file is still missing
    assert path.read_text() == BAD.replace(" as ", " AS ").replace(
        "CMD python app.py", 'CMD ["python", "app.py"]'
    )
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.stat().st_mtime_ns
    assert (
        "fixed" not in lading(home, "lint", "--fix", "project").stdout and path.stat().st_mtime_ns == before
    )
    assert lading(home, "lint", "--fix", "-", stdin=BAD).stdout.startswith("FROM python:3.12-slim AS base\n")


def test_sarif(home: Path) -> None:
    log = json.loads(lading(home, "lint", "--format", "sarif", "project").stdout)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0" and run["tool"]["driver"]["name"] == "lading"
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    found = {one["ruleId"]: one for one in run["results"]}
    assert (
        found.keys() == {"FromAsCasing", "JSONArgsRecommended", "MissingDockerignore"}
        and found.keys() <= known
    )
    one = found["FromAsCasing"]
    where = one["locations"][0]["physicalLocation"]
    assert where == {
        "artifactLocation": {"uri": "project/Dockerfile"},
        "region": {"startLine": 1, "startColumn": 23},
    }
    replacement = one["fixes"][0]["artifactChanges"][0]["replacements"][0]
    assert replacement["insertedContent"]["text"] == "FROM python:3.12-slim AS base\n"
    assert replacement["deletedRegion"] == {"startLine": 1, "startColumn": 1, "endLine": 2, "endColumn": 1}


def test_build_check_builds_nothing(home: Path) -> None:
    ran = lading(home, "build", "--check", "project")
    assert ran.returncode == 1 and "FromAsCasing" in ran.stdout and not ran.stderr
    (home / "project/Other").write_text(GOOD)
    ran = lading(home, "build", "--check", "-f", "project/Other", "project")
    assert (ran.returncode, ran.stdout) == (0, "project/Other: no findings\n")


def test_what_cannot_be_read_is_told(home: Path) -> None:
    ran = lading(home, "lint", "nowhere")
    assert ran.returncode == 1 and "No such file or directory" in ran.stderr and "Traceback" not in ran.stderr
    assert lading(home, "lint", "--format", "xml", "project").returncode == 125
    ran = lading(home, "lint", "-", stdin="RUNN x\n")
    assert ran.returncode == 1 and "SyntaxError" in ran.stdout and "Did you mean RUN?" in ran.stdout


def test_rules_are_listed(home: Path) -> None:
    listed = lading(home, "lint", "--list-rules").stdout
    assert "InvalidDefinitionDescription     off " in listed and "PipCacheKept" in listed
