"""A report as text, as JSON, and as SARIF 2.1.0 (OASIS, sarif-v2.1.0). Owns the forms; never prints."""

from __future__ import annotations

from lading.build.lint.check import RULES
from lading.build.lint.finding import Finding, Fix, Report

_SARIF_LEVEL = {"error": "error", "warning": "warning", "info": "note"}


def text(report: Report) -> str:
    """One paragraph a finding: place, level, rule; why; what to do; the lines as they should be."""
    out: list[str] = []
    for one in report.findings:
        at = f"{report.name}:{one.position.line}:{one.position.column}"
        out.append(f"{at}: {one.level}: {one.rule}")
        out.append(f"  {one.message}")
        if one.advice:
            out.append(f"  {one.advice}")
        if one.fix is not None:
            out += _fix(one.fix)
        out.append("")
    counts = {
        level: sum(1 for one in report.findings if one.level == level)
        for level in ("error", "warning", "info")
    }
    told = ", ".join(
        f"{count} {level}{'s' if count != 1 and level != 'info' else ''}"
        for level, count in counts.items()
        if count
    )
    out.append(f"{report.name}: {told or 'no findings'}")
    return "\n".join(out) + "\n"


def _fix(fix: Fix) -> list[str]:
    kind = "" if fix.safe else " (look at it first; --fix leaves it alone)"
    if not fix.lines:
        lines = f"line {fix.first}" if fix.first == fix.last else f"lines {fix.first} to {fix.last}"
        return [f"  Fixed: without {lines}{kind}"]
    return [f"  Fixed:{kind}", *(f"    {line}" for line in fix.lines)]


def document(reports: list[Report]) -> dict[str, object]:
    """The JSON document of `--format json`."""
    return {
        "version": 1,
        "files": [{"path": one.name, "findings": [_plain(item) for item in one.findings]} for one in reports],
    }


def _plain(one: Finding) -> dict[str, object]:
    fix = one.fix
    return {
        "rule": one.rule,
        "level": one.level,
        "line": one.position.line,
        "column": one.position.column,
        "message": one.message,
        "advice": one.advice,
        "fix": None
        if fix is None
        else {"first": fix.first, "last": fix.last, "lines": list(fix.lines), "safe": fix.safe},
    }


def sarif(reports: list[Report], version: str) -> dict[str, object]:
    """A SARIF log with one run. Columns count Unicode code points, as positions here do."""
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.summary},
            "defaultConfiguration": {"level": _SARIF_LEVEL[rule.level]},
        }
        for rule in RULES
    ]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "lading", "version": version, "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(report.name, one) for report in reports for one in report.findings],
            }
        ],
    }


def _result(path: str, one: Finding) -> dict[str, object]:
    where = {"artifactLocation": {"uri": path}}
    region = {"startLine": one.position.line, "startColumn": one.position.column}
    result: dict[str, object] = {
        "ruleId": one.rule,
        "level": _SARIF_LEVEL[one.level],
        "message": {"text": f"{one.message} {one.advice}".strip()},
        "locations": [{"physicalLocation": {**where, "region": region}}],
    }
    if one.fix is not None:
        inserted = "".join(f"{line}\n" for line in one.fix.lines)
        change = {
            "deletedRegion": {
                "startLine": one.fix.first,
                "startColumn": 1,
                "endLine": one.fix.last + 1,
                "endColumn": 1,
            },
            "insertedContent": {"text": inserted},
        }
        result["fixes"] = [{"artifactChanges": [{**where, "replacements": [change]}]}]
    return result
