"""The WebSocket door: a page sends a file's bytes in order, and closing the socket cancels the upload."""

from upload_server.doors.websocket.door import WebSocketDoor

__all__ = ["WebSocketDoor"]
