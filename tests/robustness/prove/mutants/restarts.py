"""Bugs that show only when a process dies: what was to outlive it does not."""

from __future__ import annotations

from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change
from upload_server.sink.disk import file as disk_file
from upload_server.store.commands import answers
from upload_server.store.sqlite import store
from upload_server.upkeep import janitor


@mutant
def answers_in_memory() -> None:
    """Answers are kept in the process, not in the transaction of what they answer."""
    found = "    if keys:\n"
    kept = "    self._kept.update({key: KEPT[key] for key in keys if key in KEPT})\n"
    answers.KEPT = {}  # type: ignore[attr-defined]
    change(answers, "Answers.__init__", (found, kept + found))
    written = "self._transaction.write_exactly(len(self._new), statements.KEEP_ANSWERS, answers=self._new)"
    change(answers, "Answers.write", (written, "KEPT.update({row[:3]: AnswerRow(*row[:5]) for row in self._new})"))


@mutant
def tokens_of_a_process() -> None:
    """Each start gives the store a new identity: tokens from before are those of another store."""
    made = "self.store_id = queries.read_store_id(connection)"
    change(store, "_Opened.__init__", (made, "self.store_id = str(__import__('uuid').uuid4())"))


@mutant
def settled_before_deleted() -> None:
    """A deletion is taken off the list before its bytes are gone, and nobody sweeps."""
    deleted = "    outcomes = await self._hop(self._sink.delete_all, list(deletable.values()))\n"
    early = "    await self._store.settle_deletions([one.row for one in deletable])\n"
    change(janitor, "Janitor._delete", (deleted, early + deleted))
    change(janitor, "Janitor._sweep", ('take_step("orphan sweep", self.sweep_orphans())', "asyncio.sleep(0)"))


@mutant
def tail_not_cut() -> None:
    """What a stream wrote and did not record is left where the next one's bytes belong."""
    cut = "    os.ftruncate(descriptor, offset)\n    os.lseek(descriptor, offset, os.SEEK_SET)\n"
    change(disk_file, "cut", (cut, "    os.lseek(descriptor, 0, os.SEEK_END)\n"))
