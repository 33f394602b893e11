"""What holds for the local disk alone: modes, durability, faults of the disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from upload_server.sink.disk import DiskSink
from upload_server.sink.protocol import SinkError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def path_of(root: Path, file_id: str) -> Path:
    return root / file_id[:2] / file_id


def test_nobody_else_may_read_the_bytes(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    previous = os.umask(0)
    try:
        DiskSink(root).open(file_id, 1, 0).close()
    finally:
        os.umask(previous)
    assert mode(root) == 0o700
    assert mode(path_of(root, file_id).parent) == 0o700
    assert mode(path_of(root, file_id)) == 0o600


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, file_id: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    path = path_of(tmp_path / "bytes", file_id)
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    with pytest.raises(SinkError, match="symbolic"):
        DiskSink(tmp_path / "bytes").open(file_id, 1, 0)
    assert outside.read_bytes() == b"precious"


def test_what_is_not_ours_is_neither_listed_nor_deleted(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    sink = DiskSink(root)
    sink.open(file_id, 1, 0).close()
    (root / "lost+found").mkdir()
    (root / "note.txt").write_text("mine")
    (path_of(root, file_id).parent / "note.txt").write_text("mine")
    misplaced = root / "zz" / str(uuid.uuid4())
    misplaced.parent.mkdir()
    misplaced.write_text("mine")
    assert list(sink.file_ids()) == [file_id]
    sink.delete_all(dict.fromkeys((file_id, "note.txt", "lost+found")))
    assert (root / "note.txt").exists()
    assert misplaced.exists()


def test_a_folder_in_the_place_of_a_file_is_told_and_the_others_go(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    sink = DiskSink(root)
    path_of(root, file_id).mkdir(parents=True)
    other = str(uuid.uuid4())
    sink.open(other, 1, 0).close()
    outcomes = sink.delete_all(dict.fromkeys((file_id, other)))
    assert isinstance(outcomes[file_id], SinkError)
    assert outcomes[other] == 0
    assert not path_of(root, other).exists()


def test_a_failed_sync_is_never_tried_again(tmp_path: Path, file_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a lost page once; a second sync that succeeds would be believed."""
    file = DiskSink(tmp_path).open(file_id, 1, 0)
    real = os.fdatasync

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(SinkError, match="Input/output"):
        file.sync()
    monkeypatch.setattr(os, "fdatasync", real)
    with pytest.raises(SinkError, match="Input/output"):
        file.sync()
    file.close()


LIMITED = """
import resource, sys
from pathlib import Path
from upload_server.sink.disk import DiskSink
from upload_server.sink.protocol import SinkError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
file = DiskSink(Path(sys.argv[1])).open(sys.argv[2], 1, 0)
file.append([b"a" * 6_000])
try:
    file.append([b"b" * 3_000, b"c" * 3_000])
except SinkError as error:
    print(error.__cause__.errno)
"""


def test_a_write_cut_short_is_taken_up_and_then_tells_what_is_wrong(tmp_path: Path, file_id: str) -> None:
    """Under a limit of 10,000 bytes the kernel writes 4,000 of 6,000 first, and only then refuses."""
    script = [sys.executable, "-c", LIMITED, str(tmp_path), file_id]
    done = subprocess.run(script, capture_output=True, text=True, check=True, env={"PYTHONPATH": _server_path()})
    assert done.stdout.split() == ["27"]  # EFBIG
    assert path_of(tmp_path, file_id).read_bytes() == b"a" * 6_000 + b"b" * 3_000 + b"c" * 1_000
    # The next opening starts at what was durable.
    DiskSink(tmp_path).open(file_id, 1, 6_000).close()
    assert path_of(tmp_path, file_id).read_bytes() == b"a" * 6_000


def _server_path() -> str:
    return str(Path(__file__).parents[3] / "server")


TRACED = """
import sys
from pathlib import Path
from upload_server.sink.disk import DiskSink
import os
calls = []
for name in ("fsync", "fdatasync"):
    real = getattr(os, name)
    def traced(descriptor, name=name, real=real):
        calls.append((name, os.readlink(f"/proc/self/fd/{descriptor}")))
        return real(descriptor)
    setattr(os, name, traced)
root = Path(sys.argv[1])
sink = DiskSink(root)
file = sink.open(sys.argv[2], 1, 0)
file.append([b"x"])
file.sync()
file.close()
sink.delete_all({sys.argv[2]: None})
for name, path in calls:
    print(name, path)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see which folder is synced")
def test_creation_and_deletion_are_synced_up_to_the_root(tmp_path: Path, file_id: str) -> None:
    root = tmp_path.resolve() / "bytes"
    script = [sys.executable, "-c", TRACED, str(root), file_id]
    done = subprocess.run(script, capture_output=True, text=True, check=True, env={"PYTHONPATH": _server_path()})
    shard = root / file_id[:2]
    assert done.stdout.splitlines() == [
        f"fsync {root.parent}",
        f"fsync {root}",
        f"fsync {shard}",
        f"fdatasync {shard / file_id}",
        f"fsync {shard}",
    ]
