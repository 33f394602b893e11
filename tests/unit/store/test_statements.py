"""The statements are those that commands name, and no others; each is one in every dialect."""

from __future__ import annotations

import pytest

from upload_server.store.commands import statements
from upload_server.store.commands.statements import Query, Statement
from upload_server.store.postgresql.dialect import POSTGRESQL
from upload_server.store.sql import rows
from upload_server.store.sql import statements as texts
from upload_server.store.sql.dialect import Dialect, Sql
from upload_server.store.sqlite.dialect import SQLITE

NAMED = {name: value for name, value in vars(statements).items() if isinstance(value, Statement)}
# What there is beside them: for the room that is kept, and for an operator.
OWN = {"COUNT_OPEN", "READ_NODES"}


def test_every_statement_of_commands_is_there() -> None:
    assert {name for name, value in vars(texts).items() if isinstance(value, Sql)} - OWN == NAMED.keys()


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL])
def test_every_statement_has_a_text_in_each_dialect(dialect: Dialect) -> None:
    for sql in vars(texts).values():
        if isinstance(sql, Sql):
            assert sql.text(dialect)


def test_a_name_becomes_a_value_and_a_cast_stays_one() -> None:
    assert POSTGRESQL.text("SELECT :name::text, v.a FROM t WHERE a LIKE 'x%' AND b = :b") == (
        "SELECT %(name)s::text, v.a FROM t WHERE a LIKE 'x%%' AND b = %(b)s"
    )


def test_names_are_those_of_the_constants() -> None:
    assert {name: statement.name for name, statement in NAMED.items()} == {name: name for name in NAMED}


def test_every_row_that_a_query_promises_is_made() -> None:
    assert {query.row for query in NAMED.values() if isinstance(query, Query)} == rows.MAKE_ROW.keys()
