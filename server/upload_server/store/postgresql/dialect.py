"""Decides what PostgreSQL says in its own way.

Needs no driver: statements can be read without it.
"""

# ruff: noqa: S608 - put together from names of this program

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final

from peewee import PostgresqlDatabase

from upload_server.store.sql.dialect import Dialect
from upload_server.store.sql.rows import to_json

# A value by its name; not a cast, `::text`.
_NAMED: Final = re.compile(r"(?<![:\w]):([a-z]\w*)")
# Numbers that are not known before the COMMIT are counted from here: no other number is ever so high.
UNKNOWN: Final = 1 << 62
# Stands for NUL, which PostgreSQL takes in no text: it is in no text of a store, so what has it is found nowhere.
_NOWHERE: Final = "\ufffe"
# What is done to a column that changes nothing but that no index has it so.
_IDLE: Final = {"text": "|| ''", "bigint": "+ 0", "timestamptz": "+ interval '0'"}


class _Postgresql(Dialect):
    """Lists are JSON. What is in one says its type; so does a value that may be NULL, which nothing else would tell."""

    database = PostgresqlDatabase(None)
    greatest = "greatest"
    # Not the time at which the transaction began, which may have waited for the order lock.
    now = "clock_timestamp()"
    # Whoever reads on from a number must not pass those of a transaction that is under way.
    last_change = "least(last_change, (SELECT min(first) - 1 FROM open_block))"
    row_place = "ctid"

    def named(self, text: str) -> str:
        """Write the names as the driver does, which takes a percent sign twice."""
        return _NAMED.sub(r"%(\1)s", text.replace("%", "%%"))

    def encode(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write lists as text; a text with NUL the server refuses."""
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = to_json(value)
        return values

    def encode_wanted(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write lists as text, and what no text of a store has so that it is found nowhere."""
        for name, value in values.items():
            if isinstance(value, str | list):
                wanted = _without_nul(value)
                values[name] = to_json(wanted) if isinstance(wanted, list) else wanted
        return values

    def items(self, name: str, kind: str = "text") -> str:
        """Read the list as a table."""
        return (
            f"(SELECT value::{kind}, key FROM jsonb_array_elements_text(:{name}::jsonb)"
            " WITH ORDINALITY AS t (value, key)) AS k"
        )

    def rows(self, name: str, columns: str) -> str:
        """Read the list as a table."""
        values = ", ".join(
            f"(value ->> {index})::{kind or 'text'} AS {column}"
            for index, (column, _, kind) in enumerate(each.partition(" ") for each in columns.split(", "))
        )
        return (
            f"(SELECT {values}, key - 1 AS key FROM jsonb_array_elements(:{name}::jsonb)"
            " WITH ORDINALITY AS t (value, key)) AS v"
        )

    def is_one(self, column: str, query: str) -> str:
        """Compare with an array that is known before the rows are read: a join could read them in another order."""
        return f"{column} = ANY(ARRAY({query}))"

    def moved(self, number: str) -> str:
        """Count it from where the server has given numbers to the transaction; one that is known stays."""
        known = f"{number} + current_setting('upload.moved_by', true)::bigint"
        return f"(CASE WHEN {number} > {UNKNOWN} THEN {known} ELSE {number} END)"

    def typed(self, value: str, kind: str) -> str:
        """Say its type."""
        return f"{value}::{kind}"

    def unindexed(self, column: str, kind: str = "text") -> str:
        """Have nothing done to it."""
        return f"({column} {_IDLE[kind]})"

    def looked_up(self, table: str, alias: str, condition: str) -> str:
        """Join them so that the planner keeps to it, whatever else is asked: for that is the OFFSET."""
        return f"CROSS JOIN LATERAL (SELECT * FROM {table} AS {alias} WHERE {condition} OFFSET 0) AS {alias}"

    def by_index(self, table: str, index: str) -> str:  # noqa: ARG002 - there are no hints
        """Leave it to the planner, which is told to use indexes."""
        return table

    def sliced(self, slices: Sequence[Any], order: Sequence[Any], most: Any) -> Any:
        """Put one after the other, of each all that a page of them may need."""
        first, *others = [each.order_by(*order).limit(most) for each in slices]
        return functools.reduce(lambda merged, other: merged.union_all(other), others, first)

    def from_now(self, seconds: str) -> str:
        """Add them."""
        return f"{self.now} + make_interval(secs => {seconds})"

    def seconds(self, column: str) -> str:
        """Count them without the fraction."""
        return f"floor(extract(epoch FROM {column}))::bigint"


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", _NOWHERE) if "\x00" in value else value
    return [_without_nul(item) for item in value] if isinstance(value, list | tuple) else value


POSTGRESQL = _Postgresql()
