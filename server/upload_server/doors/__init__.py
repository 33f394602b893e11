"""The ways in: gRPC, HTTP, tus and WebSocket, and what they share."""
