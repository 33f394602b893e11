"""Reads paths of changed files, prints the tests that they need: ``make test-fast`` runs these (tests/README.md)."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
SERVER = "server/upload_server/"
# Every change: no import runs upwards, and each call works through each door.
ALWAYS = ("tests/unit/test_import_directions.py", "tests/contract/test_calls.py")
# A changed file below the first -> these tests too.
ALSO = (
    (SERVER + "domain/", "tests/contract/store"),
    (SERVER + "store/", "tests/contract/store"),
    (SERVER + "sink/", "tests/contract/sink"),
    (SERVER + "doors/tus/", "tests/clients/tus/test_protocol.py"),
    ("server/transcoder/", "server/transcoder/tests"),
    ("clients/python/upload/", "tests/clients/python/test_uploading.py"),
    ("clients/python/upload/", "tests/clients/python/test_cancelling.py"),
)
# Tests that read prose.
PROSE = (
    "tests/unit/test_architecture.py",
    "tests/unit/test_config.py",
    "tests/unit/test_markdown.py",
    "tests/robustness/prove/test_docs.py",
)


def unit_mirror(module: PurePosixPath) -> str:
    """Return the test file of a server module, or the folder of tests nearest to it; empty: it has none."""
    folder = PurePosixPath("tests/unit") / module.parent
    test = folder / f"test_{module.stem}.py"
    if (ROOT / test).exists():
        return str(test)
    while not (ROOT / folder).is_dir():
        folder = folder.parent
    return "" if folder == PurePosixPath("tests/unit") else str(folder)


def tests_of(path: str) -> list[str]:
    """Return the tests that a change of this file needs, besides ``ALWAYS``."""
    file = PurePosixPath(path)
    if file.suffix == ".md":
        return list(PROSE)
    if path.startswith("tests/") and file.match("test_*.py"):
        return [path]
    if path.startswith(("tests/unit/", "tests/contract/")):
        return [str(file.parent)] if file.parent.parent.name != "tests" else []
    found = [tests for prefix, tests in ALSO if path.startswith(prefix)]
    if path.startswith(SERVER) and file.suffix == ".py":
        found.append(unit_mirror(file.relative_to(SERVER)))
    return found


def main() -> None:
    """Print one path a line, folders without the files in them."""
    wanted = {test for path in sys.stdin.read().split() for test in tests_of(path)} | set(ALWAYS)
    there = {test for test in wanted if test and (ROOT / test).exists()}
    for test in sorted(there):
        if not any(str(parent) in there for parent in PurePosixPath(test).parents):
            print(test)


if __name__ == "__main__":
    main()
