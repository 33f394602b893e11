"""Decides how seals of audit events are read and written: behind the commits, in their order, each event once.

Must not know how a seal is computed.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upload_server.domain.chain import Seal
from upload_server.store import models
from upload_server.store.commands.writes import Write
from upload_server.store.protocol import Unsealed
from upload_server.store.sqlite.connection import Connection
from upload_server.store.sqlite.rows import EVENT_COLUMNS, Row, columns_of, event_of, to_json
from upload_server.store.sqlite.transaction import Transaction

_HEAD = "SELECT change_no, previous_no, hash FROM audit_seal ORDER BY change_no DESC LIMIT 1"
# Numbers above the store's last are none of ours: sealed, they would keep the real ones out for ever.
_UNSEALED = f"""
    SELECT {EVENT_COLUMNS} FROM audit_event AS a LEFT JOIN file AS f ON f.id = a.file_row
    LEFT JOIN batch AS b ON b.id = a.batch_row
    WHERE a.change_no > :head AND a.change_no <= (SELECT last_change FROM store_info)
    ORDER BY a.change_no LIMIT :limit"""
_COUNT = """
    SELECT count(*) FROM (
        SELECT 1 FROM audit_event WHERE change_no > (SELECT coalesce(max(change_no), 0) FROM audit_seal)
        LIMIT :limit)"""
# The hashes come as one value, 32 bytes each.
_INSERT = f"""
    INSERT INTO audit_seal ({columns_of(models.AuditSeal)})
    SELECT value ->> 0, value ->> 1, substr(:hashes, 1 + 32 * key, 32) FROM json_each(:numbers)"""


def _head_of(rows: Sequence[Row]) -> Seal | None:
    return Seal(*rows[0]) if rows else None


def read_unsealed(connection: Connection, limit: int) -> Unsealed:
    """Read the newest seal and the oldest events without one."""
    head = _head_of(connection.rows(_HEAD))
    events = connection.rows(_UNSEALED, {"head": head.event_id if head else 0, "limit": limit})
    return Unsealed(head, tuple(event_of(row) for row in events))


def count_unsealed(connection: Connection, limit: int) -> int:
    """Count the events behind the newest seal, up to ``limit``."""
    return int(connection.rows(_COUNT, {"limit": limit})[0][0])


@dataclass(frozen=True, slots=True)
class SealEvents(Write[bool]):
    """Add seals to the chain, if its head still is the one they follow."""

    head: Seal | None
    seals: Sequence[Seal]

    def run(self, transaction: Transaction) -> bool:
        """Insert them; False, and nothing written, when the head is another one."""
        if _head_of(transaction.read(_HEAD)) != self.head:
            return False
        transaction.write_exactly(
            len(self.seals),
            _INSERT,
            numbers=to_json([(seal.event_id, seal.previous_id) for seal in self.seals]),
            hashes=b"".join(seal.hash for seal in self.seals),
        )
        return True
