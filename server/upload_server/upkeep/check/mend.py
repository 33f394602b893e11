"""Decides what is mended: what follows from what is there, and never at the price of bytes that may be wanted.

Must not know how a store or a disk does it. Only for a stopped installation, which the caller has locked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from upload_server.sink.protocol import Doomed, Sink, SinkError
from upload_server.store.inspection import Damaged, Inspection, Mending
from upload_server.upkeep.check.findings import Mend, Report

# Files deleted at once: they share their syncs.
_AT_ONCE = 100


def mend(report: Report, inspection: Inspection, mending: Mending, sink: Sink, *, delete_unknown: bool) -> None:
    """Mend what can be; the report tells what was."""
    by_mend: dict[Mend, list[int]] = {}
    for index, finding in enumerate(report.found):
        by_mend.setdefault(finding.mend, []).append(index)

    def rows_of(indexes: Sequence[int]) -> list[int]:
        # Once each: one batch can be found wrong in two ways.
        return list(dict.fromkeys(report.found[index].row for index in indexes))

    # The schema first: its triggers and indexes guard and number what follows.
    faults = [report.found[index].fault for index in by_mend.get(Mend.CREATE, [])]
    steps: list[tuple[Mend, Callable[[list[int]], None]]] = [
        (Mend.CREATE, lambda _: mending.create([fault for fault in faults if fault is not None])),
        (Mend.LAST_CHANGE, lambda _: mending.raise_last_change()),
        (Mend.RECOUNT, lambda indexes: mending.recount(rows_of(indexes))),
        (Mend.FORGET_DEBT, lambda indexes: mending.forget_debts(rows_of(indexes))),
    ]
    for kind, step in steps:
        indexes = by_mend.get(kind, [])
        if indexes:
            try:
                step(indexes)
            except Damaged as error:
                report.not_mended |= dict.fromkeys(indexes, str(error))
            else:
                report.mended |= set(indexes)
    _delete(report, by_mend.get(Mend.DELETE_BYTES, []), inspection, sink, unknown=False)
    if delete_unknown:
        _delete(report, by_mend.get(Mend.DELETE_UNKNOWN, []), inspection, sink, unknown=True)


def _delete(report: Report, indexes: Sequence[int], inspection: Inspection, sink: Sink, *, unknown: bool) -> None:
    for first in range(0, len(indexes), _AT_ONCE):
        some = {report.found[index].ids["file_id"]: index for index in indexes[first : first + _AT_ONCE]}
        # Rows decide, once more and now.
        inspection.refresh()
        rows = inspection.files_named(list(some))
        doomed = []
        for file_id, index in some.items():
            row, found = rows.get(file_id), report.found[index].fences
            left = found if unknown and row is None else row.left_over(found) if row and not unknown else ()
            if left:
                doomed.append(Doomed(file_id, left))
        for file_id, outcome in sink.delete_all(doomed).items():
            if isinstance(outcome, SinkError):
                report.not_mended[some[file_id]] = str(outcome)
            else:
                report.mended.add(some[file_id])
