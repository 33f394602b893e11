"""The schema as it was before cancellation existed: files, and batches that only count them."""

from __future__ import annotations

from typing import Any

from peewee import BigIntegerField, CharField, DateTimeField, IntegerField, Model


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Create the two tables."""

    class File(Model):
        file_id = CharField(unique=True)
        filename = CharField()
        content_type = CharField()
        size_bytes = BigIntegerField()
        status = CharField()
        batch_id = CharField(null=True)
        created_at = DateTimeField()
        updated_at = DateTimeField()

        class Meta:
            database = db
            table_name = "file"

    class Batch(Model):
        batch_id = CharField(unique=True)
        total_files = IntegerField()
        created_at = DateTimeField()

        class Meta:
            database = db
            table_name = "batch"

    db.create_tables([File, Batch])
