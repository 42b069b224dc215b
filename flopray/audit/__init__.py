"""The audit: which numbers cannot be true, which need an explanation, and why.

Works on any table of records, also other people's: columns are those of `flopray.records`, and all of them may be
missing. A rule without its columns says that it could not judge; it never passes by default.

* `audit_row` judges one row while it is measured, `audit_point` the phases of one point against each other.
* `audit_rows` and `audit` judge a whole table, with the rules that compare points along an axis.

Importing this package imports neither torch nor Ray nor pandas.
"""

from __future__ import annotations

from flopray.audit.findings import Finding, Severity, Unjudged
from flopray.audit.point_rules import audit_point
from flopray.audit.table import RULES, audit, audit_row, audit_rows

__all__ = [
    "RULES",
    "Finding",
    "Severity",
    "Unjudged",
    "audit",
    "audit_point",
    "audit_row",
    "audit_rows",
]
