"""Each line that the service may log stands in the operator's document, and so does each alert."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
LEVELS = {"info", "warning", "error", "exception"}


def events(source: ast.Module) -> Iterator[str]:
    """The texts of lines above debug; those that a library or a caller words have none here."""
    for node in ast.walk(source):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        text = node.args[0].value
        function = ast.unparse(node.func)
        owner, _, name = function.rpartition(".")
        logs = name in LEVELS and owner.rpartition(".")[2] in {"log", "_log"}
        if isinstance(text, str) and (logs or function in {"write", "unforeseen", "info_writer"}):
            yield text


LINES = sorted(
    {
        line
        for path in (ROOT / "server" / "upload_server").rglob("*.py")
        for line in events(ast.parse(path.read_text()))
        if line != "%s"
    }
)


def test_each_line_is_documented() -> None:
    assert {"serving", "status.changed", "call.failed", "storage failed to open a file"} <= set(LINES)
    assert len(LINES) > 60
    assert [line for line in LINES if f"`{re.sub('%[sd]', '…', line)}`" not in DOCUMENT] == []


def test_each_alert_is_documented() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert alerts
    assert [alert for alert in alerts if f"`{alert}`" not in DOCUMENT] == []
