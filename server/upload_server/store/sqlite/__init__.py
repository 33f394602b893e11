"""The Store on SQLite: one file, one writer thread with grouped commits, readers beside it."""
