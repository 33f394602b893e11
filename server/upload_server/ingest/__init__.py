"""Decides what happens to the bytes of one file on their way in: claim, check, hash, store, stop when cancelled.

Must not know through which door they come. One ingest, many doors.
"""

from upload_server.ingest.content import Content
from upload_server.ingest.drafts import Draft
from upload_server.ingest.ending import Ending
from upload_server.ingest.parts import Limits, Memory
from upload_server.ingest.registry import Ingest
from upload_server.ingest.upload import Upload

__all__ = ["Content", "Draft", "Ending", "Ingest", "Limits", "Memory", "Upload"]
