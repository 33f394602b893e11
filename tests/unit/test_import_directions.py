"""Who may import whom: the arrows of docs/architecture.md, walked over every module of the server."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "server" / "upload_server"
# Part of the server -> parts of it that it may import: always further in. A part is a folder or a module at the top.
ALLOWED: dict[str, set[str]] = {
    "domain": set(),
    "process": {"domain"},
    "config": {"process"},
    "options": {"config", "process"},
    "access": {"config", "options", "domain", "process"},
    "store": {"domain", "process"},
    "sink": {"domain", "process"},
    "watch": {"domain", "store"},
    "ingest": {"domain", "store", "sink"},
    "upkeep": {"config", "options", "domain", "process", "store", "sink", "ingest"},
    "service": {"domain", "store", "ingest", "watch"},
    "doors": {"domain", "process", "access", "store", "ingest", "watch", "service"},
}
# The composition root, the program, and the operator's commands put parts together.
ROOTS = {"app", "start", "workers", "__main__", "__init__"}
COMMANDS = "upkeep/commands.py"
# Of the places for rows and bytes others see the protocols, not who meets them.
PROTOCOLS = {"store": {"protocol", "values", "inspection"}, "sink": {"protocol"}}
# Libraries that belong to one part alone.
OWNED = {
    "peewee": "store",
    "playhouse": "store",
    "sqlite3": "store",
    "psycopg": "store",
    "boto3": "sink",
    "botocore": "sink",
    "obstore": "sink",
    "upload": "doors",
    "uvicorn": "doors",
    "jwt": "access",
    "cryptography": "access",
    "transcoder": "doors",
}


def modules() -> list[Path]:
    return sorted(path for path in SERVER.rglob("*.py") if "migrations" not in path.parts)


def imports(path: Path) -> list[str]:
    """Absolute names of what a module imports, wherever in it."""
    package = path.relative_to(SERVER.parent).with_suffix("").parts
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level]] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def part_of(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SERVER)))
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(path)
    if part in ROOTS or path == SERVER / COMMANDS:
        return
    for name in imports(path):
        words = name.split(".")
        assert OWNED.get(words[0], part) == part, f"{name}: only {OWNED[words[0]]} may import {words[0]}"
        if words[0] != "upload_server" or len(words) == 1 or words[1] == part:
            continue
        assert words[1] in ALLOWED[part], f"{part} must not import {words[1]} ({name})"
        assert words[2] in PROTOCOLS.get(words[1], {words[2]}), (
            f"{part} may see only the protocols of {words[1]}: {name}"
        )


def test_every_part_has_its_rule() -> None:
    assert {part_of(path) for path in modules()} <= ALLOWED.keys() | ROOTS


def test_the_transcoder_knows_no_upload() -> None:
    for path in (SERVER.parent / "transcoder" / "transcoder").rglob("*.py"):
        assert not any(name.split(".")[0] in {"upload", "upload_server"} for name in imports(path)), path


def test_only_the_store_on_postgresql_needs_its_driver() -> None:
    """It is an extra, and takes a tenth of a second of each start."""
    wanted = [path for path in modules() if any(name.split(".")[0] == "psycopg" for name in imports(path))]
    assert {path.parent.name for path in wanted} == {"postgresql"}


def test_commands_know_no_database() -> None:
    known = {"protocol", "values", "options", "commands"}
    for path in (SERVER / "store" / "commands").glob("*.py"):
        for name in imports(path):
            words = name.split(".")
            assert words[0] not in {"peewee", "playhouse", "sqlite3", "psycopg", "json"}, f"{path.name}: {name}"
            assert words[:2] != ["upload_server", "store"] or words[2] in known, f"{path.name}: {name}"
