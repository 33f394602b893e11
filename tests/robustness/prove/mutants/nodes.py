"""Bugs that only several servers on one store can have; and commits whose answer is lost, which is no bug."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from robustness.prove.mutants import restarts
from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change, change_text
from upload_server import app
from upload_server.store.sql import queries, statements
from upload_server.upkeep import node, sealer


def _on_postgresql(module: Any, name: str, *edits: tuple[str, str]) -> None:
    from upload_server.store.postgresql.dialect import POSTGRESQL  # noqa: PLC0415 - an extra
    from upload_server.store.postgresql.statements import exactly  # noqa: PLC0415 - an extra

    change_text(module, name, *edits, dialect=POSTGRESQL)
    if module is statements:
        # As it is sent where its rows are counted.
        exact = exactly(name)
        for old, new in edits:
            exact._texts[POSTGRESQL] = exact.text(POSTGRESQL).replace(old, new)


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
    rings = "_LOOK_SECONDS if busy else _IDLE_LOOK_SECONDS"
    lost = "await asyncio.Event().wait()"
    change(node, "Node._looks", (rings, "None"), ("await self._rung.wait()", lost))


@mutant
def changes_of_others_unheard() -> None:
    """Watchers hear only of what their own node has committed."""
    change(node, "Node._look", ("if news.changed:", "if False:"))


@mutant
def holder_not_cleared() -> None:
    """Who leaves a file does not say so: it counts as open for as long as its node lives."""
    _on_postgresql(statements, "RELEASE_FILE", ("SET holder = NULL", "SET holder = holder"))


@mutant
def dead_nodes_hold() -> None:
    """A stream counts as open though its node is dead."""
    from upload_server.store.postgresql.dialect import POSTGRESQL  # noqa: PLC0415 - an extra

    for module, name in ((queries, "_IDLE"), (statements, "READ_IDLE")):
        _on_postgresql(module, name, (f"n.lives_until > {POSTGRESQL.now}", "true"))


@mutant
def node_id_used_again() -> None:
    """A node has the same name whenever it is started: it goes on holding what it held before it died."""
    from upload_server.store.postgresql import store  # noqa: PLC0415 - an extra

    again = "self.node_id = str(uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(__import__('sys').argv)))"
    change(store, "_Opened.__init__", ("self.node_id = str(uuid.uuid4())", again))


@mutant
def timeline_not_in_tokens() -> None:
    """Tokens say which database they are of, not which history of it: those of before a failover are good after it."""
    from upload_server.store.postgresql import store  # noqa: PLC0415 - an extra

    made = "self.incarnation = str(uuid.uuid5(uuid.UUID(self.store_id), self._identity))"
    change(store, "_Opened.__init__", (made, "self.incarnation = self.store_id"))


@mutant
def expiry_by_own_streams() -> None:
    """A file that a stream of another node has open counts as left alone."""
    for module, name in ((queries, "_IDLE"), (statements, "READ_IDLE")):
        _on_postgresql(module, name, ("f.holder IS NOT NULL", "false"))


def _numbered_without_the_lock(numbers: str) -> None:
    """Have transactions take their numbers without waiting for each other, and raise the last one when they end."""
    from upload_server.store.postgresql import statements as own  # noqa: PLC0415 - an extra
    from upload_server.store.postgresql import transaction  # noqa: PLC0415 - an extra

    moved_by = f"set_config('upload.moved_by', (({numbers}) - %(unknown)s + 0 * %(count)s)::text, true)::bigint"
    lock = "pg_advisory_xact_lock(1, 'store_info'::regclass::oid::integer)"
    _on_postgresql(own, "TAKE_ORDER_LOCK", (lock, f"{moved_by} + %(unknown)s + 1"))
    last = "greatest(last_change, current_setting('upload.moved_by')::bigint + %(unknown)s + %(count)s)"
    _on_postgresql(own, "GIVE_NUMBERS", ("last_change = last_change + %(count)s", f"last_change = {last}"))
    message = "[(statements.TAKE_ORDER_LOCK, {}), (statements.GIVE_NUMBERS, counted), *message]"
    first, late = "(statements.TAKE_ORDER_LOCK, counted)", "(statements.GIVE_NUMBERS, dict(counted))"
    instead = f"[{first}, *self._writes, {late}, (statements.LAST_CHANGE, {{}}), (COMMIT, {{}})]"
    change(transaction, "PostgresqlTransaction.commit", (message, instead), ("answers[2]", "answers[1]"))


@mutant
def order_lock_absent() -> None:
    """Nodes write side by side."""
    _numbered_without_the_lock("SELECT last_change FROM store_info")


@mutant
def numbers_of_a_sequence() -> None:
    """Numbers are given as transactions begin to write, and those do not commit in that order."""
    _numbered_without_the_lock("SELECT nextval('prove_numbers') * 100000")


@mutant
def lease_by_the_nodes_clock() -> None:
    """Until when a node lives it says by its own clock, which is behind."""
    from upload_server.store.postgresql.dialect import POSTGRESQL  # noqa: PLC0415 - an extra

    until = POSTGRESQL.from_now("%(seconds)s")
    _on_postgresql(statements, "BEAT", (until, f"{until} - interval '15 s'"))


@mutant
def rows_not_locked() -> None:
    """Nodes decide by rows that others are changing."""
    from upload_server.store.postgresql import statements as own  # noqa: PLC0415 - an extra

    _on_postgresql(own, "LOCK_ROWS", ("ORDER BY b.id FOR NO KEY UPDATE", ""), ("ORDER BY f.id FOR NO KEY UPDATE", ""))


@mutant
def lost_answers_of_commits() -> None:
    """No bug: of every third commit the answer is lost with its session."""
    from upload_server.store.postgresql import committer  # noqa: PLC0415 - an extra

    commits = itertools.count()
    real = committer.PostgresqlCommitter._commit

    def lost(self: Any, connection: Any, transaction: Any) -> None:
        if not transaction.numbered or next(commits) % 3:
            real(self, connection, transaction)
            return
        transaction.commit()
        transaction._moved_by = None
        self._disconnect()
        self._look_up(transaction)

    committer.PostgresqlCommitter._commit = lost  # type: ignore[method-assign]


def _set_clock(seconds: float) -> None:
    real = app.utc_now
    vars(app)["utc_now"] = lambda: real() + timedelta(seconds=seconds)


@mutant
def clock_ahead() -> None:
    """No bug: this server's clock is five seconds ahead."""
    _set_clock(5)


@mutant
def clock_behind() -> None:
    """No bug: this server's clock is five seconds behind."""
    _set_clock(-5)


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
