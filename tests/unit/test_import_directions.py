"""Who may import whom: the arrows of docs/architecture.md, walked over every module of the server."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "server" / "upload_server"
CORE = {"domain", "errors"}
# Everyone but the innermost may log and measure.
TELEMETRY = {"telemetry"}

# Part of the server -> parts of the server that it may import. A part is a top-level module or package.
ALLOWED: dict[str, set[str]] = {
    "domain": set(),
    "errors": {"domain"},
    "fields": CORE,
    "refusals": CORE,
    "ports": {"errors"},
    "tokens": CORE,
    "telemetry": set(),
    "store": CORE,
    "sink": CORE,
    "journal": CORE | {"store"},
    "watch": CORE | TELEMETRY | {"store", "tokens"},
    "ingest": CORE | TELEMETRY | {"store", "sink", "journal"},
    "janitor": CORE | TELEMETRY | {"store", "sink", "journal"},
    "audit": CORE | TELEMETRY | {"store"},
    "check": CORE | TELEMETRY | {"store", "sink", "audit"},
    "service": CORE | TELEMETRY | {"fields", "tokens", "store", "watch", "ingest", "janitor", "journal"},
    "rpc": CORE | TELEMETRY | {"fields", "ports", "refusals", "store", "watch", "ingest", "service"},
    "web": CORE | TELEMETRY | {"fields", "hosts", "ports", "refusals", "ingest", "service", "rpc", "transcoding"},
    "transcoding": set(),
    "hosts": set(),
    "config": {"hosts"},
    "arguments": {"config"},
    "heap": set(),
}
# The composition root and the program may import everything.
ROOTS = {"app", "operations", "__main__", "__init__"}
# Of packages with a protocol in front, others see only the protocol.
PROTOCOLS_ONLY = {"store", "sink"}
# What the web doors may use of rpc.
WEB_USES_OF_RPC = {"convert", "errors", "caller"}
# Libraries that belong to one part alone.
OWNED = {"peewee": {"store"}, "playhouse": {"store"}, "upload": {"rpc"}, "uvicorn": {"web"}, "sqlite3": {"store"}}


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
    for name in imports(path):
        words = name.split(".")
        owners = OWNED.get(words[0])
        assert owners is None or part in owners, f"{name}: only {owners} may import {words[0]}"
        if words[0] != "upload_server" or len(words) == 1 or part in ROOTS:
            continue
        target = words[1]
        if target == part:
            continue
        assert target in ALLOWED[part], f"{part} must not import {target} ({name})"
        if target in PROTOCOLS_ONLY and name.split(".")[:3] != ["upload_server", "store", "inspection"]:
            assert not (SERVER / target / f"{words[2]}.py").exists(), f"{part} may see only the protocols of {target}"
        if part == "web" and target == "rpc":
            assert words[2] in WEB_USES_OF_RPC, f"web may use of rpc only {WEB_USES_OF_RPC}, not {name}"


def test_every_part_has_its_rule() -> None:
    assert {part_of(path) for path in modules()} <= ALLOWED.keys() | ROOTS
