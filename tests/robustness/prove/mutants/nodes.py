"""Bugs that only several servers on one store can have; and commits whose answer is lost, which is no bug."""

from __future__ import annotations

import itertools
from typing import Any

from robustness.prove.mutants import restarts
from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change, change_text
from upload_server.store.sql import queries, statements
from upload_server.upkeep import node, sealer


def _on_postgresql(module: Any, name: str, *edits: tuple[str, str]) -> None:
    from upload_server.store.postgresql.dialect import POSTGRESQL  # noqa: PLC0415 - an extra

    change_text(module, name, *edits, dialect=POSTGRESQL)


@mutant
def stops_not_left() -> None:
    """Who cancels a file leaves no word for the node that holds its stream."""
    _on_postgresql(statements, "STOP_STREAMS", ("f.holder <> %(node)s", "f.holder <> f.holder"))


@mutant
def take_over_not_told() -> None:
    """Who takes a file over leaves no word for the node whose stream had it."""
    _on_postgresql(statements, "STOP_STREAM", ("holder <> %(node)s", "holder <> holder"))


@mutant
def holder_not_noted() -> None:
    """A claim does not say which node holds the file."""
    from upload_server.store.postgresql.dialect import POSTGRESQL  # noqa: PLC0415 - an extra

    held = f"coalesce({POSTGRESQL.typed('%(holder)s', 'text')}, holder)"
    _on_postgresql(statements, "WRITE_FILE", (held, f"nullif({POSTGRESQL.typed('%(holder)s', 'text')}, %(holder)s)"))


@mutant
def bell_without_poll() -> None:
    """Nodes look only when the bell rings, and a notification may be lost."""
    rings = "self._pace.look if busy else self._pace.idle_look"
    lost = "await asyncio.Event().wait()"
    change(node, "Node._looks", (rings, "None"), ("await self._rung.wait()", lost))


@mutant
def changes_of_others_unheard() -> None:
    """Watchers hear only of what their own node has committed."""
    change(node, "Node._look", ("if news.changed:", "if False:"))


@mutant
def expiry_by_own_streams() -> None:
    """A file that a stream of another node has open counts as left alone."""
    for module, name in ((queries, "_IDLE"), (statements, "READ_IDLE")):
        _on_postgresql(module, name, ("f.holder IS NOT NULL", "false"))


@mutant
def order_lock_absent() -> None:
    """Nodes write side by side."""
    from upload_server.store.postgresql import statements as own  # noqa: PLC0415 - an extra

    _on_postgresql(own, "TAKE_ORDER_LOCK", ("pg_advisory_xact_lock(1, 'store_info'::regclass::oid::integer)", "1"))


@mutant
def numbers_of_a_sequence() -> None:
    """Numbers are given as transactions begin, and those do not commit in that order."""
    from upload_server.store.postgresql import statements as own  # noqa: PLC0415 - an extra

    made = "SELECT nextval('prove_numbers')"
    _on_postgresql(own, "TAKE_ORDER_LOCK", ("pg_advisory_xact_lock(1, 'store_info'::regclass::oid::integer)", "1"))
    _on_postgresql(own, "READ_COUNTERS", ("SELECT last_change", f"SELECT ({made}) * 100000"))
    late = "last_change = greatest(last_change, %(last_change)s)"
    _on_postgresql(own, "WRITE_COUNTERS", ("last_change = %(last_change)s", late))


@mutant
def lost_answers_of_commits() -> None:
    """No bug: of every third commit the answer is lost with its session."""
    from upload_server.store.postgresql import committer  # noqa: PLC0415 - an extra

    commits = itertools.count()
    real = committer.PostgresqlCommitter._commit

    def lost(self: Any, connection: Any, transaction: Any) -> None:
        if transaction.last_change == transaction.numbered_from or next(commits) % 3:
            real(self, connection, transaction)
            return
        connection.execute("COMMIT")
        self._disconnect()
        self._look_up(transaction)

    committer.PostgresqlCommitter._commit = lost  # type: ignore[method-assign]


@mutant
def fate_not_asked() -> None:
    """A commit whose answer was lost is taken for one that did nothing."""
    from upload_server.store.postgresql import committer  # noqa: PLC0415 - an extra

    change(committer, "PostgresqlCommitter._look_up", ("fate = self._fate(transaction)", 'fate = "aborted"'))


@mutant
def tokens_of_a_node() -> None:
    """Each node gives the store an identity of its own: tokens of one are those of another store at the next."""
    from upload_server.store.postgresql import store  # noqa: PLC0415 - an extra

    made = "self.incarnation = str(uuid.uuid5(uuid.UUID(self.store_id), self._identity))"
    change(store, "_Opened.__init__", (made, "self.incarnation = str(uuid.uuid4())"))


@mutant
def answers_of_a_node() -> None:
    """Answers are kept by the node that gave them."""
    restarts.answers_in_memory()


@mutant
def sealers_suspect_each_other() -> None:
    """A seal that another node has written counts as an alteration."""
    change(sealer, "Sealer._step", ("if not self._store.leads:", "if False:"))
    change(sealer, "Sealer._is_altered", ("return self._store.alone or", "return True or self._store.alone or"))
