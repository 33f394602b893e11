"""Names the filters of lists: those that files and batches have in common, and those of the audit trail.

Must not know how a list is asked for. A filter that is left out takes all; filters go together. A time without a zone
is taken as UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict


class Filters(TypedDict, total=False):
    """Which files or batches to list."""

    # Of this principal.
    owner: str
    # Whose name, of a batch the name of one of its files, starts so.
    filename_prefix: str
    # Announced later, or earlier, than this.
    created_after: datetime
    created_before: datetime
    # Whose status last changed later than this.
    updated_after: datetime
    # Cancelled by exactly this: `user`, `user:PRINCIPAL`, `batch_cancel`, ….
    cancelled_by: str


class EventFilters(TypedDict, total=False):
    """Which audit events to list."""

    # Of what this principal owns.
    owner: str
    # `user`, `user:PRINCIPAL` or `system`.
    actor: str
    # `grpc`, `http`, `expiry`, ….
    source: str
    # A status as a lower-case word.
    to_status: str
    # Later, or earlier, than this.
    occurred_after: datetime
    occurred_before: datetime
