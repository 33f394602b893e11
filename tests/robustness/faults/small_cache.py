"""``python small_cache.py serve …``: the server with small page caches, so that what grows under a soak is a leak.

SQLite keeps up to 16 MiB of pages a connection; while they fill with a database that grows, they look like a leak.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.process import ServerProcess
from upload_server.__main__ import main
from upload_server.store.sqlite import connection


class SmallCacheServer(ServerProcess):
    """A server of this kind."""

    program = (str(Path(__file__)),)


def shrink() -> None:
    """Have connections keep 1 MiB of pages instead of 16."""
    if getattr(connection, "_KIB", None) != 1024:
        raise AttributeError("the size of SQLite's cache is set elsewhere now")
    connection._KIB = 64


if __name__ == "__main__":
    shrink()
    sys.exit(main(sys.argv[1:]))
