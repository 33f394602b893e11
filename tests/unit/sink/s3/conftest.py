"""An object store that really runs, each kind in turn."""

from __future__ import annotations

import pytest

from support import object_store

# Without the libraries of the extra nothing here can even be imported.
collect_ignore = [] if object_store.installed() else ["test_client.py", "test_assembly.py", "test_usable.py"]


@pytest.fixture(params=object_store.STORES)
def theirs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object_store.Bucket:
    """A bucket as its operator sees it; the libraries find its credentials where they look for them."""
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    return object_store.STORES[request.param]().new_bucket()
