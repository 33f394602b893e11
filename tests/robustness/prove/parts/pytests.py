"""Tests that are a part of ``make prove``: run by pytest, in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil

from robustness.prove.parts.figures import Figures, Share

_TESTS = Path(__file__).parents[3]
# They are as many as they are; a machine that takes so many times their share hangs.
_PATIENCE = 4.0
# To take namespaces and servers away.
_CLEAN_UP_SECONDS = 30.0


def run_tests(
    files: Sequence[str], share: Share, figures: Figures, *words: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run ``files`` once, with more ``words`` to pytest."""
    report = Path(tempfile.mkdtemp(prefix="prove-")) / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", f"--junitxml={report}", *words]
    process = subprocess.Popen(
        [*command, *(str(_TESTS / name) for name in files)], env={**os.environ, **(environment or {})}
    )
    try:
        process.wait(share.seconds * _PATIENCE)
    except subprocess.TimeoutExpired:
        figures.violations.append(f"not done after {share.seconds * _PATIENCE:.0f} s")
    finally:
        _end(process)
    if report.exists():
        _read(report, figures)
    if process.returncode and not figures.violations:
        figures.violations.append(f"pytest ended with {process.returncode}")
    if not figures.violations:
        shutil.rmtree(report.parent)


def _read(report: Path, figures: Figures) -> None:
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - of our own making
        kind = Path(str(case.get("classname", "")).replace(".", "/")).name.removeprefix("test_").replace("_", " ")
        figures.counts[f"cases of {kind}"] += 1
        for bad in (*case.iter("failure"), *case.iter("error")):
            figures.violations.append(f"{case.get('name')}: {str(bad.get('message'))[:300]} ({report})")
        figures.notes += [f"{case.get('name')}: {skipped.get('message')}" for skipped in case.iter("skipped")]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it clean up, then make sure that nothing of it is left."""
    if process.poll() is not None:
        return
    left = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_CLEAN_UP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in left:
        if each.is_running():
            each.kill()
