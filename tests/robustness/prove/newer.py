"""The program as its next release may be: a copy with one more step of the schema, which still bears today's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import upload_server
from support.cluster import Cluster, Node

NAME = "9998_newer"
MIGRATIONS = Path("store", "postgresql", "migrations")
# Columns with defaults and an index more: whoever does not know them goes on as before.
_STEP = '''"""What a newer program may need."""

BEARS = 1
STATEMENTS = (
    "ALTER TABLE file ADD COLUMN newer text NOT NULL DEFAULT ''",
    "ALTER TABLE node ADD COLUMN newer bigint NOT NULL DEFAULT 0",
    "CREATE INDEX file_newer ON file (newer, id) WHERE newer <> ''",
)


def up(migrator, db):
    for statement in STATEMENTS:
        db.execute_sql(statement)
'''


def upgrade(cluster: Cluster, node: Node) -> None:
    """Stop a server, to have the copy in its place; it has migrated the database beside the others."""
    package, folder = Path(upload_server.__file__).parent, cluster.folder / "newer"
    if not folder.exists():
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / package.name / MIGRATIONS / f"{NAME}.py").write_text(_STEP)
        command = [sys.executable, "-m", "upload_server", "migrate", "--database-url", cluster.url]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(folder)})
    node.program = folder
    node.terminate()


def set_back(_: Cluster, node: Node) -> None:
    """Stop a server, to have this program in its place."""
    node.program = None
    node.terminate()
