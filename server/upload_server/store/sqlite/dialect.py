"""Decides what SQLite says in its own way."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from peewee import SqliteDatabase

from upload_server.store.sql.dialect import Dialect
from upload_server.store.sql.rows import time_text, to_json


class _Sqlite(Dialect):
    """Times and lists are text. A plus before a column keeps SQLite from looking it up in an index."""

    database = SqliteDatabase(None)
    greatest = "max"
    # All nodes are on one machine.
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    row_place = "rowid"

    def named(self, text: str) -> str:
        """Leave it as it is."""
        return text

    def encode(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write times and lists as text."""
        for name, value in values.items():
            if isinstance(value, datetime):
                values[name] = time_text(value)
            elif isinstance(value, list):
                values[name] = to_json(value)
        return values

    encode_wanted = encode

    def items(self, name: str, kind: str = "text") -> str:  # noqa: ARG002 - JSON tells it
        """Read the list as a table."""
        return f"json_each(:{name}) AS k"

    def rows(self, name: str, columns: str) -> str:
        """Read the list as a table; a column is looked up where it is used."""
        names = [column.split()[0] for column in columns.split(", ")]
        values = ", ".join(f"value ->> {index} AS {column}" for index, column in enumerate(names))
        return f"(SELECT {values}, key FROM json_each(:{name})) AS v"  # noqa: S608

    def is_one(self, column: str, query: str) -> str:
        """Look them up in an index of the column."""
        return f"{column} IN ({query})"

    def typed(self, value: str, kind: str) -> str:  # noqa: ARG002
        """Leave it: a value has its type with it."""
        return value

    def unindexed(self, column: str, kind: str = "text") -> str:  # noqa: ARG002
        """Put a plus before it."""
        return f"+{column}"

    def looked_up(self, table: str, alias: str, condition: str) -> str:
        """Join them so that SQLite keeps the order of the tables."""
        return f"CROSS JOIN {table} AS {alias} ON {condition}"

    def by_index(self, table: str, index: str) -> str:
        """Name the index."""
        return f"{table} INDEXED BY {index}"

    def sliced(self, slices: Sequence[Any], order: Sequence[Any], most: Any) -> Any:  # noqa: ARG002
        """Put one after the other: SQLite merges them as it reads."""
        return functools.reduce(lambda merged, other: merged.union_all(other), slices)

    def from_now(self, seconds: str) -> str:
        """Add them."""
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds')"

    def seconds(self, column: str) -> str:
        """Count them without the fraction: SQLite would round up the last half of a millisecond."""
        return f"unixepoch(substr({column}, 1, 19))"


SQLITE = _Sqlite()
