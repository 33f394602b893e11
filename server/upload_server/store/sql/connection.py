"""Decides how statements run on a connection, whichever database it leads to.

Must not know how one is opened, nor what is read or written.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import peewee

from upload_server.store.sql.dialect import Dialect, Sql

# Rows of a page are together at most so long as messages: a caller that asks for a thousand may get fewer (AIP-158).
_PAGE_BYTES: Final = 256 * 1024
# What a row's numbers, times and tags are more as a message than as text.
_ROW_BYTES: Final = 64


def _size(row: tuple[Any, ...]) -> int:
    """Return how many bytes a row is at most as a message."""
    texts = [value for value in row if isinstance(value, str)]
    return _ROW_BYTES + sum([len(text) if text.isascii() else len(text.encode()) for text in texts])


def said(error: BaseException) -> str:
    """Return what the database or its driver said, in one line."""
    return " ".join(str(error).split())


class Connection(ABC):
    """One connection through Peewee's ``execute_sql``; used by one thread at a time, whichever it is."""

    dialect: ClassVar[Dialect]
    # What a database raises. Peewee wraps what `execute` raises, not what `fetch` raises.
    errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, database: peewee.Database) -> None:
        # For Peewee's own tools.
        self.database = database

    def execute(self, sql: Sql | str, values: dict[str, Any] | None = None) -> int:
        """Run a statement that returns nothing; returns how many rows it changed. The values are encoded in place."""
        count: int = self._run(sql, self.dialect.encode(values) if values else values).rowcount
        return count

    def execute_returning(self, sql: Sql | str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement that changes rows and returns something of each. The values are encoded in place."""
        rows: list[tuple[Any, ...]] = self._run(sql, self.dialect.encode(values) if values else values).fetchall()
        return rows

    def rows(self, sql: Sql | str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return all its rows; what no store can hold is found nowhere. The values are encoded in
        place."""
        rows: list[tuple[Any, ...]] = self._run(
            sql, self.dialect.encode_wanted(values) if values else values
        ).fetchall()
        return rows

    def page(self, sql: Sql | str, values: Mapping[str, Any], limit: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Run a query with a LIMIT :limit; returns at most so many rows, up to a bound of bytes, and whether there are
        more.

        At least one row, however long it is.
        """
        # One more than the page, so that it is known whether there is a next one.
        cursor = self._run(sql, self.dialect.encode_wanted({**values, "limit": limit + 1}))
        rows: list[tuple[Any, ...]] = []
        room = _PAGE_BYTES
        for row in cursor:
            room -= _size(row)
            if len(rows) == limit or (rows and room < 0):
                cursor.close()
                return rows, True
            rows.append(row)
        return rows, False

    def _run(self, sql: Sql | str, values: Mapping[str, Any] | None) -> Any:
        text = sql if isinstance(sql, str) else sql.text(self.dialect)
        return self.database.execute_sql(text, values)  # type: ignore[no-untyped-call]

    def patiently(self) -> contextlib.AbstractContextManager[None]:
        """Allow the statements of the open transaction the time that a walk through a large store takes."""
        return contextlib.nullcontext()

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also one that failed."""

    @abstractmethod
    def lost_by(self, error: BaseException) -> bool:
        """Whether it is of no use any more, after an error."""

    @abstractmethod
    def surely_not_committed(self, error: BaseException) -> bool:
        """Whether a COMMIT that failed so has certainly changed nothing."""

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self.database.close()
