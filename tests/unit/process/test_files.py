from __future__ import annotations

import os
from pathlib import Path

import pytest

from upload_server.process.files import doubts_about, open_own, open_to_all, refuse_strangers_link


def test_only_a_regular_file_with_one_name_is_opened_for_writing(tmp_path: Path) -> None:
    plain, link, second, pipe = (tmp_path / name for name in ("plain", "link", "second", "pipe"))
    os.close(open_own(plain, os.O_RDWR | os.O_CREAT))
    assert plain.stat().st_mode & 0o777 == 0o600
    link.symlink_to(plain)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is the system's choice
            open_own(path, os.O_RDWR)
        assert raised.value.filename == str(path)
    os.close(open_own("plain", os.O_WRONLY, dir_fd=_folder(tmp_path)))
    second.hardlink_to(plain)
    for path in (plain, second):
        with pytest.raises(OSError, match="hard link"):
            open_own(path, os.O_WRONLY)
        os.close(open_own(path, os.O_RDONLY))


def _folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.parametrize(
    ("mode", "refused", "doubts"),
    [(0o700, False, 0), (0o755, False, 0), (0o770, False, 1), (0o1777, False, 2), (0o777, True, 2), (0o702, True, 1)],
)
def test_who_may_write_to_a_folder(tmp_path: Path, mode: int, refused: bool, doubts: int) -> None:
    tmp_path.chmod(mode)
    assert open_to_all(tmp_path) is refused
    assert len(doubts_about(tmp_path)) == doubts


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_what_belongs_to_others_is_doubted_and_their_links_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    refuse_strangers_link(link)
    refuse_strangers_link(tmp_path / "nothing")
    os.lchown(link, 65534, 65534)
    with pytest.raises(OSError, match="link of another user"):
        refuse_strangers_link(link)
    os.chown(tmp_path, 65534, 65534)
    assert "65534" in doubts_about(tmp_path)[0]
