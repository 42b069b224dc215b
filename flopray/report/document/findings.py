"""The audit's findings: numbers that cannot be true, that need an explanation, and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flopray.audit import Finding, Severity, audit
from flopray.audit.cells import rows_of
from flopray.audit.explanations import EXPLANATIONS
from flopray.audit.findings import is_hole
from flopray.report.boards.comparable import TOLD_LATER, WIDENED
from flopray.report.document.content import Block, Section, Words
from flopray.report.document.data import Measured
from flopray.report.document.words import counted
from flopray.report.text_table import IMPLAUSIBLE_MARK, IMPOSSIBLE_MARK, TextTable

_ORDER = (Severity.IMPOSSIBLE, Severity.IMPLAUSIBLE, Severity.NOTE)
_WORDS = {
    Severity.IMPOSSIBLE: f"{IMPOSSIBLE_MARK} impossible",
    Severity.IMPLAUSIBLE: f"{IMPLAUSIBLE_MARK} implausible",
    Severity.NOTE: "note",
}


def section(measured: Measured) -> Section:
    """The section: each rule that found something, with its worst example and what it means."""
    # a run leaves many columns empty, and the audit reads all that it is given
    workloads = [folder.workload for folder in measured.folders]
    fields = {field.name for workload in workloads for field in workload.fields if not field.implied}
    columns = {column.name for workload in workloads for column in workload.columns} - fields
    findings = audit(measured.frame.dropna(axis=1, how="all"), sorted(fields), [*sorted(columns), TOLD_LATER, WIDENED])
    findings = [finding for finding in findings if finding.rule != "not_judged"]
    groups, former = _groups(findings), _former(measured, findings)
    if not groups and not former:
        judged = sum(not is_hole(row) for row in rows_of(measured.frame))
        said = f"judged {counted(judged, 'row')} and found nothing" if judged else "had no row with numbers to judge"
        blocks: list[Block] = [Words([f"The audit {said}."])]
        return Section("audit", "What the audit found", blocks, short=True)
    rows, meanings = [], []
    for (severity, rule), found in groups.items():
        worst = max(found, key=lambda finding: finding.excess)
        marked = len({row for finding in found for row in finding.rows})
        rows.append([rule.replace("_", " "), _WORDS[severity], str(marked), f"{worst.where}: {worst.sentence}"])
        if rule in EXPLANATIONS:
            meanings.append(f"{rule.replace('_', ' ')}: {EXPLANATIONS[rule].meaning}")
    table = TextTable("Findings", ["Rule", "Severity", "Rows", "The worst example"], [("", rows)], [])
    return Section("audit", "What the audit found", [table, Words([*former, *meanings], "note")], short=True)


def _former(measured: Measured, findings: Iterable[Finding]) -> list[str]:
    """Findings of rows that today's rules do not make: the rows were judged by an older audit, or with other rows."""
    found = {(row, finding.code) for finding in findings for row in finding.rows}
    counts: Counter[str] = Counter()
    for row, codes in measured.frame["findings"].items():
        if isinstance(codes, list | tuple):
            counts.update(code for code in codes if (row, code) not in found and not code.startswith("note"))
    return [
        f"{counted(count, 'row')} had the finding {code.replace('_', ' ').replace(':', ': ')} when measured, by the "
        "rules of that day. Today's rules, on all rows together, do not find it; only the views still mark it."
        for code, count in counts.items()
    ]


def _groups(findings: Iterable[Finding]) -> dict[tuple[Severity, str], list[Finding]]:
    grouped: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.severity, finding.rule), []).append(finding)
    return dict(sorted(grouped.items(), key=lambda item: (_ORDER.index(item[0][0]), item[0][1])))
