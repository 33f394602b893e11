"""Bugs in what a change leaves behind: batches, counters, revisions, the audit trail."""

from __future__ import annotations

from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change, change_text
from upload_server.store.commands import trail
from upload_server.store.sql import statements


@mutant
def batch_cancel_skips_uploading() -> None:
    """A batch cancel takes only the files that are pending."""
    change_text(
        statements,
        "INSERT_EVENTS_OF_CANCELLED_BATCH",
        ("status IN ('pending', 'uploading')", "status = 'pending'"),
    )
    change_text(statements, "COUNT_OPEN_OF_BATCH", ("IN ('pending', 'uploading')", "= 'pending'"))


@mutant
def counter_off_by_one() -> None:
    """A batch cancel counts one file too many."""
    change_text(statements, "CANCEL_BATCH", ("cancelled_files_count + :count", "cancelled_files_count + :count + 1"))


@mutant
def roll_up_forgets_failed() -> None:
    """A batch with a failed file becomes completed."""
    change(
        trail,
        "_counted",
        ("batch.failed_files + files[FileStatus.FAILED]", "batch.failed_files"),
        ("files[FileStatus.COMPLETED]", "files[FileStatus.COMPLETED] + files[FileStatus.FAILED]"),
    )


@mutant
def audit_row_missing() -> None:
    """The change of status that follows for a batch leaves no audit event."""
    change(trail, "write_batches", ("    write_events(transaction, rows)\n", ""))


@mutant
def revision_not_raised() -> None:
    """A cancel leaves the file's revision as it was."""
    change_text(statements, "CANCEL_FILES", ("revision = revision + 1, ", ""))
