"""Decides how a report is shown: lines for people, one JSON object for programs.

Must not know what was checked. What lies in a database may hold anything: nothing of it reaches a terminal raw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from upload_server.process.logging import safe_text
from upload_server.upkeep.check.findings import MAX_LISTED, Finding, Mend, Report


def as_lines(report: Report) -> Iterator[str]:
    """Write a line for each finding, then notes and a summary."""
    for index, finding in enumerate(report.found):
        advice = safe_text(_advice(report, index, finding))
        yield f"{_mark(report, index, finding)} {safe_text(finding.text)} -- {advice}"
    unlisted = sum(report.by_kind.values()) - len(report.found)
    if unlisted:
        yield f"… and {unlisted} more; the first {MAX_LISTED} are listed"
    for note, count in report.notes.items():
        yield f"note: {count} {note}"
    if report.anchor:
        yield f"note: the audit chain ends with --anchor {report.anchor}; keep it elsewhere to notice a lost end"
    looked = ", ".join(f"{count} {what}" for what, count in report.counted.items())
    state = "running" if report.running else "stopped"
    yield f"checked ({state}): {looked or 'nothing'}"
    yield _summary(report)


def _mark(report: Report, index: int, finding: Finding) -> str:
    if index in report.mended:
        return f"MENDED {finding.kind}:"
    return f"WRONG {finding.kind}:"


def _advice(report: Report, index: int, finding: Finding) -> str:
    if index in report.mended:
        return "deleted" if finding.mend in (Mend.DELETE_BYTES, Mend.DELETE_UNKNOWN) else "done"
    if index in report.not_mended:
        return f"could not be mended: {report.not_mended[index]}"
    return finding.advice


def _summary(report: Report) -> str:
    left = report.open_findings
    mended = f", {len(report.mended)} mended" if report.mended else ""
    return f"{left or 'nothing'} wrong{mended}"


def as_json(report: Report) -> str:
    """Write everything as one object."""
    return json.dumps(
        {
            "ok": report.open_findings == 0,
            "running": report.running,
            "findings": [
                {
                    "kind": finding.kind,
                    "text": safe_text(finding.text),
                    "advice": safe_text(_advice(report, index, finding)),
                    "ids": {name: safe_text(value) for name, value in finding.ids.items()},
                    "mended": index in report.mended,
                }
                for index, finding in enumerate(report.found)
            ],
            "findings_by_kind": dict(report.by_kind),
            "notes": [{"text": note, "count": count} for note, count in report.notes.items()],
            "checked": dict(report.counted),
            "audit_anchor": report.anchor,
        },
        ensure_ascii=False,
    )
