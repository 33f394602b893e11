"""The gRPC service that takes file uploads and cancels them for certain."""

from importlib.metadata import version

__version__ = version("upload-service")
