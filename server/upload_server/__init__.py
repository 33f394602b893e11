"""The gRPC service that takes file uploads and cancels them for certain."""
