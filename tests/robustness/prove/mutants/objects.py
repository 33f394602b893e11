"""Bugs of an object store as the place of bytes: of names, of deletions, of what a store's answer is taken for."""

from __future__ import annotations

from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change
from upload_server.sink.s3 import names, sink
from upload_server.upkeep import janitor


@mutant
def fence_not_in_piece_names() -> None:
    """Pieces are named by where they lie alone: those of a stream that was replaced are taken for the next one's."""
    change(names, "Piece.key", ("{self.fence:08}", "00000001"))


@mutant
def fence_not_in_whole_names() -> None:
    """A whole file is named by its id alone: a stream that was replaced puts its own in the place of the next one's."""
    change(names, "whole_key", ("{fence}", "{min(fence, 1)}"))


@mutant
def settled_after_one_look() -> None:
    """A deletion counts once it was answered: what was on its way then stays."""
    change(janitor, "Janitor._looks_again", ("if not self._sink.second_look or", "if True or"))


@mutant
def abort_believed() -> None:
    """What was being put together is taken for gone once its abort is answered: nobody looks for the object."""
    change(sink, "S3Sink._objects", (', *self._bucket.find(f"{DONE}/{file_id}")]', "]"))


@mutant
def kept_object_deleted() -> None:
    """With the pieces of a completed file the file itself goes."""
    change(sink, "S3Sink._going", (" and key != kept}", "}"))
