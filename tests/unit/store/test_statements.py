"""Each dialect brings the statements that commands name, and no others."""

from __future__ import annotations

from types import ModuleType

import pytest

from upload_server.store.commands import statements
from upload_server.store.commands.statements import Query, Statement
from upload_server.store.postgresql import rows as postgresql_rows
from upload_server.store.postgresql import statements as postgresql_statements
from upload_server.store.sqlite import rows as sqlite_rows
from upload_server.store.sqlite import statements as sqlite_statements

NAMED = {name: value for name, value in vars(statements).items() if isinstance(value, Statement)}
# What a dialect has beside them: for its transactions and its room, and words for its reads.
OWN = {"BEGIN", "READ_COUNTERS", "WRITE_COUNTERS", "COUNT_OPEN", "DATABASE_BYTES", "OPEN_FILE", "OPEN_BATCH", "NOW"}
OWN_OF_SQLITE = {"ANY_NODE"}
OWN_OF_POSTGRESQL = {"FOLLOW", "TAKE_ORDER_LOCK", "READ_FATE"}


@pytest.mark.parametrize(
    ("dialect", "own"), [(sqlite_statements, OWN | OWN_OF_SQLITE), (postgresql_statements, OWN | OWN_OF_POSTGRESQL)]
)
def test_a_dialect_has_the_statements_of_commands(dialect: ModuleType, own: set[str]) -> None:
    brought = {name for name in vars(dialect) if name.isupper() and not name.startswith("_")}
    imported = {name for name in brought if not isinstance(vars(dialect)[name], str)}
    columns = {name for name in brought if name.endswith("_COLUMNS")}

    assert brought - own - imported - columns == NAMED.keys()


def test_names_are_those_of_the_constants() -> None:
    assert {name: statement.name for name, statement in NAMED.items()} == {name: name for name in NAMED}


@pytest.mark.parametrize("dialect", [sqlite_rows, postgresql_rows])
def test_a_dialect_makes_every_row_that_a_query_promises(dialect: ModuleType) -> None:
    assert {query.row for query in NAMED.values() if isinstance(query, Query)} == dialect.MAKE_ROW.keys()
