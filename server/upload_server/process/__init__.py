"""Decides what is logged and measured, and in which shape.

Must not know what an upload is: words and numbers come in, lines and series go out.
"""

from upload_server.process.log_stream import BackgroundStream
from upload_server.process.logging import configure_logging, info_writer
from upload_server.process.metrics import Metrics

__all__ = ["BackgroundStream", "Metrics", "configure_logging", "info_writer"]
