"""What holds for the local disk alone: modes, durability, faults of the disk."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from upload_server.domain.runs import WHOLE, Run, whole
from upload_server.sink.disk.sink import DiskSink
from upload_server.sink.protocol import BytesMissing, Doomed, Sink, SinkError

RUNS = (Run(1, 0),)


def ids_in(sink: Sink) -> list[str]:
    return [one.file_id for one in sink.stored()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def path_of(root: Path, file_id: str) -> Path:
    return root / file_id[:2] / f"{file_id}.1"


def test_nobody_else_may_read_the_bytes(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    previous = os.umask(0)
    try:
        DiskSink(root).open(file_id, RUNS, 10_000, 0).close()
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
        DiskSink(tmp_path / "bytes").open(file_id, RUNS, 10_000, 0)
    assert outside.read_bytes() == b"precious"


def test_a_second_name_of_a_file_is_not_written_through(tmp_path: Path, file_id: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    path = path_of(tmp_path / "bytes", file_id)
    path.parent.mkdir(parents=True)
    path.hardlink_to(outside)
    with pytest.raises(SinkError, match="hard link"):
        DiskSink(tmp_path / "bytes").open(file_id, RUNS, 10_000, 0)
    assert outside.read_bytes() == b"precious"
    # An operator's backup may hold it by another name; to read it is no harm.
    assert b"".join(DiskSink(tmp_path / "bytes").read(file_id, RUNS, 8, 100)) == b"precious"


@pytest.mark.parametrize("offset", [0, 5])
def test_a_pipe_in_the_place_of_a_file_holds_nobody(tmp_path: Path, file_id: str, offset: int) -> None:
    sink, path = DiskSink(tmp_path / "bytes"), path_of(tmp_path / "bytes", file_id)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(SinkError):
        sink.open(file_id, RUNS, 10_000, offset)
    with pytest.raises(SinkError, match="no regular file"):
        list(sink.read(file_id, RUNS, 5, 100))
    # Also with somebody at its other end.
    descriptor = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(SinkError, match="no regular file"):
            sink.open(file_id, RUNS, 10_000, offset)
        with pytest.raises(SinkError, match="no regular file"):
            list(sink.read(file_id, RUNS, 5, 100))
    finally:
        os.close(descriptor)


def test_nobody_goes_behind_a_folder_that_is_a_link(tmp_path: Path, file_id: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "bytes"
    outside.mkdir()
    root.mkdir()
    (outside / f"{file_id}.1").write_bytes(b"precious")
    (root / file_id[:2]).symlink_to(outside)
    sink, other = DiskSink(root), file_id[:2] + str(uuid.uuid4())[2:]
    assert ids_in(sink) == []
    for use in (
        lambda: sink.open(file_id, RUNS, 10_000, 0),
        lambda: sink.open(file_id, RUNS, 10_000, 8),
        lambda: sink.open(other, RUNS, 10_000, 0),
        lambda: list(sink.read(file_id, RUNS, 8, 8)),
        lambda: sink.size(file_id, RUNS),
    ):
        with pytest.raises(SinkError, match="Not a directory"):
            use()
    assert isinstance(sink.delete_all([Doomed(file_id, (1,))])[file_id], SinkError)
    assert [path.name for path in outside.iterdir()] == [f"{file_id}.1"]
    assert (outside / f"{file_id}.1").read_bytes() == b"precious"


def test_the_root_may_be_a_link_to_another_disk(tmp_path: Path, file_id: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "bytes").symlink_to(elsewhere)
    sink = DiskSink(tmp_path / "bytes")
    file = sink.open(file_id, RUNS, 10_000, 0)
    file.append([b"bytes"])
    file.close()
    assert path_of(elsewhere, file_id).read_bytes() == b"bytes"
    assert ids_in(sink) == [file_id]


def test_folders_that_somebody_has_tidied_away_are_made_again(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    sink = DiskSink(root)
    sink.open(file_id, RUNS, 10_000, 0).close()
    sink.delete_all([Doomed(file_id, (1,))])
    other = file_id[:2] + str(uuid.uuid4())[2:]
    path_of(root, file_id).parent.rmdir()
    sink.open(other, RUNS, 10_000, 0).close()
    assert ids_in(sink) == [other]
    shutil.rmtree(root)
    sink.open(file_id, RUNS, 10_000, 0).close()
    assert ids_in(sink) == [file_id]
    shutil.rmtree(root)
    # Bytes that were there are told missing, not made anew.
    with pytest.raises(BytesMissing):
        sink.open(file_id, RUNS, 10_000, 5)
    assert sink.delete_all([Doomed(file_id, (1,))]) == {file_id: 0}


STRANGER = """
import os, sys
from pathlib import Path
from upload_server.domain.runs import Run
from upload_server.sink.disk.sink import DiskSink
os.seteuid(65534)
told = []
for found in DiskSink(Path(sys.argv[1])).stored(told.append):
    print(found.file_id)
