"""Decides how a Peewee query becomes text that is run again and again with other values.

Must not know what is read. A query is built once, and its values come in by name when it runs.
"""

from __future__ import annotations

from typing import Any

from peewee import SQL, Context, Node, NodeList, PostgresqlDatabase, fn

# Never connected: knows the dialect.
_DIALECT = PostgresqlDatabase(None)


class Parameter(Node):
    """A value that the caller gives by name when the query runs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __sql__(self, ctx: Context) -> Context:
        """Write its name."""
        written: Context = ctx.literal(f"%({self._name})s")
        return written


# A literal; a Python "" would become a value without a name.
EMPTY = SQL("''")


def compiled(query: Node) -> str:
    """Return the text of a query; raises ValueError when it holds a value without a name."""
    sql, values = _DIALECT.get_sql_context().sql(query).query()  # type: ignore[no-untyped-call]
    if values:
        raise ValueError(f"a value without a name in {sql}")
    return str(sql)


def is_item(column: Any, values: Parameter, kind: str = "text") -> Any:
    """Return the condition that a column is one of a JSON list: one value, however long the list is.

    As an array that is known before the rows are read: a join could read them in another order.
    """
    items = NodeList((SQL("SELECT value::" + kind + " FROM"), fn.jsonb_array_elements_text(cast(values, "jsonb"))))
    return NodeList((column, SQL("= ANY(ARRAY("), items, SQL("))")))


def cast(value: Node, kind: str) -> NodeList:
    """Return the value as one of ``kind``."""
    return NodeList((value, SQL(f"::{kind}")), glue="")


def unindexed(text: Any) -> Any:
    """Return a column of text in a form that no index is on, where another one serves better."""
    return NodeList((SQL("("), text, SQL(" || '')")), glue="")
