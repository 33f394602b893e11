"""Decides what differs from dialect to dialect inside a statement, and how a statement becomes a text of a dialect.

Must not know any statement. A value comes in by name, ``:name`` in a text and ``Parameter("name")`` in a query of
Peewee; a list is one value in JSON, however long it is. Building one query costs 350 µs, running its text 15: so each
is built once for a dialect, when it first runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from peewee import SQL, Context, Database, Node


class Parameter(Node):
    """A value that the caller gives by name when the query runs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __sql__(self, ctx: Context) -> Context:
        """Write its name."""
        written: Context = ctx.literal(f":{self._name}")
        return written


# A literal; a Python "" would become a value without a name.
EMPTY = SQL("''")


class Dialect(ABC):
    """What one database says in its own way. ``kind`` is a type by PostgreSQL's name of it."""

    # Never connected: writes Peewee's queries.
    database: Database
    # The function that returns the greater of two values.
    greatest: str
    # The time by the clock of the store, which all its nodes share.
    now: str
    # The last change of which, and of all before it, everything is committed; in a query of `store_info`.
    last_change = "last_change"
    # Where a row lies, for statements that find it themselves.
    row_place: str

    def text(self, query: Node | str) -> str:
        """Return the text of a query; raises ValueError when it holds a value without a name."""
        if isinstance(query, str):
            return self.named(query)
        sql, values = self.database.get_sql_context().sql(query).query()  # type: ignore[no-untyped-call]
        if values:
            raise ValueError(f"a value without a name in {sql}")
        return self.named(str(sql))

    @abstractmethod
    def named(self, text: str) -> str:
        """Return a text as the driver takes it, with its values by name."""

    @abstractmethod
    def encode(self, values: dict[str, Any]) -> dict[str, Any]:
        """Turn values, in place, into what the database takes."""

    @abstractmethod
    def encode_wanted(self, values: dict[str, Any]) -> dict[str, Any]:
        """Turn the values of a query, in place, into what the database takes, whatever a caller looks for."""

    @abstractmethod
    def items(self, name: str, kind: str = "text") -> str:
        """Return the items of a list as rows ``k`` of ``value`` and ``key``, by which they are in order."""

    @abstractmethod
    def rows(self, name: str, columns: str) -> str:
        """Return the rows of a list as rows ``v`` of ``columns`` and ``key``, which counts them from 0.

        ``columns`` are names in the order of a row's values, each with its kind behind it unless it is a text.
        """

    @abstractmethod
    def is_one(self, column: str, query: str) -> str:
        """Return the condition that a column is what one of the query's rows has."""

    def is_item(self, column: str, name: str, kind: str = "text") -> str:
        """Return the condition that a column is one of a list's items."""
        return self.is_one(column, f"SELECT k.value FROM {self.items(name, kind)}")  # noqa: S608

    def moved(self, number: str) -> str:
        """Return a number that a transaction gave as it is committed."""
        return number

    @abstractmethod
    def typed(self, value: str, kind: str) -> str:
        """Return a value that may be NULL, or whose kind nothing else tells."""

    @abstractmethod
    def unindexed(self, column: str, kind: str = "text") -> str:
        """Return a column in a form that no index is on, where another one serves better."""

    @abstractmethod
    def looked_up(self, table: str, alias: str, condition: str) -> str:
        """Join the rows of a table that ``condition`` finds for each row before it, one after the other."""

    @abstractmethod
    def by_index(self, table: str, index: str) -> str:
        """Return a table that is read by an index, which the database might not choose itself."""

    @abstractmethod
    def sliced(self, slices: Sequence[Any], order: Sequence[Any], most: Any) -> Any:
        """Return the rows of several queries in ``order``; a caller takes ``most`` of them, and orders them again."""

    @abstractmethod
    def from_now(self, seconds: str) -> str:
        """Return the time that lies so many seconds ahead of now."""

    @abstractmethod
    def seconds(self, column: str) -> str:
        """Return a time's whole seconds since 1970."""


class Sql:
    """A statement, in every dialect."""

    __slots__ = ("_make", "_texts")

    def __init__(self, make: str | Callable[[Dialect], Node | str]) -> None:
        """``make``: its text, where it is the same in all, or what writes it for a dialect."""
        self._make = make
        self._texts: dict[Dialect, str] = {}

    def text(self, dialect: Dialect) -> str:
        """Return its text in a dialect."""
        text = self._texts.get(dialect)
        if text is None:
            text = self._texts[dialect] = dialect.text(self.made(dialect))
        return text

    def made(self, dialect: Dialect) -> Node | str:
        """Return it as it is put into another one."""
        return self._make if isinstance(self._make, str) else self._make(dialect)
