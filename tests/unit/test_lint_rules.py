"""Every rule of the lint: a file it finds fault with, at which places, and one that it leaves alone."""

# ruff: noqa: E501 - a file of the table stands on one line, as its places are counted in it

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest

from lading.build import ignore
from lading.build.lint import RULES, Around, check, fixed

ROOT = Path(__file__).parent.parent.parent
DAY = datetime.date(2026, 11, 21)
CONTEXT = Around(
    ignore.parse(b"*.log\nsecret.csv\n"), True,
    {"requirements.txt": "flask\nnumpy==2.1.3 # fine\n-r more.txt\n", "pinned.txt": "a==1 \\\n  --hash=sha256:00\nb @ https://x/y.whl\n"},
    DAY,
)  # fmt: skip
BARE = Around(ignore.NOTHING, False, {}, DAY)
TEXT_ONLY = Around(today=DAY)

# rule: (bad, its places, good)
EXAMPLES: dict[str, tuple[str, list[tuple[int, int]], str]] = {
    "StageNameCasing": ("FROM a:1 AS Build\nFROM Build", [(1, 13)], "FROM a:1 AS build\nFROM build"),
    "FromAsCasing": ("FROM a:1 as b\nfrom a:1 AS c", [(1, 10), (2, 10)], "FROM a:1 AS b\nfrom a:1 as c"),
    "DuplicateStageName": ("FROM a:1 AS b\nFROM a:1 AS B", [(2, 13)], "FROM a:1 AS b\nFROM a:1 AS c"),
    "ReservedStageName": ("FROM a:1 AS scratch\nFROM a:1 AS context", [(1, 13), (2, 13)], "FROM scratch AS b"),
    "RedundantTargetPlatform": (
        "FROM --platform=$TARGETPLATFORM a:1", [(1, 6)], "FROM --platform=$BUILDPLATFORM a:1\nFROM a:1",
    ),
    "FromPlatformFlagConstDisallowed": (
        "FROM --platform=linux/arm64 a:1", [(1, 6)], "FROM --platform=linux/arm64 a:1 AS build_arm64\nFROM --platform=$P a:1",
    ),
    "InvalidDefinitionDescription": (
        "# check=experimental=all\n# some words\nARG V=1\n# other\nFROM a:1 AS base", [(3, 1), (5, 1)],
        "# check=experimental=all\n# V is the version\nARG V=1\n\n# other\n\nFROM a:1 AS base\n# lading: ignore=X\nARG Y",
    ),
    "UnusedStage": ("FROM a:1\nFROM b:1", [(1, 1)], "FROM a:1\nFROM b:1\nCOPY --from=0 /a /b"),
    "NoEmptyContinuation": ("FROM a:1\nRUN a \\\n\n  && b", [(3, 1)], "FROM a:1\nRUN a \\\n  # comment\n  && b"),
    "ConsistentInstructionCasing": (
        "FROM a:1\nrun x\nRUN y\nCopy a b", [(2, 1), (4, 1)], "from a:1\nrun x",
    ),
    "JSONArgsRecommended": (
        "FROM a:1\nCMD python app.py\nENTRYPOINT exec x", [(2, 1), (3, 1)],
        'FROM a:1\nCMD ["python", "app.py"]\nFROM a:1\nSHELL ["/bin/bash", "-c"]\nCMD x',
    ),
    "MaintainerDeprecated": ("FROM a:1\nMAINTAINER me", [(2, 1)], "FROM a:1\nLABEL maintainer=me"),
    "WorkdirRelativePath": (
        "FROM a:1\nWORKDIR app", [(2, 9)], "FROM a:1 AS b\nWORKDIR /app\nWORKDIR sub\nFROM b\nWORKDIR deep\nFROM a:1\nWORKDIR $X",
    ),
    "MultipleInstructionsDisallowed": (
        'FROM a:1\nCMD ["a"]\nENTRYPOINT ["x"]\nCMD ["b"]\nHEALTHCHECK NONE\nHEALTHCHECK NONE', [(2, 1), (5, 1)],
        'FROM a:1\nCMD ["a"]\nFROM a:1\nCMD ["b"]',
    ),
    "LegacyKeyValueFormat": (
        "FROM a:1\nENV A b c\nLABEL k v\nENV A a=b", [(2, 1), (3, 1), (4, 1)], "FROM a:1\nENV A=b C=d\nLABEL k=v\nENV A='x y'",
    ),
    "ExposeProtoCasing": ("FROM a:1\nEXPOSE 80/TCP 81/udp", [(2, 8)], "FROM a:1\nEXPOSE 80/tcp"),
    "ExposeInvalidFormat": (
        "FROM a:1\nEXPOSE 127.0.0.1:80:80 8080:80 90", [(2, 8), (2, 24)], "FROM a:1\nEXPOSE 80 5000-5010/udp $PORT",
    ),
    "UndefinedArgInFrom": ("ARG TAG=1\nFROM a:$TGA", [(2, 6)], "ARG TAG=1\nFROM --platform=$BUILDPLATFORM a:${TAG}\nFROM b:${V:-1}"),
    "InvalidDefaultArgInFrom": ("ARG TAG\nFROM busybox:${TAG}", [(2, 6)], "ARG TAG=1\nARG X\nFROM busybox:${TAG}\nFROM b:1${X}"),
    "UndefinedVar": (
        "ARG OUT=1\nFROM a:1\nWORKDIR /x/$NOPE\nCOPY $OUT /b\nENV A=$PATHH", [(3, 12), (4, 6), (5, 7)],
        "ARG OUT=1\nFROM a:1 AS b\nARG OUT\nENV A=$OUT:$PATH\nFROM b\nWORKDIR $A\nUSER ${U:-me}\nLABEL x='$N' y=\\$N\nRUN echo $NOPE",
    ),
    "SecretsUsedInArgOrEnv": (
        "FROM a:1\nARG DB_PASSWORD\nENV A=1 HF_TOKEN=x", [(2, 5), (3, 9)],
        "FROM a:1\nARG TOKENIZER\nENV PUBLIC_KEY=x PASSWORD_FILE=/run/secrets/p KEYBOARD=de",
    ),
    "CopyIgnoredFile": ("FROM a:1\nCOPY a.txt ./x.log /d/", [(2, 12)], "FROM a:1\nCOPY a.txt . /d/\nCOPY --from=b x.log /"),
    "SecretFileCopied": (
        "FROM a:1\nCOPY .env cert.pem kaggle.json ./", [(2, 6), (2, 11), (2, 20)], "FROM a:1\nCOPY .env.example ./\nCOPY key.py /",
    ),
    "DataInImage": (
        "FROM a:1\nCOPY train.csv nb.ipynb .git data/ model.pt /d/", [(2, 6), (2, 16), (2, 25), (2, 30), (2, 36)],
        "FROM a:1\nCOPY app.py database.py ./\nCOPY --from=x model.pt /",
    ),
    "RequirementsAfterCode": (
        "FROM a:1\nCOPY . .\nRUN pip install --no-cache-dir -r requirements.txt", [(2, 1)],
        "FROM a:1\nCOPY requirements.txt .\nRUN pip install --no-cache-dir -r requirements.txt\nCOPY . .",
    ),
    "AddForLocalFiles": ("FROM a:1\nADD app.py /", [(2, 1)], "FROM a:1\nADD https://x/y /\nADD a.tar.gz /\nADD $X /"),
    "AptListsLeftBehind": (
        "FROM a:1\nRUN apt-get update && apt-get install -y x", [(2, 5)],
        "FROM a:1\nRUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*\n"
        "RUN --mount=type=cache,target=/var/lib/apt apt-get update && apt-get install -y x",
    ),
    "AptUpdateAlone": ("FROM a:1\nRUN apt-get update\nRUN apt-get install -y x", [(2, 5)], "FROM a:1\nRUN apt-get update && apt-get install -y x"),
    "AptWithoutYes": (
        "FROM a:1\nRUN apt-get update && \\\n  apt-get install x", [(3, 3)], "FROM a:1\nRUN apt-get install -qy x\nRUN apt-get -y install x",
    ),
    "AptRecommends": (
        "FROM a:1\nRUN <<E\n# apt-get install no\nset -e\napt-get install -y x\nE", [(5, 1)],
        "FROM a:1\nRUN apt-get install -y --no-install-recommends x",
    ),
    "AptFrontEnd": ("FROM a:1\nRUN apt install -y x", [(2, 5)], "FROM a:1\nRUN apt-get install -y x && echo apt install"),
    "ApkCacheKept": ("FROM a:1\nRUN apk add git", [(2, 5)], "FROM a:1\nRUN apk add --no-cache git"),
    "YumCacheKept": ("FROM a:1\nRUN dnf install -y git", [(2, 5)], "FROM a:1\nRUN dnf install -y git && dnf clean all"),
    "SudoInRun": ("FROM a:1\nRUN a && sudo -E b", [(2, 18)], "FROM a:1\nRUN apt-get install -y sudo"),
    "CdAlone": ("FROM a:1\nRUN cd /app", [(2, 1)], "FROM a:1\nRUN cd /app && make"),
    "PointlessCommand": ("FROM a:1\nRUN service nginx start", [(2, 5)], "FROM a:1\nRUN echo service"),
    "PipeHidesFailure": (
        "FROM a:1\nRUN curl -f https://x | tar x", [(2, 5)],
        'FROM a:1\nSHELL ["/bin/bash", "-o", "pipefail", "-c"]\nRUN curl https://x | sh\nFROM a:1\nRUN set -o pipefail; curl x | sh',
    ),
    "CurlAndWget": ("FROM a:1\nRUN curl -O x\nRUN wget y", [(3, 5)], "FROM a:1\nRUN curl x\nFROM a:1\nRUN wget y"),
    "BaseImageUnpinned": (
        "FROM python\nFROM b:latest", [(1, 6), (2, 6)],
        "FROM scratch AS s\nFROM s\nFROM python:3.12-slim\nFROM h:5000/x@sha256:" + "0" * 64 + "\nFROM $X",
    ),
    "BaseImageEndOfLife": (
        "FROM python:3.8-slim\nFROM debian:buster\nFROM node:16\nFROM nvidia/cuda:11.8.0-base-ubuntu18.04\nFROM python:3.12-buster",
        [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6)],
        "FROM python:3.13-slim\nFROM debian:bookworm\nFROM node:22\nFROM ubuntu:24.04\nFROM python:3.88\nFROM mine:3.8",
    ),
    "BaseImageTooLarge": ("FROM a:1\nFROM python:3.12", [(2, 6)], "FROM python:3.12\nFROM python:3.12-slim"),
    "CudaDevelInFinalStage": (
        "FROM nvidia/cuda:12.4.1-devel-ubuntu22.04 AS b\nFROM b", [(1, 6)],
        "FROM nvidia/cuda:12.4.1-devel-ubuntu22.04 AS b\nFROM nvidia/cuda:12.4.1-runtime-ubuntu22.04",
    ),
    "CudaMismatch": (
        "FROM nvidia/cuda:11.8.0-runtime-ubuntu22.04\n"
        "RUN pip install torch==2.4.1 torchvision==0.18.0\n"
        "RUN python -m pip install torch==2.4.1 --index-url https://x/whl/cu121\n"
        "RUN pip install torch==2.3.0+cu124",
        [(2, 5), (3, 5), (4, 5), (4, 5)],
        "FROM nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04\n"
        "RUN pip install torch==2.4.1 torchvision==0.19.1 --index-url https://x/whl/cu124\nRUN pip install torch==9.9.0",
    ),
    "PipCacheKept": (
        "FROM a:1\nRUN pip install -r r.txt\nRUN python3 -m pip install x==1", [(2, 5), (3, 5)],
        "FROM a:1\nRUN pip install --no-cache-dir x==1\nRUN --mount=type=cache,target=/root/.cache/pip pip install x==1\n"
        "RUN PIP_NO_CACHE_DIR=1 pip install x\nENV PIP_NO_CACHE_DIR=1\nRUN pip3 install x\nRUN pip download x",
    ),
    "PipUnpinned": (
        "FROM a:1\nRUN pip install --no-cache-dir torch numpy==1 'x>=2'", [(2, 5)],
        "FROM a:1\nRUN pip install -U pip && pip install -r r.txt -e . ./x.whl git+https://x/y x[a]==1\nRUN pip install -c c.txt torch",
    ),
    "RequirementsUnpinned": (
        "FROM a:1\nRUN pip install -r requirements.txt", [(2, 5)], "FROM a:1\nRUN pip install -r pinned.txt -r elsewhere.txt",
    ),
    "RootUser": ('FROM a:1\nUSER app\nUSER root\nCMD ["a"]', [(3, 1)], 'FROM a:1 AS b\nUSER 10001\nFROM b\nCMD ["a"]'),
    "HealthcheckMissing": ("FROM a:1\nEXPOSE 80", [(2, 1)], "FROM a:1\nEXPOSE 80\nHEALTHCHECK NONE"),
    "DevelopmentServer": (
        'FROM a:1\nENV FLASK_DEBUG=1\nENTRYPOINT ["python"]\nCMD ["flask", "run"]', [(2, 5), (4, 1)],
        'FROM a:1\nCMD ["gunicorn", "app:app"]',
    ),
    "MissingDockerignore": ("FROM a:1\nCOPY . .", [(2, 6)], "FROM a:1\nCOPY app.py ."),
}  # fmt: skip


