"""``make prove``: time is shared out, figures add up, and whatever breaks off has found something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from robustness.prove.parts import PARTS, Figures, Share, shares
from robustness.prove.parts.figures import as_json, as_text, rows

TESTS = Path(__file__).parents[2]


def prove(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run whose evidence goes to a folder."""
    command = [sys.executable, "-m", "robustness.prove", *arguments]
    place = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, cwd=TESTS, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_each_part_gets_what_it_needs_and_its_weight_of_the_rest() -> None:
    found = shares(tuple(PARTS), 900)

    assert sum(found.values()) == pytest.approx(900)
    assert all(found[name] >= part.needs for name, part in PARTS.items())
    assert shares(("soak",), 5) == {"soak": PARTS["soak"].needs}


def test_every_part_has_a_turn_however_little_time_it_has() -> None:
    assert list(Share("7", 0, print).turns()) == ["7.0"]


def test_the_table_names_a_part_once_and_its_violations_always() -> None:
    figures = Figures(violations=["broken"], notes=["no compiler"])
    figures.counts["calls"] += 1200
    figures.at_worst("seconds", 2.0)
    figures.at_worst("seconds", 1.0)

    text = as_text(rows({"io": figures}))

    assert [line.split() for line in text.splitlines()] == [
        ["io", "calls", "1,200"],
        ["seconds", "2.0"],
        ["left", "out", "no", "compiler"],
        ["violations", "1"],
    ]
    assert json.loads(as_json({"io": figures}, {"seed": "7"}))["parts"]["io"]["counts"] == {"calls": 1200}


def test_a_run_leaves_its_figures_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    ended = prove(tmp_path, "--only", "model", "--minutes", "0", "--scale", "0", "--seed", "7", "--json", str(file))
    said, complaints = ended.communicate(timeout=60)

    assert ended.returncode == 0, complaints
    assert "seed 7" in said
    assert json.loads(file.read_text())["violations"] == 0


def test_an_interrupted_run_leaves_no_process_behind(tmp_path: Path) -> None:
    running = prove(tmp_path, "--only", "histories", "--minutes", "1")
    mine = psutil.Process(running.pid)
    while not (children := mine.children(recursive=True)):
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)

    assert running.returncode == 1
    assert "interrupted" in said
    assert [child for child in children if child.is_running()] == []
