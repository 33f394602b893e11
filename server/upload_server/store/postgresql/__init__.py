"""The Store on PostgreSQL: one writer thread with grouped commits, readers beside it."""

from upload_server.store.postgresql.store import PostgresqlStore

__all__ = ["PostgresqlStore"]