def places(rule: str, text: str) -> list[tuple[int, int]]:
    around = BARE if rule == "MissingDockerignore" else CONTEXT
    found = check(text, around=around).findings
    assert not [one for one in found if one.rule == "SyntaxError" and rule != "ExposeInvalidFormat"], found
    return [(one.position.line, one.position.column) for one in found if one.rule == rule]


def test_every_rule_has_its_examples() -> None:
    assert sorted(EXAMPLES) == sorted(rule.name for rule in RULES)


@pytest.mark.parametrize("rule", EXAMPLES)
def test_what_a_rule_finds_and_what_not(rule: str) -> None:
    bad, expected, good = EXAMPLES[rule]
    assert places(rule, bad) == expected
    assert places(rule, good) == []


@pytest.mark.parametrize("rule", EXAMPLES)
def test_findings_can_be_left_out(rule: str) -> None:
    bad, expected, _ = EXAMPLES[rule]
    around = BARE if rule == "MissingDockerignore" else CONTEXT
    plain = bad.removeprefix("# check=experimental=all\n")
    assert not [
        one for one in check(f"# check=skip={rule}\n{plain}", around=around).findings if one.rule == rule
    ]
    assert not [one for one in check(bad, around=around, skip=[rule.lower()]).findings if one.rule == rule]
    if "<<" in bad or rule == "NoEmptyContinuation":
        return  # a comment inside of an instruction is not above it
    lines = bad.split("\n")
    for number in sorted({line for line, _ in expected}, reverse=True):
        while number > 1 and lines[number - 2].endswith("\\"):
            number -= 1
        lines.insert(number - 1, f"# lading: ignore=Other, {rule}")
    assert not [one for one in check("\n".join(lines), around=around).findings if one.rule == rule]


