"""The models are the schema: what the numbered steps make is what they describe, column by column, index by index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peewee import SCOPE_VALUES, SqliteDatabase
from playhouse.schema_diff import diff_models

from upload_server.store.models import MODELS
from upload_server.store.sqlite.schema import prepare

# What SQLite takes a declared type for; a time is text.
AFFINITY = {"VARCHAR": "text", "TEXT": "text", "DATETIME": "text", "BLOB": "bytes"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "upload.db"
    prepare(path)
    opened = SqliteDatabase(str(path))
    with opened.connection_context():
        yield opened


def meta(model: Any) -> Any:
    return model._meta


def kind(declared: str) -> str:
    return AFFINITY.get(declared.partition("(")[0], "number")


def plain(sql: str) -> str:
    """A statement without quotes, parentheses and spaces that change nothing."""
    return re.sub(r'["()\s]+', " ", sql).replace(" ,", ",").replace(", ", ",").strip()


def test_the_migrated_database_differs_in_nothing(database: Any) -> None:
    difference = diff_models(database, MODELS)

    assert not difference, str(difference)
    assert set(database.get_tables()) == {meta(model).table_name for model in MODELS} | {"schema_migration"}


@pytest.mark.parametrize("model", MODELS)
def test_columns_hold_what_the_fields_say(database: Any, model: Any) -> None:
    columns = {column.name: column for column in database.get_columns(meta(model).table_name)}
    keys = {field.column_name for field in meta(model).get_primary_keys()}

    for name, field in meta(model).columns.items():
        column = columns[name]
        assert kind(column.data_type) == kind(field.field_type), name
        assert column.primary_key == (name in keys), name
        # SQLite does not say NOT NULL of a row's own number.
        assert column.null == (field.null or (column.identity and column.null)), name
        assert column.default == (None if field.default is None else repr(field.default)), name


@pytest.mark.parametrize("model", MODELS)
def test_indexes_are_those_of_the_models(database: Any, model: Any) -> None:
    found = database.execute_sql(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        (meta(model).table_name,),
    ).fetchall()
    described = [
        database.get_sql_context(value_literals=True, scope=SCOPE_VALUES).sql(index.safe(False)).query()[0]
        for index in meta(model).fields_to_index()
    ]

    assert sorted(plain(sql) for (sql,) in found) == sorted(map(plain, described))
