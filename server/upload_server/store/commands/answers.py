"""Decides when a request id repeats an answer: the same request gets it again, another one is refused.

Must not know what the answers say. Scope of a request id: (principal, method).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from upload_server.domain.errors import RequestIdReused
from upload_server.store.protocol import Command
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import time_text, to_json
from upload_server.store.sqlite.transaction import Transaction

Key = tuple[str, str, str]


def key_of(command: Command) -> Key | None:
    """Return what names a stored answer, or None for a command that does not ask for one."""
    return (command.caller.principal, command.method, command.request_id) if command.request_id else None


class Answers:
    """The stored answers of some commands: those found, and those to be kept in this transaction."""

    def __init__(self, transaction: Transaction, commands: Iterable[Command]) -> None:
        self._transaction = transaction
        self._kept: dict[Key, tuple[str, str]] = {}
        self._new: list[Sequence[str]] = []
        keys = [key for command in commands if (key := key_of(command)) is not None]
        if keys:
            for row in transaction.read(statements.READ_ANSWERS, keys=to_json(keys)):
                self._kept[row[0], row[1], row[2]] = (row[3], row[4])

    def replay(self, command: Command) -> str | None:
        """Return the answer stored under the command's request id, if any; raises ``RequestIdReused``."""
        key = key_of(command)
        if key is None or key not in self._kept:
            return None
        fingerprint, answer = self._kept[key]
        if fingerprint != command.fingerprint.hex():
            raise RequestIdReused(command.request_id)
        return answer

    def keep(self, command: Command, answer: str) -> None:
        """Have ``answer`` stored under the command's request id; also for the commands after it in this group."""
        key = key_of(command)
        if key is not None:
            fingerprint = command.fingerprint.hex()
            self._kept[key] = (fingerprint, answer)
            self._new.append((*key, fingerprint, answer, time_text(command.at)))

    def write(self) -> None:
        """Store the new answers, in the transaction of what they answer."""
        if self._new:
            self._transaction.write_exactly(len(self._new), statements.KEEP_ANSWERS, answers=to_json(self._new))
