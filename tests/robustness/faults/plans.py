"""What a seed makes happen to a server: crashes of all kinds, phases of a failing disk."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from pathlib import Path

from robustness.faults.crashes import Crash
from robustness.faults.disks import Fiu
from robustness.faults.io_world import Phase
from robustness.faults.points import RUNNING_POINTS, START_POINTS, STOP_POINTS
from robustness.faults.shim import Calls, Fault, FaultyDisk, Files, Mode
from support.process import ServerProcess

DATABASE = Files.DATABASE | Files.LOG
# Seconds for what comes by on the slowest machine.
_SURELY = 20.0
# Crashes of one data directory, before a new one is begun: histories are checked whole.
ROUND = 25
# Work that few calls cause: an early call of it is struck, or it would not come by in time.
_RARE = ("fail", "settle", "cancel-batch", "initiate-batch", "make-shard", "unlink", "delete", "complete")


def at_points(points: Sequence[str], choose: random.Random) -> list[Crash]:
    """Each of the points once, in any order and after any small number of passes."""
    crashes = [_at_point(point, choose) for point in points]
    choose.shuffle(crashes)
    return crashes


def _at_point(point: str, choose: random.Random) -> Crash:
    if point not in RUNNING_POINTS:
        # A server starts and stops once, and that for certain.
        return Crash(f"{point}:1", patience=_SURELY)
    return Crash(f"{point}:{choose.randint(1, 2 if point.rpartition('.')[0] in _RARE else 10)}")


def crashes_at_random(choose: random.Random, folder: Path) -> list[Crash]:
    """A round of crashes of all kinds: named points, calls to the disk, any moment."""
    crashes: list[Crash] = []
    points = (*RUNNING_POINTS, *RUNNING_POINTS, *START_POINTS, *STOP_POINTS)
    for i in range(ROUND):
        kind = choose.choices(("point", "disk", "moment"), (5, 3, 2))[0]
        if kind == "point":
            crashes += at_points([choose.choice(points)], choose)
        elif kind == "disk":
            mode = choose.choice([Mode.KILL_BEFORE, Mode.KILL_HALF, Mode.KILL_AFTER])
            disk = FaultyDisk(
                folder / f"disk{i}", folder / "data", Fault(mode, skip=int(2 ** (choose.random() * 9)) - 1)
            )
            crashes.append(Crash(environment=disk.environment))
            disk.close()
        else:
            crashes.append(Crash.at_any_moment(0.05 + choose.random() * 1.5))
    return crashes


def phases_at_random(disk: FaultyDisk, choose: random.Random, count: int) -> list[Phase]:
    """Every mode on database and bytes in turn, with errors and places drawn at random."""
    phases = []
    for i in range(count):
        mode = (Mode.FAIL, Mode.FAIL_HALF, Mode.FAIL_AFTER, Mode.SHORT)[i % 4]
        files = (DATABASE, Files.BYTES, Files.ALL)[i % 3]
        # Only writes can be short.
        calls = Calls.WRITE if mode is Mode.SHORT else choose.choice([Calls.ALL, Calls.WRITE, Calls.SYNC])
        error = choose.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT])
        times = choose.choice([1, 3, 1 << 30])
        fault = Fault(mode, calls, files, skip=choose.randrange(20), times=times, error=error)
        name = f"{mode.name} {errno.errorcode[error]} {calls!r} {files!r} x{times}"
        phases.append(Phase(name, lambda _, f=fault: disk.set(f), lambda _: disk.clear(), killed=i % 5 == 4))  # type: ignore[misc]
    return phases


def fiu_phases(fiu: Fiu) -> list[Phase]:
    """Random faults by libfiu, one kind of call after the other."""
    names = {
        "posix/io/rw/pwrite": errno.EIO,
        "posix/io/sync/*": errno.EIO,
        "posix/io/rw/writev": errno.ENOSPC,
        "posix/io/dir/unlink": errno.EIO,
    }
    return [_fiu_phase(fiu, name, error) for name, error in names.items()]


def _fiu_phase(fiu: Fiu, name: str, error: int) -> Phase:
    def begin(server: ServerProcess) -> None:
        fiu.enable(server.pid, name, 0.2, error)

    def end(server: ServerProcess) -> None:
        if server.popen.poll() is None:
            fiu.disable(server.pid, name)

    return Phase(name, begin, end, killed="sync" in name)
