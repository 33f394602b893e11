"""Rows of files, batches and audit: the protocol, what is decided in values, and one folder for each database."""

import sys

# Peewee and its migrations import every driver that they find, a tenth of a second at each start. The one store that
# needs a driver of PostgreSQL imports it itself.
_hidden = [name for name in ("psycopg", "psycopg2", "psycopg2cffi") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]
try:
    import playhouse.migrations as _migrations  # noqa: F401
finally:
    for _name in _hidden:
        del sys.modules[_name]
