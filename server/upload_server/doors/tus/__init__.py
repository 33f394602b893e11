"""The tus door: resumable uploads by tus 1.0, from the tools that people already use."""

from upload_server.doors.tus.door import TusDoor

__all__ = ["TusDoor"]
