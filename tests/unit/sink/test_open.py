"""Which sink a storage URL means."""

from __future__ import annotations

from pathlib import Path

import pytest

from upload_server.config import Config
from upload_server.domain.runs import Run
from upload_server.sink.open import UnusableStorageUrl, open_sink

FILE_ID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"


@pytest.mark.parametrize("name", ["data", "a b%20c?d#e", "größe", "not utf-8 \udcff"])
def test_the_bytes_lie_in_the_data_dir_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    open_sink(Config(data_dir=folder).sink_url).open(FILE_ID, [Run(1, 0)], 1, 0).close()
    assert (folder / "bytes" / "6b" / f"{FILE_ID}.1").is_file()


def test_a_relative_data_dir_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sink = open_sink(Config(data_dir=Path("data")).sink_url)
    monkeypatch.chdir("/")
    sink.open(FILE_ID, [Run(1, 0)], 1, 0).close()
    assert (tmp_path / "data" / "bytes" / "6b" / f"{FILE_ID}.1").is_file()


@pytest.mark.parametrize("url", ["", "/folder", "file:", "file://host/folder", "file:///folder?x=1", "ftp://host/x"])
def test_a_url_that_names_no_sink_is_refused(url: str) -> None:
    with pytest.raises(UnusableStorageUrl, match="file:///path"):
        open_sink(url)
