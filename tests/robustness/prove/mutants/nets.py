"""Nets under a bug, removed where it has to get past them to show: the service catches most bugs twice."""

from __future__ import annotations

from robustness.prove.patching import MutantRotten, change
from upload_server.ingest import registry
from upload_server.store.commands import files
from upload_server.store.sqlite import schema

_TRIGGERS = ("file_final_stays", "batch_final_stays")


def no_triggers() -> None:
    """Final rows can be written to."""
    text = "".join(path.read_text() for path in schema.MIGRATIONS.glob("*.py"))
    if "{table}_final_stays" not in text:
        raise MutantRotten("the triggers have other names")
    drops = "".join(f'\n        database.execute_sql("DROP TRIGGER IF EXISTS {name}")' for name in _TRIGGERS)
    change(schema, "prepare", ("runner.up(target)", "runner.up(target)" + drops))


def any_move() -> None:
    """Any status may follow any."""
    change(files, "next_state", ("if status not in NEXT_FILE[file.status]:", "if False:"))


def deaf_to_cancels() -> None:
    """Open streams are not told of cancels."""
    change(registry, "_Slot.stop", ("stream.ending.stop(", "(lambda *told: None)("))


def deaf_to_replacement() -> None:
    """A stream is neither told that another took its file nor waited for."""
    change(
        registry,
        "Ingest._open_claimed",
        ("slot.current.ending.stop(WriterReplaced(file_id))", "pass"),
        ("await self._wait_released(slot.current, file_id)", "pass"),
    )
