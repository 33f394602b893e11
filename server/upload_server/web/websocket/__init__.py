"""The WebSocket door: a page sends a file's bytes in order, and closing the socket cancels the upload."""

from upload_server.web.websocket.cancels import Uploads
from upload_server.web.websocket.door import SocketObserver, WebSocketDoor

__all__ = ["SocketObserver", "Uploads", "WebSocketDoor"]
