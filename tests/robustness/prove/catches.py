"""Which scenario and which checker see a named bug: the cheapest way that was found for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustness.prove.checkers import check
from robustness.prove.history import History
from robustness.prove.scenarios import SCENARIOS
from robustness.prove.servers import starter
from robustness.prove.stage import SHORT, Patience, Stage

# Some bugs show only if of two things that race (an old writer's record and its replacement) the right one is first.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Catch:
    """The cheapest way to see a bug: what to do, and who then complains. ``on``: under which circumstances."""

    scenario: str
    checker: str
    on: str = ""


CATCHES = {
    "cancel_ignores_status": Catch("finish_then_cancel", "linear"),
    "complete_ignores_status": Catch("cancel_under_a_stream", "linear"),
    "triggers_absent": Catch("other_program", "finality"),
    "fence_ignored_in_complete": Catch("take_over", "linear"),
    "fence_ignored_in_progress": Catch("take_over", "disk"),
    "progress_after_cancel": Catch("cancel_under_a_stream", "finality"),
    "sender_never_told": Catch("cancel_under_a_stream", "finality"),
    "sender_told_before_commit": Catch("hear_stop_then_read", "linear"),
    "answer_before_commit": Catch("read_after_every_answer", "linear"),
    "reads_are_remembered": Catch("read_before_and_after", "linear"),
    "end_of_stream_finishes": Catch("end_without_commit", "linear"),
    "offset_not_checked": Catch("wrong_offset", "disk"),
    "checksum_not_compared": Catch("wrong_digest", "linear"),
    "expiry_ignores_age": Catch("restart", "audit"),
    "expiry_by_wall_clock_alone": Catch("restart", "audit", on="leaping_clock"),
    "lost_socket_ignores_fence": Catch("lost_socket", "linear"),
    "request_id_forgotten": Catch("same_request_again", "requests"),
    "fingerprint_ignored": Catch("same_request_again", "requests"),
    "batch_cancel_skips_uploading": Catch("batches_watched", "batches"),
    "counter_off_by_one": Catch("batches_watched", "batches"),
    "roll_up_forgets_failed": Catch("batches_watched", "batches"),
    "audit_row_missing": Catch("batches_watched", "audit"),
    "revision_not_raised": Catch("read_after_every_answer", "reads"),
    "watcher_told_before_commit": Catch("hear_watch_then_read", "watch.true"),
    "event_lost": Catch("live_then_resumed", "watch.reliable"),
    "slow_watcher_loses_final_states": Catch("batches_watched", "watch.reliable"),
    "resume_token_too_low": Catch("live_then_resumed", "watch.unique"),
    "resume_token_too_high": Catch("live_then_resumed", "watch.resumable"),
    "batch_numbered_before_its_files": Catch("batches_watched", "watch.atomic"),
    "clean_up_by_folder": Catch("restart", "disk"),
    "deletion_forgotten": Catch("cancel_under_a_stream", "disk"),
    "tail_not_cut": Catch("take_over_in_the_middle", "disk"),
    "runs_shared": Catch("late_writer", "disk"),
    "run_ends_ignored": Catch("late_writer", "disk"),
    "never_joined": Catch("late_writer", "disk"),
    "kept_fence_ignored": Catch("late_writer", "disk"),
    "progress_before_sync": Catch("power_cut", "disk", on="volatile_disk"),
}
# Circumstances that are no bugs.
NO_BUGS = {
    "volatile_disk",
    "late_bytes_told",
    "leaping_clock",
    "clock_ahead",
    "clock_behind",
    "bell_cut_off",
    "bell_unheard",
    "lost_answers_of_commits",
}


# What must be played without a complaint: every scenario, and those that need special circumstances there too.
SOUND = [*((name, "") for name in SCENARIOS), *sorted({(c.scenario, c.on) for c in CATCHES.values() if c.on})]


async def play(scenario: str, bug: str, folder: Path, patience: Patience) -> History:
    """Play a scenario on a server with a bug, or with none."""
    entry = SCENARIOS[scenario]
    start = starter(folder / "data", ("--drain-grace", "0", *entry.options), bug)
    async with Stage(start, patience) as stage:
        try:
            await entry.play(stage)
            return await stage.history()
        finally:
            stage.recorder.save(folder / "history.jsonl")


async def escapes(bug: str, folder: Path) -> str:
    """Play a bug's scenario; returns the other complaints if its checker does not catch it, empty when it does."""
    catch = CATCHES[bug]
    server = "+".join(filter(None, (catch.on, bug)))
    for attempt in range(_ATTEMPTS):
        history = await play(catch.scenario, server, folder / str(attempt), SHORT)
        if check(history, catch.checker):
            return ""
    return f"{catch.checker} says nothing of {bug}; others: {[str(found)[:200] for found in check(history)]}"
