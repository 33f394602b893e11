from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from robustness.faults.disks import small_disk
from upload_server.process.room import Room

MIB = 1024 * 1024


def test_what_is_kept_of_a_disk_is_that_disks_alone(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32m") as folder:
        room = Room()
        before, elsewhere = room.left(folder), room.left(tmp_path)
        assert 29 * MIB < before <= 30 * MIB, "a sixteenth of a small disk is kept"
        room.keep(folder.stat().st_dev, lambda: 10 * MIB)
        assert room.left(folder) == before - 10 * MIB
        assert room.left(tmp_path) > elsewhere - MIB
        room.keep(folder.stat().st_dev, lambda: 100 * MIB)
        assert room.left(folder) == 0
        assert room.kept(folder) == 102 * MIB
        room.keep(folder.stat().st_dev, lambda: 0)
        with (folder / "file").open("wb") as file:
            assert room.left(file.fileno()) == room.left(folder) == before


def test_what_was_claimed_is_taken_before_it_is_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32m") as folder:
        room, device = Room(), folder.stat().st_dev
        assert room.claim(folder, device, 20 * MIB)
        # The disk itself has all of it still.
        assert room.left(folder) > 29 * MIB
        claimed = sum(room.claim(folder, device, MIB) for _ in range(9))
        assert claimed == 9
        assert not room.claim(folder, device, 31 * MIB)
        assert not room.claim(folder, device, 2**62)


def test_a_disk_that_does_not_answer_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's only writer asks, too: behind an upload on a dead disk it would hold up every cancel."""
    asked, answers = threading.Event(), threading.Event()
    left = Room.left

    def hang(room: Room, place: int | Path) -> int:
        if place == tmp_path:
            asked.set()
            answers.wait(10)
        return left(room, place)

    monkeypatch.setattr(Room, "left", hang)
    room = Room()
    with ThreadPoolExecutor() as threads:
        dead = threads.submit(room.claim, tmp_path, 1, 1)
        assert asked.wait(10)
        try:
            assert threads.submit(room.claim, Path("/"), 2, 1).result(timeout=5)
            assert not dead.done()
        finally:
            answers.set()


def test_a_disk_without_inodes_has_no_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32m,nr_inodes=64") as folder:
        room = Room()
        assert room.left(folder) > 0
        for number in range(os.statvfs(folder).f_favail - 4):
            (folder / f"{number}").touch()
        assert room.left(folder) == 0
        (folder / "0").unlink()
        assert room.left(folder) > 0


def test_a_disk_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Room().left(tmp_path / "nothing")
