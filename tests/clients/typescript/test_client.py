"""The TypeScript client: its types, and its own tests against real servers, run by Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[3] / "clients" / "typescript"
FIRST_NODE = 20


def npm() -> str:
    """The npm to run; skips where Node or the client's packages are missing, except in CI."""
    found = shutil.which("npm")
    missing = ""
    if found is None or node_version() < FIRST_NODE:
        missing = f"needs Node {FIRST_NODE} or newer"
    elif not (CLIENT / "node_modules").exists():
        missing = "needs the client's packages: npm ci in clients/typescript"
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    assert found is not None
    return found


def node_version() -> int:
    """Node's major version; 0 without one."""
    node = shutil.which("node")
    if node is None:
        return 0
    text = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(text.removeprefix("v").partition(".")[0])


def run(*arguments: str) -> None:
    """Run an npm script; what it printed is the failure's text."""
    server = Path(sys.executable).parent / "upload-server"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    done = subprocess.run(
        [npm(), "run", "--silent", *arguments],
        cwd=CLIENT,
        env={**clean, "UPLOAD_SERVER": str(server)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


def test_its_types_hold() -> None:
    run("check")


@pytest.mark.timeout(300)
def test_its_own_tests_pass_against_a_real_server() -> None:
    run("test")


def test_the_lock_file_names_no_host_that_packages_came_from() -> None:
    lock = (CLIENT / "package-lock.json").read_text()
    assert '"resolved"' not in lock, "run 'npm install' with this folder's .npmrc"
