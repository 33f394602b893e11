"""Decides when a request id repeats an answer: the same request gets it again, another one is refused.

Must not know what the answers say. Scope of a request id: (principal, method).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from upload_server.domain.errors import RequestIdReused
from upload_server.store.commands import statements
from upload_server.store.commands.statements import AnswerRow
from upload_server.store.commands.transaction import Transaction
from upload_server.store.values import Command

Key = tuple[str, str, str]


def _key_of(command: Command) -> Key:
    return command.caller.principal, command.method, command.request_id


def keys_of(command: Command) -> Sequence[Key]:
    """Return what a write wants that answers ``command`` once."""
    return (_key_of(command),) if command.request_id else ()


class Answers:
    """The stored answers of some commands: those found, and those to be kept in this transaction."""

    def __init__(self, transaction: Transaction, commands: Iterable[Command]) -> None:
        self._transaction = transaction
        self._kept: dict[Key, AnswerRow] = {}
        self._new: list[tuple[Any, ...]] = []
        keys = [_key_of(command) for command in commands if command.request_id]
        if keys:
            self._kept.update({row[:3]: row for row in transaction.read(statements.READ_ANSWERS, keys=keys)})

    def replay(self, command: Command) -> Any:
        """Return the answer stored under the command's request id, or None; raises ``RequestIdReused``."""
        kept = self._kept.get(_key_of(command)) if command.request_id else None
        if kept is None:
            return None
        if kept.fingerprint != command.fingerprint.hex():
            raise RequestIdReused(command.request_id)
        return kept.answer

    def keep(self, command: Command, answer: object) -> None:
        """Have ``answer`` stored under the command's request id; also for the commands after it in this group."""
        if command.request_id:
            key = _key_of(command)
            row = self._kept[key] = AnswerRow(*key, command.fingerprint.hex(), answer)
            self._new.append((*row, command.at, self._transaction.served))

    def write(self) -> None:
        """Store the new answers, in the transaction of what they answer."""
        if self._new:
            self._transaction.write_exactly(len(self._new), statements.KEEP_ANSWERS, answers=self._new)
