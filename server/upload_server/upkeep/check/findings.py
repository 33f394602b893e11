"""Decides what a check comes to: findings in plain words, notes, counts; bounded, however damaged an installation is.

Must not know how anything is found or shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from upload_server.store.inspection import SchemaFault

# Findings listed; the rest is counted.
MAX_LISTED = 10_000


class Mend(StrEnum):
    """What ``--repair`` can do about a finding."""

    NONE = ""
    CREATE = "create"
    LAST_CHANGE = "last_change"
    RECOUNT = "recount"
    FORGET_DEBT = "forget_debt"
    DELETE_BYTES = "delete_bytes"
    DELETE_UNKNOWN = "delete_unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. ``kind`` is for programs, ``text`` and ``advice`` for people."""

    kind: str
    text: str
    advice: str
    ids: Mapping[str, str] = field(default_factory=dict)
    mend: Mend = Mend.NONE
    # What the mending needs: a row, the fences whose bytes are to go, or a fault of the schema.
    row: int = 0
    fences: tuple[int, ...] = ()
    fault: SchemaFault | None = None


@dataclass(slots=True)
class Report:
    """What a check has come to; grows while it runs."""

    running: bool = False
    found: list[Finding] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    # Things worth knowing that are as they should be, counted by what they say.
    notes: Counter[str] = field(default_factory=Counter)
    # How much was looked at.
    counted: Counter[str] = field(default_factory=Counter)
    # The newest seal of the audit chain as `event_id:hash`, to be kept elsewhere.
    anchor: str = ""
    # Indexes into `found` of what was mended, and what could not be, with the reason.
    mended: set[int] = field(default_factory=set)
    not_mended: dict[int, str] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Note a finding; beyond the bound it is only counted."""
        self.by_kind[finding.kind] += 1
        if len(self.found) < MAX_LISTED:
            self.found.append(finding)

    def add_all(self, findings: Sequence[Finding]) -> None:
        """Note findings."""
        for finding in findings:
            self.add(finding)

    @property
    def open_findings(self) -> int:
        """How many are still there."""
        return sum(self.by_kind.values()) - len(self.mended)
