"""Each step of the wall clock is told once, whichever way it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from upload_server.upkeep.clock import ClockWatch


class Clocks:
    """A wall clock and a steady one that a test moves."""

    def __init__(self) -> None:
        self.wall, self.steady = datetime(2024, 3, 31, 1, 30, tzinfo=UTC), 5.0

    def pass_by(self, seconds: float, wall: float | None = None) -> None:
        self.steady += seconds
        self.wall += timedelta(seconds=seconds if wall is None else wall)


def test_each_step_is_told_once() -> None:
    clocks = Clocks()
    watch = ClockWatch(lambda: clocks.wall, lambda: clocks.steady)
    with capture_logs() as lines:
        for seconds, wall in ((1, None), (1, 90_001), (1, None), (1, -89_999), (1, None), (1, 3.5)):
            clocks.pass_by(seconds, wall)
            watch.look()
    assert [(line["log_level"], line["seconds"]) for line in lines] == [
        ("warning", 90_000.0),
        ("warning", -90_000.0),
        ("warning", 2.5),
    ]


def test_a_clock_that_runs_fast_or_skips_a_leap_second_makes_no_step() -> None:
    clocks = Clocks()
    watch = ClockWatch(lambda: clocks.wall, lambda: clocks.steady)
    with capture_logs() as lines:
        for _ in range(10_000):
            clocks.pass_by(1, 1.0005)
            assert watch.look() == 0
        clocks.pass_by(1, 2)
        assert watch.look() == 0
        # A night in which the process stood still, as the machine did not.
        clocks.pass_by(8 * 3600)
        assert watch.look() == 0
    assert lines == []
