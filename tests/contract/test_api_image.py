"""`make lint` refuses protos that break the callers of the committed API."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A clone without tags: the protos, how they are linted, and the API they are compared with."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "lint_protos.sh", tmp_path / "tools")
    return tmp_path


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{BUF.parent}:/usr/bin:/bin",
        "HOME": str(copy),
        "GIT_CEILING_DIRECTORIES": str(copy.parent),
    }
    return subprocess.run(
        [copy / "tools" / "lint_protos.sh"], env=environment, check=False, capture_output=True, text=True
    )


def change(copy: Path, before: str, after: str) -> None:
    proto = copy / "protos" / "upload" / "v1" / "upload.proto"
    text = proto.read_text()
    assert before in text
    proto.write_text(text.replace(before, after))


def test_the_api_of_today_is_the_committed_one(copy: Path) -> None:
    linted = lint(copy)

    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (" cancel_reason = ", " cancel_why = ", '"json_name" from "cancelReason" to "cancelWhy"'),
        ("int64 bytes_received = ", "uint64 bytes_received = ", 'changed type from "int64" to "uint64"'),
        ("GetBatch", "ReadBatch", 'RPC "GetBatch" on service "UploadService"'),
    ],
)
def test_a_change_that_breaks_callers_is_refused(copy: Path, before: str, after: str, said: str) -> None:
    change(copy, before, after)

    linted = lint(copy)

    assert linted.returncode != 0
    assert said in linted.stdout + linted.stderr


def test_a_field_can_be_added(copy: Path) -> None:
    change(copy, "message CancelFileRequest {\n", "message CancelFileRequest {\n  // New.\n  string added = 99;\n\n")

    linted = lint(copy)

    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")