FIXES = [
    ("FROM a:1 as B\r\nCMD python app.py\r\nUSER u\r\n", 'FROM a:1 AS b\r\nCMD ["python", "app.py"]\r\nUSER u\r\n', 3),
    ("FROM a:1\nMAINTAINER 'me'\nENV A b\n", 'FROM a:1\nLABEL org.opencontainers.image.authors="me"\nENV A="b"\n', 2),
    ("FROM a:1\nRUN a \\\n\n && apt install x && pip install y==1", "FROM a:1\nRUN a \\\n && apt-get install -y x && pip install"
     " --no-cache-dir y==1", 4),
    ("FROM a:1\nCMD a\nCMD b c\nEXPOSE 80/TCP", 'FROM a:1\nCMD ["b", "c"]\nEXPOSE 80/tcp', 4),
    ("FROM --platform=$TARGETPLATFORM a:1\nrun uv pip install x==1\nADD a /b", "FROM a:1\nRUN uv pip install --no-cache x==1\nCOPY a /b", 4),
    ("FROM a:1\nCMD a | b && c\nWORKDIR app\n", "FROM a:1\nCMD a | b && c\nWORKDIR app\n", 0),  # neither is safe
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted", "count"), FIXES)
def test_safe_fixes(text: str, wanted: str, count: int) -> None:
    assert fixed(text) == (wanted, count)
    assert fixed(wanted) == (wanted, 0)


def test_the_shown_fix_is_the_whole_line() -> None:
    (one,) = [
        item
        for item in check("FROM a:1\nRUN x && \\\n    apt-get install y").findings
        if item.rule == "AptWithoutYes"
    ]
    assert (
        one.fix is not None
        and one.fix.lines == ("    apt-get install -y y",)
        and (one.fix.first, one.fix.last) == (3, 3)
    )


def test_mistakes_are_findings_and_the_rest_is_looked_at() -> None:
    report = check("FROM a:1\nRUNN x\nEXPOSE 80/TCP\n")
    assert [(one.rule, one.position.line, one.level) for one in report.findings][:1] == [
        ("SyntaxError", 2, "error")
    ]
    assert "Did you mean RUN?" in report.findings[0].advice
    assert "ExposeProtoCasing" in {one.rule for one in report.findings}
    assert [one.rule for one in check(b"\xff\xfe").findings] == ["SyntaxError"]
    assert check("").findings == () or check("").worst() == "error"


def test_directives() -> None:
    assert check("# check=error=true\nFROM a:1").strict
    assert not check("FROM a:1").strict
    assert check("# check=skip=all\nFROM python\nMAINTAINER x").findings == ()


def test_our_example_passes() -> None:
    directory = ROOT / "examples/iris-api"
    around = Around(
        ignore.parse((directory / ".dockerignore").read_bytes()), True,
        {"requirements.txt": (directory / "requirements.txt").read_text()}, DAY,
    )  # fmt: skip
    assert check((directory / "Dockerfile").read_bytes(), around=around).findings == ()


def test_pieces_of_every_example_are_looked_at_without_a_fall() -> None:
    """A file cut off anywhere, and one made of others' pieces, gives findings within its lines; fixes come to an end."""
    whole = [text for bad, _, good in EXAMPLES.values() for text in (bad, good)]
    for index, text in enumerate(whole):
        other = whole[(index * 7 + 3) % len(whole)]
        for cut in range(0, len(text), 5):
            for mixed in (text[:cut], text[cut:], text[:cut] + other[cut // 2 :]):
                report = check(mixed, around=CONTEXT)
                lines = mixed.count("\n") + 1
                assert all(
                    1 <= one.position.line <= lines and one.position.column >= 1 for one in report.findings
                )
        assert fixed(fixed(text)[0])[1] == 0


@pytest.mark.parametrize(
    "text",
    [
        "FROM a:1\n" + "RUN apt-get install x && pip install y\nCMD a\n" * 2000,
        "FROM a:1\nRUN " + "flask run | " * 30000 + "x\nCMD " + "flask " * 30000,
        "".join(f"FROM s{i - 1} AS s{i}\nRUN pip install x\n" for i in range(1, 800)),
        "FROM a:1\nRUN " + "'\"\\" * 30000 + "\nENV A=" + "${" * 30000,
    ],
    ids=["instructions", "one-line", "stages", "quotes"],
)
def test_a_file_made_to_be_slow_is_not(text: str) -> None:
    """Each takes under a second; what grows with the square of the size took minutes."""
    start = time.process_time()
    check(text)
    assert time.process_time() - start < 10
