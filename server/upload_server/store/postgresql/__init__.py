"""The Store on PostgreSQL: one writer thread with grouped commits, readers beside it."""