print(*told, sep="\\n", file=sys.stderr)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_a_folder_of_somebody_else_does_not_hide_the_others(tmp_path: Path) -> None:
    ids = sorted(f"{first}{str(uuid.uuid4())[1:]}" for first in "048c")
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    for file_id in ids:
        DiskSink(tmp_path / "bytes").open(file_id, RUNS, 10_000, 0).close()
    for folder in ((tmp_path / "bytes"), *(tmp_path / "bytes").iterdir()):
        folder.chmod(0o755)
    path_of(tmp_path / "bytes", ids[1]).parent.chmod(0o700)
    script = [sys.executable, "-c", STRANGER, str(tmp_path / "bytes")]
    done = subprocess.run(script, capture_output=True, text=True, check=True, env={"PYTHONPATH": _server_path()})
    assert sorted(done.stdout.split()) == [ids[0], *ids[2:]]
    # The folder is named: an operator has to find it.
    assert done.stderr.strip() == f"Permission denied: {tmp_path / 'bytes' / ids[1][:2]}"


def test_what_is_not_ours_is_neither_listed_nor_deleted(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    sink = DiskSink(root)
    sink.open(file_id, RUNS, 10_000, 0).close()
    (root / "lost+found").mkdir()
    (root / "note.txt").write_text("mine")
    (path_of(root, file_id).parent / "note.txt").write_text("mine")
    misplaced = root / "zz" / str(uuid.uuid4())
    misplaced.parent.mkdir()
    misplaced.write_text("mine")
    assert ids_in(sink) == [file_id]
    sink.delete_all([Doomed(name, (0, 1)) for name in (file_id, "note.txt", "lost+found")])
    assert (root / "note.txt").exists()
    assert misplaced.exists()


def test_a_folder_in_the_place_of_a_file_is_told_and_the_others_go(tmp_path: Path, file_id: str) -> None:
    root = tmp_path / "bytes"
    sink = DiskSink(root)
    path_of(root, file_id).mkdir(parents=True)
    other = str(uuid.uuid4())
    sink.open(other, RUNS, 10_000, 0).close()
    outcomes = sink.delete_all([Doomed(name, (1,)) for name in (file_id, other)])
    assert isinstance(outcomes[file_id], SinkError)
    assert outcomes[other] == 0
    assert not path_of(root, other).exists()


def test_a_failed_sync_is_never_tried_again(tmp_path: Path, file_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a lost page once; a second sync that succeeds would be believed."""
    file = DiskSink(tmp_path).open(file_id, RUNS, 10_000, 0)
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


DYING = """
import os, sys
from pathlib import Path
from upload_server.domain.runs import Run
from upload_server.sink.disk import sink
sink._JOINED_AT_ONCE = 1000
synced, left = os.fdatasync, int(sys.argv[3])
def sync(descriptor):
    global left
    if not left:
        os._exit(9)
    left -= 1
    synced(descriptor)
os.fdatasync = sync
sink.DiskSink(Path(sys.argv[1])).finish(sys.argv[2], [Run(1, 0), Run(2, 1500), Run(3, 4000)], 5000)
"""


@pytest.mark.parametrize("pieces", range(6))
def test_a_crash_in_the_middle_of_the_end_costs_nothing(tmp_path: Path, file_id: str, pieces: int) -> None:
    sink, data = DiskSink(tmp_path), os.urandom(5000)
    runs = [Run(1, 0), Run(2, 1500), Run(3, 4000)]
    for number, run in enumerate(runs, start=1):
        file = sink.open(file_id, runs[:number], 5000, run.start)
        file.append([data[run.start :] if number == 3 else data[run.start : runs[number].start] + b"never recorded"])
        file.sync()
        file.close()
    script = [sys.executable, "-c", DYING, str(tmp_path), file_id, str(pieces)]
    died = subprocess.run(script, capture_output=True, text=True, check=False, env={"PYTHONPATH": _server_path()})
    assert died.returncode == (9 if pieces < 5 else 0), died.stderr

    # Whoever comes next may go on with the runs as they are, or finish again.
    assert b"".join(sink.read(file_id, runs, 5000, 4096)) == data
    sink.finish(file_id, runs, 5000)
    assert (tmp_path / file_id[:2] / f"{file_id}.3").read_bytes() == data


def test_a_system_that_does_not_copy_by_itself_is_helped(
    tmp_path: Path, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    sink, runs = DiskSink(tmp_path), [Run(1, 0), Run(2, 3_000_000)]
    data = os.urandom(3_000_001)
    for number, part in enumerate((data[:-1], data[-1:]), start=1):
        file = sink.open(file_id, runs[:number], len(data), runs[number - 1].start)
        file.append([part])
        file.close()
    sink.finish(file_id, runs, len(data))
    assert (tmp_path / file_id[:2] / f"{file_id}.2").read_bytes() == data


def test_the_hole_of_a_later_run_takes_no_room_and_counts_for_none(tmp_path: Path, file_id: str) -> None:
    sink, runs = DiskSink(tmp_path), [Run(1, 0), Run(2, 50_000_000)]
    file = sink.open(file_id, RUNS, 60_000_000, 0)
    os.truncate(tmp_path / file_id[:2] / f"{file_id}.1", 50_000_000)
    file.close()
    file = sink.open(file_id, runs, 60_000_000, 50_000_000)
    file.append([b"x" * 10_000])
    file.sync()
    file.close()
    assert sink.size(file_id, runs) == 50_010_000
    assert 10_000 <= sink.size_under(file_id, (2,)) < 100_000


def test_files_from_before_there_were_runs_are_read_by_their_name(tmp_path: Path, file_id: str) -> None:
    """Claimed before the upgrade, resumed and completed after it."""
    path = tmp_path / file_id[:2] / file_id
    path.parent.mkdir()
    path.write_bytes(b"a" * 1000 + b"never recorded")
    sink, runs = DiskSink(tmp_path), [Run(WHOLE, 0), Run(5, 1000)]
    assert b"".join(sink.read(file_id, whole(WHOLE), 1000, 4096)) == b"a" * 1000
    file = sink.open(file_id, runs, 1500, 1000)
    file.append([b"b" * 500])
    file.sync()
    file.close()
    sink.finish(file_id, runs, 1500)
    assert path.read_bytes() == b"a" * 1000 + b"never recorded"
    assert b"".join(sink.read(file_id, whole(5), 1500, 4096)) == b"a" * 1000 + b"b" * 500
    assert sink.delete_all([Doomed(file_id, (WHOLE, 5), 5)]) == {file_id: 1014}
    assert [one.fences for one in sink.stored()] == [(5,)]


LIMITED = """
import resource, sys
from pathlib import Path
from upload_server.domain.runs import Run
from upload_server.sink.disk.sink import DiskSink
from upload_server.sink.protocol import SinkError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
file = DiskSink(Path(sys.argv[1])).open(sys.argv[2], [Run(1, 0)], 10_000, 0)
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
    DiskSink(tmp_path).open(file_id, RUNS, 10_000, 6_000).close()
    assert path_of(tmp_path, file_id).read_bytes() == b"a" * 6_000


def _server_path() -> str:
    return str(Path(__file__).parents[3] / "server")


TRACED = """
import sys
from pathlib import Path
from upload_server.domain.runs import Run
from upload_server.sink.disk.sink import DiskSink
from upload_server.sink.protocol import Doomed
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
file = sink.open(sys.argv[2], [Run(1, 0)], 10_000, 0)
file.append([b"x"])
file.sync()
file.close()
sink.delete_all([Doomed(sys.argv[2], (1,))])
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
        f"fdatasync {shard / file_id}.1",
        f"fsync {shard}",
    ]
