"""docs/architecture.md is true: the table of imports, and what a new status, store or sink touches."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from unit.test_import_directions import ALLOWED, ROOTS
from upload_server.domain.states import BatchStatus, FileStatus

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "upload_server"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
# Today's implementations, by which code can name them, and the folder or file that is theirs.
STORE = re.compile(r"\bstore[./](sqlite|postgresql)\b|\b(Sqlite|Postgresql)[A-Z]\w+")
SINK = re.compile(r"\bsink[./](disk|s3)\b|\b(Disk|S3)(Sink|File)\b")
IMPLEMENTATIONS = {"store": (STORE, ["store/sqlite", "store/postgresql"]), "sink": (SINK, ["sink/disk", "sink/s3"])}
STATUS_WORDS = {status.value for kind in (FileStatus, BatchStatus) for status in kind}
# Where one of these words is not a status.
OTHER_WORDS = {
    "service.py": "the outcome of a cancel, for the metrics",
    "doors/websocket/messages.py": "the type of a message to the page",
    "sink/protocol.py": "the reason of a sink's error",
}


def touched(new: str) -> list[Path]:
    """Files and folders that the row of ``new`` names."""
    row = PAGE.split("## To add one of these, touch")[1].split(f"\n| {new} | ")[1].splitlines()[0]
    return [ROOT / name for name in re.findall(r"`([\w./]+/[\w./]+)`", row)]


def modules() -> list[Path]:
    return sorted(SERVER.rglob("*.py"))


def is_within(path: Path, places: list[Path]) -> bool:
    return any(path == place or place in path.parents for place in places)


@pytest.mark.parametrize("new", ["status", "store", "sink"])
def test_every_place_to_touch_is_there(new: str) -> None:
    places = touched(new)
    assert places
    assert [place for place in places if not place.exists()] == []


@pytest.mark.parametrize("new", list(IMPLEMENTATIONS))
def test_the_server_names_an_implementation_only_where_it_opens_it(new: str) -> None:
    pattern, own = IMPLEMENTATIONS[new]
    naming = [
        path
        for path in modules()
        if pattern.search(path.read_text()) and not is_within(path, [SERVER / place for place in own])
    ]
    assert naming == [SERVER / new / "open.py"]
    assert naming[0] in touched(new)


@pytest.mark.parametrize("folder", ["clients", "contract", "e2e", "support", "unit"])
def test_tests_of_every_store_name_none(folder: str) -> None:
    own = [ROOT / "tests" / "unit" / "store", Path(__file__)]
    others = [path for path in sorted((ROOT / "tests" / folder).rglob("*.py")) if not is_within(path, own)]
    naming = [path.name for path in others if STORE.search(path.read_text())]
    assert [name for name in naming if not name.startswith(("test_sqlite_", "test_postgresql_"))] == []


def test_the_table_of_imports_is_the_rule() -> None:
    table = PAGE.split("## Who may import whom")[1].split("##")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    names = [(re.findall(r"`(\w+)`", parts), set(re.findall(r"`(\w+)`", allowed))) for parts, allowed in rows]
    written = {part: allowed for parts, allowed in names for part in parts}
    assert {part: allowed for part, allowed in written.items() if part not in ROOTS} == ALLOWED


def status_words(path: Path) -> list[str]:
    """String constants of a module that are a status, or SQL text that holds one."""
    sql = re.compile("'(" + "|".join(sorted(STATUS_WORDS)) + ")'")
    constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    texts = [text for text in constants if isinstance(text, str)]
    return [text for text in texts if text in STATUS_WORDS or sql.search(text)]


def test_only_where_a_status_is_added_its_word_is_written() -> None:
    places = [*touched("status"), *(SERVER / name for name in OTHER_WORDS)]
    elsewhere = {
        str(path.relative_to(SERVER)): words
        for path in modules()
        if (words := status_words(path)) and not is_within(path, places)
    }
    assert elsewhere == {}


def test_every_place_that_is_named_for_a_status_has_one() -> None:
    for place in touched("status"):
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        assert any("completed" in file.read_text().lower() for file in files), place
    for name in OTHER_WORDS:
        assert status_words(SERVER / name), name
